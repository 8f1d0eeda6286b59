"""Meets ports.Source and ports.InFlight for a PostgreSQL centre: what one site gets, read by the site's own routes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from replicator import sqlfiles
from replicator.engines.postgres import dispatch
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.chunks import ChunkRows, KeyRange, estimate
from replicator.engines.postgres.connection import PostgresConnection, translated
from replicator.engines.postgres.dispatch import Subscription
from replicator.engines.postgres.purge import give_back
from replicator.engines.postgres.reading import Reading, run, spelled
from replicator.engines.postgres.shares import Shares
from replicator.engines.postgres.slices import Slice, copy_statement, make_slices, own_route, routes_of
from replicator.engines.postgres.stamps import routed_stamp
from replicator.engines.postgres.waiting import call
from replicator.engines.postgres.windows import (
    START,
    PostgresBatch,
    Relations,
    numbers_of,
    read_relations,
)
from replicator.errors import BatchError, rejoin_hint
from replicator.model import ChunkRequest, Key, Lag, LinkName, Op, Position, TableName, TablePlan
from replicator.records import parse_record

_ACKNOWLEDGE_SECONDS = 1.0
_PRUNE_ROWS, _TOMBSTONE_SECONDS, _GRACE_SECONDS = 20_000, 3600.0, 3600.0
_DAY = 86_400.0


class PostgresRoutedSource(Reading):
    """A centre's changes as one site wants them, read for one link by one thread (``wake`` may be called from others).

    A batch is the whole way from one snapshot to the next: the rows as they are at its end. While idle the source needs no
    connection of its own; the process's dispatcher wakes it.

    Args:
        url: libpq URL of the centre.
        link: the link from the centre.
        plans: the link's tables, parents first.
        retention_days: pruning no longer waits for a link that acknowledged nothing for so long.
        keep_open: keep the connection between batches (false when there are many links).
    """

    def __init__(
        self,
        url: str,
        link: LinkName,
        plans: Sequence[TablePlan],
        *,
        retention_days: float = 30.0,
        keep_open: bool = True,
    ) -> None:
        super().__init__(url, link, plans)
        self._routes = list(routes_of(link, plans))
        self._shares = Shares(plans, self._routes)
        self._retention = retention_days * _DAY
        self._keep_open = keep_open
        self._relations = Relations({}, {}, -1)
        self._subscribed: Subscription | None = None
        self._durable: Position | None = None
        self._acknowledged: Position | None = None
        self._acknowledged_at = 0.0
        self._tombstones_at = 0.0

    # --- reading ---

    @contextmanager
    def read_batch(
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> Iterator[PostgresBatch | None]:
        """The rows touched since ``after``, as they are now; see ports.Source. ``limit`` does not cut: a part is no state.

        A window with nothing for the site is passed in memory only; a marker alone makes a batch.
        """
        self._subscription.clear()
        with translated(self._place):
            waiting = START
            if after is None:
                ((position,),) = rows(
                    self._read_connection(), "routed", "reserve", self._link.text, self._link.topology
                )
                waiting = Position(str(position))
                self._record_shares(self._read_connection())
            else:
                self._require_known(self._read_connection(), after)
        with self._reading() as connection:
            with translated(self._place):
                batch = (
                    self._read_state(connection, waiting, more=wanted is not None)
                    if after is None
                    else self._next_batch(connection, after, wanted)
                )
            yield batch

    def _require_known(self, connection: PostgresConnection, after: Position) -> None:
        found = rows(connection, "routed", "link_state", self._link.text, after)
        if found and found[0][2]:
            raise self._must_resync(
                f"asks for what {self._link.site} had already: its database was put back from a copy"
            )
        if not found or found[0][0]:
            days = self._retention / _DAY
            away = f"stayed away longer than the retention ({days:g} days)" if found else "is not known there any more"
            raise self._must_resync(away)
        self._shares.compare(found[0][1])

    def _record_shares(self, connection: PostgresConnection) -> None:
        run(connection, "record_shares", self._link.text, self._shares.text, file="routed")
        self._shares.recorded()

    def _must_resync(self, why: str) -> BatchError:
        return BatchError(
            f"{self._place}: {self._link} {why}: changes it needs may be gone, it must resync",
            hint=rejoin_hint(self._link.site),
        )

    def _read_state(self, connection: PostgresConnection, waiting: Position, *, more: bool) -> PostgresBatch:
        """All rows of the site, for a link that has nothing yet. ``more``: a backfill waits for the next batch.

        What the site itself wrote and the centre does not have as the site's is told from ``waiting`` on, where its first
        changes were processed.
        """
        link = self._link
        ((marker, stamp, now, newest),) = rows(connection, "routed", "state_marker", link.topology, link.site)
        slices = self._slices(connection, int(str(newest)))
        ranges = self._open(connection, waiting)[1]
        run(connection, "use_all_plans", file="routed")
        parts = [each.state(int(str(stamp))) for each in slices]
        if ranges[0]:
            parts += [each.changes(ranges, self._routes, only_gone=True) for each in slices]
        statement = copy_statement(parts) if parts else ""
        known = {each.relation.id: each.relation for each in slices}
        return PostgresBatch(
            connection, self._place, statement, None, Position(str(now)), known, more=more,
            marker=None if marker is None else Position(str(marker)), certify=self._certify(None, Position(str(now)), ""),
            live=True,
        )  # fmt: skip

    def _certify(self, after: Position | None, upto: Position, stamp: str) -> Callable[[int, int, int], str]:
        """Gives the stamp of a batch: of the window's outbox rows, which are not what it brings, or a nonce."""
        return lambda count, seq, changed_at: stamp or self._add_nonce(after, upto)

    def _next_batch(
        self, connection: PostgresConnection, after: Position, wanted: ChunkRequest | None
    ) -> PostgresBatch | None:
        start = self._start(after)
        window = self._open(connection, start)
        now, ranges, filled, marker, everything = window
        changed = self._shares.changed
        moved = filled or marker is not None or bool(changed)
        if not moved and wanted is None:
            self._passed = (after, now)
            return None
        slices = self._slices(connection, self._relations.newest)
        self._require_present_keys(connection, slices, ranges)
        # A marker alone: what the site itself wrote may have put rows outside its share.
        looked = [each for each in slices if filled or each.conditional or each.relation.table in changed]
        whole = everything | {each.relation.id for each in slices if each.relation.table in changed}
        if changed:
            run(connection, "use_all_plans", file="routed")
        routes = [*self._routes, *self._shares.former]
        parts = [each.changes(ranges, routes, everything=each.relation.id in whole) for each in looked if moved]
        known = {each.relation.id: each.relation for each in slices}
        statement = copy_statement(parts) if parts else ""
        loaded = None if wanted is None else self._read_chunk(connection, slices, wanted)
        stamp = routed_stamp(connection, start, ranges, self._routes)
        return PostgresBatch(
            connection, self._place, statement, after, now, known, more=False, marker=marker,
            certify=self._certify(after, now, stamp), loaded=loaded, live=True,
        )  # fmt: skip

    def _read_chunk(self, connection: PostgresConnection, slices: Sequence[Slice], wanted: ChunkRequest) -> ChunkRows:
        """A chunk's rows, stamped like a whole state: not before any row's time."""
        plan = self._plan_of(wanted.table)
        span = KeyRange(plan, self._order_of(connection, plan), wanted)
        ((_, stamp, _, _),) = rows(connection, "routed", "state_marker", self._link.topology, self._link.site)
        part = next(each for each in slices if each.relation.table == wanted.table)
        return ChunkRows(connection, self._place, wanted, part.relation, span.sign, part.chunk(span, int(str(stamp))))

    def estimate_rows(self, table: TableName) -> int:
        """See ports.Source."""
        with translated(self._place), self._snapshot() as connection:
            (newest,) = rows(connection, "source", "horizon", START)[0][2:]
            slices = self._slices(connection, int(str(newest)))
            return estimate(connection, next(each for each in slices if each.relation.table == table).rows())

    def _require_present_keys(
        self, connection: PostgresConnection, slices: Sequence[Slice], ranges: tuple[list[int], list[int]]
    ) -> None:
        """A key over other columns cannot be told to the site: which row it was nobody knows any more."""
        outdated = [number for each in slices for number in each.outdated]
        if outdated and rows(connection, "routed", "outdated_keys", *ranges, self._routes, outdated):
            raise self._must_resync("has changes on its way of a table whose key is another now")

    def _open(
        self, connection: PostgresConnection, start: Position
    ) -> tuple[Position, tuple[list[int], list[int]], bool, Position | None, set[int]]:
        """The window from ``start`` to now: its end, ranges, whether it has rows, its marker, tables to be read whole."""
        while True:
            origin, own, numbers = self._link.reverse.origin, own_route(self._link), self._relations.numbers
            (row,) = rows(connection, "routed", "open_window", start, self._routes, origin, numbers, own)
            now, past, newest, low, high, filled, marker, everything = row
            if not past:
                raise self._from_the_future()
            if int(str(newest)) == self._relations.newest:
                break
            self._relations = read_relations(connection, self._link.topology, self._plans, int(str(newest)))
        known = None if marker is None else Position(str(marker))
        ranges = numbers_of(low), numbers_of(high)
        return Position(str(now)), ranges, bool(filled), known, set(numbers_of(everything))

    def _slices(self, connection: PostgresConnection, newest: int) -> list[Slice]:
        if newest != self._relations.newest:
            self._relations = read_relations(connection, self._link.topology, self._plans, newest)
        return make_slices(self._place, self._link, self._plans, self._relations)

    # --- facts ---

    def _wants(self, route: str) -> bool:
        return route in self._routes

    def read_lag(self, after: Position | None) -> Lag:
        """Changes behind ``after`` that may concern the site, and the oldest's time; for a new link all its rows."""
        with translated(self._place), self._snapshot() as connection:
            _, (low, high), _, _, _ = self._open(connection, self._start(after))
            if after is None:
                run(connection, "use_all_plans", file="routed")
                slices = self._slices(connection, self._relations.newest)
                return Lag(sum(int(str(connection.execute(s.count().encode()).fetchall()[0][0])) for s in slices), 0)
            values = (low, high, self._routes, self._link.reverse.origin, self._relations.numbers)
            ((count, oldest),) = rows(connection, "routed", "read_lag", *values)
            holders = rows(connection, "source", "horizon_holder")
        holder = f"{holders[0][0]} (user {holders[0][1]}, {holders[0][2]} s)" if holders else ""
        return Lag(int(str(count)), int(str(oldest)), holder)

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """See ports.InFlight. Streams: what lies behind ``after`` may be more than memory holds."""
        if after is None:
            return set(keys)
        wanted = {tuple(map(spelled, key)): key for key in keys}
        found: set[Key] = set()
        with translated(self._place), self._snapshot() as connection:
            _, (low, high), _, _, _ = self._open(connection, self._start(after))
            numbers = [n for n, relation in self._relations.known.items() if relation.table == table.source.name]
            with psycopg.RawServerCursor(connection, "replicator_in_flight") as cursor:
                sql = sqlfiles.statement("sql/postgres/routed.sql", "read_keys")
                cursor.execute(sql.encode(), (low, high, self._routes, numbers))
                for number, op, key in cursor:
                    if op == "a":
                        return set(keys)
                    names = self._relations.known[abs(number)].key
                    fields = json.loads(key) if number < 0 else dict(zip(names, parse_record(key), strict=True))
                    known = wanted.get(tuple(fields.get(name) for name in table.key))
                    if known is not None and op != Op.MARKER:
                        found.add(known)
        return found

    # --- acknowledging ---

    def acknowledge_batch(self, upto: Position) -> None:
        """Note ``upto`` as durable at the site; a busy link writes it only now and then.

        An acknowledgement that is lost costs nothing but rows that stay in the outbox a little longer.
        """
        self._durable = upto
        self._passed = (upto, upto)
        self._shares.delivered()
        if time.monotonic() - self._acknowledged_at >= _ACKNOWLEDGE_SECONDS:
            self._acknowledge()

    def _acknowledge(self) -> None:
        """Write how far the site has got, and behind that, how far there was nothing for it; prune when it is our turn."""
        upto = self._passed[1] if self._durable is None or self._passed[0] == self._durable else self._durable
        if self._passed[0] is None or (upto == self._acknowledged and not self._shares.due):
            return
        with translated(self._place):
            connection = self._watch_connection()
            run(connection, "acknowledge", self._link.text, self._link.topology, upto)
            if self._durable is not None:
                run(connection, "record_delivered", self._link.text, self._durable, file="routed")
            self._acknowledged, self._acknowledged_at = upto, time.monotonic()
            if self._shares.due:
                self._record_shares(connection)
            if self._subscription.dispatcher.claim_pruning():
                self._prune(connection)

    def _prune(self, connection: PostgresConnection) -> None:
        """Remove what every link has passed, whatever the link; and take along what follows moved rows."""
        dispatcher, topology = self._subscription.dispatcher, self._link.topology
        # A replicator that was away itself gives every link the time to come back first.
        if time.monotonic() - dispatcher.started_at >= min(_GRACE_SECONDS, self._retention):
            run(connection, "expire", topology, self._link.text, self._retention, file="routed")
        run(connection, "follow_moves", topology, file="routed")
        bound = rows(connection, "routed", "bound", topology)[0][0]
        if bound is None:
            return
        below = int(str(bound))
        while run(connection, "prune", dispatcher.cleared, below, topology, _PRUNE_ROWS, file="routed") == _PRUNE_ROWS:
            continue
        dispatcher.cleared = below
        run(connection, "prune_ticks")
        give_back(connection)
        if time.monotonic() - self._tombstones_at >= min(_TOMBSTONE_SECONDS, self._retention):
            run(connection, "prune_tombstones", topology, self._retention, file="routed")
            self._tombstones_at = time.monotonic()

    def tidy(self) -> None:
        """See ports.Source."""
        self._acknowledge()

    # --- waiting ---

    def wait(self, timeout: float) -> bool:
        """Sleep until something for the site may have been committed; see ports.Source."""
        self._unmark()
        connected = self._reader is not None and not self._reader.closed
        if connected and time.monotonic() - self._acknowledged_at >= _ACKNOWLEDGE_SECONDS:
            self._acknowledge()
        if not self._keep_open:
            super().close()
        return self._subscription.wait(timeout)

    def wake(self) -> None:
        """Make a ``wait`` in another thread return at once."""
        subscription = self._subscribed
        if subscription is not None:
            subscription.wake()

    def wake_others(self) -> None:
        """See ports.Source."""
        with translated(self._place):
            call(self._watch_connection(), self._link.topology, own_route(self._link))

    @property
    def _subscription(self) -> Subscription:
        if self._subscribed is None:
            self._subscribed = dispatch.subscribe(self._url, self._link.topology, self._routes)
        return self._subscribed

    def rest(self) -> None:
        """Release the connections, but stay to be woken."""
        super().close()

    def close(self) -> None:
        """Release all connections, and do not wait to be woken. Repeatable; the source opens them again when used again."""
        super().close()
        if self._subscribed is not None:
            self._subscribed.close()
            self._subscribed = None

    def _watch_connection(self) -> PostgresConnection:
        """One connection serves both purposes: there may be a thousand sources."""
        return self._read_connection()

    def _read_connection(self) -> PostgresConnection:
        fresh = self._reader is None or self._reader.closed
        connection = super()._read_connection()
        if fresh:
            # Keys are compared with the operators of the tables' types, wherever those live.
            run(connection, "settle_target", file="session")
        return connection
