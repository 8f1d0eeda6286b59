"""What a site did not do is never brought to a SQLite centre, and what it did is never lost: deletes, touches, waiting rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from replicator.model import PolicyName, PolicyPlan
from replicator.pipeline import retry_parked
from tests.fixtures.pairs import MakePair
from tests.fixtures.sqlite_hub import SCHEMA, Hub, make_hub

JOB = "create table job (id bigint primary key, n bigint)"


@pytest.fixture
def hub_of(sqlite_file: Callable[[str], Path]) -> Iterator[Callable[..., Hub]]:
    """A factory of hubs, closed at the end."""
    made: list[Hub] = []

    def make(**options: object) -> Hub:
        made.append(make_hub(sqlite_file, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for hub in made:
        hub.close()


@pytest.mark.parametrize("direction", ["to_centre", "both"])
def test_a_row_noted_as_new_and_then_deleted_is_deleted(make_pair: MakePair, direction: str) -> None:
    """Invariant 1: install notes again what a table has, so an insert and a delete in one batch may be a delete."""
    pair = make_pair("postgres", "sqlite")
    pair.site.run(JOB, "insert into job values (1, 1), (2, 2), (3, 3), (4, 4)")
    pair.centre.run(JOB, "insert into job values (1, 1), (2, 2), (4, 44)")
    pair.install({"name": "job", "direction": direction, "policy": "centre_wins"})
    pair.site.run("delete from job where id in (1, 3, 4)")
    pair.send()
    assert pair.centre.rows("select id, n from job order by id") == [(2, 2), (4, 44)]
    assert [row[:2] for row in pair.conflicts()] == [("delete_differs", "keep")]


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
@pytest.mark.parametrize("policy", ["source_wins", "newest_wins", "manual"])
def test_a_site_that_changed_nothing_reverts_nothing(make_pair: MakePair, engine: str, policy: str) -> None:
    """Invariant 6: a touch, there and back again, and deleted and put back are no conflicts."""
    pair = make_pair(engine, "sqlite")
    pair.site.run("create table job (id bigint primary key, n bigint)")
    pair.install({"name": "job", "direction": "both", "policy": policy})
    pair.site.run("insert into job values (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)")
    pair.settle()
    pair.centre.run("update job set n = n + 100 where id < 5", "delete from job where id = 5")
    pair.site.run(
        "update job set n = n where id in (1, 5)",
        "update job set n = 7 where id = 2",
        "update job set n = 2 where id = 2",
    )
    pair.site.run("delete from job where id = 3", "insert into job values (3, 3)", "update job set n = 40 where id = 4")
    (outcome,) = pair.send()
    assert (outcome.conflicts, len(pair.conflicts())) == (1, 1)
    assert pair.centre.rows("select id, n from job where id <> 4 order by id") == [(1, 101), (2, 102), (3, 103)]
    pair.fetch()
    rows = pair.site.rows("select id, n from job order by id")
    assert rows == pair.centre.rows("select id, n from job order by id")


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_a_touch_of_a_link_that_is_not_answered(make_pair: MakePair, engine: str) -> None:
    pair = make_pair(engine, "sqlite")
    pair.site.run(JOB)
    pair.install("job")
    pair.site.run("insert into job values (1, 1), (2, 2)")
    pair.send()
    pair.centre.run("update job set n = 9 where id = 1", "delete from job where id = 2")
    pair.site.run("update job set n = n")
    pair.send()
    assert pair.centre.rows("select id, n from job") == [(1, 9)]
    pair.site.run("update job set n = 3 where id = 1")
    pair.send()
    assert pair.centre.rows("select id, n from job") == [(1, 3)]
    assert [row[:2] for row in pair.conflicts()] == [("update_differs", "apply")]


def test_while_a_person_is_asked_the_row_of_the_centre_stands_everywhere(hub_of: Callable[..., Hub]) -> None:
    """Invariant 6 for a row that waits, and for what the site does to it meanwhile."""
    hub = hub_of(policies={"tariff": PolicyPlan(PolicyName.MANUAL)})
    hub.app.execute("insert into tariff values (1, 'old')")
    hub.settle()
    hub.app.execute("update tariff set title = 'centre'")
    hub.sites["a"].app.execute("update tariff set title = 'a'")
    hub.settle()
    hub.assert_equal()
    hub.sites["a"].app.execute("update tariff set title = 'a2'")
    hub.settle()
    hub.assert_equal()
    centre = hub.sites["a"].up[1]
    assert [(change.state, change.op) for change in centre.list_parked()] == [("parked", "s"), ("waiting", "s")]
    (conflict,) = centre.list_conflicts()
    assert centre.settle_conflict(conflict.id, {"id": "1", "title": "a2"}, "by hand")
    hub.settle()
    hub.assert_equal()
    assert hub.rows("tariff") == [(1, "a2")]


def test_a_change_the_database_refused_stays_at_its_site(hub_of: Callable[..., Hub]) -> None:
    """Invariant 7: it is parked and may heal, so the site keeps its row."""
    hub = hub_of()
    hub.app.execute("insert into tariff values (1, 'one'), (2, 'two')")
    hub.settle()
    hub.app.execute("update tariff set title = 'taken' where id = 1")
    hub.sites["a"].app.execute("update tariff set title = 'taken' where id = 2")
    hub.up("a")
    hub.down("a")
    assert hub.sites["a"].app.execute("select title from tariff where id = 2").fetchall() == [("taken",)]


def test_two_parked_rows_that_want_each_others_values_heal_together(hub_of: Callable[..., Hub]) -> None:
    """Invariant 8: alone neither could ever go in."""
    hub = hub_of()
    hub.app.execute("insert into tariff values (1, 'one'), (2, 'two')")
    hub.settle()
    hub.sites["b"].app.execute("insert into tariff values (3, 'three')")
    hub.up("b")
    for statement in (
        "update tariff set title = 'three' where id = 2",
        "update tariff set title = 'two' where id = 1",
        "update tariff set title = 'one' where id = 2",
    ):
        hub.sites["a"].app.execute(statement)
        hub.up("a")
    centre = hub.sites["a"].up[1]
    queues = centre.list_queues(10)
    assert [len(queue) for queue in queues] == [2, 1]
    hub.settle()
    assert centre.list_parked() == []
    hub.assert_equal()
    assert hub.rows("tariff") == [(1, "two"), (2, "one"), (3, "three")]


def test_what_goes_along_in_vain_stays_as_it_was(hub_of: Callable[..., Hub]) -> None:
    hub = hub_of()
    hub.app.execute("insert into tariff values (1, 'one'), (2, 'two')")
    hub.settle()
    hub.sites["b"].app.execute("insert into tariff values (3, 'three')")
    hub.up("b")
    hub.sites["a"].app.execute("update tariff set title = 'three' where id = 2")
    hub.up("a")
    hub.sites["a"].app.execute("update tariff set title = 'two' where id = 1")
    hub.up("a")
    centre = hub.sites["a"].up[1]
    first, second = centre.list_parked()
    assert not retry_parked(centre, second.id)
    again = centre.list_parked()
    assert again[0] == replace(first, parked_at=again[0].parked_at)
    assert (again[1].attempts, again[1].state) == (2, "parked")


def test_equal_rows_from_before_that_are_not_the_sites_own_are_taken_from_it(hub_of: Callable[..., Hub]) -> None:
    """Invariant 6: all sides began as copies of one database."""
    rows = "insert into patient values (1, 'a', 'Ann', 0), (2, 'b', 'Ben', 0);"
    rows += "insert into visit values (1, 1, 'x'), (2, 2, 'y');"
    hub = hub_of(schema=SCHEMA + rows)
    hub.settle()
    hub.assert_equal()
    assert hub.sites["a"].app.execute("select id from visit").fetchall() == [(1,)]
    assert len(hub.rows("patient")) == 2
