"""One thread per topology and database that fills the outbox from the slot, shared by all who need that in this process.

A slot has one reader. The link to the centre asks for what was committed before it reads; the link from the centre asks for
it before it writes; the service asks for nothing and only keeps it going, so that the log is let go while a target is away.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from contextlib import closing

from replicator.engines.postgres.wal.filler import Filler
from replicator.errors import RetryableError

_STEP = 16_384
"""Changes after which those who wait are told how far it is."""

_IDLE_SECONDS = 60.0
_CHECK_SECONDS = 30.0
"""How often it is looked whether the publication still has everything."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_log = logging.getLogger(__name__)


class Pump:
    """Fills while anybody uses it. Its thread begins with the first request or ``keep``, and ends with the last user.

    Args:
        url: libpq URL of the captured database.
        topology: whose slot.
        expected: see ``Filler``.
        after: the thread of a pump of the same slot that is ending; it is waited for.
    """

    def __init__(self, url: str, topology: str, *, expected: bool, after: threading.Thread | None = None) -> None:
        self.filler = Filler(url, topology, expected=expected)
        self.thread: threading.Thread | None = None
        self.news = threading.Condition()
        self.asked = self.done = self.failed = 0
        """Numbers of requests: the last one, the last that was met, the last that ended with ``error``."""
        self.error: Exception | None = None
        self.brought = self.seen = 0
        """Changes brought so far; how often the log had anything."""
        self.over = self.ending = self.kept = False
        self.lent = 0
        """How many have the slot for themselves, or want it; there is at most one link that can."""
        self.resting = False
        self.paused_until = 0.0
        """Until then (monotonic seconds) it fills only what it is asked for."""
        self._after = after
        self._checked = time.monotonic()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        weakref.finalize(self, _close, self._read_end, self._write_end)

    def ask(self) -> int:
        """A request's number: whatever is committed now is to be in the outbox. ``news`` is held."""
        self.asked += 1
        self.rouse()
        return self.asked

    def rouse(self) -> None:
        """Make the thread look at what is asked; start it where there is none. ``news`` is held."""
        if self.thread is None and not self.ending and not self.over:
            self.thread = threading.Thread(target=self._work, name="replicator capture", daemon=True)
            self.thread.start()
        self.news.notify_all()
        try:
            os.write(self._write_end, b"!")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already

    def end(self) -> None:
        """Ask the thread to end; its connections are closed then."""
        with self.news:
            self.ending = True
            self.rouse()

    # --- the thread ---

    def _work(self) -> None:
        if self._after is not None:
            self._after.join()
        pause = _FIRST_PAUSE
        with closing(self.filler):
            while not self.ending and not self.over:
                if self.lent:
                    self._rest()
                    continue
                with self.news:
                    asked = self.asked
                if self._pause():
                    continue
                try:
                    self._fill_and_wait(asked)
                    pause = _FIRST_PAUSE
                except Exception as error:  # handed to those who asked; a bug among them is theirs to show
                    self._fail(asked, error)
                    with self.news:
                        again = None if not self.kept else pause
                        self.news.wait_for(lambda: self.ending or self.lent or self.asked > self.failed, again)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    def _rest(self) -> None:
        """Let the slot go until it is given back; what is asked for meanwhile fails, as when another process has it."""
        self.filler.close()
        with self.news:
            while self.lent and not self.ending:
                self.resting = True
                if self.asked > max(self.failed, self.done):
                    self.error, self.failed = RetryableError("the replication slot is read past the outbox"), self.asked
                self.news.notify_all()
                self.news.wait()
            self.resting = False

    def _pause(self) -> bool:
        """Let the slot go and wait while filling is paused and nobody asks; whether it was."""
        left = self.paused_until - time.monotonic()
        if left <= 0 or self.asked > max(self.failed, self.done):
            return False
        self.filler.close()
        with self.news:
            self.news.wait_for(lambda: self.ending or self.lent or self.asked > max(self.failed, self.done), left)
        return True

    def _fill_and_wait(self, asked: int) -> None:
        before = self.filler.brought
        whole = self.filler.fill(_STEP)
        with self.news:
            self.brought += self.filler.brought - before
            self.seen += self.filler.brought > before
            self.over = self.filler.over
            if whole:
                self.done = max(self.done, asked)
            self.news.notify_all()
            if not whole or self.asked > asked or self.ending or self.over or self.lent:
                return
        if time.monotonic() - self._checked > _CHECK_SECONDS:
            self.filler.check()
            self._checked = time.monotonic()
        if self.filler.wait(_IDLE_SECONDS, self._read_end):
            with self.news:
                self.seen += 1
                self.news.notify_all()
        self._drain()

    def _drain(self) -> None:
        try:
            os.read(self._read_end, 4096)
        except BlockingIOError:
            return

    def _fail(self, asked: int, error: Exception) -> None:
        if self.kept and not self.ending:
            _log.info("the log is not read: %s", error)
        with self.news:
            self.error, self.failed = error, asked
            self.seen += 1
            self.news.notify_all()


class Tap:
    """One user's hand at a pump; one thread, but for ``wake``."""

    def __init__(self, pumps: Pumps, pump: Pump) -> None:
        self._pumps = pumps
        self._pump: Pump | None = pump
        self._seen = pump.seen
        self._woken = self._borrowed = False

    @property
    def over(self) -> bool:
        """Whether there is nothing to read from the log, as far as is known: triggers capture."""
        return self._pump is not None and self._pump.over

    def fill(self, limit: int) -> bool:
        """Whether everything committed before this call is in the outbox; false when about ``limit`` changes came first.

        Raises what ``Filler.fill`` raises.
        """
        pump = self._pump
        assert pump is not None
        with pump.news:
            if pump.over:
                return True
            number, before = pump.ask(), pump.brought
            pump.news.wait_for(
                lambda: pump.over or max(pump.done, pump.failed) >= number or pump.brought - before >= limit
            )
            self._seen = pump.seen
            if pump.failed >= number > pump.done and pump.error is not None:
                raise pump.error
            return pump.over or pump.done >= number

    def wait(self, seconds: float) -> bool:
        """Until the log brings something since the last ``fill``, at most ``seconds``; false on time-out."""
        pump = self._pump
        assert pump is not None
        with pump.news:
            pump.rouse()
            found = pump.news.wait_for(lambda: self._woken or pump.over or pump.seen != self._seen, seconds)
            self._woken, self._seen = False, pump.seen
        return found

    def borrow(self) -> None:
        """Have the slot let go, for whoever reads it without filling; until ``give_back``. Repeatable."""
        pump = self._pump
        if pump is None or self._borrowed:
            return
        with pump.news:
            self._borrowed = True
            pump.lent += 1
            if pump.thread is not None:
                pump.rouse()
                pump.news.notify_all()
                pump.news.wait_for(lambda: pump.resting or pump.ending or pump.over)

    def give_back(self) -> None:
        """The slot may be filled from again. Repeatable."""
        pump = self._pump
        if pump is None or not self._borrowed:
            return
        with pump.news:
            self._borrowed = False
            pump.lent -= 1
            pump.news.notify_all()

    def wake(self) -> None:
        """Make a ``wait`` in another thread return at once."""
        pump = self._pump
        if pump is not None:
            with pump.news:
                self._woken = True
                pump.news.notify_all()

    def close(self) -> None:
        """Use it no more. Repeatable."""
        self.give_back()
        pump, self._pump = self._pump, None
        if pump is not None:
            self._pumps.release(pump)


class Pumps:
    """The pumps of a process, by database and topology."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pumps: dict[tuple[str, str], Pump] = {}
        self._users: dict[Pump, int] = {}
        self._ending: dict[tuple[str, str], threading.Thread] = {}

    def open(self, url: str, topology: str, *, expected: bool = True) -> Tap:
        """A tap on the pump of a topology's slot; close it. See ``Filler`` for the arguments."""
        key = (url, topology)
        with self._lock:
            pump = self._pumps.get(key)
            if pump is None or pump.over:
                after = self._ending.pop(key, None)
                pump = self._pumps[key] = Pump(url, topology, expected=expected, after=after)
            self._users[pump] = self._users.get(pump, 0) + 1
        return Tap(self, pump)

    def keep(self, url: str, topology: str) -> Tap:
        """As ``open``, and the pump works from now on, asked or not, and tries again after errors."""
        tap = self.open(url, topology)
        pump = tap._pump
        assert pump is not None
        with pump.news:
            pump.kept = True
            pump.rouse()
        return tap

    def pause(self, url: str, topology: str, seconds: float) -> None:
        """For so long, fill only what is asked for: the log stays with the slot. Repeatable."""
        with self._lock:
            pump = self._pumps.get((url, topology))
        if pump is not None:
            with pump.news:
                pump.paused_until = time.monotonic() + seconds
                pump.rouse()

    def release(self, pump: Pump) -> None:
        """One user less; with the last one the slot is let go before this returns."""
        with self._lock:
            self._users[pump] -= 1
            if self._users[pump]:
                return
            del self._users[pump]
            pump.end()
            for key in [key for key, each in self._pumps.items() if each is pump]:
                del self._pumps[key]
                if pump.thread is not None:
                    self._ending[key] = pump.thread
        if pump.thread is not None:
            pump.thread.join()


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)
