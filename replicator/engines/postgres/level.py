"""Which schema our tables in a PostgreSQL database are of."""

from __future__ import annotations

import psycopg
from psycopg.rows import TupleRow

from replicator import sqlfiles

_SESSION = "sql/postgres/session.sql"


def newest_level() -> int:
    """The number of the last migration this replicator knows."""
    return max(int(name.split("_", 1)[0]) for name in sqlfiles.names("sql/postgres/migrations"))


def read_level(connection: psycopg.Connection[TupleRow]) -> int | None:
    """The last migration that ran in a database; ``None`` where nothing of ours is, or where the role may not look."""
    readable = connection.execute(sqlfiles.statement(_SESSION, "has_migrations").encode()).fetchone()
    if readable is None or not readable[0]:
        return None
    row = connection.execute(sqlfiles.statement(_SESSION, "read_level").encode()).fetchone()
    return int(row[0]) if row else 0
