"""Meets ports.Orders: the backfills of all links that end at a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from replicator.engines.sqlite.connection import connect, translated
from replicator.model import Backfill, backfill_of
from replicator.sqlfiles import statement

_SQL = "sql/sqlite/orders.sql"


class SqliteOrders:
    """One file, looked at for its backfills; by any thread, one at a time.

    Args:
        path: the database file.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._opened: sqlite3.Connection | None = None

    def list_backfills(self, topology: str, *, unfinished: bool = False) -> Sequence[Backfill]:
        """See ports.Orders."""
        with translated(str(self._path)):
            if self._opened is None:
                self._opened = connect(self._path, any_thread=True)
            if not self._opened.execute(statement(_SQL, "has_orders")).fetchone()[0]:
                return []
            found = self._opened.execute(statement(_SQL, "list_orders"), (topology, unfinished)).fetchall()
        return [backfill_of(topology, row) for row in found]

    def close(self) -> None:
        """See ports.Orders."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
