"""Backfills by rule and in both directions: only a site's own rows, what is decided upward, what stays downward."""

from __future__ import annotations

import pytest

from replicator.errors import SetupError
from replicator.model import Direction, Engine, Prefer
from replicator.pipeline import run_once
from tests.fixtures.backfills import ITEM, ROWS, done, keys, order
from tests.fixtures.pairs import Pair
from tests.fixtures.unseen import behind_our_back

# --- what a rule says ---


def test_a_filter_and_renamed_columns(pair: Pair) -> None:
    pair.site.run(ITEM, *(f"insert into item values ({n}, 'row {n}', {n})" for n in range(1, ROWS + 1)))
    pair.install({"name": "item", "target": "thing", "where": "qty > 20", "columns": {"rename": {"name": "label"}}})
    pair.sync()
    pair.centre.run("delete from thing where id <> 22", "update thing set label = 'other' where id = 22")
    order(pair, rows=2)
    pair.sync()
    assert pair.centre.rows("select id, label, qty from thing order by id") == [
        (n, f"row {n}", n) for n in range(21, ROWS + 1)
    ]
    assert (done(pair).rows, done(pair).differing) == (5, 1)
    order(pair, chosen=keys(pair, 1, 21))
    pair.centre.run("insert into thing values (1, 'extra', 1)", "delete from thing where id = 21")
    pair.sync()
    assert pair.centre.rows("select id from thing order by id limit 1") == [(21,)], "row 1 is none that the rule wants"


def test_sites_keyed_apart_get_and_bring_only_their_own(two_sites: Pair) -> None:
    pair = two_sites
    first, second = pair.sites
    for number, place in enumerate(pair.sites.values()):
        place.run("create table reading (device text, day integer, value text, primary key (device, day))")
        place.commit(*(f"insert into reading values ('d{n % 3}', {n}, '{number}')" for n in range(10)))
    pair.install({"name": "reading", "keyed_by": ["site"], "direction": "both", "policy": "source_wins"})
    pair.settle()
    kept = pair.centre.rows("select * from reading order by 1, 2, 3")
    assert len(kept) == 20
    behind_our_back(pair, "delete from reading where day < 8", "update reading set value = 'x' where day = 9")
    order(pair, name="reading", site=first, direction=Direction.FROM_CENTRE, rows=3)
    pair.settle()
    assert (done(pair, first, Direction.FROM_CENTRE).rows, done(pair, first, Direction.FROM_CENTRE).differing) == (
        10,
        1,
    )
    assert {value for (value,) in pair.sites[first].rows("select value from reading")} == {"0"}
    behind_our_back(pair, "update reading set value = 'mine' where day = 4")
    order(pair, name="reading", site=first, rows=3)
    pair.settle()
    assert pair.centre.rows("select site, value from reading where day = 4 order by site") == [
        (first, "mine"),
        (second, "1"),
    ]
    assert len(pair.centre.rows("select * from reading")) == 20


def test_a_site_gets_the_rows_of_its_slice(two_sites: Pair) -> None:
    pair = two_sites
    first, second = pair.sites
    for place in (pair.centre, *pair.sites.values()):
        place.run("create table stock (id integer primary key, shop text, name text)")
    pair.install({"name": "stock", "direction": "from_centre", "where": "shop = :site.name"})
    pair.centre.commit(
        *(f"insert into stock values ({n}, '{first if n % 5 else second}', 'n {n}')" for n in range(1, 21))
    )
    pair.settle()
    site, mine = pair.sites[first], pair.centre.rows(f"select * from stock where shop = '{first}' order by id")
    site.run(
        "delete from stock where id > 2",
        "update stock set name = 'other' where id = 2",
        "insert into stock values (90, '', '')",
    )
    order(pair, name="stock", site=first, direction=Direction.FROM_CENTRE, rows=3)
    pair.centre.run(
        f"update stock set shop = '{first}' where id = 5", f"update stock set shop = '{second}' where id = 6"
    )
    pair.settle()
    mine = pair.centre.rows(f"select * from stock where shop = '{first}' order by id")
    assert site.rows("select * from stock order by id") == [*mine, (90, "", "")]
    assert done(pair, first, Direction.FROM_CENTRE).differing == 1
    chosen = [(n if pair.centre.engine is Engine.SQLITE else str(n),) for n in (1, 5, 10, 90)]
    site.run("delete from stock where id = 1", "insert into stock values (10, 'x', 'not mine')")
    order(pair, name="stock", site=first, direction=Direction.FROM_CENTRE, chosen=chosen, rows=3)
    pair.settle()
    assert site.rows("select * from stock order by id") == mine, "what is not the site's goes when it is named"


# --- both ways ---


def both(pair: Pair, policy: str) -> Pair:
    """Two sites and the centre with the same rows, written by all."""
    for place in (pair.centre, *pair.sites.values()):
        place.run(ITEM)
    pair.install({"name": "item", "direction": "both", "policy": policy})
    pair.site.commit(*(f"insert into item values ({n}, 'row {n}', {n})" for n in range(1, ROWS + 1)))
    pair.settle()
    pair.assert_converged("item")
    return pair


def test_both_ways_downward_the_centres_rows_come(two_sites: Pair) -> None:
    pair = both(two_sites, "source_wins")
    with pytest.raises(SetupError, match="cannot be preferred"):
        order(pair, direction=Direction.FROM_CENTRE, prefer=Prefer.TARGET)
    behind_our_back(pair, "delete from item where id > 10", "update item set name = 'stray' where id = 2")
    pair.site.run("update item set name = 'own' where id = 3")
    order(pair, direction=Direction.FROM_CENTRE, rows=6)
    pair.fetch()
    assert pair.site.rows("select id, name from item where id in (2, 3, 20) order by id") == [
        (2, "row 2"), (3, "own"), (20, "row 20"),
    ], "a change that the centre has yet to process stays"  # fmt: skip
    pair.settle()
    pair.assert_converged("item")
    assert pair.centre.rows("select name from item where id = 3") == [("own",)]
    assert done(pair, "", Direction.FROM_CENTRE).differing == 1
    assert pair.conflicts() == []


@pytest.mark.parametrize("prefer", [Prefer.POLICY, Prefer.SOURCE])
def test_both_ways_upward_conflicts_are_decided_and_answered(two_sites: Pair, prefer: Prefer) -> None:
    pair = both(two_sites, "centre_wins")
    behind_our_back(pair, "update item set name = 'stray' where id = 2", "insert into item values (50, 'new', 1)")
    pair.centre.run("update item set name = 'centre' where id = 3")
    order(pair, rows=6, prefer=prefer)
    pair.send()
    assert done(pair).differing == 2
    pair.settle()
    pair.assert_converged("item")
    name = "row 2" if prefer is Prefer.POLICY else "stray"
    assert pair.centre.rows("select name from item where id in (2, 50) order by id") == [(name,), ("new",)]
    assert pair.centre.rows("select name from item where id = 3") == [
        ("centre" if prefer is Prefer.POLICY else "row 3",)
    ]
    pair.site.run("update item set name = 'later' where id = 2")
    pair.settle()
    pair.assert_converged("item")
    assert len(pair.conflicts()) == (1 if prefer is Prefer.POLICY else 2), "no conflict: row 3 had not reached the site"


def test_both_ways_all_write_while_rows_are_brought(two_sites: Pair) -> None:
    """Invariant 6 while tables are loaded in both directions at once."""
    pair = both(two_sites, "newest_wins")
    behind_our_back(pair, "delete from item where id % 2 = 0", "update item set qty = -1 where id % 5 = 0")
    order(pair, rows=4)
    order(pair, rows=4, direction=Direction.FROM_CENTRE)
    second = list(pair.sites)[1]
    with pair.ends() as up, pair.ends(direction=Direction.FROM_CENTRE) as down:
        for turn in range(1, 9):
            pair.site.run(
                f"update item set name = 'a {turn}' where id = {turn}", f"delete from item where id = {turn + 9}"
            )
            pair.sites[second].run(f"update item set name = 'b {turn}' where id in ({turn}, {turn + 8})")
            pair.centre.run(f"update item set name = 'c {turn}' where id in ({turn + 1}, {25 - turn})")
            run_once(*((up.source, up.target) if turn % 2 else (down.source, down.target)), 100)
    pair.settle()
    pair.assert_converged("item")
    done(pair)
    done(pair, "", Direction.FROM_CENTRE)
