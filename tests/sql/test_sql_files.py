"""Every shipped SQL file is valid as it stands, unrendered, and is compiled by the engine it is written for.

A file's unit is its named block, else the whole file. A block whose first word starts no statement is an expression (a
form, a digest), and is compiled as ``select <expression>``.

PostgreSQL: pglast (PostgreSQL's own parser) parses every block; plpgsql bodies go through ``parse_plpgsql``, which also
parses the statements inside, and SQL function bodies through ``parse_sql``. ``parse_plpgsql`` knows only the schemas
pg_catalog and public, so it is given a copy with our schema's name replaced.

SQLite: each statement is compiled with ``explain`` in a memory database that holds our migrations. What a template
leaves open is made up, for markers only: a missing table, column, schema or conflict target spelled ``__x__`` is
created and the statement tried again. A made-up table may stand for one of ours or the user's: it has a column for
every marker of the file, and those of our own tables that it is asked for. Anything else that is missing fails: our
tables come from migrations or from ``create`` statements in sql/sqlite. A create statement is executed besides; after a
trigger its table is written to with ``explain``, because SQLite looks into a trigger's body only when it fires. A piece
of a trigger (it says ``new.`` or ``old.``) is compiled inside one. A file that calls functions registered by our own
connections says so: ``-- function: replicator_digest/2`` (-1: any number of values).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pglast
import pytest
from pglast import ast as pg

from replicator import sqlfiles

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = sorted([*(ROOT / "sql/postgres").rglob("*.sql"), *(ROOT / "triggers/postgres").rglob("*.sql")])
SQLITE = sorted([*(ROOT / "sql/sqlite").rglob("*.sql"), *(ROOT / "triggers/sqlite").rglob("*.sql")])
MIGRATIONS = [path for path in SQLITE if path.parent.name == "migrations"]
FUNCTIONS = [path for path in POSTGRES if path.parent.name == "functions"]

_STATEMENT = re.compile(
    r"""(alter|analyze|attach|begin|call|comment|commit|copy|create|deallocate|declare|delete|detach|discard|do|drop|end
    |execute|explain|fetch|grant|insert|listen|lock|merge|notify|pragma|prepare|reindex|release|reset|revoke|rollback
    |savepoint|select|set|show|start|table|truncate|unlisten|update|vacuum|values|with)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_MARKER = re.compile(r'"(__\w+?__)"')
_CONFLICT = re.compile(r"on\s+conflict\s*\(([^()]*)\)", re.IGNORECASE)
_FUNCTION = re.compile(r"^-- function: (\w+)/(-?\d+)", re.MULTILINE)
_CREATE = re.compile(
    r"\s*(?:--[^\n]*\n\s*)*create\s+(?:temp\w*\s+|unique\s+)*(table|view|index|trigger)\b", re.IGNORECASE
)
_TRIGGER_ON = re.compile(r'\bon\s+("(?:[^"]|"")+"|\w+)\s+(?:for\s+each\s+row\s+)?(?:when\b|begin\b)', re.IGNORECASE)


_PIECE = re.compile(r"\b(new|old)\.", re.IGNORECASE)


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(path: Path) -> dict[str, str]:
    """Name → text to compile; the whole file under an empty name where nothing is named."""
    named = sqlfiles.statements(_id(path)) or {"": path.read_text(encoding="utf-8")}
    return {name: f"select {text}" if _is_expression(text) else text for name, text in named.items()}


def _is_expression(text: str) -> bool:
    bare = _bare(text)
    return bool(bare) and not _STATEMENT.match(bare)


def _bare(text: str) -> str:
    """The text without comments and semicolons."""
    return re.sub(r"--[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL).strip(" \n;")


# --- both ---------------------------------------------------------------------------------------------------------


def test_there_are_files_to_check() -> None:
    assert POSTGRES
    assert SQLITE


@pytest.mark.parametrize("path", [path for path in POSTGRES + SQLITE if path not in MIGRATIONS], ids=_id)
def test_a_file_starts_by_saying_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("-- ")


@pytest.mark.parametrize("path", POSTGRES + SQLITE, ids=_id)
def test_named_statements_are_named_once(path: Path) -> None:
    sqlfiles.statements(_id(path))


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", POSTGRES, ids=_id)
def test_postgres_file_parses(path: Path) -> None:
    for name, block in _blocks(path).items():
        assert pglast.parse_sql(block), f"{name} is empty"


@pytest.mark.parametrize("path", POSTGRES, ids=_id)
def test_postgres_function_bodies_parse(path: Path) -> None:
    for text in (each for block in _blocks(path).values() for each in pglast.split(block)):
        (raw,) = pglast.parse_sql(text)
        language = _language(raw.stmt)
        if language == "plpgsql":
            pglast.parse_plpgsql(text.replace("replicator.", "public."))
        elif language == "sql" and (body := _body(raw.stmt)):
            pglast.parse_sql(body)


def test_postgres_function_headers_say_reads_writes_and_callers() -> None:
    for path in FUNCTIONS:
        header = path.read_text(encoding="utf-8").lower().partition("\ncreate")[0]
        missing = [word for word in ("reads", "writes", "called by") if word not in header]
        assert not missing, f"{path}: {missing}"


def _options(statement: pg.Node) -> dict[str, object]:
    if isinstance(statement, pg.DoStmt):
        return {"language": "plpgsql"} | {option.defname: option.arg for option in statement.args or ()}
    if isinstance(statement, pg.CreateFunctionStmt):
        return {option.defname: option.arg for option in statement.options or ()}
    return {}


def _language(statement: pg.Node) -> str:
    language = _options(statement).get("language", "")
    return str(getattr(language, "sval", language))


def _body(statement: pg.Node) -> str:
    """A SQL function's body when it is a string (``begin atomic`` is parsed with the statement)."""
    parts = _options(statement).get("as")
    return parts[0].sval if isinstance(parts, tuple) else ""


# --- SQLite -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SQLITE, ids=_id)
def test_sqlite_file_compiles(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    database = _database(path)
    for name, arity in _FUNCTION.findall(text):
        database.create_function(name, int(arity), lambda *values: None)
    if path in MIGRATIONS:
        return
    stubs = _Stubs(database, sorted(set(_MARKER.findall(text))))
    statements = [each for block in _blocks(path).values() for each in _split(block)]
    for statement in sorted(statements, key=lambda each: not _kind(each)):
        stubs.compile(statement)
    database.close()


def test_what_is_missing_and_no_marker_is_not_made_up() -> None:
    database = sqlite3.connect(":memory:")
    stubs = _Stubs(database, ["__table__", "__column__"])
    stubs.compile('select "__column__" from "__table__" where rowid > ?;')
    stubs.compile('insert into "__table__" ("__column__") values (:v) on conflict ("__column__") do nothing;')
    with pytest.raises(sqlite3.OperationalError, match="no such table: missing"):
        stubs.compile("select 1 from missing;")
    with pytest.raises(sqlite3.OperationalError, match="no such column: missing"):
        stubs.compile('select missing from "__table__";')
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        stubs.compile('create trigger x after insert on "__table__" begin select new.missing; end;')
    database.close()


def _database(path: Path) -> sqlite3.Connection:
    """Our tables, and those that statements of other files create (staging tables are shared between files)."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    for migration in MIGRATIONS:
        database.executescript(migration.read_text(encoding="utf-8"))
    for other in SQLITE:
        if other == path or other in MIGRATIONS or path in MIGRATIONS:
            continue
        for statement in (each for block in _blocks(other).values() for each in _split(block)):
            if _kind(statement) == "table" and not _MARKER.search(statement):
                database.execute(statement)
    return database


def _split(text: str) -> Iterator[str]:
    """Statements of a file; a semicolon inside a trigger, a string or a comment ends none."""
    begun = ""
    for part in re.split(r"(?<=;)", text):
        begun += part
        if sqlite3.complete_statement(begun):
            yield begun
            begun = ""
    if _bare(begun):
        yield begun + "\n;"


def _kind(statement: str) -> str:
    match = _CREATE.match(statement)
    return match[1].lower() if match else ""


class _Stubs:
    """Compiles statements, making up what only a rendered template would name."""

    def __init__(self, database: sqlite3.Connection, markers: list[str]) -> None:
        self.database = database
        self.markers = markers
        self.ours = {column for table in self._tables() for column in self._columns(table)}

    def compile(self, statement: str) -> None:
        """Compile one statement, and execute it when it creates something."""
        if _PIECE.search(statement) and _kind(statement) != "trigger":
            statement = f'create trigger piece before update on "{self.markers[0]}" begin {statement} end;'
            self.database.execute("drop trigger if exists piece")
        self._attempt("explain " + statement, statement)
        kind = _kind(statement)
        if kind:
            self._create(statement)
        if kind == "trigger" and (match := _TRIGGER_ON.search(statement)):
            table = match[1]
            for write in (f"insert into {table} default values", f"delete from {table}", self._update(table)):
                self._attempt("explain " + write, statement)

    def _create(self, statement: str) -> None:
        try:
            self.database.execute(statement)
        except sqlite3.OperationalError as error:
            # A template's table or trigger that an earlier template of the file made already.
            if "already exists" not in str(error):
                raise

    def _update(self, table: str) -> str:
        first, *_ = self.database.execute(f"select name from pragma_table_info({table})").fetchone()
        return f'update {table} set "{first}" = "{first}"'

    def _attempt(self, command: str, statement: str) -> None:
        for _ in range(100):
            try:
                self.database.execute(command)
            except sqlite3.ProgrammingError as error:
                # Compiled; only the values of its parameters are missing.
                if "binding" not in str(error):
                    raise
            except sqlite3.OperationalError as error:
                if not self._make_up(str(error), statement):
                    error.add_note(statement)
                    raise
                continue
            return
        raise AssertionError(f"cannot make up what is missing: {statement}")

    def _make_up(self, error: str, statement: str) -> bool:
        what, _, name = error.partition(": ")
        last = name.rpartition(".")[2]
        if what == "unknown database" and name in self.markers:
            self.database.execute(f"attach ':memory:' as \"{name}\"")
        elif what == "no such table" and last in self.markers:
            schema, _, _ = name.rpartition(".")
            columns = ", ".join(f'"{marker}"' for marker in self.markers)
            self.database.execute(f'create table {f"{schema}." if schema else ""}"{last}" ({columns})')
        elif what == "no such column" and last in self.markers:
            return self._add_column(last, [table for table in self._tables() if table in statement])
        elif what == "no such column" and last in self.ours:
            return self._add_column(last, [table for table in self._tables() if table in self.markers])
        elif what.startswith("ON CONFLICT clause does not match") and (match := _CONFLICT.search(statement)):
            return self._add_key(match[1])
        else:
            return False
        return True

    def _tables(self) -> list[str]:
        return [row[0] for row in self.database.execute("select name from sqlite_schema where type = 'table'")]

    def _columns(self, table: str) -> list[str]:
        return [row[0] for row in self.database.execute("select name from pragma_table_info(?)", [table])]

    def _add_column(self, column: str, tables: list[str]) -> bool:
        lacking = [table for table in tables if column not in self._columns(table)]
        for table in lacking:
            self.database.execute(f'alter table "{table}" add column "{column}"')
        return bool(lacking)

    def _add_key(self, columns: str) -> bool:
        """A unique index over a template's conflict target, in every made-up table that has these columns."""
        if not _MARKER.search(columns):
            return False
        name = "key_" + re.sub(r"\W", "", columns)
        made = False
        for marker in self.markers:
            if marker in self._tables():
                self.database.execute(f'create unique index if not exists "{name}{marker}" on "{marker}" ({columns})')
                made = True
        return made
