"""Meets ports.Source and ports.InFlight for a PostgreSQL site whose log goes to the centre past the outbox.

While the target takes them, changes go there straight from the log, and the link's position says how far into the log it has
come. Whenever they cannot (the target is away and the service fills, a backfill wants the outbox, capture starts or stops,
somebody else brings the log up to date) they come into the outbox, each with its place in the log, and are drained from
there first. Nothing is lost or doubled between the two: what the outbox has from before the position's place is passed over,
and the log is read from behind what the outbox has. One-way links only: a site that gets changes too has to find its own in
the outbox.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from replicator.engines.postgres.positions import joined, lsn_of
from replicator.engines.postgres.reading import run
from replicator.engines.postgres.source import PostgresSource
from replicator.engines.postgres.wal.feed import Feed, Gathered
from replicator.engines.postgres.wal.logged import LoggedBatch
from replicator.engines.postgres.wal.pump import Pumps
from replicator.engines.postgres.wal.source import PostgresWalSource
from replicator.model import ChunkRequest, Key, LinkName, Position, TablePlan
from replicator.ports import Batch

_STANDING_SECONDS = 60.0
_UNKNOWN = -1


class PostgresBypassSource(PostgresWalSource):
    """One site's log, read for its link to the centre by one thread; see ``PostgresWalSource`` for the arguments."""

    def __init__(self, url: str, link: LinkName, plans: Sequence[TablePlan], *, pumps: Pumps | None = None) -> None:
        super().__init__(url, link, plans, pumps=pumps)
        self._feed = Feed(url, link)
        self._drained = self._detour = False
        self._place_reached = _UNKNOWN
        self._stood_at = time.monotonic()
        self._filtered = any(plan.where is not None for plan in plans)

    @contextmanager
    def read_batch(  # type: ignore[override]  # a batch is one of two classes
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> Iterator[Batch | None]:
        """As ``PostgresSource.read_batch``; straight from the log where nothing is against it and the outbox is empty."""
        if wanted is not None or self._detour or self._filtered or not self._hold(after):
            if self._feed.held and lsn_of(after) == self._place_reached:
                self._feed.acknowledge(self._place_reached, self._stamp, now=True)
            self._let_go()
            with super().read_batch(after, limit, wanted) as batch:
                self._detour = self._detour and batch is not None
                yield batch
            return
        if not self._drained:
            with PostgresSource.read_batch(self, after, limit) as batch:
                if batch is not None:
                    batch.expect_more()
                    yield batch
                    return
            if not self._feed.stands():
                self._let_go()
                with self.read_batch(after, limit) as batch:
                    yield batch
                return
            self._drained = True
        found = self._feed.gather(limit)
        if found.unfit or found.switched:
            self._detour = found.unfit
            self._drained = False
            with self.read_batch(after, limit) as batch:
                yield batch
        elif not found.runs:
            yield None
        else:
            batch_from_log = self._batch(after, found)
            self._place_reached = _UNKNOWN
            yield batch_from_log
            self._place_reached, self._stamp = lsn_of(batch_from_log.upto), batch_from_log.stamp

    def _batch(self, after: Position | None, found: Gathered) -> LoggedBatch:
        feed, snapshot = self._feed, self._start(after)
        rest = None if found.whole else feed.rest()

        def end() -> tuple[Position, str, bool]:
            last = found if found.whole else feed.end()
            return joined(snapshot, last.reached), last.stamp, last.more

        return LoggedBatch(after, self._relations.known, found.runs, rest, end)

    def _hold(self, after: Position | None) -> bool:
        """Whether the slot is held for reading past the outbox, from behind ``after``."""
        place = lsn_of(after)
        if self._feed.held and self._place_reached == place:
            return True
        self._let_go()
        tap = self._log()
        if tap.over:
            return False
        tap.borrow()
        if not self._feed.take(place, self._stamp):
            return False
        self._place_reached = place
        return True

    def _let_go(self) -> None:
        self._feed.close()
        self._drained = False
        self._place_reached = _UNKNOWN
        if self._tap is not None:
            self._tap.give_back()

    # --- facts ---

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """As ``PostgresWalSource.keys_in_flight``: the log comes into the outbox, or past it by whoever reads it."""
        self._let_go()
        return super().keys_in_flight(table, after, keys)

    # --- acknowledging ---

    def acknowledge_batch(self, upto: Position) -> None:
        """See ports.Source; the slot is told now and then."""
        super().acknowledge_batch(upto)
        if self._place_reached == lsn_of(upto):
            self._feed.acknowledge(self._place_reached, self._stamp)

    def tidy(self) -> None:
        """See ports.Source."""
        self._feed.acknowledge(self._place_reached, self._stamp, now=True)
        super().tidy()

    def _prune(self) -> None:
        """The outbox's part of the position may stand still for days: say that the link does not."""
        super()._prune()
        now = time.monotonic()
        if self._feed.held and self._pruned is not None and now - self._stood_at > _STANDING_SECONDS:
            run(self._watch_connection(), "acknowledge", self._link.text, self._link.topology, self._pruned)
            self._stood_at = now

    # --- waiting ---

    def wait(self, timeout: float) -> bool:
        """Sleep until the log brings something; see ports.Source."""
        if not self._feed.held:
            return super().wait(timeout)
        self._prune()
        self._feed.acknowledge(self._place_reached, self._stamp)
        return self._feed.wait(timeout, self._waiter.bell) or self._waiter.silence()

    def close(self) -> None:
        """Release all connections. Repeatable; the source opens them again when used again."""
        self._let_go()
        super().close()
