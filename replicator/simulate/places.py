"""Throw-away databases as their applications use them: by plain drivers and SQL, with nothing of the replicator between.

Clocks. A place's wall clock cannot be set, and need not be: what a change is stamped with is the highest of the wall clock,
what the place stamped last, and what it has ``seen`` from elsewhere, plus one. A history plays in years to come, so the
wall clock of the machine never counts, and a transaction raises ``seen`` to the time the place's clock is to show and puts it
back at its end. Every line of the triggers and engines is the real one, and a history gives the same times on every run.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from replicator.model import Engine
from replicator.simulate.schema import Column, View
from replicator.simulate.values import Value
from replicator.sqlfiles import quote, render, statement

Row = tuple[object, ...]


class RefusedError(Exception):
    """The database refused an application's statement or commit."""


class Place(Protocol):
    """One throw-away database and its application's connection."""

    engine: Engine
    url: str

    def reset(self) -> None:
        """Back to the state the history starts from; nobody else may be connected."""

    def back_up(self) -> None:
        """Copy what is committed; nobody else may be connected."""

    def restore(self) -> None:
        """Put the copy in its place; nobody else may be connected."""

    @contextmanager
    def transaction(self, time: int) -> Iterator[None]:
        """An application's transaction while the place's clock shows ``time`` (microseconds since 1970)."""

    def run(self, sql: str, values: Sequence[Value]) -> int:
        """A statement inside a transaction; the rows it changed. Raises RefusedError, and nothing of it is done then."""

    def rows(self, sql: str) -> list[Row]:
        """What a query gives."""

    def close(self) -> None:
        """Disconnect the application."""


def sql(view: View, name: str, **fragments: str) -> str:
    """A statement of the engine's simulate.sql on a table."""
    text = statement(f"sql/{view.engine}/simulate.sql", name)
    return render(text, identifiers={"schema": view.name.schema, "table": view.name.name}, fragments=fragments)


def named(columns: Sequence[Column]) -> str:
    """Columns as a list in SQL."""
    return ", ".join(quote(column.name) for column in columns)


def marks(engine: Engine, count: int, start: int = 1) -> list[str]:
    """Placeholders."""
    return ["?"] * count if engine is Engine.SQLITE else [f"${start + place}" for place in range(count)]


def assigned(columns: Sequence[Column], engine: Engine, joint: str, start: int = 1) -> str:
    """``column = placeholder`` for every column."""
    pairs = zip(columns, marks(engine, len(columns), start), strict=True)
    return joint.join(f"{quote(column.name)} = {mark}" for column, mark in pairs)


class SqlitePlace:
    """A SQLite file. ``path`` is replaced by ``template`` for every history."""

    engine = Engine.SQLITE

    def __init__(self, path: Path) -> None:
        self.path, self.template = path, path.with_suffix(".template")
        self.copy = path.with_suffix(".copy")
        self.url = f"sqlite:///{path}"
        self._opened: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The application's connection."""
        if self._opened is None:
            self._opened = sqlite3.connect(self.path, isolation_level=None, timeout=5)
            self._opened.executescript(_sql("sqlite", "settle"))
        return self._opened

    def make(self, script: str) -> None:
        """Make the file with an application's tables in it."""
        self.connection.executescript(script)

    def freeze(self) -> None:
        """What is there now is what histories start from."""
        self.close()
        shutil.copyfile(self.path, self.template)

    def reset(self) -> None:
        """See Place."""
        self._put_back(self.template)

    def back_up(self) -> None:
        """Copy the file, with what was committed."""
        self.copy.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.copy)) as copy:
            self.connection.backup(copy)
            copy.execute(_sql("sqlite", "end_leases"))
            copy.commit()

    def restore(self) -> None:
        """Replace the file by its copy; nobody may be connected."""
        self._put_back(self.copy)

    def _put_back(self, source: Path) -> None:
        self.close()
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").unlink()
        fresh = self.path.with_suffix(".fresh")
        shutil.copyfile(source, fresh)
        fresh.replace(self.path)  # a new file, as a restore makes one

    @contextmanager
    def transaction(self, time: int) -> Iterator[None]:
        """See Place."""
        run = self.connection.execute
        run(_sql("sqlite", "open_transaction"))
        try:
            ((seen,),) = run(_sql("sqlite", "read_seen")).fetchall()
            run(_sql("sqlite", "write_seen"), (max(int(seen), time - 1),))
            yield
            run(_sql("sqlite", "write_seen"), (seen,))
            self.connection.commit()
        except sqlite3.IntegrityError as error:
            raise RefusedError(str(error)) from error
        finally:
            if self.connection.in_transaction:
                self.connection.rollback()

    def run(self, sql: str, values: Sequence[Value]) -> int:
        """See Place."""
        run = self.connection.execute
        run(_sql("sqlite", "keep_place"))
        try:
            return run(sql, values).rowcount
        except (sqlite3.IntegrityError, sqlite3.DataError) as error:
            run(_sql("sqlite", "back_to_place"))
            raise RefusedError(str(error)) from error
        finally:
            run(_sql("sqlite", "leave_place"))

    def rows(self, sql: str) -> list[Row]:
        """See Place."""
        return self.connection.execute(sql).fetchall()

    def close(self) -> None:
        """See Place."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


class PostgresPlace:
    """A database on a PostgreSQL server; made anew from a template database for every history."""

    engine = Engine.POSTGRES

    def __init__(self, server: str, name: str) -> None:
        self._server, self._name = server, name
        self.url = url_of(server, name)
        self._opened: psycopg.Connection | None = None
        self._slots: list[str] = []
        self.execute_at_server("drop_database", self._name)
        self.execute_at_server("create_database", self._name, "template0")

    @property
    def connection(self) -> psycopg.Connection:
        """The application's connection."""
        if self._opened is None:
            self._opened = psycopg.connect(self.url, autocommit=True, cursor_factory=psycopg.RawCursor)
            self._opened.execute(_sql("postgres", "settle").encode())
        return self._opened

    def execute_at_server(self, name: str, *names: str) -> None:
        """Make or drop databases."""
        found = dict(zip(("database", "template"), names, strict=False))
        text = render(statement("sql/postgres/simulate.sql", name), identifiers=found)
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(text.encode())

    def make(self, script: str) -> None:
        """Make an application's tables."""
        if script.strip():
            self.connection.execute(script.encode())

    def freeze(self) -> None:
        """What is there now is what histories start from."""
        self._slots = [str(name) for (name,) in self.rows(_sql("postgres", "read_slots"))]
        self.close()
        self.execute_at_server("drop_database", f"{self._name}_0")
        self.execute_at_server("create_database", f"{self._name}_0", self._name)

    def reset(self) -> None:
        """See Place."""
        self.close()
        self.execute_at_server("drop_database", self._name)
        self.execute_at_server("create_database", self._name, f"{self._name}_0")
        for name in self._slots:
            self.connection.execute(_sql("postgres", "make_slot").encode(), (name,))
            self.connection.execute(_sql("postgres", "start_slot").encode())

    def back_up(self) -> None:
        """See Place."""
        self.close()
        self.execute_at_server("drop_database", f"{self._name}_1")
        self.execute_at_server("create_database", f"{self._name}_1", self._name)

    def restore(self) -> None:
        """See Place. Transaction ids go on: the copy looks like any other past of the database."""
        self.close()
        self.execute_at_server("drop_database", self._name)
        self.execute_at_server("create_database", self._name, f"{self._name}_1")

    @contextmanager
    def transaction(self, time: int) -> Iterator[None]:
        """See Place."""
        run = self.connection.execute
        run(_sql("postgres", "open_transaction").encode())
        try:
            ((seen,),) = run(_sql("postgres", "read_seen").encode()).fetchall()
            run(_sql("postgres", "write_seen").encode(), (max(int(seen), time - 1),))
            yield
            run(_sql("postgres", "write_seen").encode(), (seen,))
            self.connection.commit()
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            raise RefusedError(str(error)) from error
        finally:
            self.connection.rollback()

    def run(self, sql: str, values: Sequence[Value]) -> int:
        """See Place."""
        run = self.connection.execute
        run(_sql("postgres", "keep_place").encode())
        try:
            return run(sql.encode(), values).rowcount
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            run(_sql("postgres", "back_to_place").encode())
            raise RefusedError(str(error)) from error
        finally:
            run(_sql("postgres", "leave_place").encode())

    def rows(self, sql: str) -> list[Row]:
        """See Place."""
        return self.connection.execute(sql.encode()).fetchall()

    def close(self) -> None:
        """See Place."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def drop(self) -> None:
        """Remove both databases from the server."""
        self.close()
        for name in (self._name, f"{self._name}_0", f"{self._name}_1"):
            self.execute_at_server("drop_database", name)


def url_of(server: str, database: str) -> str:
    """The URL of another database on a server."""
    head, _, rest = server.partition("://")
    authority, _, tail = rest.partition("/")
    _, question, options = tail.partition("?")
    found = f"{head}://{authority}/{database}{question}{options}"
    assert conninfo_to_dict(make_conninfo(found))["dbname"] == database
    return found


def _sql(engine: str, name: str) -> str:
    return statement(f"sql/{engine}/simulate.sql", name)
