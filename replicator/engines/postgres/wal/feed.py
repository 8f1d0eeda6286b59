"""Reads a topology's replication slot for the link to the centre alone, past the outbox: whole transactions as batches.

The slot is told of a place only when the target has what was committed before it, and the place is on record here by then.
After a crash in between the server sends again what the target has; it is passed over. What cannot go past the outbox (rows
that are filtered, tables whose columns are not those on record, capture that starts or stops) is left to the filler.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, translated
from replicator.engines.postgres.positions import parsed_lsn
from replicator.engines.postgres.wal import protocol
from replicator.engines.postgres.wal.filler import Filler
from replicator.engines.postgres.wal.logged import Run
from replicator.engines.postgres.wal.slot import find_slot, read_slot
from replicator.engines.postgres.wal.stream import Stream
from replicator.errors import BatchError, RetryableError, rejoin_hint
from replicator.model import LinkName
from replicator.sqlfiles import statement

_ENOUGH_BYTES, _MUCH_BYTES = 3 << 19, 4 << 20
"""A batch ends at the first commit behind the one size; a transaction that reaches the other is read on while it is applied."""

_WAIT = 0.05
_SETTLE_SECONDS, _SETTLE_BYTES = 1.0, 16 << 20
_CHECK_SECONDS = 30.0
"""How often it is looked whether the publication still has everything."""

_ROWS = frozenset((protocol.INSERT, protocol.UPDATE, protocol.DELETE))


@dataclass(frozen=True, slots=True)
class Seen:
    """A transaction with changes of ours, to be known again: where its commit stands and ends, when it was, its number."""

    lsn: int
    end: int
    committed_at: int
    xid: int

    @property
    def stamp(self) -> str:
        """As a batch's stamp."""
        return f"log/{self.lsn}/{self.end}/{self.committed_at}/{self.xid}"

    @classmethod
    def of_stamp(cls, stamp: str) -> Seen | None:
        """From a stamp; ``None`` when it is of another kind."""
        kind, *fields = stamp.split("/")
        return cls(*map(int, fields)) if kind == "log" else None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was read: everything committed before ``reached``, with the stamp of the last transaction.

    ``whole``: else the last transaction goes on in ``Feed.rest``. ``more``: the log may have had more. ``switched``: it ended
    here because capture of a table has started. ``unfit``: what comes now must not go past the outbox; nothing of it is here,
    and the slot has been let go at the place it had.
    """

    runs: Sequence[Run]
    reached: int
    stamp: str = ""
    whole: bool = True
    more: bool = False
    switched: bool = False
    unfit: bool = False


def another_log(place: str, site: str) -> BatchError:
    """What is to be said of a log in which the batch that a position ends at is not to be found."""
    return BatchError(
        f"{place}: the log is not the one the target's position was read from: the database was restored from a backup, "
        "copied, or made anew",
        hint=rejoin_hint(site),
    )


class Feed(Filler):
    """One topology's slot, read by one thread, which is that of the link to the centre."""

    def __init__(self, url: str, link: LinkName) -> None:
        super().__init__(url, link.topology)
        self._site, self._link_text = link.site, link.text
        self._runs: list[Run] = []
        self._count = self._bytes = 0
        self._run: Run | None = None
        self._run_oid = -1
        self._unfit = self._touched = self._acted = False
        self._commits: list[tuple[Seen, int, bool]] = []
        self._first = 0
        self._last: Seen | None = None
        self._begun: protocol.Begin | None = None
        self._awaited: Seen | None = None
        self._settled_at = 0.0
        self._checked_at = time.monotonic()
        self._delivered_stamp = self._testified = ""
        self._handed = self._acknowledged = 0
        self._whole = True
        self._ahead: Future[Gathered] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="replicator read ahead")
        self._ending = False

    # --- taking the slot ---

    def take(self, delivered: int, stamp: str) -> bool:
        """Hold the slot, to read what was committed behind its place on record and ``delivered``; whether all can be read so.

        Raises RetryableError while somebody else reads the slot, SetupError when it is gone or was moved.
        """
        try:
            with translated(self._place):
                return self._take_slot(delivered, stamp)
        except BaseException:
            self.close()
            raise

    def _take_slot(self, delivered: int, stamp: str) -> bool:
        if rows(self._looking(), "wal", "outside_log", self._topology)[0][0]:
            return False
        self.delivered = delivered
        _, writer = self._open()
        if read_slot(writer, self._place, self._topology).lsn != self._recorded:
            raise RetryableError(f"{self._place}: another replicator has just read the replication slot")
        self._delivered_stamp, self._last = stamp, (known := Seen.of_stamp(stamp))
        self._awaited = known if known is not None and self._recorded < known.end <= delivered else None
        if self._lanes.staged:
            self.close()
            return False
        return True

    def stands(self) -> bool:
        """Whether the place on record is the one the slot was taken at: a filler that was killed may still have committed."""
        try:
            with translated(self._place):
                slot = find_slot(self._looking(), self._topology)
        except BaseException:
            self.close()
            raise
        return slot is not None and slot.lsn == self._recorded

    @property
    def held(self) -> bool:
        """Whether the slot is held."""
        return self._stream is not None

    # --- reading ---

    def gather(self, limit: int) -> Gathered:
        """What was committed before this call, about ``limit`` changes of whole transactions.

        Where there may be more, it is read while the target applies this: one batch ahead, not more. Raises SetupError when
        the publication has lost something.
        """
        try:
            ahead, self._ahead = self._ahead, None
            found = ahead.result() if ahead is not None else self._gather(limit)
            if self._stream is not None and time.monotonic() - self._checked_at > _CHECK_SECONDS:
                self.check()
                self._checked_at = time.monotonic()
            if found.unfit:
                self.close()
            elif found.whole and found.more:
                self._ahead = self._reader.submit(self._gather, limit)
        except BaseException:
            self.close()
            raise
        return found

    def _gather(self, limit: int) -> Gathered:
        with translated(self._place):
            return self._gather_runs(limit)

    def _gather_runs(self, limit: int) -> Gathered:
        stream, writer = self._open()
        goal: int | None = None
        while not self._ending:
            data = stream.receive()
            between = self._look(stream) if data is None else self._take(data)
            if self._unfit or (self._switched and self._runs):
                return Gathered((), self._reached, unfit=True)
            if not between:
                if self._bytes > _MUCH_BYTES:
                    return self._gathered(whole=False, more=True)
                continue
            if self._switched:
                return self._switch(stream, writer)
            if self._count >= limit or self._bytes > _ENOUGH_BYTES or (self._runs and self._marked):
                return self._gathered(whole=True, more=True)
            if data is None:
                goal = goal or self._flushed()
                if self._reached >= goal:
                    if not self._runs and self._acknowledged >= self._handed:
                        self._flush(stream, writer)
                    return self._gathered(whole=True, more=False)
                stream.ask()
                stream.wait(_WAIT)
        return Gathered((), self._reached)

    def _gathered(self, *, whole: bool, more: bool) -> Gathered:
        self._whole = whole
        runs = self._hand_over()
        return Gathered(runs, self._reached, self._last.stamp if self._last is not None else "", whole=whole, more=more)

    def _switch(self, stream: Stream, writer: PostgresConnection) -> Gathered:
        """Capture of a table has started, or stopped, and nothing came before in this batch."""
        if self._acknowledged < self._handed:
            return Gathered((), self._reached, unfit=True)
        self._marked = True
        self._flush(stream, writer)
        outside = bool(rows(writer, "wal", "outside_log", self._topology)[0][0])
        return Gathered((), self._reached, switched=True, unfit=outside or self._lanes.staged)

    def rest(self) -> Iterator[Sequence[Run]]:
        """The rest of a transaction that was not whole, in pieces; then ``end`` tells of it.

        Raises RetryableError when it turns out to be unfit.
        """
        try:
            with translated(self._place):
                yield from self._read_on()
        except BaseException:
            self.close()
            raise

    def _read_on(self) -> Iterator[Sequence[Run]]:
        stream, _ = self._open()
        while not self._whole:
            data = stream.receive()
            between = self._look(stream) if data is None else self._take(data)
            if self._unfit or self._switched:
                raise RetryableError(
                    f"{self._place}: a table changes in the middle of a large transaction; it is read anew"
                )
            if between or self._bytes > _MUCH_BYTES:
                self._whole = between
                yield self._hand_over()

    def _flushed(self) -> int:
        return parsed_lsn(str(rows(self._looking(), "wal", "flushed")[0][0]))

    def _hand_over(self) -> Sequence[Run]:
        runs, self._runs = self._runs, []
        self._last = self._newest(runs) or self._last
        self._acted = self._inside and (self._acted or _acts(runs[self._first :]))
        self._first = 0
        self._commits.clear()
        self._count = self._bytes = 0
        self._run, self._run_oid = None, -1
        if runs:
            self._handed = self._reached
        return runs

    def _newest(self, runs: Sequence[Run]) -> Seen | None:
        """The last transaction that would be in the outbox, had it gone that way: not one whose changes changed nothing."""
        end = len(runs)
        for seen, first, acted in reversed(self._commits):
            if acted or _acts(runs[first:end]):
                return seen
            end = first
        return None

    def end(self) -> Gathered:
        """Where ``rest`` ended."""
        return Gathered((), self._reached, self._last.stamp if self._last is not None else "", more=True)

    # --- one message ---

    def _take(self, data: bytes) -> bool:
        kind = data[0]
        if kind in _ROWS:
            if self._done or self._own:
                return False
            oid = protocol.read_oid(data)
            if oid != self._run_oid:
                self._change_table(oid)
            if self._run is not None:
                self._run.messages.append(data)
                self._touched = True
                self._count += 1
                self._bytes += len(data)
                return False
            return super()._take(data)  # a table of ours that is read too
        between = super()._take(data)
        self._run, self._run_oid = None, -1
        if between and self._touched and self._begun is not None:
            seen = Seen(self._begun.commit_lsn, self._reached, self._begun.committed_at, self._begun.xid)
            self._commits.append((seen, self._first, self._acted))
        return between

    def _change_table(self, oid: int) -> None:
        lane = self._lanes.get(oid)
        self._run_oid, self._run = oid, None
        if lane is not None:
            self._unfit |= not lane.simple
            self._run = Run(lane, self._changed_at, self._middle)
            self._runs.append(self._run)

    def _write(self, row: bytes) -> None:
        if not self._runs or self._runs[-1].lane is not None:
            self._runs.append(Run(None, self._changed_at, self._middle))
        self._runs[-1].messages.append(row)
        self._touched = True
        self._count += 1
        self._bytes += len(row)

    def _begin(self, begin: protocol.Begin) -> None:
        super()._begin(begin)
        self._begun, self._touched = begin, False
        self._first, self._acted = len(self._runs), False
        awaited = self._awaited
        if awaited is not None and begin.commit_lsn >= awaited.lsn:
            if (begin.commit_lsn, begin.committed_at, begin.xid) != (awaited.lsn, awaited.committed_at, awaited.xid):
                raise another_log(self._place, self._site)
            self._awaited = None

    def _look(self, stream: Stream) -> bool:
        between = super()._look(stream)
        if between and self._awaited is not None and self._reached >= self._awaited.end:
            raise another_log(self._place, self._site)  # it was not there
        return between

    # --- acknowledging ---

    def acknowledge(self, lsn: int, stamp: str, *, now: bool = False) -> None:
        """The target has what was committed before ``lsn``. The slot is told now and then, at once when somebody waits.

        ``stamp``: of the last batch it has, which is known again by it when the slot has forgotten that.
        """
        self._acknowledged = max(self._acknowledged, lsn)
        self._delivered_stamp = stamp
        late = time.monotonic() - self._settled_at > _SETTLE_SECONDS
        if self._stream is None or lsn <= self._recorded:
            return
        if not (now or late or self._marked or lsn - self._recorded > _SETTLE_BYTES):
            return
        try:
            if self._ahead is not None:
                wait([self._ahead])
            if not (self._switched or self._unfit):
                with translated(self._place):
                    self._settle(lsn)
        except BaseException:
            self.close()
            raise
        self._settled_at = time.monotonic()

    def _settle(self, lsn: int) -> None:
        """Put a place on record and tell the slot of it, whatever has been read beyond."""
        stream, writer = self._open()
        reached, self._reached = self._reached, lsn
        marked, self._marked = self._marked, True
        super()._flush(stream, writer)
        self._reached = reached
        self._marked = marked and reached > lsn

    def _flush(self, stream: Stream, writer: PostgresConnection) -> int:
        """Never beyond what the target has."""
        return 0 if self._runs or self._handed > self._acknowledged else super()._flush(stream, writer)

    def _testify(self, writer: PostgresConnection) -> None:
        """Of a copy of the database from before, nobody can say so later: its place on record moves on, too."""
        stamp = self._delivered_stamp
        if self._awaited is None and stamp.startswith("log/") and stamp != self._testified:
            writer.execute(statement("sql/postgres/wal.sql", "testify").encode(), (self._link_text, stamp))
            self._testified = stamp

    def close(self) -> None:
        """Let the slot go; what the target has not is read again. Repeatable."""
        self._ending = True
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            wait([ahead])
        self._ending = False
        self._hand_over()
        self._whole = True
        self._unfit = self._switched = False
        self._handed = self._acknowledged = 0
        self._awaited = self._begun = self._last = None
        self._delivered_stamp = self._testified = ""
        super().close()


def _acts(runs: Sequence[Run]) -> bool:
    return any(next(run.rows(), None) is not None for run in runs)
