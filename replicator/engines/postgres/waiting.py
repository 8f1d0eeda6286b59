"""Waits for commits at a PostgreSQL source: quick polls while there is traffic, then asleep until notified.

While asleep the reader holds an advisory lock exclusively. Capture tries that lock in share mode, never waiting: a writer
that does not get it notifies. Because writers keep their share to the end of their transaction, the reader can only fall
asleep when nobody is left who would commit without notifying, so no wake-up is lost and no writer pays for a NOTIFY
while the reader is awake anyway (a NOTIFY makes commits queue). Where two-phase commit is possible nobody notifies (a
transaction that notified cannot be prepared) and the reader polls, more slowly the longer nothing happens; `alter database
… set replicator.notify = on` says that no captured transaction will be prepared.

A notification with a text is a call: it comes from another process and is heard awake or asleep.
"""

from __future__ import annotations

import os
import selectors
import time
import weakref
from collections.abc import Callable

from replicator import sqlfiles
from replicator.engines.postgres.capture import channel, lock_number
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection

_BUSY_SECONDS, _BUSY_POLL = 0.05, 0.005
_LONGEST_POLL, _LONGEST_UNNOTIFIED_POLL = 0.05, 0.25
_SAFETY_SECONDS = 5.0


class Waiter:
    """One reader's way to wait. ``wake`` may be called from any thread, the rest from one.

    Args:
        topology: whose writers notify.
        changed: whether something was committed since; asked on the connection given to ``wait``.
    """

    def __init__(self, topology: str, changed: Callable[[PostgresConnection], bool]) -> None:
        self._lock = lock_number(topology)
        self._channel = channel(topology)
        self._changed = changed
        self._listening: PostgresConnection | None = None
        self._notifies = False
        self.calls: set[str] = set()
        """Texts of the calls heard; the caller empties it."""
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        # Not at close: another thread may still call ``wake``, and a closed number may be somebody else's by then.
        weakref.finalize(self, _close, self._read_end, self._write_end)

    @property
    def bell(self) -> int:
        """Becomes readable with ``wake``, for one who waits for something else beside it; ``silence`` then."""
        return self._read_end

    def silence(self) -> bool:
        """Whether ``wake`` was called since the last time."""
        return self._drain()

    def wake(self) -> None:
        """Make a ``wait`` return at once."""
        try:
            os.write(self._write_end, b"!")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already

    def wait(self, connection: PostgresConnection, timeout: float) -> bool:
        """True when something was committed, a call was heard, or ``wake`` called; false on time-out."""
        start = time.monotonic()
        if self._listening is not connection:
            self._listen(connection)
        while True:
            if self._changed(connection) or self.calls:
                return True
            now = time.monotonic()
            left = start + timeout - now
            if left <= 0:
                return False
            busy = now - start < _BUSY_SECONDS
            if not busy and self._fall_asleep(connection):
                try:
                    # A commit between the last look and the lock would have gone unnoticed.
                    if self._changed(connection) or self._sleep(connection, min(left, _SAFETY_SECONDS)):
                        return True
                finally:
                    self._wake_up(connection)
                continue
            longest = _LONGEST_POLL if self._notifies else _LONGEST_UNNOTIFIED_POLL
            pause = _BUSY_POLL if busy else min(max((now - start) / 20, _BUSY_POLL), longest)
            if self._pause(min(pause, left)):
                return True

    def _listen(self, connection: PostgresConnection) -> None:
        connection.add_notify_handler(lambda notice: self._hear(notice.payload))
        template = sqlfiles.statement("sql/postgres/source.sql", "listen")
        connection.execute(sqlfiles.render(template, identifiers={"channel": self._channel}).encode())
        self._notifies = bool(rows(connection, "source", "may_notify")[0][0])
        self._listening = connection

    def _hear(self, text: str) -> None:
        if text:
            self.calls.add(text)

    def _fall_asleep(self, connection: PostgresConnection) -> bool:
        return self._notifies and bool(rows(connection, "source", "fall_asleep", self._lock)[0][0])

    def _wake_up(self, connection: PostgresConnection) -> None:
        if not connection.closed:
            rows(connection, "source", "wake_up", self._lock)
            self._hear_all(connection)

    def _hear_all(self, connection: PostgresConnection) -> bool:
        """Take what was notified; whether there was anything."""
        connection.pgconn.consume_input()
        heard = False
        while notice := connection.pgconn.notifies():
            heard = True
            self._hear(notice.extra.decode())
        return heard

    def _sleep(self, connection: PostgresConnection, seconds: float) -> bool:
        """Until a notification, a wake-up (both true), or the time is over."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._read_end, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(seconds)}
        if self._read_end in ready:
            return self._drain()
        return bool(ready) and self._hear_all(connection)

    def _pause(self, seconds: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._read_end, selectors.EVENT_READ)
            return bool(selector.select(seconds)) and self._drain()

    def _drain(self) -> bool:
        try:
            return bool(os.read(self._read_end, 4096))
        except BlockingIOError:
            return False


def call(connection: PostgresConnection, topology: str, text: str) -> None:
    """Call whoever waits for a topology's changes in this database, in whatever process. Own transaction."""
    rows(connection, "source", "call", channel(topology), text)


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)
