"""A SQLite file as target: batches of both source engines, conflicts, parking, swaps, foreign keys, lease."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.source import SqliteSource
from replicator.engines.sqlite.target import SqliteTarget
from replicator.errors import LeaseError, RetryableError, StaleError
from replicator.model import LinkName, Outcome, PolicyName, PolicyPlan, Position, TablePlan
from replicator.pipeline import apply_span, retry_parked, run_once
from tests.fixtures.sqlite_sites import LINK, TOPOLOGY, capture, connect, create, plans_of, table_rows

PART = "create table part (id integer primary key, serial text unique, qty integer, note text);"
ROWS = "insert into part values (1, 'a', 1, 'x'), (2, 'b', 2, 'y'), (3, 'c', 3, null);"
FAMILY = (
    "create table parent (id integer primary key, name text);"
    "create table child (id integer primary key, parent integer not null references parent on delete cascade, v);"
)


@dataclass
class Pair:
    """A captured site, a SQLite centre, and one link between them."""

    site: sqlite3.Connection
    centre: sqlite3.Connection
    source: SqliteSource
    target: SqliteTarget
    plans: list[TablePlan]

    def sync(self) -> Outcome | None:
        return run_once(self.source, self.target, 10_000)

    def assert_equal(self) -> None:
        for plan in self.plans:
            assert table_rows(self.centre, plan) == table_rows(self.site, plan), plan.source.name


MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(sqlite_file: Callable[[str], Path]) -> Iterator[MakePair]:
    """A factory of pairs from the site's schema; ``centre`` is run at the centre before install."""
    made: list[Pair] = []

    def make(script: str, *, centre: str = "", change: Callable[[TablePlan], TablePlan] = lambda plan: plan) -> Pair:
        site_path, centre_path = sqlite_file("site"), sqlite_file("centre")
        site, there = create(site_path, script), create(centre_path, centre)
        plans = [change(plan) for plan in plans_of(site_path)]
        capture(site_path, plans)
        installer = SqliteInstaller(centre_path)
        installer.install(installer.plan_centre(TOPOLOGY, plans))
        installer.close()
        pair = Pair(site, there, SqliteSource(site_path, LINK, plans), SqliteTarget(centre_path, LINK, plans), plans)
        made.append(pair)
        return pair

    yield make
    for pair in made:
        pair.source.close()
        pair.target.close()
        pair.site.close()
        pair.centre.close()


# --- key-mode sources ---------------------------------------------------------------------------------------------


def test_rows_arrive_and_go(make_pair: MakePair) -> None:
    pair = make_pair(PART + ROWS)
    outcome = pair.sync()
    assert outcome is not None
    assert (outcome.changes, outcome.net, outcome.conflicts, outcome.parked) == (3, 3, 0, 0)
    pair.assert_equal()
    pair.site.executescript(
        "update part set qty = qty + 1; delete from part where id = 2; insert into part values (9, 'z', 9, 'n')"
    )
    outcome = pair.sync()
    assert outcome is not None
    assert (outcome.net, outcome.conflicts) == (4, 0)
    pair.assert_equal()
    assert pair.sync() is None


def test_hostile_values_arrive_exactly(make_pair: MakePair) -> None:
    pair = make_pair("create table t (id integer primary key, v, r real, s text, b blob, n numeric)")
    pair.site.execute(
        "insert into t values (1, 9e999, 0.1, '', x'', 1.5), (2, 5e-324, -9e999, 'a' || char(0) || 'é', x'00ff', '1x'),"
        " (3, 9007199254740993, 1, '007', x'61', null), (4, '12', 1e308, '1e5', null, 12),"
        " (5, 1.0, 'word', x'61', 'word', x'00')"
    )
    pair.sync()
    pair.assert_equal()
    pair.site.execute("update t set v = case id when 1 then 1 when 5 then 1 else v end, s = s || 'x'")
    outcome = pair.sync()
    assert outcome is not None
    assert outcome.conflicts == 0
    pair.assert_equal()


def test_text_that_is_not_utf8_is_parked_and_can_be_mended(make_pair: MakePair) -> None:
    pair = make_pair(PART)
    pair.site.execute("insert into part values (1, cast(x'ff41' as text), 1, 'x'), (2, 'fine', 2, 'y')")
    outcome = pair.sync()
    assert outcome is not None
    assert (outcome.net, outcome.parked) == (1, 1)
    (parked,) = pair.target.list_parked()
    assert "UTF-8" in parked.cause
    assert parked.after is not None
    assert parked.after["serial"] == "\\xff41"
    assert retry_parked(pair.target, parked.id) is False
    assert pair.target.list_parked()[0].attempts == 2
    pair.target.edit_parked(parked.id, {"serial": "A"})
    assert retry_parked(pair.target, parked.id) is True
    assert pair.centre.execute("select serial from part where id = 1").fetchone() == ("A",)
    assert pair.target.list_parked() == []


def test_swapped_unique_values_arrive(make_pair: MakePair) -> None:
    pair = make_pair(PART + ROWS, centre=PART.replace("note text", "note text, mine text default 'm'"))
    pair.sync()
    pair.centre.execute("update part set mine = 'kept ' || id")
    pair.site.executescript(
        "begin; update part set serial = 'tmp' where id = 1; update part set serial = 'a' where id = 2;"
        "update part set serial = 'b' where id = 1; update part set serial = 'd' where id = 3;"
        "insert into part values (4, 'c', 4, 'took'); commit;"
    )
    outcome = pair.sync()
    assert outcome is not None
    assert (outcome.net, outcome.parked) == (4, 0)
    pair.assert_equal()
    assert [row[0] for row in pair.centre.execute("select mine from part where id < 4 order by id")] == [
        "kept 1", "kept 2", "kept 3",
    ]  # fmt: skip


def test_no_third_row_is_replaced(make_pair: MakePair) -> None:
    own = "create table part (id integer primary key, serial text unique on conflict replace, qty integer, note text);"
    pair = make_pair(PART, centre=own + "insert into part values (77, 'mine', 7, 'centre');")
    pair.site.execute("insert into part values (1, 'mine', 1, 'site'), (2, 'other', 2, 'site')")
    outcome = pair.sync()
    assert outcome is not None
    assert (outcome.net, outcome.parked) == (1, 1)
    assert pair.centre.execute("select id, note from part order by id").fetchall() == [(2, "site"), (77, "centre")]
    (parked,) = pair.target.list_parked()
    assert parked.sqlstate == "SQLITE_CONSTRAINT_UNIQUE"
    pair.site.execute("update part set note = 'later' where id = 1")
    pair.sync()
    assert [change.state for change in pair.target.list_parked()] == ["parked", "waiting"]
    pair.centre.execute("delete from part where id = 77")
    for change in pair.target.list_parked():
        assert retry_parked(pair.target, change.id)
    pair.assert_equal()


@pytest.mark.parametrize("policy", [PolicyName.SOURCE_WINS, PolicyName.CENTRE_WINS])
def test_conflicts_are_found_decided_and_recorded(policy: PolicyName, make_pair: MakePair) -> None:
    pair = make_pair(
        PART + ROWS + "insert into part values (4, 'd', 4, 'g');",
        change=lambda p: replace(p, policy=PolicyPlan(policy)),
    )
    pair.sync()
    pair.centre.executescript(
        "update part set note = 'centre' where id = 1; delete from part where id = 2;"
        "update part set qty = 33 where id = 3; insert into part values (5, 'e', 5, 'centre');"
    )
    pair.site.executescript(
        "update part set note = 'site' where id = 1; update part set note = 'site' where id = 2;"
        "delete from part where id = 3; update part set qty = 44 where id = 4; insert into part values (5, 'f', 5, 'site');"
    )
    outcome = pair.sync()
    assert outcome is not None
    assert outcome.conflicts == 4
    kinds = pair.centre.execute('select kind, after, current from replicator_conflict order by "key"').fetchall()
    assert [kind for kind, _, _ in kinds] == ["update_differs", "update_missing", "delete_differs", "insert_exists"]
    assert json.loads(kinds[0][1]) == {"id": "1", "serial": "a", "qty": "1", "note": "site"}
    assert json.loads(kinds[0][2])["note"] == "centre"
    if policy is PolicyName.SOURCE_WINS:
        pair.assert_equal()
        pair.site.execute("update part set note = 'again'")
        again = pair.sync()
        assert again is not None
        assert again.conflicts == 0
        pair.assert_equal()
    else:
        notes = pair.centre.execute("select id, note, qty from part order by id").fetchall()
        assert notes == [(1, "centre", 1), (3, None, 33), (4, "g", 44), (5, "centre", 5)]


def test_children_and_parents_in_one_batch(make_pair: MakePair) -> None:
    pair = make_pair(FAMILY)
    pair.site.executescript("insert into parent values (1, 'p'); insert into child values (10, 1, 'c'), (11, 1, 'd');")
    pair.site.execute("update parent set name = 'later' where id = 1")
    pair.sync()
    pair.assert_equal()
    pair.site.execute("pragma foreign_keys = on")
    pair.site.execute("delete from parent where id = 1")
    pair.site.execute("insert into parent values (2, 'q')")
    outcome = pair.sync()
    assert outcome is not None
    assert (outcome.net, outcome.parked) == (4, 0)
    pair.assert_equal()


def test_a_row_without_its_parent_is_parked_alone_and_centre_rows_are_not_cascaded(make_pair: MakePair) -> None:
    pair = make_pair(FAMILY + "insert into parent values (1, 'p'); insert into child values (10, 1, 'c');")
    pair.sync()
    pair.centre.execute("insert into child values (99, 1, 'centre only')")
    pair.site.executescript("delete from child; delete from parent; insert into child values (50, 7, 'orphan');")
    outcome = pair.sync()
    assert outcome is not None
    assert outcome.parked == 2
    causes = {change.table: change for change in pair.target.list_parked()}
    assert causes["child"].sqlstate == causes["parent"].sqlstate == "SQLITE_CONSTRAINT_FOREIGNKEY"
    assert pair.centre.execute("select id from child").fetchall() == [(99,)]
    assert pair.centre.execute("select id from parent").fetchall() == [(1,)]


def test_a_full_disk_is_named_with_a_next_step(make_pair: MakePair) -> None:
    """The batch goes through once there is space."""
    pair = make_pair(PART)
    pair.site.executemany("insert into part values (?, ?, 0, ?)", [(n, f"s{n}", "x" * 4000) for n in range(200)])
    file = pair.target._session.connection
    (pages,) = file.execute("pragma page_count").fetchone()
    file.execute(f"pragma max_page_count = {pages + 50}")
    with pytest.raises(RetryableError, match="database or disk is full") as caught:
        pair.sync()
    assert "free space" in caught.value.hint
    pair.target._session.connection.execute("pragma max_page_count = 1000000")
    pair.sync()
    pair.assert_equal()


def test_what_made_sqlite_take_the_whole_transaction_back_is_named(make_pair: MakePair) -> None:
    """As on a full disk: savepoints are gone with it, each of which sees that, and the cause is told once."""
    trigger = "create trigger guard before insert on part begin select raise(rollback, 'closed today'); end;"
    pair = make_pair(PART, centre=PART + trigger)
    pair.site.execute("insert into part values (2, 'a', 2, 'y')")
    with pytest.raises(RetryableError, match="closed today; the transaction was") as caught:
        pair.sync()
    assert str(caught.value).count("rolled back") == 1


def test_two_sites_share_a_table_by_constants(sqlite_file: Callable[[str], Path]) -> None:
    paths = {name: sqlite_file(name) for name in ("factory_a", "factory_b")}
    centre_path = sqlite_file("centre")
    centre = create(
        centre_path,
        "create table part (site text, id integer, serial text, qty integer, note text, primary key (site, id));",
    )
    installer = SqliteInstaller(centre_path)
    shape = next(iter(installer.read_catalogue().tables.values()))
    for name, path in paths.items():
        site = create(path, PART + ROWS)
        plans = [replace(p, constants=(("site", name),), target_shape=shape) for p in plans_of(path)]
        capture(path, plans)
        installer.install(installer.plan_centre(TOPOLOGY, plans))
        link = LinkName(TOPOLOGY, name)
        source, target = SqliteSource(path, link, plans), SqliteTarget(centre_path, link, plans)
        run_once(source, target, 10)
        site.executescript("update part set qty = 0 where id = 1; delete from part where id = 3;")
        outcome = run_once(source, target, 10)
        assert outcome is not None
        assert (outcome.net, outcome.conflicts) == (2, 0)
        source.close()
        target.close()
        site.close()
    assert centre.execute("select site, id, qty from part order by 1, 2").fetchall() == [
        ("factory_a", 1, 0), ("factory_a", 2, 2), ("factory_b", 1, 0), ("factory_b", 2, 2),
    ]  # fmt: skip
    assert {record.link.site: record.changes for record in installer.list_links(TOPOLOGY)} == {
        "factory_a": 5,
        "factory_b": 5,
    }
    installer.close()
    centre.close()


# --- the link -----------------------------------------------------------------------------------------------------


def test_one_replicator_per_link(make_pair: MakePair) -> None:
    pair = make_pair(PART + ROWS)
    pair.target.take_lease()
    path = Path(pair.centre.execute("pragma database_list").fetchone()[2])
    second = SqliteTarget(path, LINK, pair.plans)
    with pytest.raises(LeaseError, match="worked on by"):
        second.take_lease()
    pair.target.close()
    second.take_lease()
    with pytest.raises(LeaseError):
        pair.target.take_lease()
    pair.centre.execute(
        "update replicator_link set lease_holder = substr(lease_holder, 1, instr(lease_holder, ':')) || '4194999:x'"
    )
    pair.target.take_lease()
    second.close()


def _run_while_the_position_moves(pair: Pair, position: Position | None) -> None:
    with pair.source.read_batch(position, 10) as batch, pair.target.transaction():
        assert batch is not None
        pair.target.stage_batch(batch)
        for span in pair.target.spans():
            apply_span(pair.target, span)
        pair.target._session.run("update replicator_link set position = 'elsewhere'")
        pair.target.record_batch(batch)


def test_a_position_that_moved_stops_the_batch(make_pair: MakePair) -> None:
    pair = make_pair(PART + ROWS)
    position = pair.target.read_position()
    with pytest.raises(StaleError):
        _run_while_the_position_moves(pair, position)
    assert pair.centre.execute("select count(*) from part").fetchone() == (0,)
    assert pair.sync() is not None
    pair.assert_equal()


def test_staging_holds_no_lock_and_a_locked_file_is_retryable(make_pair: MakePair) -> None:
    pair = make_pair(PART + ROWS)
    pair.sync()
    pair.site.execute("update part set qty = 5")
    with pair.source.read_batch(pair.target.read_position(), 10) as batch, pair.target.transaction():
        assert batch is not None
        pair.centre.execute("insert into part values (500, 'free', 1, 'writes while we are about to stage')")
        pair.target.stage_batch(batch)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            connect_briefly(pair).execute("insert into part values (501, 'x', 1, '')")
        for span in pair.target.spans():
            apply_span(pair.target, span)
        pair.target.record_batch(batch)
    pair.target._session.run("pragma busy_timeout = 50")
    pair.site.execute("update part set qty = 6")
    pair.centre.execute("begin immediate")
    with pytest.raises(RetryableError, match="locked"):
        pair.sync()
    pair.centre.rollback()
    assert pair.sync() is not None


def connect_briefly(pair: Pair) -> sqlite3.Connection:
    connection = connect(Path(pair.centre.execute("pragma database_list").fetchone()[2]))
    connection.execute("pragma busy_timeout = 0")
    return connection


def test_a_captured_target_notes_who_wrote_what_is_applied(make_pair: MakePair) -> None:
    pair = make_pair(PART + ROWS)
    path = Path(pair.centre.execute("pragma database_list").fetchone()[2])
    capture(path, plans_of(path), "onwards")
    pair.sync()
    pair.assert_equal()
    pair.centre.execute("update part set qty = 1 where id = 1")
    noted = pair.centre.execute("select op, k0, origin from replicator_outbox where seq > 1").fetchall()
    assert noted == [*(("i", number, LINK.origin) for number in (1, 2, 3)), ("u", 1, None)]
