"""Wakes sources when their SQLite file changes: one thread for all files of a process.

The file system's word (inotify, where the platform has it) is only a hint to look; the truth is ``data_version``, asked
on the waiting source's own connection and at least once a second. Own commits do not move it. watchdog's observer takes
two threads per folder and holds events back for half a second, so its inotify is not used.
"""

from __future__ import annotations

import ctypes
import os
import select
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from replicator.errors import ReplicatorError

Probe = Callable[[], int | None]
"""Returns the file's data_version; may raise when the file is away."""

_TRUTH_SECONDS = 1.0
_POLL_SECONDS = 0.05
"""How often files are asked where nothing tells of changes (no inotify)."""
_HOT_SECONDS, _HOT_PAUSE = 0.2, 0.002
"""An event may come before the commit is visible (between a write and its fsync): look again, often, for a while."""
_BREATH_SECONDS = 0.001
"""A pause after events, so that a busy writer's thousands of writes cost one look per millisecond."""

_MODIFY, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x80, 0x100, 0x200
_SUFFIXES = ("-wal", "-journal", "")


class FileWatch:
    """One source's eye on its file. ``wait`` is for the source's thread, ``wake`` for any.

    Args:
        path: the database file.
        probe: asks for its data_version; called from ``wait``, and from the watcher's thread while ``wait`` sleeps.
    """

    def __init__(self, path: Path, probe: Probe) -> None:
        self.path = path.absolute().resolve()
        self.hot_until = 0.0
        self._probe = probe
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._known: int | None = None
        self._waiting = False

    def wait(self, timeout: float, known: int | None) -> bool:
        """Sleep until data_version is not ``known`` any more; false on time-out."""
        with self._lock:
            self._known, self._waiting = known, True
        try:
            if not self.look() and timeout > 0:
                self._event.wait(timeout)
        finally:
            with self._lock:
                self._waiting = False
        woken = self._event.is_set()
        self._event.clear()
        return woken

    def look(self) -> bool:
        """Whether the file has moved; asks only while the source waits, when its connection is free."""
        with self._lock:
            if self._waiting and not self._event.is_set():
                try:
                    moved = self._probe() != self._known
                except (sqlite3.Error, ReplicatorError):
                    moved = True  # the file is away or broken: the source's own next read says so properly
                if moved:
                    self._event.set()
            return self._event.is_set()

    def wake(self) -> None:
        """Make a ``wait`` return at once."""
        self._event.set()


class Watcher:
    """The thread that watches. Starts with the first file, ends when closed; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[str, list[FileWatch]] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        self._notices: Notices | None = None
        self._wake_read, self._wake_write = -1, -1

    def add(self, watch: FileWatch) -> None:
        """Begin to watch a file. Repeatable."""
        with self._lock:
            watches = self._watches.setdefault(str(watch.path), [])
            if watch in watches:
                return
            if self._thread is None:
                self._start()
            if self._notices is not None:
                self._notices.add(str(watch.path.parent))
            watches.append(watch)

    def forget(self, watch: FileWatch) -> None:
        """Stop watching for one source."""
        with self._lock:
            rest = [each for each in self._watches.pop(str(watch.path), []) if each is not watch]
            if rest:
                self._watches[str(watch.path)] = rest

    def close(self) -> None:
        """End the thread. Repeatable; a later ``add`` starts it again."""
        with self._lock:
            thread, self._thread, self._closing = self._thread, None, True
            self._watches.clear()
            if thread is not None:
                os.write(self._wake_write, b"x")
        if thread is not None:
            thread.join()
            for descriptor in (self._wake_read, self._wake_write):
                os.close(descriptor)
            if self._notices is not None:
                self._notices.close()
                self._notices = None

    def _start(self) -> None:
        self._closing = False
        self._wake_read, self._wake_write = os.pipe()
        self._notices = Notices.open()
        self._thread = threading.Thread(target=self._run, name="sqlite-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        descriptors = [self._wake_read] + ([self._notices.descriptor] if self._notices else [])
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        every = _TRUTH_SECONDS if self._notices else _POLL_SECONDS
        next_truth = time.monotonic() + every
        hot: list[FileWatch] = []
        while not self._closing:
            pause = _HOT_PAUSE if hot else max(next_truth - time.monotonic(), 0.0)
            ready = poll.poll(pause * 1000)
            now = time.monotonic()
            touched = list(self._touched()) if ready and not self._closing else []
            for watch in touched:
                watch.hot_until = now + _HOT_SECONDS
            if now >= next_truth:
                touched = self._all()
                next_truth = now + every
            hot = [w for w in {*hot, *touched} if not w.look() and w.hot_until > now]
            if ready:
                time.sleep(_BREATH_SECONDS)

    def _all(self) -> list[FileWatch]:
        with self._lock:
            return [watch for watches in self._watches.values() for watch in watches]

    def _touched(self) -> Iterator[FileWatch]:
        if self._notices is None:
            return
        paths = {path for event in self._notices.read() for path in _files_of(event)}
        with self._lock:
            found = [watch for path in paths for watch in self._watches.get(path, ())]
        yield from found


def _files_of(event: str) -> Iterator[str]:
    """The database file a changed name may belong to."""
    for suffix in _SUFFIXES:
        if event.endswith(suffix):
            yield event[: len(event) - len(suffix)]


class Notices:
    """Linux's inotify by its system calls: which names changed in the watched folders."""

    def __init__(self, libc: ctypes.CDLL, descriptor: int) -> None:
        self._libc = libc
        self.descriptor = descriptor
        self._folders: dict[int, str] = {}

    @classmethod
    def open(cls) -> Notices | None:
        """``None`` where the platform has no inotify or gives no more of it."""
        if not sys.platform.startswith("linux"):
            return None
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            return cls(libc, descriptor) if descriptor >= 0 else None
        return None

    def add(self, folder: str) -> None:
        """Watch a folder. A folder that cannot be watched is left to the look once a second."""
        if folder not in self._folders.values():
            mask = _MODIFY | _MOVED_TO | _CREATE | _DELETE
            number = self._libc.inotify_add_watch(self.descriptor, os.fsencode(folder), mask)
            if number >= 0:
                self._folders[number] = folder

    def read(self) -> set[str]:
        """Full names of what changed since the last call."""
        try:
            raw = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return set()
        names, place = set(), 0
        while place < len(raw):
            number, _, _, length = struct.unpack_from("iIII", raw, place)
            name = raw[place + 16 : place + 16 + length].rstrip(b"\0")
            place += 16 + length
            if number in self._folders:
                names.add(str(Path(self._folders[number], os.fsdecode(name))))
        return names

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)
