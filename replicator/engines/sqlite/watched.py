"""An open SQLite file that a source reads: its connection, how its changes are waited for, and what replaces it noticed."""

from __future__ import annotations

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from replicator.engines.sqlite.base import add_key_function
from replicator.engines.sqlite.connection import connect, spare_the_disk, transaction, translate, translated
from replicator.engines.sqlite.watch import FileWatch, Watcher
from replicator.errors import RetryableError, SetupError
from replicator.model import Position
from replicator.sqlfiles import statement

_SQL = "sql/sqlite/source.sql"
_CATALOGUE = "sql/sqlite/catalogue.sql"
_TRANSACTIONS = "sql/sqlite/transactions.sql"
_QUIET_SECONDS = 0.05


class WatchedFile(ABC):
    """One file, open and watched; what is to be written to it is put off to quiet moments.

    Args:
        path: the database file.
        watcher: wakes waiting sources; give all sources of a process the same one. Made here when absent.
        acknowledge_seconds: how long what is unsaid may stay so while the file is busy.
    """

    def __init__(self, path: str | Path, watcher: Watcher | None, acknowledge_seconds: float) -> None:
        self._path, self._place = Path(path), str(path)
        self._watcher = watcher
        self._own_watcher: Watcher | None = None
        self._watch = FileWatch(self._path, self._probe)
        self._opened: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._schema_version: int | None = None
        self._data_version: int | None = None
        self._acknowledge_seconds = acknowledge_seconds
        self._acknowledged_at = -float("inf")
        self._unsaid: Position | None = None
        self._prunable = False
        self._freed: tuple[object, ...] | None = None

    @abstractmethod
    def _say(self) -> None:
        """Write what is unsaid, and prune."""

    def _notice_passed(self) -> None:
        """Have the outbox pruned when others, such as the answer from the centre, let more go than last time."""
        before = self._freed
        self._read_passed()
        self._prunable = self._prunable or before != self._freed

    def _read_passed(self) -> None:
        with translated(self._place):
            self._freed = self._connection.execute(statement(_SQL, "read_passed")).fetchone()

    # --- waiting --------------------------------------------------------------------------------------------------

    def wait(self, timeout: float) -> bool:
        """See ports.Source. In quiet moments acknowledgements put off are written, and the outbox is pruned."""
        self._watching().add(self._watch)
        deadline = time.monotonic() + timeout
        self._notice_passed()
        while self._unsaid is not None or self._prunable:
            if self._sleep(min(_QUIET_SECONDS, timeout)):
                return True
            if time.monotonic() > deadline:
                return False
            due = self._acknowledged_at + (0.0 if self._prunable else self._acknowledge_seconds)
            if time.monotonic() >= due:
                self._say()
        return self._sleep(max(deadline - time.monotonic(), 0.0))

    def _sleep(self, seconds: float) -> bool:
        with translated(self._place):
            # The watcher's thread, which asks for all files, must never wait for one that is locked.
            self._connection.execute(statement(_TRANSACTIONS, "busy_never"))
            try:
                return self._watch.wait(seconds, self._data_version)
            finally:
                self._connection.execute(statement(_TRANSACTIONS, "busy_as_ever"))

    def wake(self) -> None:
        """See ports.Source."""
        self._watch.wake()

    def wake_others(self) -> None:
        """See ports.Source. A row comes and goes in one transaction: the commit is what the others' watch sees."""
        with translated(self._place), transaction(self._connection, statement(_TRANSACTIONS, "begin_write")):
            for name in ("touch", "untouch"):
                self._connection.execute(statement(_SQL, name))

    def close(self) -> None:
        """Write what is unsaid, release the connection and the watch. Repeatable."""
        if self._watcher is not None:
            self._watcher.forget(self._watch)
        if self._opened is not None:
            with suppress(RetryableError, SetupError):
                self._check_file()
                self._say()
            self._opened.close()
            self._opened = None
            self._schema_version = self._data_version = None
        if self._own_watcher is not None:
            self._own_watcher.close()
            self._watcher = self._own_watcher = None

    # --- connection -----------------------------------------------------------------------------------------------

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            # The watcher's thread asks for data_version while this source's own thread waits; never both at once.
            self._file = self._find_file()  # before it is opened: what replaces it from here on is noticed
            self._opened = connect(self._path, any_thread=True)
            spare_the_disk(self._opened)
            add_key_function(self._opened)
        return self._opened

    def _find_file(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_dev, found.st_ino
        return None

    def _check_file(self) -> None:
        """Raises RetryableError when another file, or none, has the open file's name: nobody writes to ours any more."""
        if self._find_file() != self._file:
            raise RetryableError(f"{self._place}: the file was moved or replaced while it was open; it is opened anew")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with transaction(self._connection, statement(_TRANSACTIONS, "begin_read")):
            yield

    def _probe(self) -> int | None:
        """The file's data_version; the last known one while a writer keeps readers out (it has not committed yet)."""
        connection = self._connection
        self._check_file()
        try:
            (version,) = connection.execute(statement(_CATALOGUE, "data_version")).fetchone()
        except sqlite3.OperationalError as error:
            if isinstance(translate(error, self._place), RetryableError):
                return self._data_version
            raise
        return int(version)

    def _watching(self) -> Watcher:
        if self._watcher is None:
            self._watcher = self._own_watcher = Watcher()
        return self._watcher
