"""A SQLite centre as the source of links to its sites: capture with routes, and each site's own way through the outbox."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.routed import SqliteRoutedSource
from replicator.errors import SetupError
from replicator.model import Op, Position
from replicator.ports import RowBlock
from replicator.sqlfiles import statement
from tests.fixtures.sqlite_hub import TOPOLOGY, Hub, make_hub
from tests.fixtures.sqlite_sites import connect

MakeHub = Callable[..., Hub]
Noted = list[tuple[object, ...]]


@pytest.fixture
def hub(sqlite_file: Callable[[str], Path]) -> Iterator[Hub]:
    """A centre with two sites, installed."""
    made = make_hub(sqlite_file)
    yield made
    made.close()


def _noted(hub: Hub, written: str) -> Noted:
    """What capture notes of one statement: table, op, key, origin, route."""
    (top,) = hub.app.execute("select max(seq) from replicator_outbox").fetchone()
    hub.app.execute(written)
    query = (
        "select r.table_name, o.op, o.k0, o.origin, o.route from replicator_outbox o join replicator_relation r"
        " on r.id = o.relation where o.seq > ? order by o.seq"
    )
    return hub.app.execute(query, (top,)).fetchall()


def _read(source: SqliteRoutedSource, after: Position | None) -> tuple[list[tuple[object, ...]], Position | None]:
    with source.read_batch(after, 1000) as batch:
        if batch is None:
            return [], after
        blocks = [block for block in batch.blocks() if isinstance(block, RowBlock)]
        names = {number: relation.table.name for number, relation in batch.relations.items()}
        return [(names[b.relation], row[1], *row[3:]) for b in blocks for row in b.rows], batch.upto


# --- capture ------------------------------------------------------------------------------------------------------


def test_a_row_is_noted_for_its_route(hub: Hub) -> None:
    assert _noted(hub, "insert into patient values (1, 'a', 'x', 0)") == [("patient", "i", 1, None, "=a")]
    assert _noted(hub, "insert into visit values (7, 1, 'n')") == [("visit", "i", 7, None, "=a")]
    assert _noted(hub, "insert into visit values (8, 99, 'n')") == [("visit", "i", 8, None, "")]
    assert _noted(hub, "insert into tariff values (1, 't')") == [("tariff", "i", 1, None, "")]
    assert _noted(hub, "update patient set name = 'y'") == [("patient", "u", 1, None, "=a")]
    assert _noted(hub, "delete from visit where id = 7") == [("visit", "d", 7, None, "=a")]


def test_a_move_is_noted_for_both_routes_with_all_that_follows(hub: Hub) -> None:
    hub.app.executescript("insert into patient values (1, 'a', 'x', 0); insert into visit values (7, 1, 'n')")
    assert sorted(map(str, _noted(hub, "update patient set clinic = 'b'"))) == sorted(
        map(
            str,
            [
                ("patient", "u", 1, "", "=a"),
                ("visit", "u", 7, "", "=a"),
                ("visit", "u", 7, "", "=b"),
                ("patient", "u", 1, None, "=b"),
            ],
        )
    )
    assert set(_noted(hub, "update patient set clinic = null")) >= {
        ("patient", "u", 1, None, ""),
        ("visit", "u", 7, "", ""),
    }


def test_a_replaced_row_is_noted_where_it_was(hub: Hub) -> None:
    hub.app.executescript("insert into patient values (1, 'a', 'x', 0); insert into visit values (7, 1, 'n')")
    noted = _noted(hub, "insert or replace into patient values (1, 'b', 'z', 0)")
    assert {("patient", "d", 1, "", "=a"), ("patient", "i", 1, None, "=b"), ("visit", "u", 7, "", "=b")} <= set(noted)
    hub.app.execute("insert into tariff values (1, 'same')")
    assert ("tariff", "d", 1, "", "") in _noted(hub, "insert or replace into tariff values (2, 'same')")


def test_capture_works_where_nothing_is_trusted_and_in_the_shell(hub: Hub) -> None:
    """Invariant 10: plain SQL, no function of ours."""
    app = connect(hub.path)
    app.execute("pragma trusted_schema = off")
    app.execute("insert or ignore into patient values (1, 'a', 'x', 0)")
    app.execute("insert or replace into patient values (1, 'b', 'x', 0)")
    app.close()
    shell = shutil.which("sqlite3")
    if shell is not None:
        script = "insert into patient values (2, 'a', 'y', 1); update patient set clinic = 'b'; delete from patient;"
        subprocess.run([shell, str(hub.path), script], check=True, capture_output=True)
        assert hub.app.execute("select count(*) from replicator_outbox where k0 = 2").fetchone()[0] >= 3


def test_drift_is_noticed_and_uninstall_leaves_nothing(hub: Hub) -> None:
    """Invariant 11: what is gone is planned again; uninstall proves that nothing is left."""
    (name,) = hub.app.execute("select name from sqlite_master where type = 'trigger' and name like '%_ar'").fetchone()
    hub.app.execute(f"drop trigger {name}")
    installer = SqliteInstaller(hub.path)
    plan = installer.plan_centre(TOPOLOGY, [], hub.captured)
    assert [step.object for step in plan.statements] == ["triggers on patient"]
    installer.install(plan)
    assert installer.plan_centre(TOPOLOGY, [], hub.captured).statements == ()
    assert installer.plan_centre(TOPOLOGY, [], hub.captured[:2]).leftovers == ("triggers on tariff",)
    installer.install(installer.plan_uninstall(TOPOLOGY))
    assert installer.list_objects() == []
    installer.close()
    hub.app.execute("insert into patient values (1, 'a', 'x', 0)")


def test_the_plan_runs_by_hand(sqlite_file: Callable[[str], Path], hub: Hub) -> None:
    path = sqlite_file("by_hand")
    app = connect(path)
    (schema,) = hub.app.execute(
        "select group_concat(sql, ';') from sqlite_master where type = 'table' and name in ('patient', 'visit', 'tariff')"
    ).fetchone()
    app.executescript(schema)
    installer = SqliteInstaller(path)
    app.executescript(";\n".join(step.sql for step in installer.plan_centre(TOPOLOGY, [], hub.captured).statements))
    assert installer.plan_centre(TOPOLOGY, [], hub.captured).statements == ()
    installer.close()
    app.close()


# --- reading ------------------------------------------------------------------------------------------------------


def test_a_site_reads_its_rows_then_its_changes(hub: Hub) -> None:
    hub.app.executescript(
        "insert into patient values (1, 'a', 'x', 0), (2, 'b', 'y', 0); insert into visit values (7, 1, 'n'), (8, 2, 'm')"
    )
    source = hub.sites["a"].down[0]
    rows, position = _read(source, None)
    assert set(rows) == {("patient", Op.STATE, 1, "a", "x", 0), ("visit", Op.STATE, 7, 1, "n")}
    hub.app.execute("update patient set name = 'yy' where id = 2")
    assert _read(source, position) == ([], position)
    hub.app.execute("update patient set clinic = 'b' where id = 1")
    rows, position = _read(source, position)
    assert set(rows) == {("patient", Op.GONE, 1, None, None, None), ("visit", Op.GONE, 7, None, None)}
    assert _read(source, position) == ([], position)


def test_what_does_not_concern_a_site_is_passed_over_once(hub: Hub) -> None:
    hub.app.execute("insert into patient values (1, 'a', 'x', 0), (2, 'b', 'y', 0)")
    source = hub.sites["a"].down[0]
    _, position = _read(source, None)
    hub.app.execute("begin")
    for turn in range(6_000):
        hub.app.execute("update patient set name = ? where id = 2", (turn,))
    hub.app.execute("commit")
    assert source.read_lag(position).changes == 0
    rows, later = _read(source, position)
    assert rows == []
    assert later != position
    assert _read(source, later) == ([], later)


def test_the_cost_of_a_read_follows_the_sites_own_changes(hub: Hub) -> None:
    """However much is captured for others, the statements look only at this site's routes."""
    for name, count in (
        ("has_news", 4),
        ("stretch_end", 4),
        ("relations_between", 3),
        ("newest_marker", 3),
        ("read_lag", 3),
    ):
        sql = statement("sql/sqlite/routed.sql", name)
        steps = [str(step[3]) for step in hub.app.execute(f"explain query plan {sql}", ["[]", *range(1, count)])]
        assert any("replicator_outbox_route (route=? AND seq>?" in step for step in steps), (name, steps)


def test_the_outbox_is_pruned_behind_the_slowest_site(hub: Hub) -> None:
    hub.app.execute("insert into tariff values (1, 'x')")
    hub.settle()
    for turn in range(50):
        hub.app.execute("update tariff set title = ?", (f"t{turn}",))
    hub.down("a")
    hub.sites["a"].down[0].tidy()
    (left,) = hub.app.execute("select count(*) from replicator_outbox").fetchone()
    assert left >= 50
    hub.down("b")
    for site in hub.sites.values():
        site.down[0].close()
    source = SqliteRoutedSource(hub.path, hub.sites["a"].down[0]._link, hub.sites["a"].down[0]._plans)
    source.acknowledge_batch(hub.sites["a"].down[1].read_position() or Position(""))
    source.tidy()
    source.close()
    assert hub.app.execute("select count(*) from replicator_outbox").fetchone()[0] < 5
    (known,) = hub.app.execute("select count(*) from replicator_ledger where link = 0 and origin is null").fetchone()
    assert known == 1


def test_lost_triggers_stop_the_link(hub: Hub) -> None:
    hub.app.execute("insert into tariff values (1, 'x')")
    hub.settle()
    hub.app.executescript(
        "alter table tariff rename to old; create table tariff (id integer primary key, title text unique)"
    )
    with pytest.raises(SetupError, match="tariff is not captured"):
        hub.down("a")


def test_keys_in_flight_are_known(hub: Hub) -> None:
    source = hub.sites["a"].down[0]
    hub.app.execute("insert into patient values (1, 'a', 'x', 0), (2, 'a', 'y', 0)")
    _, position = _read(source, None)
    hub.app.execute("update patient set name = 'z' where id = 2")
    (plan,) = (plan for plan in source._plans if plan.source.name.name == "patient")
    assert source.keys_in_flight(plan, position, [(1,), (2,)]) == {(2,)}


def test_a_statement_of_the_application_never_fails_because_of_us(hub: Hub) -> None:
    """Invariant 10: OR IGNORE and OR REPLACE reach into our triggers and find nothing to fail on."""
    for word in ("ignore", "replace", "abort", "fail", "rollback"):
        hub.app.execute(f"insert or {word} into patient values (null, 'a', 'x', 0)")
        hub.app.execute(f"update or {word} patient set clinic = 'b', id = id + 100")
    with pytest.raises(sqlite3.IntegrityError):
        hub.app.execute("insert into patient values (101, 'a', 'x', 0), (101, 'a', 'x', 0)")
