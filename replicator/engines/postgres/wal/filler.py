"""Fills the outbox from a topology's replication slot: every committed change once, in commit order.

Rows and the place in the log they reach go into the database in one transaction; only then is the slot told. After a crash in
between, the server sends transactions again that lie before the place on record, and they are passed over. Two fillers
cannot both write: the place moves by compare-and-set. A transaction of the application is never split between two of
ours, so it becomes visible to the reader as a whole; memory does not grow with it, rows go on as they come.
"""

from __future__ import annotations

import time

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.engines.postgres.positions import parsed_lsn, spelled_lsn
from replicator.engines.postgres.wal import protocol
from replicator.engines.postgres.wal.lanes import Lanes
from replicator.engines.postgres.wal.outlet import Outlet
from replicator.engines.postgres.wal.slot import check_published, end_slot, find_slot, read_slot
from replicator.engines.postgres.wal.spelling import time_origin_place
from replicator.engines.postgres.wal.stream import Stream
from replicator.engines.postgres.wal.tables import existing_row
from replicator.errors import BatchError, RetryableError

_GROUP_ROWS = 16_384
"""Changes after which a transaction of ours ends, at the next commit of the application's."""

_IDLE_BYTES = 1 << 20
"""Log without a change of ours after which the place on record moves on, so that the server can remove it."""

_NOTED_BYTES = 4_096
_TICK_ROWS = 8_192
_PAUSE, _ASK_SECONDS = 0.05, 5.0


class Filler:
    """One topology's slot, read by one thread.

    Args:
        url: libpq URL of the captured database.
        topology: whose slot.
        expected: whether a database without a slot is an error; else triggers capture it, and there is nothing to fill.
    """

    def __init__(self, url: str, topology: str, *, expected: bool = True) -> None:
        self._url = url
        self._place = describe(url)
        self._topology = topology
        self._applied = f"{topology}/centre".encode()
        self._writer: PostgresConnection | None = None
        self._lookup: PostgresConnection | None = None
        self._stream: Stream | None = None
        self._outlet: Outlet | None = None
        self._lanes = Lanes(topology)
        self._expected = expected
        self._publication = ""
        self._over: bool | None = None
        self._stopped = False
        self._recorded = self._reached = self._seen = self._since_tick = 0
        self._inside = self._done = self._own = self._switched = self._marked = False
        self._origin: bytes | None = None
        self._committed_at = self._changed_at = self._commit_lsn = 0
        self.delivered = 0
        """What was committed before this place in the log is at the target already."""
        self._middle = b""
        self.brought = 0
        """Changes brought into the outbox so far."""

    # --- filling ---

    def fill(self, limit: int) -> bool:
        """Bring everything committed before this call into the outbox, or about ``limit`` changes; whether that was all.

        Raises SetupError or BatchError when the slot is missing, lost, or not where it was left.
        """
        try:
            with translated(self._place):
                return self._fill(limit)
        except BaseException:
            self.close()
            raise

    def _fill(self, limit: int) -> bool:
        if self._is_over():
            return True
        stream, writer = self._open()
        goal = parsed_lsn(str(rows(self._looking(), "wal", "flushed")[0][0]))
        group, written = min(_GROUP_ROWS, limit), 0
        while True:
            data = stream.receive()
            between = self._look(stream) if data is None else self._take(data)
            if not between:
                continue
            if self._reached >= goal:
                self._flush(stream, writer)
                self._end_when_over(stream, writer)
                return True
            if self._switched or self._marked or self._pending >= group:
                written += self._flush(stream, writer)
                if written >= limit:
                    return False
            if data is None:
                stream.ask()
                stream.wait(_PAUSE)

    def _look(self, stream: Stream) -> bool:
        """Nothing has arrived: whether the stream stands between two transactions; waits a moment when it does not."""
        if self._inside:
            stream.wait(_PAUSE)
            return False
        self._reached = max(self._reached, stream.end)
        return True

    @property
    def _pending(self) -> int:
        return self._outlet.count if self._outlet else 0

    def wait(self, seconds: float, wake: int | None = None) -> bool:
        """Until the log brings something, at most ``seconds``; false on time-out, or when ``wake`` became readable.

        Meanwhile the place on record follows a log that has nothing for us, so that the server can remove it.
        """
        try:
            with translated(self._place):
                return self._wait(time.monotonic() + seconds, wake)
        except BaseException:
            self.close()
            raise

    def _wait(self, deadline: float, wake: int | None) -> bool:
        if self._is_over():
            return True
        stream, writer = self._open()
        asked = 0.0
        while True:
            data = stream.receive()
            if data is not None:
                self._take(data)
                return True
            self._reached = max(self._reached, stream.end)
            self._flush(stream, writer)
            now = time.monotonic()
            if now >= deadline:
                return False
            if now - asked >= _ASK_SECONDS:
                stream.ask()
                asked = now
            if stream.wait(min(deadline - now, _ASK_SECONDS), wake):
                return False

    def check(self) -> None:
        """Raises SetupError when the publication has lost something since the slot was opened, and lets the slot go."""
        if self._stream is None:
            return
        try:
            with translated(self._place):
                check_published(self._looking(), self._place, self._topology, self._publication)
        except BaseException:
            self.close()
            raise

    # --- one message ---

    def _take(self, data: bytes) -> bool:
        """One message; whether it ended a transaction."""
        kind = data[0]
        if kind == protocol.INSERT:
            lane = None if self._done or self._own else self._lanes.get(protocol.read_oid(data))
            if lane is not None:
                self._write(lane.insert(self._middle, data))
        elif kind == protocol.BEGIN:
            self._begin(protocol.read_begin(data))
        elif kind == protocol.COMMIT:
            self._inside = False
            self._reached = max(self._reached, protocol.read_commit_end(data))
            return True
        elif kind == protocol.RELATION:
            self._lanes.show(self._looking(), protocol.read_table(data))
        elif not self._done:
            self._take_rare(kind, data)
        return False

    def _take_rare(self, kind: int, data: bytes) -> None:
        if kind in (protocol.UPDATE, protocol.DELETE):
            self._change(kind, data)
        elif kind == protocol.MESSAGE:
            self._told(protocol.read_message(data))
        elif kind == protocol.TRUNCATE and not self._own:
            for oid in protocol.read_truncate(data):
                lane = self._lanes.get(oid)
                if lane is not None and lane.captured.truncates:
                    self._write(lane.truncate(self._middle))
        elif kind not in (protocol.TYPE, protocol.ORIGIN, protocol.TRUNCATE):
            raise BatchError(f"{self._place}: the log sends a message of kind {chr(kind)!r} that was not asked for")

    def _begin(self, begin: protocol.Begin) -> None:
        self._inside = True
        self._done = begin.commit_lsn < max(self._recorded, self.delivered)
        self._commit_lsn = begin.commit_lsn
        self._own = False
        self._origin = None
        self._committed_at = begin.committed_at
        self._stamp()

    def _stamp(self) -> None:
        self._changed_at = max(self._committed_at, self._seen + 1)
        self._middle = time_origin_place(self._changed_at, self._origin, self._commit_lsn)

    def _change(self, kind: int, data: bytes) -> None:
        oid = protocol.read_oid(data)
        if oid == self._lanes.clock:
            if kind == protocol.UPDATE and (seen := (protocol.read_update(data).new or ())[1]):
                self._seen = int(seen)
                self._stamp()
            return
        lane = None if self._own else self._lanes.get(oid)
        if lane is not None:
            row = (lane.update if kind == protocol.UPDATE else lane.delete)(self._middle, data)
            if row is not None:
                self._write(row)

    def _told(self, message: protocol.LogMessage) -> None:
        """A message of ours: who writes from here on, a row that install read, capture that starts or stops."""
        if message.prefix == "replicator.mark":
            self._marked = True
        elif not message.transactional:
            return
        elif message.prefix == "replicator.origin":
            self._origin = message.content or None
            self._own = message.content == self._applied
            self._stamp()
        elif message.prefix == "replicator.row":
            number, _, image = message.content.partition(b" ")
            captured = self._lanes.relation(int(number))
            if captured is not None:
                self._write(existing_row(captured, self._middle, image, staged=self._lanes.staged))
        elif message.prefix in ("replicator.start", "replicator.stop"):
            start = message.prefix == "replicator.start"
            self._switched |= self._lanes.switch(self._looking(), int(message.content), start=start)

    # --- writing ---

    def _write(self, row: bytes) -> None:
        if self._outlet is None:
            self._outlet = Outlet(self._open()[1], self._lanes.filters())
        self._outlet.write(row)

    def _flush(self, stream: Stream, writer: PostgresConnection) -> int:
        """Commit what was written with the place it reaches, then tell the slot; how many changes were read for it."""
        outlet, self._outlet = self._outlet, None
        states = self._lanes.take_states()
        if outlet is None:
            if not states and not self._marked and self._reached - self._recorded < self._idle_bytes(stream):
                return 0
            writer.execute(_sql("begin_filling"))
        elif outlet.finish():
            self._tick(writer, outlet.count)
        if stream.notes is not None:
            writer.execute(_sql("forget_notes"), (stream.notes.take(),))
        self._stopped = self._stopped or "stopped" in states.values()
        for relation, state in states.items():
            writer.execute(_sql("set_state"), (relation, state))
        was, reached = spelled_lsn(self._recorded), spelled_lsn(self._reached)
        if writer.execute(_sql("advance"), (self._topology, was, reached, self._seen)).rowcount != 1:
            raise RetryableError(f"{self._place}: another replicator fills the outbox of topology {self._topology}")
        self._testify(writer)
        writer.execute(_sql("end_filling"))
        self._recorded = self._reached
        self._marked = False
        if self._switched:
            self._switched = False
            self._lanes.renew(self._looking())
        stream.confirm(self._recorded)
        self.brought += outlet.count if outlet else 0
        return outlet.count if outlet else 0

    def _testify(self, writer: PostgresConnection) -> None:
        """Put on record what else the place on record says; nothing here, where rows of the outbox do."""

    @staticmethod
    def _idle_bytes(stream: Stream) -> int:
        """Who hands over from the log waits for the place on record; no word of his comes where there are no messages."""
        return _IDLE_BYTES if stream.notes is None else _NOTED_BYTES

    def _tick(self, writer: PostgresConnection, count: int) -> None:
        self._since_tick += count
        if self._since_tick >= _TICK_ROWS:
            writer.execute(_sql("tick"))
            self._since_tick = 0

    # --- the end ---

    def _is_over(self) -> bool:
        """Whether there is nothing to read: triggers capture, and either always did or have taken over everything."""
        if self._over is None:
            connection = self._looking()
            slot = find_slot(connection, self._topology)
            over = bool(rows(connection, "wal", "is_over", self._topology)[0][0])
            if slot is not None and over:
                end_slot(connection, self._topology)
            self._over = over or (slot is None and not self._expected)
            if self._over:
                self.close()
        return self._over

    def _end_when_over(self, stream: Stream, writer: PostgresConnection) -> None:
        """Drop the slot when every table has gone over to triggers."""
        if self._stopped and rows(writer, "wal", "is_over", self._topology)[0][0]:
            stream.close()
            self._stream = None
            end_slot(writer, self._topology)
            self.close()
            self._over = True

    @property
    def over(self) -> bool:
        """Whether there is nothing to read from the log, now and later."""
        with translated(self._place):
            return self._is_over()

    # --- connections ---

    def _open(self) -> tuple[Stream, PostgresConnection]:
        if self._writer is None:
            self._writer = connect(self._url, application_name=f"replicator capture {self._topology}")
            rows(self._writer, "wal", "commit_safely")
        if self._stream is None:
            slot = read_slot(self._writer, self._place, self._topology)
            self._recorded = self._reached = slot.lsn
            self._seen = slot.seen
            self._inside = self._switched = self._marked = False
            self._lanes.load(self._writer)
            self._publication = slot.publication
            self._stream = Stream(self._url, slot.name, slot.publication, slot.lsn)
        return self._stream, self._writer

    def _looking(self) -> PostgresConnection:
        """A connection that looks things up while a COPY is under way on the other."""
        if self._lookup is None:
            self._lookup = connect(self._url, application_name=f"replicator capture {self._topology}")
        return self._lookup

    def close(self) -> None:
        """Release all connections; what was not committed is read again. Repeatable."""
        outlet, self._outlet = self._outlet, None
        for each in (self._stream, self._writer, self._lookup):
            if each is not None:
                each.close()
        if outlet is not None:
            outlet.abandon()
        self._stream = self._writer = self._lookup = None


def _sql(name: str) -> bytes:
    return sqlfiles.statement("sql/postgres/wal.sql", name).encode()
