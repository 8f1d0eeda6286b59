"""Meets ports.Source and ports.InFlight for a PostgreSQL site whose changes triggers write into an outbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.chunks import ChunkRows, KeyRange, count_site, estimate, site_chunk, site_values
from replicator.engines.postgres.connection import PostgresConnection, translated
from replicator.engines.postgres.positions import joined, lsn_of, snapshot_of, spelled_lsn
from replicator.engines.postgres.purge import give_back
from replicator.engines.postgres.reading import Reading, run, spelled
from replicator.engines.postgres.stamps import rows_stamp
from replicator.engines.postgres.waiting import Waiter, call
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
from replicator.errors import SchemaError
from replicator.model import ChunkRequest, Key, Lag, LinkName, Op, Position, Relation, TableName, TablePlan
from replicator.records import parse_record

_PRUNE_ROWS, _PRUNE_SECONDS = 20_000, 5.0
_EVERYTHING = 1 << 60
_LOOK_SECONDS = 1.0
"""How often one who waits looks for changes of tables that nobody told it of."""


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
        self._noted: int | None = None
        self._looked_at = 0.0
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
                batch = self._next_batch(connection, after, limit, wanted)
            yield batch

    def _next_batch(
        self, connection: PostgresConnection, after: Position | None, limit: int, wanted: ChunkRequest | None
    ) -> PostgresBatch | None:
        start, lsn = self._start(after), lsn_of(after)
        while True:
            window, relations = self._open(connection, start, limit)
            if window.filled or window.changed:
                break
            self._passed = (after, window.upto)
            if window.upto == window.now:
                if wanted is None:
                    return None
                break
            start = window.upto
        known, statement = relations.known, ""
        if window.changed:
            # Read anew: a column that was renamed meanwhile is known by its new name only then.
            self._relations = read_relations(connection, self._link.topology, self._plans, window.newest)
            statement, known = read_changed_statement(
                connection, self._place, window, self._relations, self._plans, spelled_lsn(lsn)
            )
        elif window.filled:
            statement = read_statement(window, relations, spelled_lsn(lsn))
        more = window.upto != window.now
        loaded = None if wanted is None or more else self._read_chunk(connection, window, wanted)
        return PostgresBatch(
            connection, self._place, statement, after, joined(window.upto, lsn), known, more=more,
            certify=self._certify(None if after is None else snapshot_of(after), window.upto, start), loaded=loaded,
        )  # fmt: skip

    def _read_chunk(self, connection: PostgresConnection, window: Window, wanted: ChunkRequest) -> ChunkRows:
        """A chunk's rows as they are in the snapshot that ends the window."""
        del window  # of a site with triggers: its snapshot is the connection's
        plan, relation = self._plan_of(wanted.table), self._relations.current.get(wanted.table)
        if relation is None:
            raise SchemaError(
                f"{self._place}: changes of table {wanted.table} are not captured, so its rows cannot be brought",
                hint="run: replicator install",
            )
        span = KeyRange(plan, self._order_of(connection, plan), wanted)
        made = site_chunk(plan, relation, span), site_values(plan, relation, span)
        return ChunkRows(connection, self._place, wanted, relation, span.sign, *made)

    def estimate_rows(self, table: TableName) -> int:
        """See ports.Source."""
        with translated(self._place):
            return estimate(self._watch_connection(), count_site(self._plan_of(table)))

    def _certify(self, after: Position | None, upto: Position, start: Position) -> Callable[[int, int, int], str]:
        """Makes the stamp of a batch: of its rows, which lie behind ``start``, or a nonce."""

        def certify(count: int, seq: int, changed_at: int) -> str:
            return rows_stamp(start, count, seq, changed_at) if count else self._add_nonce(after, upto)

        return certify

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
            beyond = spelled_lsn(lsn_of(after))
            ((count, oldest),) = rows(
                connection, "source", "read_lag", window.low, window.high, relations.numbers, beyond
            )
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
                cursor.execute(sql.encode(), (window.low, window.high, numbers, spelled_lsn(lsn_of(after))))
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
        self._acknowledged = snapshot_of(upto)
        self._passed = (upto, self._acknowledged)
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
            give_back(connection)
        self._pruned, self._cleared, self._pruned_at = upto, slowest, time.monotonic()

    def tidy(self) -> None:
        """See ports.Source."""
        self._prune()

    # --- waiting ---

    def wait(self, timeout: float) -> bool:
        """Sleep until something of ours may have been committed; see ports.Source."""
        self._unmark()
        self._prune()
        with translated(self._place):
            woken = self._waiter.wait(self._watch_connection(), timeout)
            noted = self._newest_noted() if woken and self._noted is not None else self._noted
        self._waiter.calls.clear()
        if noted != self._noted:
            raise SchemaError(f"{self._place}: a captured table was altered; the link is planned anew")
        return woken

    def _newest_noted(self) -> int:
        """The number of the newest change of a table that our event trigger has noted."""
        return int(str(rows(self._watch_connection(), "source", "newest_schema_change")[0][0]))

    def read_schema_mark(self) -> str:
        """See ports.Source. From here on a change that is noted ends a ``wait`` with SchemaError."""
        mark = super().read_schema_mark()
        with translated(self._place):
            self._noted = self._newest_noted()
        return mark

    def wake(self) -> None:
        """Make a ``wait`` in another thread return at once."""
        self._waiter.wake()

    def wake_others(self) -> None:
        """See ports.Source."""
        with translated(self._place):
            call(self._watch_connection(), self._link.topology, self._link.text)

    def _changed(self, connection: PostgresConnection) -> bool:
        now = time.monotonic()
        if self._noted is not None and now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            if self._newest_noted() != self._noted:
                return True
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
