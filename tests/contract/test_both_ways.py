"""Two sites and a centre write the same tables: what each gets, what never comes back, and that all end equal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator.audit import AuditVerdict, Limits
from replicator.model import Direction
from tests.fixtures.pairs import PAIRS, MakePair, Pair, Rows
from tests.fixtures.unseen import behind_our_back

ROOT = Path(__file__).resolve().parents[2]
ITEM = "create table item (id integer primary key, name text, qty integer)"
A, B = "factory_a", "factory_b"


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def hub(request: pytest.FixtureRequest, make_pair: MakePair) -> Pair:
    """Two sites and a centre with one table that all write, and three rows in it."""
    return made(make_pair(*request.param, sites=(A, B)))


def made(pair: Pair, policy: str = "centre_wins") -> Pair:
    """The table at all places, installed both ways, with three rows that all have."""
    for place in pair.sites.values():
        place.run(ITEM)
    pair.install({"name": "item", "direction": "both", "policy": policy})
    pair.sites[A].commit(*(f"insert into item values ({n}, 'row {n}', {n})" for n in (1, 2, 3)))
    pair.settle()
    pair.assert_converged("item")
    return pair


def items(pair: Pair, place: str) -> Rows:
    """The rows of a place, in order."""
    database = pair.centre if place == "centre" else pair.sites[place]
    return sorted(database.rows("select id, name, qty from item"))


def test_changes_of_one_site_reach_the_others_and_never_come_back(hub: Pair) -> None:
    hub.sites[A].run(
        "insert into item values (4, 'new', null)",
        "update item set name = '' where id = 1",
        "delete from item where id = 2",
    )
    hub.send(A)
    assert sum(outcome.net for outcome in hub.fetch(A)) == 0
    assert sum(outcome.net for outcome in hub.fetch(B)) == 3
    assert items(hub, B) == [(1, "", 1), (3, "row 3", 3), (4, "new", None)]
    assert hub.send(B) == [], "what was applied at a site is no change of the site"
    hub.settle()
    hub.assert_converged("item")


def test_changes_of_the_centre_reach_every_site(hub: Pair) -> None:
    hub.centre.run(
        "insert into item values (9, 'central', 9)",
        "update item set qty = 7 where id = 3",
        "delete from item where id = 1",
    )
    for site in (A, B):
        hub.fetch(site)
        assert items(hub, site) == [(2, "row 2", 2), (3, "row 3", 7), (9, "central", 9)]
        assert hub.send(site) == []


def test_a_key_that_changes_is_another_row_everywhere(hub: Pair) -> None:
    hub.sites[A].run("update item set id = 11 where id = 1")
    hub.centre.run("update item set id = 12 where id = 2")
    hub.settle()
    assert items(hub, B) == [(3, "row 3", 3), (11, "row 1", 1), (12, "row 2", 2)]
    hub.assert_converged("item")


def test_a_lost_race_is_corrected_where_it_was_lost(hub: Pair) -> None:
    """Invariant 6: the centre decides, and the site whose change lost gets the row as it is."""
    hub.sites[A].run("update item set name = 'site' where id = 1")
    hub.centre.run("update item set name = 'centre' where id = 1")
    hub.fetch(A)
    assert items(hub, A)[0] == (1, "site", 1), "the centre has yet to answer this change"
    hub.send(A)
    assert [row[:2] for row in hub.conflicts()] == [("update_differs", "keep")]
    hub.fetch(A)
    assert items(hub, A)[0] == (1, "centre", 1)
    hub.settle()
    hub.assert_converged("item")


@pytest.mark.parametrize("policy", ["source_wins", "centre_wins", "newest_wins", "merge_columns"])
def test_invariant_6_all_write_one_row(make_pair: MakePair, policy: str) -> None:
    hub = made(make_pair("sqlite", "postgres", sites=(A, B)), policy)
    for n, place in enumerate((hub.sites[A], hub.centre, hub.sites[B])):
        place.run(f"update item set name = 'writer {n}', qty = {n} where id = 1")
    hub.sites[A].run("delete from item where id = 2")
    hub.sites[B].run("update item set qty = 22 where id = 2")
    hub.centre.run("delete from item where id = 3")
    hub.sites[A].run("update item set name = 'kept' where id = 3", "insert into item values (5, 'a', 1)")
    hub.sites[B].run("insert into item values (5, 'b', 2)")
    hub.settle()
    hub.assert_converged("item")


def test_the_same_change_on_both_sides_is_no_conflict(hub: Pair) -> None:
    for place in (hub.centre, *hub.sites.values()):
        place.run("update item set qty = 100 where id = 1", "insert into item values (6, 'same', 6)")
        place.run("delete from item where id = 2")
    hub.settle()
    hub.assert_converged("item")
    assert [row for row in hub.conflicts() if row[1] != "keep" or row[0] == "update_differs"] == []


def test_a_value_that_goes_and_comes_back(hub: Pair) -> None:
    """A-B-A: between two looks of the centre the row was something else, on both sides."""
    hub.sites[A].run("update item set name = 'other' where id = 1", "update item set name = 'row 1' where id = 1")
    hub.centre.run("update item set name = 'centre' where id = 1")
    hub.settle()
    hub.assert_converged("item")
    hub.sites[A].run("update item set name = 'x' where id = 2")
    hub.send(A)
    hub.sites[A].run("update item set name = 'row 2' where id = 2")
    hub.fetch(A)
    assert items(hub, A)[1][1] == "row 2"
    hub.settle()
    hub.assert_converged("item")
    assert items(hub, B)[1] == (2, "row 2", 2)


def test_deleted_rows_stay_deleted(hub: Pair) -> None:
    """Invariant 6: a delete meets an update of another site, and a new row of the same key follows."""
    hub.sites[A].run("delete from item where id = 1")
    hub.send(A)
    hub.sites[B].run("update item set name = 'late' where id = 1")
    hub.settle()
    hub.assert_converged("item")
    assert [row[0] for row in items(hub, "centre")] == [2, 3], "the centre had the delete, and the centre wins"
    hub.sites[B].run("insert into item values (1, 'again', 0)")
    hub.settle()
    hub.assert_converged("item")
    assert items(hub, A)[0] == (1, "again", 0)


def test_a_site_that_was_away_catches_up(hub: Pair) -> None:
    for round_ in range(5):
        hub.sites[A].run(
            f"update item set qty = qty + 1 where id = {round_ % 3 + 1}",
            f"insert into item values ({20 + round_}, 'a', 0)",
        )
        hub.sites[B].run(f"update item set name = 'b {round_}' where id = {round_ % 2 + 1}")
        hub.centre.run(f"update item set qty = {round_} where id = {round_ % 2 + 2}")
        hub.settle(B)
    hub.sites[A].run("delete from item where id = 20")
    hub.settle()
    hub.assert_converged("item")


def test_rows_that_both_had_before_the_first_contact(make_pair: MakePair) -> None:
    """Existing rows meet when capture is installed: equal ones are no conflict, the others are decided."""
    for source, target in PAIRS:
        pair = make_pair(source, target, sites=(A, B))
        for place in (pair.centre, *pair.sites.values()):
            place.run(ITEM, "insert into item values (1, 'equal', 1)")
        pair.centre.run("insert into item values (2, 'centre', 2), (3, 'only centre', 3)")
        pair.sites[A].run("insert into item values (2, 'a', 2), (4, 'only a', 4)")
        pair.install({"name": "item", "direction": "both", "policy": "centre_wins"})
        pair.settle()
        pair.assert_converged("item")
        assert items(pair, B) == [(1, "equal", 1), (2, "centre", 2), (3, "only centre", 3), (4, "only a", 4)]


def test_a_table_from_the_centre_only_is_not_captured_at_the_site(make_pair: MakePair) -> None:
    for source, target in PAIRS:
        pair = make_pair(source, target, sites=(A, B))
        for place in (pair.centre, *pair.sites.values()):
            place.run(ITEM)
        pair.install({"name": "item", "direction": "from_centre"})
        pair.centre.run("insert into item values (1, 'list', 1)", "insert into item values (2, 'price', 2)")
        pair.settle()
        pair.sites[A].run("update item set name = 'mine' where id = 1")
        pair.centre.run("update item set qty = 5 where id = 2")
        pair.settle()
        assert items(pair, A) == [(1, "mine", 1), (2, "price", 5)]
        assert items(pair, B) == items(pair, "centre") == [(1, "list", 1), (2, "price", 5)]
        pair.centre.run("update item set qty = 6 where id = 1")
        pair.settle()
        assert items(pair, A) == items(pair, "centre")


def test_a_table_from_the_centre_that_only_a_site_has_is_made_there(make_pair: MakePair) -> None:
    for source, target in PAIRS:
        pair = make_pair(source, target, sites=(A, B))
        pair.sites[A].run(ITEM)
        pair.install({"name": "item", "direction": "from_centre"})
        pair.centre.run("insert into item values (1, 'list', 1)")
        pair.settle()
        assert items(pair, A) == items(pair, B) == [(1, "list", 1)]


def test_parked_children_heal_when_their_parent_comes(hub: Pair) -> None:
    """Invariant 7: a child that came before its parent waits, hurts nobody, and goes in by itself."""
    pair = hub
    tables = ("create table parent (id integer primary key, name text)",
              "create table child (id integer primary key, parent integer references parent (id))")  # fmt: skip
    for place in (pair.centre, *pair.sites.values()):
        place.run(*tables)
    pair.install(
        *({"name": name, "direction": "both", "policy": "source_wins"} for name in ("item", "parent", "child"))
    )
    pair.sites[A].run("insert into parent values (1, 'p')")
    pair.settle()
    pair.centre.run("delete from parent where id = 1")
    pair.sites[A].run("insert into child values (1, 1)", "insert into child values (2, null)")
    pair.send(A)
    (change,) = pair.parked(A)
    assert change.table == "child"
    assert pair.centre.rows("select id from child") == [(2,)]
    pair.centre.run("insert into parent values (1, 'again')")
    pair.settle()
    pair.assert_converged("parent", "child", "item")
    assert pair.centre.rows("select id from child order by id") == [(1,), (2,)]


def test_the_audit_compares_both_ways(hub: Pair) -> None:
    def verdicts() -> list[AuditVerdict]:
        tables = hub.app.audited(A)
        return [report.verdict for report in hub.app.audit(A, tables, Limits(seconds=0.1, rounds=2))]

    assert verdicts() == [AuditVerdict.EQUAL]
    hub.centre.run("update item set qty = 77 where id = 1")
    assert verdicts() == [AuditVerdict.NOT_PROVEN], "on its way down"
    hub.settle()
    hub.sites[A].run("update item set qty = 78 where id = 1")
    assert verdicts() == [AuditVerdict.NOT_PROVEN], "on its way up"
    hub.settle()
    assert verdicts() == [AuditVerdict.EQUAL]
    behind_our_back(hub, "update item set qty = -1 where id = 2")
    assert verdicts() == [AuditVerdict.DIFFERENT]


# --- crashes ---


@contextmanager
def crasher(pair: Pair) -> Iterator[Crasher]:
    """A process that dies on request; see tests.fixtures.crashing."""
    command = [sys.executable, "-m", "tests.fixtures.crashing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield Crasher(process, pair)
        finally:
            assert process.stdin is not None
            process.stdin.close()


class Crasher:
    """Drains one link and is killed at a gap."""

    def __init__(self, process: subprocess.Popen[str], pair: Pair) -> None:
        self._process, self._pair = process, pair

    def ask(self, link: str, gap: str) -> str:
        """One run of a site's link, or of ``centre→site``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._pair.yaml} {link} {gap}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().rstrip("\n")
        assert answer, "the crashing process failed; see its traceback"
        return answer


# The two that have each engine once as a site and once as the centre.
@pytest.mark.slow
@pytest.mark.parametrize("hub", [PAIRS[0], PAIRS[3]], ids=lambda pair: f"{pair[0]}-{pair[1]}", indirect=True)
def test_invariants_3_and_6_killed_at_every_gap_both_ways(hub: Pair) -> None:
    """The marker travels with the rows it speaks for: a crash anywhere loses no correction and no pending change."""
    hub.sites[A].commit(*(f"insert into item values ({n}, 'start', 0)" for n in range(100, 400)))
    hub.settle()
    with crasher(hub) as process:
        turn = 0
        for link in (A, f"centre→{A}"):
            write(hub, turn := turn + 1)
            gaps = process.ask(link, "trace").split(",")
            assert "before target.record_batch" in gaps
            for gap in gaps:
                write(hub, turn := turn + 1)
                if link != A:
                    process.ask(A, "none")
                    hub.sites[A].run(f"update item set qty = {turn} where id = {101 + turn}")
                assert process.ask(link, gap) == "killed", f"{link} {gap}"
                other = A if link != A else f"centre→{A}"
                process.ask(other, "none")
    hub.settle()
    hub.assert_converged("item")


def write(pair: Pair, turn: int) -> None:
    """One row is written by both sides, one by each alone."""
    pair.sites[A].run(f"update item set name = 'a {turn}' where id = {100 + turn}")
    pair.centre.run(f"update item set name = 'c {turn}' where id = {100 + turn}")
    pair.sites[A].run(f"update item set qty = {turn} where id = 1")
    pair.centre.run(f"update item set qty = {turn} where id = 2")


def test_the_position_below_and_the_marker_are_one_transaction(hub: Pair) -> None:
    """Invariant 3 of the way down: the batch with the marker is applied whole or not at all."""
    hub.sites[A].run("update item set name = 'site' where id = 1")
    hub.centre.run("update item set name = 'centre' where id = 1")
    hub.send(A)
    with crasher(hub) as process:
        assert process.ask(f"centre→{A}", "before target.transaction exit") == "killed"
        assert items(hub, A)[0][1] == "site"
        assert process.ask(f"centre→{A}", "after target.transaction exit") == "killed"
        assert items(hub, A)[0][1] == "centre"
    assert hub.sync(A, direction=Direction.FROM_CENTRE) == []
    hub.settle()
    hub.assert_converged("item")


def test_parameters_from_a_table_of_the_centre_divide_the_rows(make_pair: MakePair) -> None:
    for source, target in PAIRS:
        pair = make_pair(source, target, sites=(A, B))
        for place in (pair.centre, *pair.sites.values()):
            place.run("create table stock (id integer primary key, shelf integer, name text)")
        pair.centre.run("create table shop (site text primary key, shelf integer)")
        pair.centre.run(f"insert into shop values ('{A}', 1)", f"insert into shop values ('{B}', 2)")
        pair.centre.run("insert into stock values (1, 1, 'one')", "insert into stock values (2, 2, 'two')")
        pair.params_from = {"table": "shop", "site": "site"}
        pair.install({"name": "stock", "direction": "both", "where": "shelf = :site.shelf"})
        pair.sites[B].run("insert into stock values (3, 2, 'three')")
        pair.settle()
        query = "select id from stock order by id"
        assert [pair.sites[site].rows(query) for site in (A, B)] == [[(1,)], [(2,), (3,)]]
        pair.centre.run("update stock set shelf = 1 where id = 2")
        pair.settle()
        assert [pair.sites[site].rows(query) for site in (A, B)] == [[(1,), (2,)], [(3,)]]
        for site in (A, B):
            reports = pair.app.audit(site, pair.app.audited(site), Limits(seconds=1))
            assert [report.verdict for report in reports] == [AuditVerdict.EQUAL]
