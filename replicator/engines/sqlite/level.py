"""Which schema our tables in a SQLite file are of."""

from __future__ import annotations

import sqlite3

from replicator.sqlfiles import names, statement

_SQL = "sql/sqlite/catalogue.sql"


def newest_level() -> int:
    """The number of the last migration this replicator knows."""
    return max(int(name.split("_", 1)[0]) for name in names("sql/sqlite/migrations"))


def read_level(connection: sqlite3.Connection) -> int | None:
    """The last migration that ran in a file; ``None`` where nothing of ours is."""
    if connection.execute(statement(_SQL, "has_migrations")).fetchone() is None:
        return None
    (level,) = connection.execute(statement(_SQL, "read_level")).fetchone()
    return int(level)
