"""A site's table that is dropped, renamed or made again: the link's other tables go on, and nothing that waits is lost."""

from __future__ import annotations

import pytest

from replicator.app import App
from replicator.service import drain_all
from tests.fixtures.pairs import MakePair, Pair, exact, install

TABLE = "create table {t} (id integer primary key, name text, n integer)"
ENGINES = ["sqlite", "postgres"]
ALL = pytest.mark.parametrize("pair", [*ENGINES, "postgres-wal"], indirect=True)
BACKLOG = (
    "insert into item values (4, 'waits', 4)",
    "update item set n = 20 where id = 2",
    "delete from item where id = 3",
)


def sync(pair: Pair) -> str:
    """A ``replicator sync`` of its own, which fails nowhere; what it said."""
    told: list[str] = []
    for worker, failure in drain_all(App.open(pair.yaml).workers(tuple(pair.sites)), 4):
        assert failure is None, failure
        told += worker.report.news
    return "\n".join(told)


@pytest.fixture(params=ENGINES)
def pair(request: pytest.FixtureRequest, make_pair: MakePair) -> Pair:
    """A site with rows in step and a backlog of the table ``item``."""
    pair = make_pair(request.param, "postgres")
    pair.site.run(TABLE.format(t="item"), TABLE.format(t="other"))
    pair.site.run(
        "insert into item values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)", "insert into other values (1, 'o', 1)"
    )
    pair.install("item", "other")
    sync(pair)
    pair.site.run(*BACKLOG)
    return pair


def goes_on(pair: Pair) -> bool:
    """Whether the table that nothing happened to goes on."""
    pair.site.run("update other set n = n + 1")
    told = sync(pair)
    assert exact(pair.site.rows("select * from other")) == exact(pair.centre.rows("select * from other")), told
    return True


def rows(pair: Pair) -> list[tuple[object, ...]]:
    return sorted(pair.centre.rows("select id, name, n from item"))


WAITED = [(1, "a", 1), (2, "b", 20), (4, "waits", 4)]


@ALL
def test_a_renamed_table_goes_on_until_the_yaml_names_it(pair: Pair) -> None:
    pair.site.run("alter table item rename to thing")
    told = sync(pair)
    assert "item is called" in told
    assert "target: item}, and run: replicator install --site factory_a" in told
    assert rows(pair) == WAITED
    pair.site.run("insert into thing values (5, 'under the new name', 5)", "delete from thing where id = 4")
    assert goes_on(pair)
    assert rows(pair) == [(1, "a", 1), (2, "b", 20), (5, "under the new name", 5)]
    pair.site.run("update thing set n = 50 where id = 5", "delete from thing where id = 1")
    pair.configure({"name": "thing", "target": "item"}, "other")
    install(pair.app)
    assert "called" not in sync(pair)
    pair.site.run("insert into thing values (6, 'after', 6)")
    sync(pair)
    assert rows(pair) == [(2, "b", 20), (5, "under the new name", 50), (6, "after", 6)]
    assert pair.parked() == []


def test_a_rename_that_the_yaml_follows_at_once_needs_no_install(pair: Pair) -> None:
    pair.site.run("alter table item rename to thing", "insert into thing values (5, 'new', 5)")
    pair.configure({"name": "thing", "target": "item"}, "other")
    assert "go on with" in sync(pair)
    assert rows(pair) == [*WAITED, (5, "new", 5)]
    pair.site.run("delete from thing where id = 5")
    assert "called" not in sync(pair)
    assert rows(pair) == WAITED


def test_a_rename_on_both_sides(pair: Pair) -> None:
    pair.site.run("alter table item rename to thing")
    pair.centre.run("alter table item rename to thing")
    pair.configure("thing", "other")
    sync(pair)
    found = sorted(pair.centre.rows("select id, name, n from thing"))
    if pair.site.engine == "sqlite":  # the centre knows row 3 as the site's under the old name only; the audit names it
        found.remove((3, "c", 3))
    assert found == WAITED


@ALL
def test_a_dropped_table_stops_no_other_and_comes_back_with_what_waited(pair: Pair) -> None:
    pair.site.run("drop table item")
    told = sync(pair)
    assert "item is gone" in told
    assert "run: replicator install --site factory_a (gives it up)" in told
    assert goes_on(pair)
    images = pair.site.engine == "postgres"
    assert rows(pair) == (WAITED if images else [(1, "a", 1), (2, "b", 2), (3, "c", 3)])
    pair.site.run(TABLE.format(t="item"), "insert into item values (1, 'a', 1), (4, 'waits', 4)")
    if pair.site.capture == "wal":
        install(App.open(pair.yaml))
    sync(pair)
    sync(pair)
    assert rows(pair) == (WAITED if images else [(1, "a", 1), (4, "waits", 4)])
    assert pair.parked() == []


def test_install_gives_a_gone_table_up_and_leaves_users_rows(pair: Pair) -> None:
    pair.site.run("alter table item rename to thing")
    sync(pair)
    pair.configure("other")
    install(pair.app)
    assert pair.site.rows("select count(*) from thing") == [(3,)]
    pair.site.run("insert into thing values (7, 'not captured', 7)")
    assert "item" not in sync(pair)
    assert rows(pair) == WAITED
    ours = "replicator_relation" if pair.site.engine == "sqlite" else "replicator.relation"
    assert pair.site.rows(f"select table_name from {ours} where retired_at is null") == [("other",)]
    again = pair.app.installable(pair.name)
    assert again.plan_site(pair.topology, pair.app.plans(pair.name)).statements == ()
    again.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_of_a_table_that_both_sides_write_only_the_link_from_the_centre_waits(make_pair: MakePair, engine: str) -> None:
    pair = make_pair(engine, "postgres")
    pair.site.run(TABLE.format(t="item"), "insert into item values (1, 'a', 1)")
    pair.install({"name": "item", "direction": "both"})
    sync(pair)
    pair.site.run("update item set n = 2", "alter table item rename to thing", "update thing set name = 'b'")
    failed = {
        str(worker.report.link.direction): str(failure)
        for worker, failure in drain_all(App.open(pair.yaml).workers([pair.name]), 2)
        if failure is not None
    }
    assert failed.keys() == {"from_centre"}
    assert "item is called" in failed["from_centre"]
    assert rows(pair) == [(1, "b", 2)]
    pair.centre.run("update item set n = 3")
    pair.configure({"name": "thing", "target": "item", "direction": "both"})
    install(pair.app)
    sync(pair)
    assert pair.site.rows("select id, name, n from thing") == rows(pair) == [(1, "b", 3)]
