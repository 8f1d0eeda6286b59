"""Installing capture into SQLite files: plans that run by hand, drift, checks, and leaving nothing behind."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.source import SqliteSource
from replicator.errors import RetryableError, SchemaError, SetupError
from tests.fixtures.sqlite_sites import LINK, TOPOLOGY, Replica, assert_equal, capture, create, plan_of, plans_of

PART = "create table part (id integer primary key, serial text unique, qty integer, note text);"
ROWS = "insert into part values (1, 'a', 1, 'x'), (2, 'b', 2, 'y'), (3, 'c', 3, null);"
HOSTILE = 'create table "we ""ird\'t" ("select" integer primary key, "__trigger__" text unique, " ü" text);'
FAMILY = (
    "create table p (id integer primary key, k unique); create table c (id integer primary key,"
    " p references p on delete cascade on update cascade, k references p (k) on delete set null);"
)


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
        script = (
            "pragma trusted_schema=off; replace into part values (5, 'b', 1, 'shell'); delete from part where id = 3;"
        )
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
    stamps = [
        stamp for (stamp,) in connection.execute("select changed_at from replicator_outbox where seq > 1 order by seq")
    ]
    assert len(stamps) == 1000
    assert all(one < two for one, two in itertools.pairwise(stamps))
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
    create(path, PART + ROWS + HOSTILE).close()
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
    assert sum("trigger" in name for name in installer.list_objects()) == 6
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


def test_a_new_column_is_brought_for_all_rows_at_the_next_install(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection = create(path, PART + "insert into part (id, serial) values (1, 'a'), (2, 'b');")
    plans = plans_of(path)
    capture(path, plans)
    running = Replica(SqliteSource(path, LINK, plans), plans)
    running.catch_up()
    connection.execute("alter table part add column colour text default 'red'")
    connection.execute("insert into part (id, serial, colour) values (3, 'c', 'blue')")
    with pytest.raises(SchemaError, match="have changed since the link was planned"):
        running.catch_up()  # whoever runs the link plans it anew then

    wider = plans_of(path)
    capture(path, wider)
    with pytest.raises(RetryableError, match="planned anew"):
        running.catch_up()
    running.source.close()
    replica = Replica(SqliteSource(path, LINK, wider), wider)
    replica.catch_up()
    assert_equal(connection, replica)
    assert not SqliteInstaller(path).plan_site(TOPOLOGY, wider).statements


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
    create(site, FAMILY)
    plans = plans_of(site)
    installer = SqliteInstaller(centre, may_be_absent=True)
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
    script = (
        "begin;" + "".join(f'create table "{n}" (id integer primary key, v text unique);' for n in names) + "commit;"
    )
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
