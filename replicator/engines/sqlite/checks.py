"""What `check` looks at in a SQLite file: each finding with its fix. Nothing is changed, the journal mode included."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from replicator.engines.sqlite.connection import OLDEST_ENGINE, translate
from replicator.model import Catalogue, CentralTable, Direction, Finding, ForeignKeyShape, TablePlan, TableShape
from replicator.sqlfiles import quoted, render, statement

_CATALOGUE = "sql/sqlite/catalogue.sql"
_WAL_VERSION = 2
_OLDEST_APPLICATION = 3_008_002
_HEADER_BYTES = 100


def check_file(path: Path, connection: sqlite3.Connection, *, as_source: bool) -> Iterator[Finding]:
    """The file, its folder, its journal mode, and both engines: ours and the one that wrote it last."""
    place = str(path)
    if not path.exists():
        yield _missing_file(path, as_source=as_source)
        return
    yield _access(place, "file", path)
    yield _access(place, "folder", path.absolute().parent)
    yield _our_engine(place)
    try:
        connection.execute(statement(_CATALOGUE, "quick_look")).fetchone()
    except sqlite3.Error as error:
        translated = translate(error, place)
        yield Finding(place, "content", False, translated.message, translated.hint)
        return
    yield Finding(place, "content", True, "opens as a SQLite database")
    yield from _header(place, path)


def _missing_file(path: Path, *, as_source: bool) -> Finding:
    if as_source:
        return Finding(str(path), "file", False, "no such file", "correct the url of this database in the YAML")
    writable = path.absolute().parent.is_dir() and os.access(path.absolute().parent, os.W_OK)
    fix = "" if writable else f"make the folder {path.absolute().parent} and let this user write to it"
    return Finding(str(path), "file", writable, "will be made by install", fix)


def _access(place: str, subject: str, path: Path) -> Finding:
    if os.access(path, os.R_OK | os.W_OK):
        return Finding(place, subject, True, "readable and writable")
    reason = "SQLite makes its -wal, -shm and journal there" if subject == "folder" else "acknowledging writes to it"
    fix = f"chmod u+rw {path}, or run as its owner"
    return Finding(place, subject, False, f"not writable by this user ({reason})", fix)


def _our_engine(place: str) -> Finding:
    recent = sqlite3.sqlite_version_info >= OLDEST_ENGINE
    oldest = ".".join(str(number) for number in OLDEST_ENGINE)
    fix = "" if recent else f"use a Python built with SQLite {oldest} or later"
    return Finding(place, "our SQLite", recent, f"replicator runs SQLite {sqlite3.sqlite_version}", fix)


def _header(place: str, path: Path) -> Iterator[Finding]:
    """Bytes 18 and 96 to 99 of the file: journal mode, and the version of the engine that wrote last."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return
    wal = header[18] == _WAL_VERSION
    yield Finding(
        place,
        "journal mode",
        wal,
        "wal" if wal else "not wal: readers and writers block one another for milliseconds",
        "" if wal else f"if the application allows it: sqlite3 {place} 'pragma journal_mode=wal'",
        warning=not wal,
    )
    number = int.from_bytes(header[96:100], "big")
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    old = 0 < number < _OLDEST_APPLICATION
    yield Finding(
        place,
        "the application's SQLite",
        not old,
        f"last written by SQLite {version}" if number else "last written by an engine that leaves no version",
        "let the application use SQLite 3.8.2 or later: older engines cannot parse our tables and triggers"
        if old
        else "",
    )


def check_table(place: str, plan: TablePlan, trigger_bodies: Sequence[str]) -> Iterator[Finding]:
    """The traps of one captured table; ``trigger_bodies`` are the user's own triggers on it."""
    shape, subject = plan.source, f"table {plan.source.name}"
    if shape.kind == "virtual":
        fix = "leave it out of `tables`"
        yield Finding(place, subject, False, "is a virtual table: triggers cannot be put on it", fix)
        return
    if not plan.key:
        fix = "add a primary key, or name a unique, not null column as its key in the YAML"
        yield Finding(place, subject, False, "has no key to tell its rows apart", fix)
        return
    troubles = [*_key_traps(plan), *_capture_traps(plan.source, trigger_bodies), *_follow_traps(plan, trigger_bodies)]
    for message, fix in troubles:
        yield Finding(place, subject, False, message, fix, warning=True)
    if plan.where is not None and not plan.where.sqlite:
        fix = "write the filter with operators both engines share"
        yield Finding(place, subject, False, "its row filter has no exact SQLite form", fix)
    if not troubles:
        yield Finding(place, subject, True, "can be captured")


def _key_traps(plan: TablePlan) -> Iterator[tuple[str, str]]:
    nullable = [name for name in plan.key if not plan.source.column(name).not_null]
    if nullable:
        yield (
            f"key column {nullable[0]} admits NULL: rows with a NULL key are parked",
            f"give {nullable[0]} a value in every row of {plan.source.name}",
        )


def check_central(place: str, shape: TableShape, trigger_bodies: Sequence[str]) -> Iterator[Finding]:
    """The traps of one table of a centre whose own changes are captured."""
    for message, fix in _capture_traps(shape, trigger_bodies):
        yield Finding(place, f"table {shape.name}", False, message, fix, warning=True)


def _capture_traps(shape: TableShape, trigger_bodies: Sequence[str]) -> Iterator[tuple[str, str]]:
    for unique in shape.uniques:
        if not unique.columns:
            yield (
                f"unique index {unique.name} is on an expression: rows that a REPLACE removes by it are not captured",
                "run `replicator audit` regularly, or avoid REPLACE on this table",
            )
    if any("raise" in body.lower() and "fail" in body.lower() for body in trigger_bodies):
        yield (
            "its own trigger uses RAISE(FAIL): a row kept by OR FAIL escapes capture when that trigger is newer",
            "run `replicator install` after creating triggers, so that ours are the newest",
        )


def _follow_traps(plan: TablePlan, trigger_bodies: Sequence[str]) -> Iterator[tuple[str, str]]:
    own = re.compile(rf"\bupdate\s+(or\s+\w+\s+)?[\"`\[]?{re.escape(plan.source.name.name)}\b", re.IGNORECASE)
    if plan.direction is Direction.BOTH and any(own.search(body) for body in trigger_bodies):
        yield (
            "its own trigger changes its rows, also those that come from the centre: where it gives another value each time, "
            "sites send such a row to and fro without end",
            "let the trigger change a row only if it is not right already (WHEN), or exclude the columns it sets",
        )


def check_foreign_keys(place: str, plan: TablePlan, catalogue: Catalogue) -> Iterator[Finding]:
    """Foreign keys to a captured table that match no key of it: with triggers on the table SQLite sees that they do not."""
    shape = plan.source
    for child in catalogue.tables.values():
        for key in child.foreign_keys:
            if key.parent.name.lower() == shape.name.name.lower() and not _matches(key, shape):
                yield Finding(
                    place,
                    f"table {shape.name}",
                    False,
                    f"a foreign key of {child.name} matches no key of it: under `pragma foreign_keys = on` SQLite refuses "
                    "some writes already, and with triggers on the table all of them",
                    f"put a unique index on the referenced columns, or rebuild {child.name} without that foreign key",
                )


def check_followers(place: str, connection: sqlite3.Connection, table: CentralTable) -> Iterator[Finding]:
    """Whether the rows that follow a row can be found by an index."""
    name = table.table.name.name
    for step in table.route.path[:1]:
        indexes: dict[str, list[str]] = {}
        for index, column in connection.execute(statement(_CATALOGUE, "list_indexed"), (name,)):
            indexes.setdefault(str(index), []).append(str(column))
        known = [*indexes.values(), *(list(unique.columns) for unique in table.table.uniques if unique.primary)]
        if not any(set(columns[: len(step.columns)]) == set(step.columns) for columns in known):
            fix = render(
                statement(_CATALOGUE, "create_index"),
                identifiers={"index": "_".join([name, *step.columns]), "table": name},
                fragments={"columns": quoted(step.columns)},
            )
            message = (
                f"no index begins with {', '.join(step.columns)}: each row of {step.parent} that is inserted, deleted or "
                f"given to another site makes SQLite read all of {name}"
            )
            yield Finding(place, f"table {name}", False, message, fix, warning=True)


def _matches(key: ForeignKeyShape, parent: TableShape) -> bool:
    wanted = {column.lower() for column in key.parent_columns}
    return any(unique.exact and {column.lower() for column in unique.columns} == wanted for unique in parent.uniques)
