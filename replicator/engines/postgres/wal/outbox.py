"""Meets ports.Outbox for a PostgreSQL site that is captured from the log."""

from __future__ import annotations

from replicator.engines.postgres.outbox import PostgresOutbox
from replicator.engines.postgres.wal.pump import Pumps

_PAUSE_SECONDS = 120.0
"""Longer than it takes until somebody looks again."""


class PostgresWalOutbox(PostgresOutbox):
    """One site's outbox, which this process fills from the log.

    Args:
        url, topology: see ``PostgresOutbox``.
        pumps: the process's.
    """

    def __init__(self, url: str, topology: str, pumps: Pumps) -> None:
        super().__init__(url, topology)
        self._url_filled, self._pumps = url, pumps

    def stop_capture(self, reason: str) -> str:
        """See ports.Outbox. Nothing is lost yet: the log stays with the slot, as long as the server's limit for it allows."""
        del reason
        self._pumps.pause(self._url_filled, self._topology, _PAUSE_SECONDS)
        return (
            "it takes no more from the log while its link is away; max_slot_wal_keep_size of the server says how much log "
            "waits before the slot is lost, and the site must be resynced"
        )
