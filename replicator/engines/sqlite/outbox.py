"""Meets ports.Outbox for a SQLite file."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from replicator.engines.sqlite.connection import connect, spare_the_disk, transaction, translated
from replicator.engines.sqlite.level import read_level
from replicator.engines.sqlite.names import trigger_prefix
from replicator.errors import RetryableError, SetupError
from replicator.model import LinkName, OutboxFacts
from replicator.sqlfiles import render, statement

_SQL = "sql/sqlite/purge.sql"
_TRANSACTIONS = "sql/sqlite/transactions.sql"
_DAY = 86_400_000_000


class SqliteOutbox:
    """One file's outbox, for one topology.

    Args:
        path: the database file.
        topology: whose capture and links it is about.
    """

    def __init__(self, path: str | Path, topology: str) -> None:
        self._path, self._topology = Path(path), topology
        self._place = str(path)
        self._opened: sqlite3.Connection | None = None

    def measure(self, *, count: bool = False) -> OutboxFacts | None:
        """See ports.Outbox. ``bytes``: numbers in use times what the newest rows take. The file's unused pages are free."""
        clock = _now()
        with translated(self._place):
            if read_level(self._connection) is None:
                return None
            found = self._connection.execute(statement(_SQL, "measure"), (self._topology, clock - _DAY)).fetchone()
            counted = self._connection.execute(statement(_SQL, "count_changes")).fetchone() if count else (None, 0)
            behind = (
                self._connection.execute(statement(_SQL, "read_waiting"), (self._topology,)).fetchone()
                if count
                else None
            )
            (unused,) = self._connection.execute(statement(_SQL, "free_pages")).fetchone()
        low, top, each, sampled_at, sampled, stopped_at, resumed_at, reason = found
        disk = os.statvfs(self._path.absolute().parent)
        return OutboxFacts(
            int(((top or 0) - (low or 0) + 1) * (each or 0)), top or 0, clock, sampled_at or 0, sampled or 0,
            disk.f_bavail * disk.f_frsize + unused, counted[0], counted[1], stopped_at or 0, resumed_at or 0, reason or "",
            int(behind[0] * (each or 0)) if behind else None, (behind[1] or 0) if behind else 0,
        )  # fmt: skip

    def sample(self) -> None:
        """See ports.Outbox. A file that is being written to has its sample taken later."""
        now = _now()
        with translated(self._place):
            (wanted,) = self._connection.execute(statement(_SQL, "wants_sample"), (now,)).fetchone()
            if not wanted:
                return
            self._connection.execute(statement(_TRANSACTIONS, "busy_briefly"))
        try:
            with suppress(RetryableError), translated(self._place), self._writing():
                self._connection.execute(statement(_SQL, "take_sample"), (now,))
                self._connection.execute(statement(_SQL, "forget_samples"), (now,))
        finally:
            with translated(self._place):
                self._connection.execute(statement(_TRANSACTIONS, "busy_as_ever"))

    def stop_capture(self, reason: str) -> str:
        """See ports.Outbox. The triggers go; statements that an application has prepared are prepared again by SQLite."""
        with translated(self._place), self._writing():
            prefix = trigger_prefix(self._topology)
            for (name,) in self._connection.execute(statement(_SQL, "list_captures"), (prefix,)).fetchall():
                self._connection.execute(render(statement(_SQL, "drop_capture"), identifiers={"trigger": name}))
            self._connection.execute(statement(_SQL, "record_stop"), (self._topology, reason, _now()))
        return ""

    def expire_slowest(self, silent_seconds: float) -> str:
        """See ports.Outbox."""
        with translated(self._place), self._writing():
            days = silent_seconds / 86_400
            found = self._connection.execute(statement(_SQL, "expire_slowest"), (self._topology, days)).fetchall()
        return str(found[0][0]) if found else ""

    def forget_stop(self, resumed_at: int) -> None:
        """See ports.Outbox."""
        with translated(self._place), self._writing():
            self._connection.execute(statement(_SQL, "forget_stop"), (self._topology, resumed_at))

    def close(self) -> None:
        """See ports.Outbox."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _writing(self) -> AbstractContextManager[None]:
        return transaction(self._connection, statement(_TRANSACTIONS, "begin_write"))

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = connect(self._path, any_thread=True)
            spare_the_disk(self._opened)
        return self._opened


def _now() -> int:
    return time.time_ns() // 1000


def require_captured(connection: sqlite3.Connection, place: str, link: LinkName) -> None:
    """Raises SetupError when a link's tables are not captured because the outbox was full."""
    found = connection.execute(statement(_SQL, "read_stop"), (link.topology,)).fetchone()
    if found is not None and not found[1]:
        raise SetupError(
            f"{place}: capture is stopped since the outbox was full: {found[2]}",
            hint=f"make room, then run: replicator install --site {link.site}, then: replicator resync --site {link.site}",
        )
