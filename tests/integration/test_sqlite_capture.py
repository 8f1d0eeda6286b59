"""Capture on SQLite: every trap that a trigger can see, by experiment; what was replayed equals the tables exactly."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.engines.sqlite.source import SqliteSource
from replicator.errors import SchemaError, SetupError
from tests.fixtures.sqlite_sites import LINK, Replica, assert_equal, capture, create, plans_of

PART = "create table part (id integer primary key, serial text unique, qty integer, note text);"
ROWS = "insert into part values (1, 'a', 1, 'x'), (2, 'b', 2, 'y'), (3, 'c', 3, null);"

CASES: dict[str, tuple[str, list[str]]] = {
    "replace, same key": (PART + ROWS, ["insert or replace into part values (1, 'z', 9, 'new')"]),
    "replace hits another row by a unique": (PART + ROWS, ["insert or replace into part values (9, 'b', 9, 'new')"]),
    "replace hits two rows": (
        "create table t (id integer primary key, a unique, b unique);"
        "insert into t values (1, 1, 1), (2, 2, 2), (3, 3, 3);",
        ["replace into t values (9, 1, 2)", "replace into t (a, b) values (3, 9)"],
    ),
    "unique with its own on conflict replace": (
        "create table t (id integer primary key, a unique on conflict replace, b); insert into t values (1, 'x', 1);",
        ["insert into t (a, b) values ('x', 2)", "insert into t values (7, 'y', 1)", "update t set a = 'x' where id = 7"],
    ),
    "nocase unique": (
        "create table t (id integer primary key, a text collate nocase unique);"
        "insert into t values (1, 'abc'), (2, 'd');",
        ["insert or replace into t values (5, 'ABC')", "update or replace t set a = 'aBc' where id = 2"],
    ),
    "unique index with another collation": (
        "create table t (id integer primary key, a text); create unique index u on t (a collate nocase);"
        "insert into t values (1, 'abc'), (2, 'd');",
        ["insert or replace into t values (5, 'ABC')", "update or replace t set a = 'abC' where id = 2"],
    ),
    "partial unique": (
        "create table t (id integer primary key, a, live); create unique index u on t (a) where live = 1 /* ) where */;"
        "insert into t values (1, 'x', 1), (2, 'x', 0), (3, 'y', 1);",
        ["insert or replace into t values (4, 'x', 1)", "update or replace t set live = 1 where id = 2"],
    ),
    "replace puts a default that is another row's unique value": (
        "create table t (id integer primary key, a text not null default 'd' unique, b not null default \"q\" unique);"
        "insert into t values (1, 'd', 1), (2, 'e', 'q'), (3, 'f', 3);",
        ["insert or replace into t values (4, null, 5)", "update or replace t set b = null where id = 3"],
    ),
    "generated unique": (
        "create table t (id integer primary key, a, g as (a % 10) stored unique);"
        "insert into t (id, a) values (1, 11), (2, 2);",
        ["insert or replace into t (id, a) values (3, 21)", "update or replace t set a = 31 where id = 2"],
    ),
    "update or replace": (PART + ROWS, ["update or replace part set serial = 'a' where id = 3"]),
    "a trigger's or ignore under the application's or replace": (
        "create table t (id integer primary key, a unique); create table log (id integer primary key, x);"
        "create trigger u after insert on log begin update or ignore t set a = 'p' where id = 2; end;"
        "insert into t values (1, 'p'), (2, 'q');",
        ["insert or replace into log values (1, 1)"],
    ),
    "recursive triggers": (PART + ROWS, ["pragma recursive_triggers = on", "replace into part values (7, 'a', 0, 'r')"]),
    "upsert and or ignore": (
        PART + ROWS,
        [
            "insert into part values (1, 'n', 0, 0) on conflict (id) do update set note = 'up'",
            "insert or ignore into part values (5, 'b', 0, 0), (6, 'n', 1, 1)",
            "insert into part values (8, 'b', 0, 0) on conflict (serial) do update set qty = 77",
        ],
    ),
    "key update": (PART + ROWS, ["update part set id = 50 where id = 1", "update or replace part set id = 2 where id = 3"]),
    "rowid update": (PART + ROWS, ["update part set rowid = 7 where id = 1", "update part set _rowid_ = 8 where oid = 7"]),
    "negative and huge rowids": (
        PART,
        [
            "insert into part values (-1, 'm', 1, 1), (-9223372036854775808, 'l', 1, 1), (9223372036854775807, 'h', 1, 1)",
            "insert or replace into part (id, serial) values (-7, 'm')",
        ],
    ),
    "without rowid, composite": (
        "create table t (a text, b integer, c unique, primary key (b, a)) without rowid; insert into t values ('x', 1, 5);",
        ["replace into t values ('y', 1, 5)", "update t set b = 2", "insert into t values ('x', 1, 6)", "delete from t"],
    ),
    "columns called rowid": (
        "create table t (rowid text, oid text, _rowid_ integer, primary key (rowid)) ; insert into t values ('a', 'b', 3);",
        ["update t set rowid = 'c'", "insert into t values ('d', 'e', 4)", "replace into t values ('d', 'f', 5)"],
    ),
    "two of three rowid names taken": (
        "create table t (rowid text not null, oid text, primary key (rowid)); insert into t values ('a', 'b');",
        ["update t set rowid = 'c'", "insert into t values ('d', 'e')"],
    ),
    "strict": (
        "create table t (id any primary key, v blob) strict; insert into t values (1, x'00'), ('1', x'01');",
        ["insert into t values (1.5, null), (x'31', x'02')", "update t set id = '2' where id = '1'"],
    ),
    "integer primary key desc": (
        "create table t (id integer primary key desc, v); insert into t values (1, 'a'), (2, 'b');",
        ["update t set id = 9 where id = 1", "replace into t values (9, 'z')", "delete from t where id = 2"],
    ),
    "nocase key": (
        "create table t (k text collate nocase primary key, v); insert into t values ('abc', 1), ('d', 2);",
        [
            "update t set k = 'ABC' where k = 'abc'",
            "insert or replace into t values ('aBc', 3)",
            "update or replace t set k = 'ABC' where k = 'd'",
        ],
    ),
    "untyped key": (
        "create table t (k primary key, v) without rowid; insert into t values (1, 'int'), ('1', 'text'), (x'31', 'blob');",
        ["update t set k = 1.0 where typeof(k) = 'integer'", "replace into t values (1, 'again')",
         "delete from t where k = '1'"],
    ),
    "cascades": (
        "create table p (id integer primary key, k unique); create table c (id integer primary key,"
        " p references p on delete cascade on update cascade, k references p (k) on delete set null);"
        "insert into p values (1, 'a'), (2, 'b'); insert into c values (10, 1, 'a'), (20, 2, 'a'), (30, 2, 'b');",
        ["pragma foreign_keys = on", "delete from p where id = 1", "update p set id = 5 where id = 2"],
    ),
    "self-referencing cascade": (
        "create table t (id integer primary key, up references t on update cascade on delete cascade);"
        "insert into t values (1, null), (2, 1), (3, 2), (4, 4);",
        ["pragma foreign_keys = on", "update t set id = 9 where id = 1", "update t set id = 8 where id = 4",
         "delete from t where id = 9"],
    ),
    "delete without where": (PART + ROWS, ["delete from part"]),
    "case and class changes": (
        "create table t (id integer primary key, a text collate nocase, n);"
        "insert into t values (1, 'abc', 1), (2, null, null);",
        ["update t set a = 'ABC', n = 1.0 where id = 1", "update t set n = 5 where id = 2",
         "update t set n = null where id = 2"],
    ),
    "a user trigger changes the same row": (
        PART + "create trigger u after insert on part begin update part set qty = qty + 1 where id = new.id; end;",
        ["insert into part values (1, 'a', 1, 'x')", "insert into part values (2, 'b', 1, 'x')"],
    ),
    "savepoints, rollbacks, failures": (
        PART + ROWS,
        [
            "begin", "insert into part values (10, 'k', 1, 1)", "savepoint s", "delete from part", "rollback to s", "commit",
            "begin", "update part set qty = 0", "rollback",
            "insert or fail into part values (11, 'l', 1, 1), (12, 'l', 1, 1)",
            "insert into part values (13, 'm', 1, 1), (13, 'n', 1, 1)",
            "insert or rollback into part values (14, 'a', 1, 1)",
            "insert or ignore into part values (15, 'a', 1, 1), (16, 'o', 1, 1)",
        ],
    ),
    "added column": (PART + ROWS, ["alter table part add column extra default 5", "update part set extra = 6 where id = 2"]),
    "hostile values": (
        "create table t (id integer primary key, v);",
        ["insert into t values (1, 9e999), (2, -0.0), (3, 5e-324), (4, 9007199254740993), (5, 0.1 + 0.2), (6, ''), (7, null)",
         "insert into t values (8, zeroblob(3)), (9, 'a' || char(0) || 'b'), (10, cast(x'ff80' as text))",
         "insert into t values (11, '\u00e9\U0001f600')"],
    ),
    "hostile names": (
        'create table "we ""ird\'t" ("select" integer primary key, "__trigger__" text unique, " ü" text);',
        ['insert into "we ""ird\'t" values (1, \'a\', \'b\')', 'replace into "we ""ird\'t" values (2, \'a\', \'c\')'],
    ),
    "three hundred columns": (
        "create table t (id integer primary key, " + ", ".join(f"c{i}" for i in range(300)) + ");",
        ["insert into t (id, c0, c299) values (1, 2, 3)", "update t set c150 = 'x'"],
    ),
    "six key columns": (
        "create table t (a, b, c, d, e, f, v, primary key (a, b, c, d, e, f)) without rowid;",
        ["insert into t values (1, 2, 3, 4, 5, 6, 'x'), (1, 2, 3, 4, 5, 7, 'y')", "update t set f = 8 where f = 7"],
    ),
}  # fmt: skip


def _run(connection: sqlite3.Connection, statements: list[str]) -> list[str]:
    """Runs the statements; returns what each failed with, empty where it did not."""
    outcomes = []
    for text in statements:
        try:
            connection.execute(text).fetchall()
            outcomes.append("")
        except sqlite3.Error as error:
            outcomes.append(str(error))
    return outcomes


@pytest.mark.parametrize("case", CASES)
def test_what_was_captured_rebuilds_the_tables(case: str, sqlite_file: Callable[[str], Path]) -> None:
    script, statements = CASES[case]
    path, twin_path = sqlite_file("site"), sqlite_file("twin")
    connection, twin = create(path, script), create(twin_path, script)
    plans = plans_of(path)
    capture(path, plans)
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    assert_equal(connection, replica)
    for text in statements:
        assert _run(connection, [text]) == _run(twin, [text]), "capture changes nothing for the application"
        if not connection.in_transaction:
            if text.startswith("alter table"):
                with pytest.raises(SchemaError, match="have changed since the link was planned"):
                    replica.catch_up()
                replica = _planned_anew(replica, path)
            replica.catch_up(limit=2)
            assert_equal(connection, replica)
    for plan in plans:
        table = '"' + plan.source.name.name.replace('"', '""') + '"'
        query = f"select * from {table} order by 1"
        assert connection.execute(query).fetchall() == twin.execute(query).fetchall()
    replica.source.close()


@pytest.mark.parametrize(
    "columns",
    ["id text collate nocase, b, primary key (id collate binary)", "id text, b, primary key (id collate nocase)"],
)
def test_a_key_column_has_the_collation_it_was_declared_with(sqlite_file: Callable[[str], Path], columns: str) -> None:
    """Not that of an index: by the wrong one, the rows 'A' and 'a' were taken for each other."""
    path = sqlite_file("site")
    connection = create(path, f"create table t ({columns}); insert into t values ('A', 1);")
    plans = plans_of(path)
    capture(path, plans)
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    connection.execute("insert or replace into t values ('a', 2)")
    connection.execute("update t set b = b + 10")
    replica.catch_up()
    assert_equal(connection, replica)
    connection.execute("delete from t where b = 12")
    replica.catch_up()
    assert_equal(connection, replica)
    replica.source.close()


def _planned_anew(replica: Replica, path: Path) -> Replica:
    """What the worker does when tables have changed: capture as the tables are now, and a reader that goes on."""
    plans = plans_of(path)
    capture(path, plans)
    replica.source.close()
    again = Replica(SqliteSource(path, LINK, plans), plans)
    again.position = replica.position
    return again


def test_invariant_10_a_renamed_column_stops_nothing_and_a_new_plan_reads_it(
    sqlite_file: Callable[[str], Path],
) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    capture(path, plans_of(path))
    connection.execute("alter table part rename column serial to number")
    connection.execute("alter table part add column extra default 5")
    connection.execute("insert or replace into part values (9, 'b', 9, 'z', 6)")
    plans = plans_of(path)
    capture(path, plans)
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    assert_equal(connection, replica)
    connection.execute("alter table part drop column note")
    connection.execute("update part set extra = 7")
    with pytest.raises(SchemaError, match="the columns of table part have changed"):
        replica.catch_up()
    replica.source.close()


def test_invariant_10_a_dropped_column_works_where_no_unique_index_needs_it(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    capture(path, plans_of(path))
    connection.execute("alter table part drop column qty")
    connection.execute("update part set note = 'still captured'")
    plans = plans_of(path)
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    assert_equal(connection, replica)
    replica.source.close()


@pytest.mark.parametrize("how", ["create first", "rename first"])
def test_a_rebuilt_table_is_noticed_and_captured_again(how: str, sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    plans = plans_of(path)
    capture(path, plans)
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    if how == "create first":
        connection.executescript(
            "begin; create table new_part (id integer primary key, serial text unique, qty integer, note text);"
            "insert into new_part select * from part; drop table part; alter table new_part rename to part; commit;"
        )
    else:
        connection.executescript(
            "begin; alter table part rename to old_part;" + PART + "insert into part select * from old_part;"
            "drop table old_part; commit;"
        )
    connection.execute("update part set note = 'unseen' where id = 1")
    with pytest.raises(SetupError, match="table part is not captured any more") as caught:
        replica.catch_up()
    assert "replicator install" in str(caught.value)
    capture(path, plans)
    replica.catch_up()
    assert_equal(connection, replica)
    replica.source.close()


def test_a_table_made_anew_by_sqlite_utils_is_noticed(sqlite_file: Callable[[str], Path]) -> None:
    sqlite_utils = pytest.importorskip("sqlite_utils")
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    plans = plans_of(path)
    capture(path, plans)
    database = sqlite_utils.Database(path)
    database["part"].insert({"id": 1, "serial": "q", "qty": 1, "note": "n"}, replace=True)
    database["part"].upsert({"id": 2, "serial": "w"}, pk="id")
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    assert_equal(connection, replica)
    database["part"].transform(rename={"note": "remark"})
    database.close()
    connection.execute("insert into part values (50, 'n', 1, 1)")
    with pytest.raises(SchemaError, match="the columns of table part have changed"):
        replica.catch_up()
    replica.source.close()
    with pytest.raises(SetupError, match="not captured any more"):
        Replica(SqliteSource(path, LINK, plans_of(path)), plans_of(path)).catch_up()
