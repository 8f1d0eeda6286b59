"""Backfills of tables that both sides write, PostgreSQL to PostgreSQL: answers to the site, tombstones, the centre's chunks."""

from __future__ import annotations

import pytest

from replicator.errors import SetupError
from replicator.model import Direction, Prefer, TableName
from replicator.pipeline import run_once
from tests.fixtures.pairs import MakePair, Pair, Place
from tests.integration.test_postgres_backfill import WINE, listed, order

DOWN = Direction.FROM_CENTRE
RULE = {"name": "wine", "direction": "both", "policy": "centre_wins"}


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    """Sixty wines on both sides, which both write."""
    pair = make_pair("postgres", "postgres")
    pair.site.run(WINE, "insert into wine select n, 'wine ' || n, n from generate_series(1, 60) n")
    pair.install(RULE)
    pair.settle()
    pair.assert_converged("wine")
    return pair


def unseen(place: Place, *statements: str) -> None:
    """Write at a site as our own apply does, so that it is not captured: what is lost, or differs, through no change."""
    place.commit("select set_config('replicator.origin', 'bloodlab/centre', true)", *statements)


def test_a_kept_row_goes_back_to_the_site_and_a_won_one_too(pair: Pair) -> None:
    unseen(pair.site, "update wine set name = 'site''s' where id in (5, 6)")
    order(pair)
    pair.settle()
    assert pair.site.rows("select name from wine where id in (5, 6) order by id") == [("wine 5",), ("wine 6",)]
    pair.assert_converged("wine")
    unseen(pair.site, "update wine set name = 'site''s' where id in (5, 6)")
    order(pair, prefer=Prefer.SOURCE)
    pair.settle()
    assert pair.centre.rows("select name from wine where id in (5, 6)") == [("site's",), ("site's",)]
    pair.assert_converged("wine")
    assert [row[:3] for row in listed(pair)] == [("done", 60, 2), ("done", 60, 2)]


def test_what_is_on_its_way_to_the_site_does_not_undo_what_the_order_said(pair: Pair) -> None:
    """The centre's change had left for the site when the site's row of before was read and preferred."""
    pair.centre.run("update wine set name = 'centre''s' where id = 7")
    with pair.ends(direction=DOWN) as down:
        batch_of = down.source.read_batch(down.target.read_position(), 1000)
        with batch_of as batch:
            assert batch is not None
            with down.target.transaction():
                down.target.stage_batch(batch)  # read, not yet applied
                raw = down.target.spans()
                assert raw
                order(pair, prefer=Prefer.SOURCE)
                pair.send()
                for span in raw:
                    down.target.apply_clean(span)
                down.target.record_batch(batch)
    pair.settle()
    pair.assert_converged("wine")
    assert pair.centre.rows("select name from wine where id = 7") == [("wine 7",)]


def test_a_deleted_row_does_not_come_back_by_being_loaded(pair: Pair) -> None:
    pair.centre.run("delete from wine where id in (8, 9)")
    order(pair)
    pair.send()
    pair.settle()
    assert pair.centre.rows("select id from wine where id in (8, 9)") == []
    pair.assert_converged("wine")
    assert pair.conflicts() == [], "the deletes were on their way to the site: nothing stood against them"


def test_the_centre_loads_a_site_in_chunks_beside_writers_on_both_sides(pair: Pair) -> None:
    unseen(pair.site, "delete from wine where id > 20", "update wine set name = 'drifted' where id < 5")
    order(pair, direction=DOWN, chunk_rows=7)
    with pair.ends(direction=DOWN) as down, pair.ends() as up:
        for step in range(12):
            pair.site.run(
                f"update wine set grams = -grams where id = {step + 1}", f"delete from wine where id = {step + 15}"
            )
            pair.centre.run(
                f"update wine set name = name || '.' where id in ({step * 6}, {step * 4 + 1})",
                f"insert into wine values ({100 + step}, 'new', 1)",
                f"delete from wine where id = {50 - step}",
                f"update wine set id = id + 1000 where id = {step * 5 + 3}",
            )
            run_once(down.source, down.target, 1000)
            if step % 3 == 0:
                run_once(up.source, up.target, 1000)
    pair.settle()
    pair.assert_converged("wine")
    (found,) = listed(pair, DOWN)
    assert found[0] == "done"
    assert pair.site.rows("select count(*) from wine where name = 'drifted'") == [(0,)]


def test_the_centre_brings_rows_by_key_and_tells_which_are_gone(pair: Pair) -> None:
    unseen(pair.site, "delete from wine where id = 3", "insert into wine values (90, 'stray', 1), (91, 'stray', 1)")
    order(pair, direction=DOWN, keys=[("3",), ("90",), ("92",)])
    pair.fetch()
    assert pair.site.rows("select id from wine where id in (3, 90, 91, 92) order by id") == [(3,), (91,)]
    assert listed(pair, DOWN) == [("done", 3, 1)]


def test_a_site_s_rows_are_never_preferred_to_the_centres_on_the_way_down(pair: Pair) -> None:
    with pytest.raises(SetupError, match="cannot be preferred"):
        order(pair, direction=DOWN, prefer=Prefer.TARGET)


def test_a_site_gets_its_own_rows_only(make_pair: MakePair) -> None:
    """Two sites whose keys the centre tells apart by the site's name; composite keys with a hostile name and type."""
    pair = make_pair("postgres", "postgres", sites=("factory_a", "factory_b"))
    table = """create table "run's" ("day ""x" date, no numeric, note text, primary key (no, "day ""x"))"""
    names = list(pair.sites)
    for place in pair.sites.values():
        place.run(
            table, """insert into "run's" select date '2020-01-01' + n, n / 4.0, 'n' from generate_series(1, 40) n"""
        )
    pair.install({"name": "run's", "direction": "both", "keyed_by": ["site"]})
    pair.settle()
    for place in pair.sites.values():
        unseen(place, """delete from "run's" where no > 3""")
    order(pair, TableName("public", "run's"), direction=DOWN, chunk_rows=9)
    pair.settle()
    first, second = (pair.sites[name].rows("""select count(*) from "run's\"""") for name in names)
    assert (first, second) == ([(40,)], [(12,)])
    assert listed(pair, DOWN) == [("done", 40, 0)]
