"""Meets ports.Source and ports.InFlight for a PostgreSQL site that is captured from the log.

Before the outbox is read it is filled from the slot; all else is as with triggers.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import translated
from replicator.engines.postgres.source import PostgresSource
from replicator.engines.postgres.wal.filler import Filler
from replicator.engines.postgres.windows import PostgresBatch
from replicator.errors import RetryableError
from replicator.model import ChunkRequest, Key, Lag, LinkName, Position, TablePlan

_EVERYTHING = 1 << 60
_MUCH = 16 << 20
_PATIENCE_SECONDS, _LOOK_SECONDS = 30.0, 0.05


class PostgresWalSource(PostgresSource):
    """One site's outbox, filled from its replication slot and read for one link by one thread.

    ``expected``: whether the topology says that the site is captured from its log.
    """

    def __init__(self, url: str, link: LinkName, plans: Sequence[TablePlan], *, expected: bool = True) -> None:
        super().__init__(url, link, plans)
        self._filler = Filler(url, link.topology, expected=expected)
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        # Not at close: another thread may still call ``wake``, and a closed number may be somebody else's by then.
        weakref.finalize(self, _close, self._read_end, self._write_end)

    @contextmanager
    def read_batch(
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> Iterator[PostgresBatch | None]:
        """As ``PostgresSource.read_batch``; what was committed before the call is in the outbox first, or ``limit`` changes."""
        while True:
            filled = self._filler.fill(limit)
            with super().read_batch(after, limit, wanted) as batch:
                if batch is not None or filled:
                    if batch is not None and not filled:
                        batch.expect_more()
                    yield batch
                    return

    def wait(self, timeout: float) -> bool:
        """Sleep until the log brings something; see ports.Source."""
        if self._filler.over:
            return super().wait(timeout)
        self._prune()
        return self._filler.wait(timeout, self._read_end) or self._drain()

    def wake(self) -> None:
        """Make a ``wait`` in another thread return at once."""
        super().wake()
        try:
            os.write(self._write_end, b"!")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already

    def _drain(self) -> bool:
        try:
            return bool(os.read(self._read_end, 4096))
        except BlockingIOError:
            return False

    def read_lag(self, after: Position | None) -> Lag:
        """As ``PostgresSource.read_lag``; log that is not yet in the outbox is told, its changes cannot be counted."""
        lag = super().read_lag(after)
        with translated(self._place):
            found = rows(self._watch_connection(), "wal", "backlog", self._link.topology)
        size, name = (int(str(found[0][0])), found[0][1]) if found else (0, "")
        if size > _MUCH and not lag.horizon_holder:
            return replace(lag, horizon_holder=f"replication slot {name}: {size >> 20} MB of log not read yet")
        return lag

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """As ``PostgresSource.keys_in_flight``; what is committed comes into the outbox first, by whoever fills it."""
        if not self._filler.over:
            self._catch_up()
        return super().keys_in_flight(table, after, keys)

    def _catch_up(self) -> None:
        """Fill the outbox with what is committed now, or wait until the one who holds the slot has."""
        with translated(self._place):
            ((mark,),) = rows(self._watch_connection(), "wal", "mark")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                while not self._filler.fill(_EVERYTHING):
                    continue
            except RetryableError:
                if time.monotonic() > deadline:
                    raise
            if self._filler.over:
                return
            with translated(self._place):
                if rows(self._watch_connection(), "wal", "has_reached", self._link.topology, mark)[0][0]:
                    return
            if time.monotonic() > deadline:
                raise RetryableError(f"{self._place}: the log is not read; what is in flight is not known")
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Release all connections. Repeatable; the source opens them again when used again."""
        self._filler.close()
        super().close()


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)
