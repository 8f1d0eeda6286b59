"""``install --existing``: rows that tables have when capture begins come by a backfill, through the outbox, or not at all."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import pytest

from replicator.app import CENTRE
from replicator.install import Existing, plan_database, write_files
from replicator.model import BackfillState
from replicator.pipeline import run_once
from tests.fixtures.backfills import ITEM, ROWS, listed, order
from tests.fixtures.pairs import MakePair, Pair

PART = "create table part (id integer primary key, item integer references item, name text)"


class KilledError(Exception):
    """The process is gone."""


def filled(pair: Pair, *rules: dict[str, object]) -> Pair:
    """Two tables with rows, configured, and the centre installed."""
    pair.site.run(ITEM, PART)
    pair.site.commit(*(f"insert into item values ({n}, 'row {n}', {n})" for n in range(1, ROWS + 1)))
    pair.site.commit("insert into part values (1, 1, 'a'), (2, 20, 'b')")
    app = pair.configure(*(rules or ({"name": "item"}, {"name": "part"})))
    assert not app.read_catalogues()
    app.install(CENTRE, lambda count, purpose: None)
    app.forget(CENTRE)
    return pair


def install(pair: Pair, existing: Existing, steps: int = 1 << 20) -> int:
    """Install at the site; after so many steps the process is gone. How many it took."""
    taken = itertools.count(1)

    def advance(count: int, purpose: str) -> None:
        if next(taken) >= steps:
            raise KilledError

    pair.app.install(pair.name, advance, existing)
    pair.app.forget(pair.name)
    return next(taken) - 1


def queued(pair: Pair) -> int:
    """Changes in the site's outbox."""
    outbox = "replicator.outbox" if pair.site.engine == "postgres" else "replicator_outbox"
    ((count,),) = pair.site.rows(f"select count(*) from {outbox} where relation <> 0")
    return int(str(count))


def test_a_first_load_by_backfill_writes_nothing_twice_and_loses_nothing(pair: Pair) -> None:
    filled(pair)
    install(pair, Existing.BACKFILL)
    assert queued(pair) == 0
    orders = listed(pair)
    assert [each.table.name for each in orders] == ["item", "part"]
    assert {each.state for each in orders} == {BackfillState.RUNNING}
    pair.site.run(
        "update item set name = 'newer' where id = 20",
        "delete from item where id = 3",
        "update item set id = 99 where id = 4",
        "insert into part values (3, 99, 'c')",
    )
    pair.sync()
    pair.assert_equal("item", "part")
    assert {each.state for each in listed(pair)} == {BackfillState.DONE}
    assert pair.conflicts() == []
    assert pair.parked() == []
    assert install(pair, Existing.BACKFILL) == 0, "what is captured already is not loaded again"


def test_killed_on_the_way_it_goes_on_and_changes_meanwhile_are_no_conflicts(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(pair)
    with pytest.raises(KilledError):
        install(pair, Existing.BACKFILL, 1)
    with monkeypatch.context() as patched:
        patched.setattr("replicator.app.topology.release_first_loads", gone)
        with pytest.raises(KilledError):
            install(pair, Existing.BACKFILL)
    assert [each.state for each in listed(pair)] == [BackfillState.PAUSED] * 2
    pair.site.run("update item set qty = 70 where id = 7")
    pair.sync()

    assert pair.centre.rows("select * from item") == [(7, "row 7", 70)], "the change brought the row"
    assert install(pair, Existing.OUTBOX) == 0, "all is captured"
    pair.sync()
    pair.assert_equal("item", "part")
    assert {each.state for each in listed(pair)} == {BackfillState.DONE}
    assert pair.conflicts() == []


def gone(*anything: object) -> None:
    """The process is."""
    raise KilledError


@pytest.mark.parametrize("engines", [("postgres", "postgres"), ("sqlite", "postgres")], ids="-".join)
def test_a_table_that_goes_both_ways_goes_through_the_outbox(make_pair: MakePair, engines: tuple[str, str]) -> None:
    pair = filled(make_pair(*engines), {"name": "item", "direction": "both"}, {"name": "part"})
    install(pair, Existing.BACKFILL)
    assert [each.table.name for each in listed(pair)] == ["part"]
    assert queued(pair) > 0
    pair.settle()
    pair.assert_equal("item", "part")


@pytest.mark.parametrize("source", ["postgres-wal", "sqlite"])
def test_where_the_centre_has_the_rows_nothing_is_moved(make_pair: MakePair, source: str, tmp_path: Path) -> None:
    pair = filled(make_pair(source, "postgres"))
    with closing(pair.app.installable(pair.name)) as site:
        plan = plan_database(site, pair.topology, pair.app.roles(pair.name), Existing.BACKFILL)
    assert ([each.name for each in plan.unqueued], plan.queued) == (["item", "part"], ())
    (script,) = write_files(tmp_path / "by_hand", [(pair.name, plan)], "written")
    assert "part --site factory_a\n" in script.read_text(), "what has to follow is said"
    install(pair, Existing.NONE)
    assert queued(pair) == 0
    assert listed(pair) == []
    pair.site.run("insert into item values (100, 'new', 1)")
    pair.sync()
    assert pair.centre.rows("select id from item") == [(100,)]


@pytest.mark.parametrize("engines", [("postgres", "sqlite"), ("sqlite", "postgres")], ids="-".join)
def test_a_table_that_is_captured_again_is_loaded_from_its_beginning(
    make_pair: MakePair, engines: tuple[str, str]
) -> None:
    """An older load that is not done has passed rows of which nothing tells what became of them without capture."""
    pair = filled(make_pair(*engines), {"name": "item"})
    install(pair, Existing.BACKFILL)
    pair.sync()
    order(pair, rows=ROWS - 1)
    with pair.ends() as ends:
        ends.target.take_lease()
        run_once(ends.source, ends.target, 1000)
    assert [each.rows for each in listed(pair) if each.unfinished] == [ROWS - 1]
    pair.site.run("drop table part", "drop table item", ITEM)
    pair.site.commit(*(f"insert into item values ({n}, 'another {n}', {n})" for n in range(1, ROWS + 1)))
    with closing(pair.app.installable(pair.name)) as site:
        assert site.list_captured(pair.topology).keys() == {plan.source.name for plan in pair.app.plans(pair.name)}
    install(pair, Existing.BACKFILL)
    pair.sync()
    pair.assert_equal("item")
