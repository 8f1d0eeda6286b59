"""Connections to SQLite files, and the one place where SQLite's errors become ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote as quote_uri

from replicator.engines.sqlite.level import newest_level, read_level
from replicator.errors import RejectedError, ReplicatorError, RetryableError, SchemaError, SetupError
from replicator.model import require_level
from replicator.sqlfiles import statement

BUSY_SECONDS = 5.0
"""How long one of our statements waits for another writer before it gives up with RetryableError."""

OLDEST_ENGINE = (3, 37, 0)
"""What our own connections need (STRICT, RETURNING, UPDATE FROM, table_list); the application's engine may be 3.8."""

_AWAY = tuple(f"SQLITE_{name}" for name in ("BUSY", "LOCKED", "CANTOPEN", "IOERR", "FULL", "PROTOCOL", "NOMEM"))
_REFUSED = tuple(f"SQLITE_{name}" for name in ("CONSTRAINT", "TOOBIG", "MISMATCH"))
_MOVED = ("no such table", "no such column", "has no column named")
_HINTS = {
    "SQLITE_BUSY": "another program holds the write lock; the work is tried again",
    "SQLITE_CANTOPEN": "check that the file and its folder exist and that this user may read and write both",
    "SQLITE_FULL": "free space on the disk (or raise pragma max_page_count): the work is tried again",
    "SQLITE_READONLY": "give this user write access to the file and its folder",
    "SQLITE_NOTADB": "the file is not a SQLite database (or is encrypted)",
    "SQLITE_CORRUPT": "run: sqlite3 FILE 'pragma integrity_check'",
}


def connect(
    path: Path, *, create: bool = False, any_thread: bool = False, upgrading: bool = False
) -> sqlite3.Connection:
    """A connection in autocommit mode: every transaction is begun and ended by name.

    Args:
        path: the database file.
        create: make the file when it is absent; else its absence raises RetryableError.
        any_thread: let threads other than this one use the connection (one at a time).
        upgrading: our tables may be of an older schema than this replicator's; else that raises SetupError, and a newer
            one's always does.
    """
    uri = f"file:{quote_uri(str(path.absolute()))}?mode={'rwc' if create else 'rw'}"
    with translated(str(path)):
        connection = sqlite3.connect(
            uri,
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            cached_statements=512,
            check_same_thread=not any_thread,
        )
        try:
            require_level(str(path), read_level(connection), newest_level(), upgrading=upgrading)
        except BaseException:
            connection.close()
            raise
    return connection


def spare_the_disk(connection: sqlite3.Connection) -> str:
    """Let commits of ours wait for no disk where that loses nothing but time (WAL); returns the journal mode.

    For bookkeeping at a source and for installing; never for a target, whose commits are acknowledged.
    """
    (mode,) = connection.execute(statement("sql/sqlite/catalogue.sql", "journal_mode")).fetchone()
    if mode == "wal":
        connection.execute(statement("sql/sqlite/transactions.sql", "no_sync_at_commit"))
    return str(mode)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turns SQLite's exceptions into the error tree; ``place`` says where it happened."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, place) from error


def translate(error: sqlite3.Error, place: str) -> ReplicatorError:
    """The error of our tree that ``error`` means."""
    name = getattr(error, "sqlite_errorname", None) or ""
    hint = next((text for start, text in _HINTS.items() if name.startswith(start)), "")
    message = f"{place}: {error}"
    if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)) or name.startswith(_REFUSED):
        return RejectedError(message, sqlstate=name, detail=str(error), hint=hint)
    if name.startswith(_AWAY):
        return RetryableError(message, hint=hint)
    if "no such table: replicator_" in message:
        return SetupError(f"{place}: not installed", hint="run: replicator install")
    if any(word in message for word in _MOVED):
        return SchemaError(message, hint=hint or "run: replicator schema diff")
    return SetupError(message, hint=hint or "run: replicator check")


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """One transaction begun with ``begin``: commits at the end, rolls back on any error."""
    connection.execute(begin)
    try:
        yield
        connection.commit()
    except BaseException:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.rollback()
        raise
