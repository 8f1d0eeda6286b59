"""A SQLite file as the centre of links both ways: what sites and centre write meets there, and every site gets its slice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from replicator.model import PolicyName, PolicyPlan, RuleExpression
from tests.fixtures.sqlite_hub import Hub, make_hub

MakeHub = Callable[..., Hub]


@pytest.fixture
def hub_of(sqlite_file: Callable[[str], Path]) -> Iterator[MakeHub]:
    """A factory of hubs, closed at the end."""
    made: list[Hub] = []

    def make(**options: object) -> Hub:
        made.append(make_hub(sqlite_file, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for hub in made:
        hub.close()


def test_rows_of_the_centre_reach_the_sites_they_are_for(hub_of: MakeHub) -> None:
    hub = hub_of(centre="insert into patient values (1, 'a', 'Ann', 0), (2, 'b', 'Ben', 0);")
    hub.app.executescript("insert into visit values (1, 1, 'x'), (2, 2, 'y'); insert into tariff values (1, 't'); ")
    hub.settle()
    hub.assert_equal()
    assert hub.sites["a"].app.execute("select name from patient").fetchall() == [("Ann",)]


def test_changes_of_one_site_reach_the_centre_and_never_come_back(hub_of: MakeHub) -> None:
    hub = hub_of()
    hub.sites["a"].app.executescript(
        "insert into tariff values (1, 'one'); insert into patient values (1, 'a', 'Ann', 0)"
    )
    assert hub.up("a") == 2
    assert hub.down("a") == 0
    assert hub.down("b") == 1
    hub.settle()
    hub.assert_equal()


def test_a_row_that_moves_goes_here_and_comes_there_with_what_follows_it(hub_of: MakeHub) -> None:
    hub = hub_of()
    hub.app.executescript("insert into patient values (1, 'a', 'Ann', 0); insert into visit values (1, 1, 'x')")
    hub.settle()
    hub.app.execute("update patient set clinic = 'b'")
    hub.settle()
    hub.assert_equal()
    assert hub.sites["b"].app.execute("select * from visit").fetchall() == [(1, 1, "x")]
    hub.sites["b"].app.execute("update patient set clinic = 'a'")
    hub.settle()
    hub.assert_equal()
    assert hub.sites["b"].app.execute("select * from visit").fetchall() == []


@pytest.mark.parametrize("name", [PolicyName.SOURCE_WINS, PolicyName.CENTRE_WINS])
def test_both_sides_change_a_row(name: PolicyName, hub_of: MakeHub) -> None:
    """Invariant 6 for one row."""
    hub = hub_of(policy=PolicyPlan(name))
    hub.app.execute("insert into tariff values (1, 'old')")
    hub.settle()
    hub.app.execute("update tariff set title = 'centre'")
    hub.sites["a"].app.execute("update tariff set title = 'a'")
    hub.settle()
    hub.assert_equal()
    assert hub.rows("tariff") == [(1, "a" if name is PolicyName.SOURCE_WINS else "centre")]
    (conflict,) = hub.sites["a"].up[1].list_conflicts()
    assert (conflict.site, conflict.current_origin, conflict.kind) == ("a", "centre", "update_differs")
    assert conflict.current_at > 0


def _write(random: Random, app: sqlite3.Connection, place: str) -> None:
    """One statement of an application: any table, any kind, few keys, so that sides meet."""
    key, clinic = (
        random.randint(1, 4),
        random.choice(["a", "b", "c"] if place == "centre" else [place, place, "a", "b"]),
    )
    word = f"{place}{random.randint(0, 3)}"
    statements = [
        f"insert or ignore into patient values ({key}, '{clinic}', '{word}', 0)",
        f"update patient set name = '{word}' where id = {key}",
        f"update patient set clinic = '{clinic}' where id = {key}",
        f"insert or ignore into visit select {key}, id, '{word}' from patient where id = {random.randint(1, 4)}",
        f"update visit set note = '{word}' where id = {key}",
        f"delete from visit where id = {key}",
        f"delete from patient where id = {key} and not exists (select 1 from visit where patient = {key})",
        f"insert or replace into tariff values ({key}, '{place}{key}')",
        f"update tariff set title = '{place}-{key}' where id = {key}",
        f"delete from tariff where id = {key}",
    ]
    app.execute(random.choice(statements))


@pytest.mark.parametrize("name", [PolicyName.SOURCE_WINS, PolicyName.CENTRE_WINS, PolicyName.NEWEST_WINS])
@pytest.mark.parametrize("seed", range(8))
def test_random_histories_end_equal(seed: int, name: PolicyName, hub_of: MakeHub) -> None:
    """Invariant 6: writes on all sides, batches in any order, and equal when all is at rest."""
    random = Random(f"{seed} {name}")
    hub = hub_of(policy=PolicyPlan(name), sites=("a", "b", "c"))
    for _ in range(60):
        site = random.choice("abc")
        act = random.randint(0, 7)
        if act < 3:
            _write(random, hub.sites[site].app, site)
        elif act == 3:
            _write(random, hub.app, "centre")
        elif act < 6:
            hub.up(site)
        else:
            hub.down(site)
    hub.settle()
    hub.assert_equal()


# --- decided otherwise --------------------------------------------------------------------------------------------


def test_two_increments_both_count(hub_of: MakeHub) -> None:
    """A merge takes both sides, is told to the site, and travels on."""
    policy = PolicyPlan(PolicyName.MERGE_COLUMNS, columns=(("visits", PolicyName.ADD),))
    hub = hub_of(policies={"patient": policy})
    hub.app.execute("insert into patient values (1, 'a', 'Ann', 5)")
    hub.settle()
    hub.app.execute("update patient set visits = visits + 1, name = 'Anna'")
    hub.sites["a"].app.execute("update patient set visits = visits + 1")
    hub.settle()
    hub.assert_equal()
    assert hub.rows("patient") == [(1, "a", "Anna", 7)]
    (conflict,) = hub.sites["a"].up[1].list_conflicts()
    assert (conflict.verdict, conflict.before, conflict.result) == (
        "merge",
        {"id": "1", "clinic": "a", "name": "Ann", "visits": "5"},
        {"id": "1", "clinic": "a", "name": "Anna", "visits": "7"},
    )


def test_a_person_decides_and_the_decision_travels(hub_of: MakeHub) -> None:
    hub = hub_of(policies={"tariff": PolicyPlan(PolicyName.MANUAL)})
    hub.app.execute("insert into tariff values (1, 'old')")
    hub.settle()
    hub.app.execute("update tariff set title = 'centre'")
    hub.sites["a"].app.execute("update tariff set title = 'a'")
    hub.settle()
    centre = hub.sites["a"].up[1]
    (conflict,) = centre.list_conflicts()
    (parked,) = centre.list_parked()
    assert (conflict.state, conflict.parked) == ("waiting", parked.id)
    assert centre.list_queues(10) == []
    assert hub.rows("tariff") == [(1, "centre")]
    assert centre.read_row("tariff", conflict.key) == {"id": "1", "title": "centre"}
    hub.sites["a"].app.execute("update tariff set title = 'a2'")
    hub.settle()
    assert len(centre.list_parked()) == 2
    assert centre.settle_conflict(conflict.id, {"id": "1", "title": "both"}, "by hand")
    assert centre.list_parked() == []
    hub.settle()
    hub.assert_equal()
    assert hub.sites["a"].app.execute("select title from tariff").fetchall() == [("both",)]
    (settled,) = (each for each in centre.list_conflicts() if each.id == conflict.id)
    assert (settled.state, settled.resolution, settled.result) == ("resolved", "by hand", {"id": "1", "title": "both"})
    hub.app.execute("update tariff set title = 'later'")
    assert not centre.settle_conflict(conflict.id, None, "too late", expected=True)
    assert centre.settle_conflict(conflict.id, None, "gone")
    hub.settle()
    hub.assert_equal()
    assert hub.rows("tariff") == []
    events = centre.read_history("tariff", ["1"])
    assert {event.source for event in events} == {"ledger", "conflict"}
    assert [event.at for event in events] == sorted(event.at for event in events)


def test_a_dropped_change_is_answered(hub_of: MakeHub) -> None:
    hub = hub_of(policies={"tariff": PolicyPlan(PolicyName.MANUAL)})
    hub.app.execute("insert into tariff values (1, 'old')")
    hub.settle()
    hub.app.execute("update tariff set title = 'centre'")
    hub.sites["a"].app.execute("update tariff set title = 'a'")
    hub.up("a")
    (parked,) = hub.sites["a"].up[1].list_parked()
    hub.sites["a"].up[1].skip_parked(parked.id)
    hub.settle()
    hub.assert_equal()
    assert hub.rows("tariff") == [(1, "centre")]
    assert hub.sites["a"].up[1].list_conflicts()[0].state == "resolved"


def test_two_sites_want_one_unique_value_and_it_heals(hub_of: MakeHub) -> None:
    """Invariants 7 and 8: the second is parked, shown with the row in its way, and goes in when that makes room."""
    hub = hub_of()
    hub.sites["a"].app.execute("insert into tariff values (1, 'same')")
    hub.sites["b"].app.execute("insert into tariff values (2, 'same')")
    hub.up("a")
    hub.up("b")
    centre = hub.sites["b"].up[1]
    (parked,) = centre.list_parked()
    assert centre.find_blocking(parked.id) == {"id": "1", "title": "same"}
    hub.sites["b"].app.execute("insert into tariff values (3, 'other')")
    hub.up("b")
    hub.app.execute("update tariff set title = 'first' where id = 1")
    assert centre.list_queues(10) == [[parked.id]]
    hub.settle()
    assert centre.list_parked() == []
    hub.assert_equal()
    assert hub.rows("tariff") == [(1, "first"), (2, "same"), (3, "other")]


def test_a_rule_in_sql_sees_all_three_rows(hub_of: MakeHub) -> None:
    expression = (
        'case when "site"."title" > "centre"."title" and "base"."title" = \'m\' then \'source\' else \'centre\' end'
    )
    rule = PolicyPlan(PolicyName.RULE, rule=RuleExpression(expression, sqlite=expression))
    hub = hub_of(policies={"tariff": rule})
    hub.app.execute("insert into tariff values (1, 'm'), (2, 'n')")
    hub.settle()
    hub.app.executescript("update tariff set title = 'p' || id")
    hub.sites["a"].app.execute("update tariff set title = 'z' || id")
    hub.settle()
    hub.assert_equal()
    assert hub.rows("tariff") == [(1, "z1"), (2, "p2")]


def test_a_deleted_row_is_known_to_be_deleted_and_by_whom(hub_of: MakeHub) -> None:
    hub = hub_of(policy=PolicyPlan(PolicyName.CENTRE_WINS))
    hub.app.execute("insert into tariff values (1, 'x')")
    hub.settle()
    hub.sites["b"].app.execute("delete from tariff")
    hub.up("b")
    hub.sites["a"].app.execute("update tariff set title = 'y'")
    hub.up("a")
    (conflict,) = hub.sites["a"].up[1].list_conflicts()
    assert (conflict.kind, conflict.current_origin) == ("update_deleted", "b")
    hub.settle()
    hub.assert_equal()
    assert hub.rows("tariff") == []
