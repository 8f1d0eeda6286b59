"""Meets ports.Source and ports.InFlight for a PostgreSQL site whose changes triggers write into an outbox."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, translated
from replicator.engines.postgres.reading import Reading, run, spelled
from replicator.engines.postgres.waiting import Waiter
from replicator.engines.postgres.windows import (
    START,
    PostgresBatch,
    Relations,
    Window,
    open_window,
    read_changed_statement,
    read_ranges,
    read_relations,
    read_statement,
)
from replicator.model import ChunkRequest, Key, Lag, LinkName, Op, Position, Relation, TablePlan
from replicator.records import parse_record

_PRUNE_ROWS, _PRUNE_SECONDS = 20_000, 5.0
_EVERYTHING = 1 << 60


class PostgresSource(Reading):
    """One site's outbox, read for one link by one thread (``wake`` may be called from others).

    Two connections: one whose transaction is open while a batch is streamed, one that waits and acknowledges.

    Args:
        url: libpq URL of the site.
        link: the link it is read for; only its topology's relations are read.
        plans: the captured tables; rows of tables they do not name are passed over.
    """

    def __init__(self, url: str, link: LinkName, plans: Sequence[TablePlan]) -> None:
        super().__init__(url, link, plans)
        self._falls = any(plan.direction.falls for plan in plans)
        self._relations = Relations({}, {}, -1)
        self._acknowledged: Position | None = None
        self._pruned: Position | None = None
        self._cleared = START
        self._pruned_at = 0.0
        self._waiter = Waiter(link.topology, self._changed)

    # --- reading ---

    @contextmanager
    def read_batch(
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> Iterator[PostgresBatch | None]:
        """The next whole transactions behind ``after``; see ports.Source.

        A window without rows of ours is passed in memory only: the next read starts behind it, and the position on
        record may stay behind, because reading again from there finds nothing of ours either.
        """
        with self._reading() as connection:
            with translated(self._place):
                batch = self._next_batch(connection, after, limit)
            yield batch

    def _next_batch(self, connection: PostgresConnection, after: Position | None, limit: int) -> PostgresBatch | None:
        start = self._start(after)
        while True:
            window, relations = self._open(connection, start, limit)
            if window.filled or window.changed:
                break
            self._passed = (after, window.upto)
            if window.upto == window.now:
                return None
            start = window.upto
        if window.changed:
            statement = read_changed_statement(connection, self._place, window, relations)
        else:
            statement = read_statement(window, relations)
        more = window.upto != window.now
        return PostgresBatch(connection, self._place, statement, after, window.upto, relations.known, more=more)

    def _open(self, connection: PostgresConnection, start: Position, limit: int) -> tuple[Window, Relations]:
        while True:
            window = open_window(connection, start, limit, self._relations)
            if not window.past:
                raise self._from_the_future()
            if window.newest == self._relations.newest:
                return window, self._relations
            self._relations = read_relations(connection, self._link.topology, self._plans, window.newest)

    # --- facts ---

    def read_lag(self, after: Position | None) -> Lag:
        """Changes behind ``after``, the oldest's time, and who keeps a transaction open for five seconds or more."""
        with translated(self._place), self._snapshot() as connection:
            window, relations = self._open(connection, self._start(after), _EVERYTHING)
            ((count, oldest),) = rows(connection, "source", "read_lag", window.low, window.high, relations.numbers)
            holders = rows(connection, "source", "horizon_holder")
        holder = f"{holders[0][0]} (user {holders[0][1]}, {holders[0][2]} s)" if holders else ""
        return Lag(int(str(count)), int(str(oldest)), holder)

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """See ports.InFlight. Streams: what lies behind ``after`` may be more than memory holds."""
        wanted = {tuple(map(spelled, key)): key for key in keys}
        found: set[Key] = set()
        with translated(self._place), self._snapshot() as connection:
            window, relations = self._open(connection, self._start(after), _EVERYTHING)
            numbers = [number for number, relation in relations.known.items() if relation.table == table.source.name]
            with psycopg.RawServerCursor(connection, "replicator_in_flight") as cursor:
                sql = sqlfiles.statement("sql/postgres/source.sql", "read_images")
                cursor.execute(sql.encode(), (window.low, window.high, numbers))
                for number, op, *pair in cursor:
                    if op == Op.TRUNCATE or number < 0:
                        return set(keys)
                    found.update(_keys_of(relations.known[number], pair, wanted))
        return found

    # --- acknowledging ---

    def acknowledge_batch(self, upto: Position) -> None:
        """Note ``upto`` as durable at the target; a busy link writes it, and prunes, only now and then.

        An acknowledgement that is lost costs nothing but rows that stay in the outbox a little longer.
        """
        self._acknowledged = upto
        self._passed = (upto, upto)
        if time.monotonic() - self._pruned_at >= _PRUNE_SECONDS:
            self._prune()

    def _prune(self) -> None:
        """Write the acknowledgement and remove what every link has passed.

        Where changes come from the centre as well, that link acknowledges too: what the centre has answered (DESIGN.md §6).
        Until the first answer nothing goes.
        """
        if self._acknowledged is None or self._acknowledged == self._pruned == self._cleared:
            return
        upto = self._acknowledged
        with translated(self._place):
            connection = self._watch_connection()
            run(connection, "acknowledge", self._link.text, self._link.topology, upto)
            marker = (self._link.reverse.text, self._link.topology, START)
            if self._falls:
                run(connection, "expect_marker", *marker)
            else:
                run(connection, "forget_marker", self._link.reverse.text)
            slowest = Position(str(rows(connection, "source", "slowest", self._link.topology)[0][0]))
            arguments = (*read_ranges(connection, self._cleared, slowest), self._link.topology, _PRUNE_ROWS)
            while run(connection, "prune", *arguments) == _PRUNE_ROWS:
                continue
            run(connection, "prune_ticks")
        self._pruned, self._cleared, self._pruned_at = upto, slowest, time.monotonic()

    def tidy(self) -> None:
        """See ports.Source."""
        self._prune()

    # --- waiting ---

    def wait(self, timeout: float) -> bool:
        """Sleep until something of ours may have been committed; see ports.Source."""
        self._prune()
        with translated(self._place):
            return self._waiter.wait(self._watch_connection(), timeout)

    def wake(self) -> None:
        """Make a ``wait`` in another thread return at once."""
        self._waiter.wake()

    def _changed(self, connection: PostgresConnection) -> bool:
        if self._relations.newest < 0:
            return True  # nothing was read yet
        return bool(rows(connection, "source", "poll", self._passed[1], self._relations.numbers)[0][0])


def _keys_of(
    relation: Relation, images: Sequence[str | None], wanted: Mapping[tuple[str | None, ...], Key]
) -> Iterator[Key]:
    places = [relation.columns.index(name) for name in relation.key]
    for image in images:
        if image is not None:
            values = parse_record(image)
            key = wanted.get(tuple(values[place] for place in places))
            if key is not None:
                yield key
