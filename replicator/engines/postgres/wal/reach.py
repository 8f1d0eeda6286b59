"""Brings the log up to this moment into the outbox, by whoever holds the slot."""

from __future__ import annotations

import time

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.engines.postgres.wal.pump import Pumps, Tap
from replicator.errors import RetryableError

_STEP = 16_384
_LOOK_SECONDS = 0.02


class Reach:
    """One user's way to a complete outbox; one thread. Where triggers capture there is nothing to bring, at no cost.

    Args:
        url: libpq URL of the captured database.
        topology: whose slot.
        pumps: where the process has its pumps.
    """

    def __init__(self, url: str, topology: str, pumps: Pumps) -> None:
        self._url, self._topology, self._pumps = url, topology, pumps
        self._place = describe(url)
        self._connection: PostgresConnection | None = None
        self._tap: Tap | None = None

    def catch_up(self, seconds: float) -> None:
        """Everything whose commit came before this call is in the outbox, and seen by the caller's next statement.

        Raises RetryableError when that takes longer than ``seconds``, and what ``Filler.fill`` raises.
        """
        deadline = time.monotonic() + seconds
        with translated(self._place):
            connection = self._open()
            # A commit waits for no disk where the application says so: the mark's takes all before it there.
            ((mark,),) = rows(connection, "wal", "mark")
        while not self._fill():
            with translated(self._place):
                if rows(connection, "wal", "has_reached", self._topology, mark)[0][0]:
                    return
            if time.monotonic() > deadline:
                raise RetryableError(
                    f"{self._place}: what is committed has not come from the log into the outbox within {seconds:.0f} s",
                    hint="see: replicator status; the one who holds the slot is behind, or there is much to read",
                )

    def _fill(self) -> bool:
        """Some of it, by this process; whether that was all. Waits a moment when another one holds the slot."""
        if self._tap is None or self._tap.over:
            self._leave()
            self._tap = self._pumps.open(self._url, self._topology, expected=False)
        try:
            return self._tap.fill(_STEP)
        except RetryableError:
            time.sleep(_LOOK_SECONDS)
            return False

    def _open(self) -> PostgresConnection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url, application_name=f"replicator capture {self._topology}")
            rows(self._connection, "wal", "commit_safely")
        return self._connection

    def _leave(self) -> None:
        tap, self._tap = self._tap, None
        if tap is not None:
            tap.close()

    def close(self) -> None:
        """Release what it uses. Repeatable; it is opened again when used again."""
        self._leave()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
