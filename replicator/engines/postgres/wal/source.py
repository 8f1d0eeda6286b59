"""Meets ports.Source and ports.InFlight for a PostgreSQL site that is captured from the log.

Before the outbox is read it is filled from the slot; all else is as with triggers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.chunks import ChunkRows
from replicator.engines.postgres.connection import PostgresConnection, connect, translated
from replicator.engines.postgres.positions import lsn_of, parsed_lsn, spelled_lsn
from replicator.engines.postgres.reading import run
from replicator.engines.postgres.source import PostgresSource
from replicator.engines.postgres.wal.checks import slot_alarm
from replicator.engines.postgres.wal.feed import Seen, another_log
from replicator.engines.postgres.wal.pump import Pumps, Tap
from replicator.engines.postgres.wal.reach import Reach
from replicator.engines.postgres.windows import PostgresBatch, Window
from replicator.errors import RetryableError
from replicator.model import ChunkRequest, Key, Lag, LinkName, Position, TablePlan

_MUCH = 16 << 20
_PATIENCE_SECONDS, _LOOK_SECONDS = 30.0, 5.0


class PostgresWalSource(PostgresSource):
    """One site's outbox, filled from its replication slot and read for one link by one thread.

    Args:
        url, link, plans: see PostgresSource.
        expected: whether the topology says that the site is captured from its log.
        pumps: the process's, shared with others.
        looks: for one who only looks on while the service, if there is one, holds the slot.
    """

    def __init__(
        self, url: str, link: LinkName, plans: Sequence[TablePlan], *, expected: bool = True, pumps: Pumps | None = None,
        looks: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(url, link, plans)
        self._looks = looks
        self._pumps = pumps or Pumps()
        self._expected = expected
        self._tap: Tap | None = None
        self._reach = Reach(url, link.topology, self._pumps)
        self._stamp = ""
        self._loader: PostgresConnection | None = None
        self._ahead: PostgresConnection | None = None

    @contextmanager
    def read_batch(
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> Iterator[PostgresBatch | None]:
        """As ``PostgresSource.read_batch``; what was committed before the call is in the outbox first, or ``limit`` changes."""
        if self._looks:
            self._bring()
        while True:
            filled = self._looks or self._log().fill(limit)
            ahead = self._look_ahead(wanted) if filled else nullcontext()
            with ahead as chunk, super().read_batch(after, limit, chunk) as batch:
                if batch is not None or filled:
                    if batch is not None and not filled:
                        batch.expect_more()
                    yield batch
                    return

    @contextmanager
    def _look_ahead(self, wanted: ChunkRequest | None) -> Iterator[ChunkRequest | None]:
        """Take the snapshot a chunk is read in, then bring the outbox up to it, so that the window covers what it shows.

        What the window has beyond it is of rows that the chunk leaves to the window. Without a slot the window's own does.
        """
        if wanted is None or not self._has_slot():
            yield wanted
            return
        with translated(self._place):
            if self._loader is None or self._loader.closed:
                self._loader = connect(self._url, application_name=f"replicator load {self._link.topology}")
                run(self._loader, "plan_by_index")
            run(self._loader, "begin_reading")
            rows(self._loader, "source", "read_clock")  # the first statement takes the snapshot
        try:
            self._reach.catch_up(_PATIENCE_SECONDS)
            self._ahead = self._loader
            yield wanted
        except BaseException:
            self._loader.close()  # a COPY may be half way
            raise
        finally:
            self._ahead = None
        with translated(self._place):
            self._loader.commit()

    def _read_chunk(self, connection: PostgresConnection, window: Window, wanted: ChunkRequest) -> ChunkRows:
        """As ``PostgresSource._read_chunk``; of a table that was emptied in the window nothing now, which one knows better."""
        if self._ahead is None:
            return super()._read_chunk(connection, window, wanted)
        chunk = super()._read_chunk(self._ahead, window, wanted)
        numbers = [number for number, relation in self._relations.known.items() if relation.table == wanted.table]
        if rows(connection, "chunk", "truncated", window.low, window.high, numbers)[0][0]:
            chunk.put_off()
        return chunk

    def _log(self) -> Tap:
        if self._tap is None:
            self._tap = self._pumps.open(self._url, self._link.topology, expected=self._expected)
        return self._tap

    def wait(self, timeout: float) -> bool:
        """Sleep until the log brings something; see ports.Source."""
        tap = self._log()
        if not tap.over:
            self._prune()
            return tap.wait(timeout)
        found = super().wait(timeout)
        if not found and self._has_slot():
            self._leave()  # install has gone over to the log
        return found

    def _has_slot(self) -> bool:
        with translated(self._place):
            return bool(rows(self._watch_connection(), "wal", "has_slot", self._link.topology)[0][0])

    def wake(self) -> None:
        """Make a ``wait`` in another thread return at once."""
        super().wake()
        tap = self._tap
        if tap is not None:
            tap.wake()

    def wake_others(self) -> None:
        """See ports.Source: a word in the log, which whoever reads it hears."""
        if self._has_slot():
            with translated(self._place):
                rows(self._watch_connection(), "wal", "mark")
        else:
            super().wake_others()

    def prove_history(self, after: Position | None, stamp: str, target: str) -> bool:
        """See ports.Source. A stamp of the log is looked for in the log, when it is read again from before the position.

        Else it is on record, or the outbox has its changes.
        """
        self._stamp = stamp
        if not stamp.startswith("log/"):
            return super().prove_history(after, stamp, target)
        super().prove_history(after, "", target)
        seen = Seen.of_stamp(stamp)
        with translated(self._place):
            connection = self._watch_connection()
            flushed = parsed_lsn(str(rows(connection, "wal", "flushed")[0][0]))
            known = seen is None or rows(
                connection, "wal", "has_delivered", self._link.text, stamp, spelled_lsn(seen.lsn), seen.committed_at,
                spelled_lsn(seen.end), self._link.topology,
            )[0][0]  # fmt: skip
        if lsn_of(after) > flushed:
            raise self._from_the_future()
        if not known:
            raise another_log(self._place, self._link.site)
        return True

    def read_lag(self, after: Position | None) -> Lag:
        """As ``PostgresSource.read_lag``; log that is not yet in the outbox is told, its changes cannot be counted."""
        late = False
        if self._looks:
            try:
                self._bring()
            except RetryableError:
                late = True
        lag = super().read_lag(after)
        with translated(self._place):
            found = rows(self._watch_connection(), "wal", "backlog", self._link.topology, spelled_lsn(lsn_of(after)))
        if not found:
            return lag
        size, name = int(str(found[0][0])), found[0][1]
        if late or size > _MUCH:
            holder = lag.horizon_holder or f"replication slot {name}: {size >> 20} MB of log not read yet"
            lag = replace(lag, changes=max(lag.changes, int(late)), horizon_holder=holder)
        with translated(self._place):
            return replace(lag, alarm=self._alarm())

    def _alarm(self) -> str:
        for topology, name, _, status, *figures in rows(self._watch_connection(), "wal", "slots"):
            if topology == self._link.topology:
                return slot_alarm(str(name), str(status), figures)
        return ""

    def _bring(self) -> None:
        if self._has_slot():
            self._reach.catch_up(_LOOK_SECONDS)

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """As ``PostgresSource.keys_in_flight``; what is committed comes into the outbox first, by whoever fills it."""
        if self._has_slot():
            self._reach.catch_up(_PATIENCE_SECONDS)
        return super().keys_in_flight(table, after, keys)

    def _leave(self) -> None:
        tap, self._tap = self._tap, None
        if tap is not None:
            tap.close()

    def close(self) -> None:
        """Release all connections. Repeatable; the source opens them again when used again."""
        self._leave()
        self._reach.close()
        if self._loader is not None:
            self._loader.close()
            self._loader = None
        super().close()
