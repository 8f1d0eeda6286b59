"""Random schemas and statements on a captured file and an uncaptured twin: same outcomes, and the replay is exact."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.source import SqliteSource
from replicator.engines.sqlite.target import SqliteTarget
from replicator.pipeline import run_once
from tests.fixtures.sqlite_sites import (
    LINK,
    TOPOLOGY,
    Replica,
    assert_equal,
    capture,
    connect,
    create,
    plans_of,
    table_rows,
)

_KEYS = (
    "id integer primary key",
    "id integer primary key autoincrement",
    "id integer primary key desc not null",
    "id text not null primary key",
    "id text collate nocase not null primary key",
    "id not null primary key",
    "id real not null primary key",
    "id numeric not null primary key",
)
_RESOLUTIONS = ("", "or replace", "or ignore", "or fail", "or abort", "or rollback")
_TEXTS = ("'a'", "'A'", "'b'", "'B '", "'b'", "'1'", "''", "'é'")
_NUMBERS = ("1", "2", "3", "1.0", "2.5", "-1", "9007199254740993")
_COLUMNS = ("a", "b", "c")
_FIXED = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_HALF_DONE = ("datatype mismatch", "too many levels")
"""Errors behind which SQLite leaves half of a statement's rows when a table has no trigger; with ours it leaves none."""


def _order_matters(statement: str, outcome: str) -> bool:
    """Whether what the statement did depends on the order SQLite takes the rows in, which a trigger may change."""
    several = statement.startswith("update") and "where id =" not in statement
    return several or any(word in outcome for word in _HALF_DONE)


class Script:
    """Makes up schemas and statements."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.tables: list[tuple[str, str, bool]] = []

    def pick(self, *options: str) -> str:
        return self.chance.choice(options)

    def maybe(self, text: str, often: float = 0.5) -> str:
        return text if self.chance.random() < often else ""

    def schema(self) -> str:
        parts = [self._table(f"t{number}") for number in range(self.chance.randint(1, 3))]
        return "".join(parts) + "".join(self._trigger(name) for name, _, _ in self.tables if self.maybe("x", 0.25))

    def _table(self, name: str) -> str:
        composite = self.chance.random() < 0.25
        key = "id not null" if composite else self.pick(*_KEYS)
        generated = self.chance.random() < 0.2
        # A REPLACE that fills a NULL with a default changes a generated column behind NEW's back: a loss nobody sees.
        constraints = [self._constraint() if c != "a" or not generated else "" for c in _COLUMNS]
        columns = [key, *(f"{c} {self._type()} {text}".rstrip() for c, text in zip(_COLUMNS, constraints, strict=True))]
        if generated:
            columns.append(f"g as (coalesce(a, 0) || 'g') {self.pick('stored', 'virtual')} {self.maybe('unique')}")
        parent, _, matches = self.tables[-1] if self.tables else ("", "", True)
        if parent and not matches and self.chance.random() < 0.5:
            columns.append(f"p references {parent} on delete {self.pick('cascade', 'set null')} on update cascade")
        elif not composite and self.chance.random() < 0.15:
            columns.append(f"p references {name} on delete cascade on update cascade")
        else:
            columns.append("p")
        if composite:
            columns.append(f"x not null default 1, primary key (x, id) {self.maybe('on conflict replace', 0.2)}")
        without = "" if "autoincrement" in key else self.maybe(" without rowid", 0.35)
        alias = "integer primary key" in key and "desc" not in key and not without
        self.tables.append((name, "alias" if alias else "", composite))
        table = f"create table {name} ({', '.join(columns)}){without};"
        return table + "".join(self._index(name, number) for number in range(self.chance.randint(0, 2)))

    def _type(self) -> str:
        return self.pick("", "text", "integer", "real", "numeric", "blob") + self.maybe(" collate nocase", 0.2)

    def _constraint(self) -> str:
        unique = f"unique {self.maybe('on conflict ' + self.pick('replace', 'ignore', 'fail'), 0.3)}"
        return self.pick("", "", "", unique, "not null default 'd'")

    def _index(self, table: str, number: int) -> str:
        columns = ", ".join(self.chance.sample(_COLUMNS, self.chance.randint(1, 2)))
        collate = self.maybe(self.pick(" collate nocase", " collate binary", " collate rtrim"), 0.4)
        where = self.maybe(" where " + self.pick("b is not null", "c > 1", "a <> 'b'"), 0.4)
        return f"create unique index u_{table}_{number} on {table} ({columns}{collate}){where};"

    def _trigger(self, table: str) -> str:
        other = self.pick(*(name for name, _, _ in self.tables))
        body = self.pick(
            f"update {self.maybe('or ignore ')}{table} set c = 'u' where c is null;",
            f"delete from {other} where a = new.a;",
            f"insert or ignore into {other} (id, a) values (new.id, new.b);",
            f"update {self.pick('or replace ', 'or ignore ', '')}{other} set b = new.b where a = new.a;",
        )
        when = self.pick("after insert", "before insert", "after update of a", "before update")
        return f"create trigger user_{table} {when} on {table} begin {body} end;"

    def statement(self) -> str:
        name, rowid, composite = self.chance.choice(self.tables)
        kind = self.chance.random()
        if kind < 0.4:
            return self._insert(name, composite)
        if kind < 0.7:
            columns = self.chance.sample((*_COLUMNS, "id", "p"), self.chance.randint(1, 2))
            if rowid == "alias" and self.chance.random() < 0.08:
                columns = ["rowid"]  # under another name: elsewhere REPLACE by the hidden rowid is a loss nobody sees
            settings_ = ", ".join(f"{c} = {self._value(c)}" for c in columns)
            return f"update {self.pick(*_RESOLUTIONS)} {name} set {settings_} {self._where()}"
        if kind < 0.85:
            return f"delete from {name} {self._where()}"
        return self.pick(
            "begin", "commit", "rollback", "savepoint s", "rollback to s", "release s", f"delete from {name}",
            "pragma recursive_triggers = on", "pragma recursive_triggers = off",
        )  # fmt: skip

    def _insert(self, name: str, composite: bool) -> str:
        columns = ["id", *self.chance.sample(("a", "b", "c", "p"), self.chance.randint(1, 4))]
        columns += ["x"] if composite and self.chance.random() < 0.7 else []
        rows = ", ".join(
            "(" + ", ".join(self._value(c) for c in columns) + ")" for _ in range(self.chance.choice((1, 1, 2, 4)))
        )
        upsert = self.maybe(" on conflict do update set b = 'up', a = excluded.a", 0.1)
        resolution = "" if upsert else self.pick(*_RESOLUTIONS, "or replace", "or replace")
        return f"insert {resolution} into {name} ({', '.join(columns)}) values {rows}{upsert}"

    def _value(self, column: str) -> str:
        if column in ("rowid", "x"):
            return self.pick("1", "2", "3", "7")
        if column in ("id", "p"):
            return self.pick(*_NUMBERS, "4", "5", "6", *_TEXTS[:3])
        return self.pick(*_NUMBERS, *_TEXTS, "null", "x'61'")

    def _where(self) -> str:
        return self.pick("", "where id = 1", "where id > 2", "where a = 'a'", "where b is null", "where id = 'a'")


def _run(connection: sqlite3.Connection, statement: str) -> str:
    try:
        connection.execute(statement).fetchall()
    except sqlite3.Error as error:
        return str(error)
    return ""


def _live_through(chance: random.Random, folder: Path, statements: int) -> None:
    script = Script(chance)
    schema = script.schema()
    try:
        twin = create(folder / "twin.sqlite3", schema)
    except sqlite3.OperationalError:
        return  # a schema SQLite refuses
    path = folder / "site.sqlite3"
    connection = create(path, schema)
    plans = plans_of(path)
    capture(path, plans)
    replica = Replica(SqliteSource(path, LINK, plans, acknowledge_seconds=0.0), plans)
    ran, comparable = [schema, f"pragma foreign_keys = {chance.choice(('on', 'off'))}"], True
    _run(connection, ran[-1])
    _run(twin, ran[-1])
    try:
        for _ in range(statements):
            text = script.statement()
            ran.append(text)
            one = _run(connection, text)
            if comparable:
                other = _run(twin, text)
                # SQLite's own counting of foreign keys goes wrong under REPLACE where a table has no delete trigger.
                comparable = not _order_matters(text, one + other) and (
                    one == other or "FOREIGN KEY" not in one + other
                )
                assert not comparable or one == other, f"captured: {one}, not captured: {other}"
            if not connection.in_transaction and chance.random() < 0.3:
                replica.catch_up(limit=chance.choice((1, 3, 10_000)))
                assert_equal(connection, replica)
        if connection.in_transaction:
            connection.rollback()
            if twin.in_transaction:
                twin.rollback()
        replica.catch_up()
        assert_equal(connection, replica)
        for table, *_ in script.tables if comparable else ():
            query = f"select * from {table} order by 1, 2, 3, 4, 5"
            assert connection.execute(query).fetchall() == twin.execute(query).fetchall()
    except AssertionError as error:
        error.add_note(";\n".join(ran))
        raise
    finally:
        replica.source.close()
        connection.close()
        twin.close()


def _troubles(centre: sqlite3.Connection) -> str:
    parked = centre.execute('select relation, op, "key", after, cause from replicator_parked').fetchall()
    conflicts = 'select relation, kind, "key", before, after, current from replicator_conflict'
    return "\n".join(map(repr, parked + centre.execute(conflicts).fetchall()))


def _send_on(chance: random.Random, folder: Path, statements: int) -> None:
    """The same life, sent on to a SQLite centre, which must be equal after every batch."""
    script = Script(chance)
    # At the centre these keys become the rowid, which holds integers only: rows with other keys would be parked.
    schema = script.schema().replace("id integer primary key desc not null", "id numeric not null primary key")
    if "id integer primary key" in schema:
        schema = schema.replace(" without rowid", "")
    try:
        connection = create(folder / "site.sqlite3", schema)
    except sqlite3.OperationalError:
        return
    path, centre_path = folder / "site.sqlite3", folder / "centre.sqlite3"
    plans = [replace(p, target_shape=replace(p.target_shape, foreign_keys=())) for p in plans_of(path)]
    capture(path, plans)
    installer = SqliteInstaller(centre_path, may_be_absent=True)
    installer.install(installer.plan_centre(TOPOLOGY, plans))
    installer.close()
    centre = connect(centre_path)
    centre.execute("pragma synchronous = off")
    source, target = SqliteSource(path, LINK, plans), SqliteTarget(centre_path, LINK, plans)
    try:
        for _ in range(statements):
            _run(connection, script.statement())
            if not connection.in_transaction and chance.random() < 0.15:
                outcome = run_once(source, target, chance.choice((2, 10_000)))
                assert outcome is None or (outcome.conflicts, outcome.parked) == (0, 0), _troubles(centre)
                for plan in plans:
                    assert table_rows(centre, plan) == table_rows(connection, plan)
    finally:
        source.close()
        target.close()
        connection.close()
        centre.close()


@settings(_FIXED, max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_random_schemas_arrive_exactly(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _send_on(random.Random(seed), Path(folder), 60)


@settings(_FIXED, max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_random_schemas_replay_exactly(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _live_through(random.Random(seed), Path(folder), 60)


@pytest.mark.long
def test_many_random_schemas_replay_exactly() -> None:
    for seed in range(1500):
        with tempfile.TemporaryDirectory() as folder:
            try:
                _live_through(random.Random(seed), Path(folder), 70)
            except AssertionError as error:
                error.add_note(f"seed {seed}")
                raise
