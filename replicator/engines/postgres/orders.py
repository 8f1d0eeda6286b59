"""Meets ports.Orders: the backfills of all links that end at a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.model import Backfill, backfill_of


class PostgresOrders:
    """One database, looked at for its backfills.

    Args:
        url: libpq URL of the database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: PostgresConnection | None = None

    def list_backfills(self, topology: str, *, unfinished: bool = False) -> Sequence[Backfill]:
        """See ports.Orders."""
        with translated(describe(self._url)):
            if self._opened is None or self._opened.closed:
                self._opened = connect(self._url, application_name=f"replicator look {topology}")
            if not rows(self._opened, "orders", "has_orders")[0][0]:
                return []
            return [
                backfill_of(topology, row) for row in rows(self._opened, "orders", "list_orders", topology, unfinished)
            ]

    def close(self) -> None:
        """See ports.Orders."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
