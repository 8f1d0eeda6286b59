"""Meets ports.Outbox for PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from replicator import sqlfiles
from replicator.engines.postgres.capture import function_name
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.engines.postgres.level import read_level
from replicator.engines.postgres.reading import run
from replicator.errors import SetupError
from replicator.model import OutboxFacts, TableName

_SQL = "sql/postgres/purge.sql"
_COUNTED = 1 << 30
"""A larger outbox is not counted row by row."""
_BEHIND = 2_000_000
"""Changes that wait are counted up to here; of more, the whole outbox is taken to wait."""


class PostgresOutbox:
    """One database's outbox, for one topology.

    Args:
        url: libpq URL.
        topology: whose capture and links it is about.
    """

    def __init__(self, url: str, topology: str) -> None:
        self._url, self._topology = url, topology
        self._place = describe(url)
        self._opened: PostgresConnection | None = None

    def measure(self, *, count: bool = False) -> OutboxFacts | None:
        """See ports.Outbox. Free space is known where the server is reached through a socket of this machine."""
        with translated(self._place):
            connection = self._connection
            if read_level(connection) is None:
                return None
            (found,) = rows(connection, "purge", "measure", self._topology)
            counted: Sequence[object] = rows(connection, "purge", "count_changes", _COUNTED)[0] if count else (None, 0)
            waiting, heard_at = self._waiting() if count else (None, 0)
        size, top, clock, sampled_at, sampled, stopped_at, resumed_at = (int(str(n or 0)) for n in found[:7])
        return OutboxFacts(
            size, top, clock, sampled_at, sampled, self._free(), None if counted[0] is None else int(str(counted[0])),
            int(str(counted[1])), stopped_at, resumed_at, str(found[7] or ""), waiting, heard_at,
        )  # fmt: skip

    def _waiting(self) -> tuple[int | None, int]:
        """Bytes of what is not delivered yet, ``None`` where that is too much to count; and who was heard of longest ago."""
        behind, each, heard_at = rows(self._connection, "purge", "read_waiting", self._topology, _BEHIND)[0]
        known = int(str(behind)) < _BEHIND
        return int(str(behind)) * int(str(each)) if known else None, int(str(heard_at or 0))

    def _free(self) -> int | None:
        if not self._connection.info.host.startswith("/"):
            return None
        found = rows(self._connection, "purge", "data_directory")
        folder = str(found[0][0] or "") if found else ""
        if not folder or not Path(folder).is_dir():
            return None
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize

    def sample(self) -> None:
        """See ports.Outbox."""
        with translated(self._place):
            if run(self._connection, "take_sample", file="purge"):
                run(self._connection, "forget_samples", file="purge")

    def stop_capture(self, reason: str) -> str:
        """See ports.Outbox. The capturing functions are emptied; no user's table is touched.

        Raises SetupError where changes come from the log: what is not read of it stays on the server's disk all the same.
        """
        with translated(self._place), self._connection.transaction():
            if rows(self._connection, "purge", "reads_the_log", self._topology)[0][0]:
                raise SetupError(
                    f"{self._place}: changes come from the log, which the slot keeps",
                    hint="set max_slot_wal_keep_size on the server; or run: replicator uninstall",
                )
            tables = rows(self._connection, "install", "relations", self._topology)
            names = [function_name(self._topology, TableName(str(row[1]), str(row[2]))) for row in tables]
            for (name,) in rows(self._connection, "purge", "capture_functions", self._topology, names):
                for step in ("silence", "mark_silent"):
                    text = sqlfiles.render(sqlfiles.statement(_SQL, step), identifiers={"function": str(name)})
                    self._connection.execute(text.encode(), prepare=False)
            run(self._connection, "record_stop", self._topology, reason, file="purge")
        return ""

    def expire_slowest(self, silent_seconds: float) -> str:
        """See ports.Outbox."""
        with translated(self._place):
            found = rows(self._connection, "purge", "expire_slowest", self._topology, silent_seconds)
        return str(found[0][0]) if found else ""

    def forget_stop(self, resumed_at: int) -> None:
        """See ports.Outbox."""
        with translated(self._place):
            run(self._connection, "forget_stop", self._topology, resumed_at, file="purge")

    def close(self) -> None:
        """See ports.Outbox."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _connection(self) -> PostgresConnection:
        if self._opened is None or self._opened.closed:
            self._opened = connect(self._url, application_name=f"replicator outbox {self._topology}")
        return self._opened
