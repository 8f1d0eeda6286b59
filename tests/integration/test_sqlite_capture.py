"""Capture on SQLite: every trap that a trigger can see, by experiment; what was replayed equals the tables exactly."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.source import SqliteSource
from replicator.errors import SetupError
from tests.fixtures.sqlite_sites import LINK, TOPOLOGY, Replica, assert_equal, capture, connect, create, plan_of, plans_of

PART = "create table part (id integer primary key, serial text unique, qty integer, note text);"
ROWS = "insert into part values (1, 'a', 1, 'x'), (2, 'b', 2, 'y'), (3, 'c', 3, null);"

CASES: dict[str, tuple[str, list[str]]] = {
    "replace, same key": (PART + ROWS, ["insert or replace into part values (1, 'z', 9, 'new')"]),
    "replace hits another row by a unique": (PART + ROWS, ["insert or replace into part values (9, 'b', 9, 'new')"]),
    "replace hits two rows": (
        "create table t (id integer primary key, a unique, b unique); insert into t values (1, 1, 1), (2, 2, 2), (3, 3, 3);",
        ["replace into t values (9, 1, 2)", "replace into t (a, b) values (3, 9)"],
    ),
    "unique with its own on conflict replace": (
        "create table t (id integer primary key, a unique on conflict replace, b); insert into t values (1, 'x', 1);",
        ["insert into t (a, b) values ('x', 2)", "insert into t values (7, 'y', 1)", "update t set a = 'x' where id = 7"],
    ),
    "nocase unique": (
        "create table t (id integer primary key, a text collate nocase unique); insert into t values (1, 'abc'), (2, 'd');",
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
    "generated unique": (
        "create table t (id integer primary key, a, g as (a % 10) stored unique); insert into t (id, a) values (1, 11), (2, 2);",
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
        ["update t set k = 1.0 where typeof(k) = 'integer'", "replace into t values (1, 'again')", "delete from t where k = '1'"],
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
        ["update t set a = 'ABC', n = 1.0 where id = 1", "update t set n = 5 where id = 2", "update t set n = null where id = 2"],
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
         "insert into t values (8, zeroblob(3)), (9, 'a' || char(0) || 'b'), (10, cast(x'ff80' as text)), (11, '\u00e9\U0001f600')"],
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
            replica.catch_up(limit=2)
            assert_equal(connection, replica)
    for plan in plans:
        table = '"' + plan.source.name.name.replace('"', '""') + '"'
        query = f"select * from {table} order by 1"
        assert connection.execute(query).fetchall() == twin.execute(query).fetchall()
    replica.source.close()


def test_a_renamed_column_stops_nothing_and_a_new_plan_reads_it(sqlite_file: Callable[[str], Path]) -> None:
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
    with pytest.raises(SetupError, match="note"):
        replica.catch_up()
    replica.source.close()


def test_a_dropped_column_works_where_no_unique_index_needs_it(sqlite_file: Callable[[str], Path]) -> None:
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
        connection.execute("insert into part values (99, 'late', 1, 1)")
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
    with pytest.raises(SetupError, match="not captured any more"):
        replica.catch_up()
    replica.source.close()


def test_a_newer_user_trigger_shows_as_drift_and_ours_become_the_newest(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    plans = plans_of(path)
    capture(path, plans)
    connection.execute(
        "create trigger stop after insert on part when new.qty < 0 begin select raise(fail, 'negative'); end"
    )
    installer = SqliteInstaller(path)
    drift = installer.plan_site(TOPOLOGY, plans)
    assert [step.object for step in drift.statements] == ["triggers on part"]
    assert any("RAISE(FAIL)" in finding.message for finding in installer.check(plans, as_source=True))
    installer.install(drift)
    assert installer.plan_site(TOPOLOGY, plans).statements == ()
    installer.close()
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    with pytest.raises(sqlite3.IntegrityError, match="negative"):
        connection.execute("insert or fail into part values (60, 'f', 1, 1), (61, 'g', -1, 1), (62, 'h', 1, 1)")
    replica.catch_up()
    assert_equal(connection, replica)
    replica.source.close()


def test_a_new_unique_index_shows_as_drift(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    capture(path, plans_of(path))
    connection.execute("create unique index by_note on part (note) where qty > 0")
    installer = SqliteInstaller(path)
    plan = installer.plan_site(TOPOLOGY, plans_of(path))
    installer.close()
    assert [step.object for step in plan.statements] == ["triggers on part"]
    assert "'a'" not in plan.statements[0].sql, "what was captured needs no reading of all rows"


def test_an_index_on_an_expression_is_told_by_check(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    create(path, PART + "create unique index e on part (lower(note)); create virtual table f using fts5 (x);")
    installer = SqliteInstaller(path)
    shapes = installer.read_catalogue().tables.values()
    findings = installer.check([plan_of(shape) for shape in shapes], as_source=True)
    installer.close()
    assert any("expression" in f.message and f.warning and f.fix for f in findings)
    assert any("virtual" in f.message and not f.ok for f in findings)


def test_triggers_work_under_trusted_schema_off_and_in_the_shell(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    plans = plans_of(path)
    capture(path, plans)
    connection.execute("pragma trusted_schema = off")
    connection.execute("insert or replace into part values (4, 'a', 1, 'off')")
    if shell := shutil.which("sqlite3"):
        script = "pragma trusted_schema=off; replace into part values (5, 'b', 1, 'shell'); delete from part where id = 3;"
        subprocess.run([shell, str(path), script], check=True)
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    replica.catch_up()
    assert_equal(connection, replica)
    replica.source.close()


def test_the_application_sees_its_own_counters(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    capture(path, plans_of(path))
    cursor = connection.execute("insert into part (serial, qty) values ('n', 1), ('m', 2) returning id")
    assert cursor.fetchall() == [(4,), (5,)]
    assert connection.execute("select changes(), last_insert_rowid()").fetchone() == (2, 5)
    assert connection.execute("update part set qty = 0").rowcount == 5


def test_changed_at_is_the_wall_clock_and_never_goes_back(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART)
    capture(path, plans_of(path))
    connection.executemany("insert into part (qty) values (?)", [(n,) for n in range(1000)])
    now = connection.execute("select cast((julianday('now') - 2440587.5) * 86400000000.0 as integer)").fetchone()[0]
    stamps = [stamp for (stamp,) in connection.execute("select changed_at from replicator_outbox where seq > 1 order by seq")]
    assert len(stamps) == 1000
    assert all(one < two for one, two in zip(stamps, stamps[1:], strict=False))
    assert abs(stamps[-1] - now) < 5_000_000
    connection.execute("update replicator_control set seen = ?", (now + 3_600_000_000,))
    connection.execute("update part set qty = 1 where id = 1")
    (last,) = connection.execute("select changed_at from replicator_outbox order by seq desc limit 1").fetchone()
    assert last == now + 3_600_000_001


def test_a_plan_runs_by_hand_in_the_shell(sqlite_file: Callable[[str], Path], tmp_path: Path) -> None:
    shell = shutil.which("sqlite3")
    if shell is None:
        pytest.skip("no sqlite3 shell on this machine")
    path = sqlite_file("site")
    create(path, PART + ROWS + CASES["hostile names"][0]).close()
    plans = plans_of(path)
    installer = SqliteInstaller(path)
    script = tmp_path / "plan.sql"
    script.write_text("".join(f"{step.sql};\n" for step in installer.plan_site(TOPOLOGY, plans).statements))
    subprocess.run([shell, "-bail", str(path)], input=script.read_text(), text=True, check=True)
    assert installer.plan_site(TOPOLOGY, plans).statements == ()
    script.write_text("".join(f"{step.sql};\n" for step in installer.plan_uninstall(TOPOLOGY).statements))
    subprocess.run([shell, "-bail", str(path)], input=script.read_text(), text=True, check=True)
    assert installer.list_objects() == []
    installer.close()


def test_uninstall_leaves_nothing_and_keeps_what_another_topology_needs(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + ROWS)
    plans = plans_of(path)
    capture(path, plans, "one")
    capture(path, plans, "one_two")
    installer = SqliteInstaller(path)
    installer.install(installer.plan_uninstall("one"))
    assert sum("trigger" in name for name in installer.list_objects()) == 5
    connection.execute("insert into part values (70, 'still', 1, 1)")
    installer.install(installer.plan_uninstall("one_two"))
    assert installer.list_objects() == []
    connection.execute("insert into part values (71, 'fine', 1, 1)")
    assert installer.plan_uninstall("one").statements == ()
    installer.close()


def test_a_table_no_longer_planned_is_shown_and_left_alone(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    create(path, PART + "create table other (id integer primary key);")
    capture(path, plans_of(path))
    installer = SqliteInstaller(path)
    plan = installer.plan_site(TOPOLOGY, plans_of(path, "part"))
    assert plan.statements == ()
    assert plan.leftovers == ("triggers on other",)
    installer.close()


def test_an_edited_migration_is_refused(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART)
    capture(path, plans_of(path))
    connection.execute("update replicator_migration set checksum = 'other'")
    installer = SqliteInstaller(path)
    with pytest.raises(SetupError, match="another wording"):
        installer.plan_site(TOPOLOGY, plans_of(path))
    installer.close()


def test_planning_for_a_centre_that_does_not_exist_makes_no_file(sqlite_file: Callable[[str], Path]) -> None:
    site, centre = sqlite_file("site"), sqlite_file("centre")
    create(site, CASES["cascades"][0])
    plans = plans_of(site)
    installer = SqliteInstaller(centre)
    plan = installer.plan_centre(TOPOLOGY, plans)
    assert not centre.exists()
    assert installer.check(plans, as_source=False)[0].ok
    installer.install(plan)
    assert installer.plan_centre(TOPOLOGY, plans).statements == ()
    made = [name.name for name in installer.read_catalogue().tables]
    assert sorted(made) == ["c", "p"]
    assert installer.list_links(TOPOLOGY) == []
    installer.close()


def test_five_hundred_tables(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    names = [f"table_{number:03} with a rather long name that is cut" for number in range(500)]
    script = "begin;" + "".join(f'create table "{n}" (id integer primary key, v text unique);' for n in names) + "commit;"
    connection = create(path, script)
    plans = plans_of(path)
    capture(path, plans)
    connection.execute("begin")
    for name in names:
        connection.execute(f'insert into "{name}" values (1, ?)', (name,))
    connection.execute("commit")
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    assert replica.catch_up() == 500
    assert_equal(connection, replica)
    replica.source.close()
