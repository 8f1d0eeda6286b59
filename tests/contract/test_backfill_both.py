"""Backfills of tables that both sides write, on every pair of engines: what is on its way, deleted, answered."""

from __future__ import annotations

import pytest

from replicator.model import Direction, Prefer
from tests.fixtures.backfills import ITEM, ROWS, done, keys, order
from tests.fixtures.pairs import PAIRS, MakePair, Pair
from tests.fixtures.unseen import behind_our_back

READ = "select id, name from item where id in (2, 3, 4, 5) order by id"


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def item(request: pytest.FixtureRequest, make_pair: MakePair) -> Pair:
    """Rows that both sides have alike; where they differ, the site's stand."""
    pair = make_pair(*request.param)
    for place in (pair.centre, pair.site):
        place.run(ITEM)
    pair.install({"name": "item", "direction": "both", "policy": "source_wins"})
    pair.site.commit(*(f"insert into item values ({n}, 'row {n}', {n})" for n in range(1, ROWS + 1)))
    pair.settle()
    pair.assert_converged("item")
    return pair


@pytest.mark.parametrize("keyed", [False, True])
def test_a_row_that_has_not_seen_the_centre_s_change_does_not_undo_it(item: Pair, keyed: bool) -> None:
    """Whatever the policy: the centre's application wrote in sight of the very row that is brought."""
    item.centre.run(
        "update item set name = 'later' where id = 2", "delete from item where id = 3",
        "insert into item values (90, 'new', 1)",
    )  # fmt: skip
    order(item, chosen=keys(item, 2, 3, 4, 90) if keyed else None)
    item.send()
    wanted = [(2, "later"), (4, "row 4"), (5, "row 5")]
    assert item.centre.rows(READ) == wanted
    assert item.centre.rows("select name from item where id = 90") == [("new",)]
    assert item.conflicts() == []
    item.settle()
    item.assert_converged("item")
    assert item.site.rows(READ) == wanted
    done(item)


def test_a_row_that_has_seen_it_is_decided_by_the_policy(item: Pair) -> None:
    item.centre.run("update item set name = 'later' where id = 2", "delete from item where id = 3")
    item.settle()
    behind_our_back(
        item, "update item set name = 'stray' where id = 2", "insert into item values (3, 'back', 3)",
        "delete from item where id = 4",
    )  # fmt: skip
    order(item, chosen=keys(item, 2, 3, 4))
    item.settle()
    item.assert_converged("item")
    assert item.centre.rows(READ) == [(2, "stray"), (3, "back"), (5, "row 5")]
    assert sorted(str(kind) for kind, *_ in item.conflicts()) == ["delete_differs", "insert_exists", "update_deleted"]


def test_what_the_site_sent_last_gives_way_to_what_it_has_now(item: Pair) -> None:
    """A change that capture missed: nobody else wrote since. What somebody else wrote is the policy's."""
    item.configure({"name": "item", "direction": "both", "policy": "centre_wins"})
    item.centre.run("update item set name = 'centre' where id = 2")
    item.site.run("update item set name = 'site' where id = 4")
    item.settle()
    behind_our_back(item, "update item set name = 'missed' where id in (2, 4)")
    order(item, prefer=Prefer.OWN)
    item.settle()
    item.assert_converged("item")
    assert item.site.rows(READ) == [(2, "centre"), (3, "row 3"), (4, "missed"), (5, "row 5")]


def test_what_was_deleted_does_not_come_back_by_itself(item: Pair) -> None:
    item.centre.run("delete from item where id in (3, 4)")
    item.settle()
    behind_our_back(item, "insert into item values (3, 'back', 3), (4, 'back', 4)")
    order(item, prefer=Prefer.TARGET)
    item.settle()
    item.assert_converged("item")
    assert item.centre.rows(READ) == [(2, "row 2"), (5, "row 5")]
    assert [row[:2] for row in item.conflicts()] == [("update_deleted", "keep")] * 2


@pytest.mark.parametrize("prefer", [Prefer.SOURCE, Prefer.TARGET])
def test_what_was_decided_is_answered_applied_or_kept(item: Pair, prefer: Prefer) -> None:
    """Something older may be on its way to the site, which has no change of its own to keep it back."""
    behind_our_back(item, "update item set name = 'stray' where id in (2, 3)", "delete from item where id = 4")
    order(item, chosen=keys(item, 2, 3, 4, 5), prefer=prefer)
    item.send()
    assert done(item).differing == 3
    behind_our_back(
        item, "update item set name = 'older' where id in (2, 3)", "insert into item values (4, 'older', 4)"
    )
    item.fetch()
    item.assert_converged("item")
    name = "stray" if prefer is Prefer.SOURCE else "row"
    assert [str(value).split()[0] for (value,) in item.site.rows("select name from item where id in (2, 3)")] == [
        name
    ] * 2
    assert len(item.site.rows("select id from item where id = 4")) == (prefer is Prefer.TARGET)


def test_a_site_s_later_change_of_a_brought_row_is_clean(item: Pair) -> None:
    """The ledger, or the base, knows what was brought: the next change of the row meets what it expects."""
    behind_our_back(item, "update item set name = 'stray' where id = 2", "insert into item values (50, 'new', 1)")
    order(item)
    item.settle()
    assert len(item.conflicts()) == 1
    item.site.run("update item set name = 'own' where id in (2, 50)", "delete from item where id = 5")
    item.settle()
    item.centre.run("update item set name = 'again' where id in (2, 50)")
    item.settle()
    order(item, direction=Direction.FROM_CENTRE)
    order(item)
    item.settle()
    item.assert_converged("item")
    assert item.centre.rows("select name from item where id in (2, 50)") == [("again",), ("again",)]
    assert len(item.conflicts()) == 1
