"""Gives the space of an outbox back that grew while nothing could be vacuumed."""

from __future__ import annotations

import psycopg

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection

_SQL = "sql/postgres/purge.sql"
_WORTH_BYTES = 64 << 20
"""An outbox below this size is left to autovacuum."""


def give_back(connection: PostgresConnection, *, worth: int = _WORTH_BYTES) -> bool:
    """Empty the outbox when it is larger than ``worth`` bytes and every link has passed every row; whether it was done.

    Never waits for a lock and holds its own for a tenth of a second at most; when somebody is in the way, the next time is
    soon. Outside of a transaction. A role that may not truncate leaves it.
    """
    if int(str(rows(connection, "purge", "size")[0][0])) < worth:
        return False
    if not rows(connection, "purge", "all_passed")[0][0]:
        return False
    condition = sqlfiles.statement(_SQL, "all_passed").strip().rstrip(";")
    truncate = sqlfiles.render(sqlfiles.statement(_SQL, "truncate_passed"), fragments={"all_passed": condition})
    try:
        with connection.transaction():
            rows(connection, "purge", "hurry")
            connection.execute(sqlfiles.statement(_SQL, "lock_outbox").encode())
            connection.execute(truncate.encode())
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege):
        return False
    return int(str(rows(connection, "purge", "size")[0][0])) < worth
