"""A SQLite site follows the centre: the marker rule (invariant 6), what is parked (7), and what it costs others (8, 10)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.errors import BatchError, RetryableError, SetupError, StaleError
from replicator.model import Engine, Position
from replicator.pipeline import apply_spans, heal, retry_parked
from tests.fixtures.sqlite_followers import DOWN, Follower, State, closing_follower, make_follower
from tests.fixtures.sqlite_sites import TOPOLOGY, connect

PART = "create table part (id integer primary key, serial text unique, note text);"
ROWS = "insert into part values (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', null);"
TYPES = {"id": "bigint"}
FAMILY = (
    "create table parent (id integer primary key, name text);"
    "create table child (id integer primary key, parent integer not null references parent on delete cascade, v text);"
)

Make = Callable[..., Follower]


@pytest.fixture
def make(sqlite_file: Callable[[str], Path]) -> Iterator[Make]:
    """A factory of sites that are closed at the end."""
    with ExitStack() as stack:

        def one(script: str = PART, **options: object) -> Follower:
            options.setdefault("types", TYPES)
            path = sqlite_file("site")
            return stack.enter_context(closing_follower(make_follower(path, script, **options)))  # type: ignore[arg-type]

        yield one


@pytest.fixture(params=[Engine.POSTGRES, Engine.SQLITE])
def site(make: Make, request: pytest.FixtureRequest) -> Follower:
    return make(engine=request.param)


def rows(site: Follower, query: str = "select * from part order by id") -> list[tuple[object, ...]]:
    return site.application.execute(query).fetchall()


def test_states_are_written_whatever_stands_there(site: Follower) -> None:
    site.follow(State("part", (1, "a", "x")), State("part", (2, 'q"\\u,', None)), State("part", (3, "c", "z")))
    assert rows(site) == [(1, "a", "x"), (2, 'q"\\u,', None), (3, "c", "z")]
    outcome = site.follow(
        State("part", (1, "a", "y")), State("part", (2, 'q"\\u,', None)), State("part", (3,), gone=True)
    )
    assert rows(site) == [(1, "a", "y"), (2, 'q"\\u,', None)]
    assert (outcome.changes, outcome.net, outcome.conflicts, outcome.parked) == (3, 2, 0, 0)
    assert site.target.list_conflicts() == []


def test_what_is_applied_is_not_captured_and_wakes_nobody_twice(site: Follower) -> None:
    assert site.read() == ([], None)
    site.follow(State("part", (1, "a", "x")), State("part", (2, "b", "y")))
    site.follow(State("part", (1, "b", "x")), State("part", (2, "a", "y")), State("part", (3, "c", "y")))
    assert site.outbox() == []
    assert site.source.wait(0.0) is True
    assert site.read() == ([], None)
    assert site.source.wait(0.2) is False
    site.application.execute("update part set note = 'own' where id = 2")
    (block,), _ = site.read()
    assert [row[3:] for row in block.rows] == [(2, "a", "own")]


def test_a_row_changed_beyond_the_marker_is_passed_over(site: Follower) -> None:
    site.follow(State("part", (1, "a", "x")), State("part", (2, "b", "y")))
    site.application.execute("update part set note = 'mine' where id = 1")
    _, upto = site.read()
    assert upto is not None
    site.application.execute("insert into part values (3, 'c', 'mine')")
    both = State("part", (1, "a", "theirs")), State("part", (2, "b", "theirs")), State("part", (3, "d", "theirs"))
    site.follow(*both)
    assert rows(site) == [(1, "a", "mine"), (2, "b", "theirs"), (3, "c", "mine")]
    site.follow(State("part", (1,), gone=True), State("part", (3, "d", "theirs")), marker=upto)
    assert rows(site) == [(2, "b", "theirs"), (3, "c", "mine")], "the marker in the batch counts at once"
    _, upto = site.read(upto)
    site.follow(marker=upto)
    site.follow(State("part", (3, "d", "theirs")))
    assert rows(site) == [(2, "b", "theirs"), (3, "d", "theirs")]


def test_the_marker_is_kept_and_never_goes_back(site: Follower) -> None:
    def stored() -> str:
        query = "select position from replicator_acknowledged where link = ?"
        return str(site.application.execute(query, (DOWN.text,)).fetchone()[0])

    (first,) = site.application.execute("select link, position from replicator_acknowledged").fetchall()
    assert first[1].endswith(":0:0")
    site.application.executescript(ROWS)
    _, one = site.read()
    site.application.execute("update part set note = 'n'")
    _, two = site.read()
    assert one is not None
    assert two is not None
    site.follow(marker=two)
    assert stored() == two
    site.follow(marker=one)
    assert stored() == two
    assert site.application.execute("select count(*) from replicator_acknowledged").fetchone() == (1,)


def test_pruning_waits_for_the_marker(site: Follower) -> None:
    site.application.executescript(ROWS)
    _, upto = site.read()
    assert upto is not None
    site.source.acknowledge_batch(upto)
    site.source.tidy()
    assert len(site.outbox()) == 3
    site.follow(marker=upto)
    site.application.execute("delete from part where id = 1")
    site.source.acknowledge_batch(upto)
    site.source.tidy()
    assert site.outbox() == [("d", 1)]


def test_pruning_waits_for_the_first_acknowledgement_too(site: Follower) -> None:
    site.application.executescript(ROWS)
    _, upto = site.read()
    site.follow(marker=upto)
    site.application.execute("delete from part where id = 1")
    site.source._prunable = True
    site.source.tidy()
    assert site.outbox()[-2:] == [("i", 3), ("d", 1)]
    (block,), _ = site.read(upto)
    assert [row[1] for row in block.rows] == ["g"]


def test_a_file_restored_from_a_copy_is_told_by_the_marker(site: Follower) -> None:
    site.application.executescript(ROWS)
    _, upto = site.read()
    assert upto is not None
    nonce, seq, stamp = upto.split(":")
    for wrong in (f"{nonce}:{int(seq) + 5}:{stamp}", f"{nonce}:{seq}:{int(stamp) - 1}"):
        with pytest.raises(BatchError, match="restored"):
            site.follow(State("part", (1, "a", "theirs")), marker=Position(wrong))
    assert rows(site)[0] == (1, "a", "x")


def test_an_order_to_read_all_makes_every_row_that_is_there_pending(make: Make) -> None:
    site = make(PART, before_install=ROWS)
    site.follow(State("part", (1, "a", "theirs")), State("part", (9, "n", "theirs")), State("part", (2,), gone=True))
    assert rows(site) == [(1, "a", "x"), (2, "b", "y"), (3, "c", None), (9, "n", "theirs")]
    blocks, upto = site.read()
    assert [row[3] for block in blocks for row in block.rows] == [1, 2, 3, 9]
    site.follow(State("part", (1, "a", "theirs")), marker=upto)
    assert rows(site)[0] == (1, "a", "theirs")


def test_unique_values_swap(site: Follower) -> None:
    site.follow(State("part", (1, "a", "x")), State("part", (2, "b", "y")), State("part", (3, "c", "z")))
    outcome = site.follow(
        State("part", (1, "b", "x")),
        State("part", (2, "a", "y")),
        State("part", (3, "d", "z")),
        State("part", (4, "c", "n")),
    )
    assert outcome.parked == 0
    assert [row[1] for row in rows(site)] == ["b", "a", "d", "c"]
    assert site.outbox() == []


def test_a_refused_row_is_parked_alone_and_no_third_row_is_touched(site: Follower) -> None:
    """Invariants 7 and 8: the site's own row keeps its unique value; the centre's row goes in when it has left."""
    site.application.execute("insert into part values (77, 'mine', 'own')")
    site.application.execute("update part set note = 'again' where id = 77")
    outcome = site.follow(State("part", (1, "mine", "theirs"), base="5|x"), State("part", (2, "b", "theirs")))
    assert (outcome.net, outcome.parked) == (1, 1)
    assert rows(site) == [(2, "b", "theirs"), (77, "mine", "again")]
    (parked,) = site.target.list_parked()
    assert parked.sqlstate == "SQLITE_CONSTRAINT_UNIQUE"
    assert parked.after == {"id": "1", "serial": "mine", "note": "theirs"}
    assert retry_parked(site.target, parked.id) is False
    (parked,) = site.target.list_parked()
    assert parked.attempts == 2
    with pytest.raises(SetupError, match="as the centre has it"):
        site.target.edit_parked(parked.id, {"serial": "other"})
    site.application.execute("delete from part where id = 77")
    assert retry_parked(site.target, parked.id) is True
    assert rows(site) == [(1, "mine", "theirs"), (2, "b", "theirs")]
    assert site.target.list_parked() == []
    assert site.bases()["[1]"] == (0, "5", "x")


def test_a_newer_state_stands_for_a_parked_one(site: Follower) -> None:
    site.application.execute("insert into part values (77, 'mine', 'own')")
    site.follow(State("part", (1, "mine", "old")))
    site.follow(State("part", (1, "mine", "newer")))
    (parked,) = site.target.list_parked()
    assert parked.after is not None
    assert parked.after["note"] == "newer"
    site.follow(State("part", (1, "free", "newest")))
    assert site.target.list_parked() == []
    assert rows(site) == [(1, "free", "newest"), (77, "mine", "own")]


def test_a_change_of_the_sites_own_stands_for_a_parked_state(site: Follower) -> None:
    """The centre answers that change; the state parked before must not come over its answer."""
    site.application.execute("insert into part values (77, 'mine', 'own')")
    _, upto = site.read()
    site.follow(State("part", (1, "mine", "old")), marker=upto)
    assert len(site.target.list_parked()) == 1
    site.application.execute("insert into part values (1, 'free', 'own')")
    (parked,) = site.target.list_parked()
    site.application.execute("delete from part where id = 77")
    _, upto = site.read(upto)
    site.follow(marker=upto)
    assert site.target.list_parked() == []
    assert rows(site) == [(1, "free", "own")]
    with pytest.raises(SetupError, match="no parked change"):
        retry_parked(site.target, parked.id)


def test_trying_a_parked_row_again_passes_over_a_pending_one(site: Follower) -> None:
    site.application.execute("insert into part values (77, 'mine', 'own')")
    site.follow(State("part", (1, "mine", "old")))
    (parked,) = site.target.list_parked()
    site.application.execute("delete from part where id = 77")
    site.application.execute("insert into part values (1, 'free', 'own')")
    assert retry_parked(site.target, parked.id) is True
    assert rows(site) == [(1, "free", "own")]
    assert site.target.list_parked() == []


def test_parked_rows_that_want_each_others_values_go_in_together(site: Follower) -> None:
    site.application.execute("insert into part values (1, 'a', 'own'), (2, 'b', 'own'), (3, 'c', 'own')")
    _, upto = site.read()
    site.follow(marker=upto)
    site.follow(State("part", (1, "b", "theirs")))
    site.follow(State("part", (2, "c", "theirs")))
    site.follow(State("part", (3, "a", "theirs")), State("part", (4, "c", "never")))
    assert heal(site.target, 10).refused == 1
    assert [row[1] for row in rows(site)] == ["b", "c", "a"]
    assert [parked.key for parked in site.target.list_parked()] == ["[4]"]


def test_values_the_column_cannot_hold_are_parked(make: Make) -> None:
    site = make("create table n (id integer primary key, r real, i integer);", types={"id": "bigint", "r": "numeric"})
    exact = "0.1000000000000000055511151231257827"
    outcome = site.follow(State("n", (1, exact, None)), State("n", (2, "1.5", None)), State("n", (3, "2.5", "1.5")))
    assert outcome.parked == 2
    assert rows(site, "select id, r from n") == [(2, 1.5)]
    assert {parked.key for parked in site.target.list_parked()} == {"[1]", "[3]"}
    site.follow(State("n", (1, "0.5", None)))
    assert [parked.key for parked in site.target.list_parked()] == ["[3]"]


def test_a_child_waits_for_its_parent(make: Make) -> None:
    site = make(FAMILY, types={"id": "bigint", "parent": "bigint"})
    assert site.follow(State("child", (10, 1, "c")), State("parent", (1, "p"))).parked == 0
    assert site.follow(State("child", (11, 2, "d"))).parked == 1
    (parked,) = site.target.list_parked()
    assert parked.sqlstate == "SQLITE_CONSTRAINT_FOREIGNKEY"
    site.application.execute("insert into child values (12, 1, 'own')")
    outcome = site.follow(State("parent", (1,), gone=True), State("child", (10,), gone=True))
    assert outcome.parked == 1, "the parent has a child of the site's own"
    assert rows(site, "select id from child") == [(12,)]
    site.follow(State("parent", (2, "q")))
    assert retry_parked(site.target, parked.id) is True
    assert rows(site, "select id from child order by 1") == [(11,), (12,)]


def test_a_table_of_nothing_but_its_key(make: Make) -> None:
    site = make("create table pair (a integer, b text, primary key (b, a)) without rowid;", types={"a": "bigint"})
    site.follow(State("pair", (1, "x")), State("pair", (2, "y")))
    site.follow(State("pair", ("x", 1), gone=True), State("pair", (2, "y")))
    assert rows(site, "select * from pair") == [(2, "y")]


def test_composite_loose_keys_and_renamed_columns(make: Make) -> None:
    script = "create table w (v text, b, a text collate nocase, primary key (a, b)) without rowid;"
    site = make(script, engine=Engine.SQLITE, renamed="centre's ")
    site.follow(State("w", ("x", 1, "Key")), State("w", ("y", 2.5, "Key")), State("w", ("z", b"\0", "é")))
    assert rows(site, "select a, b, v from w order by v") == [("Key", 1, "x"), ("Key", 2.5, "y"), ("é", b"\0", "z")]
    site.application.execute("update w set a = 'KEY' where b = 1")
    site.application.execute("update w set v = 'mine' where b = 2.5")
    site.follow(State("w", ("Key", 2.5), gone=True), State("w", ("theirs", b"\0", "é")))
    assert rows(site, "select a, b, v from w order by v") == [
        ("Key", 2.5, "mine"),
        ("é", b"\0", "theirs"),
        ("KEY", 1, "x"),
    ]
    blocks, upto = site.read()
    site.follow(State("w", ("back", 1, "KEY")), State("w", ("Key", 2.5), gone=True), marker=upto)
    assert rows(site, "select a, b, v from w order by v") == [("KEY", 1, "back"), ("é", b"\0", "theirs")]
    assert len(blocks[0].rows) == 3


# --- the application beside us ------------------------------------------------------------------------------------


def test_an_application_that_holds_the_lock_is_waited_for_and_then_tried_again(site: Follower) -> None:
    site.target._session.run("pragma busy_timeout = 50")
    batch = site.batch([State("part", (1, "a", "x"))])
    site.application.execute("begin immediate")
    site.application.execute("insert into part values (1, 'a', 'mine')")
    with pytest.raises(RetryableError, match="locked"):
        site.apply(batch)
    site.application.execute("commit")
    site.follow(State("part", (1, "a", "x")), State("part", (2, "b", "x")))
    assert rows(site) == [(1, "a", "mine"), (2, "b", "x")]


def test_what_the_application_commits_while_a_batch_is_staged_is_pending(site: Follower) -> None:
    batch = site.batch([State("part", (1, "a", "x")), State("part", (2, "b", "x"))])
    with site.target.transaction():
        site.application.execute("insert into part values (1, 'a', 'mine')")
        site.target.stage_batch(batch)
        site.application.execute("pragma busy_timeout = 0")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            site.application.execute("delete from part")
        apply_spans(site.target)
        site.target.record_batch(batch)
    assert rows(site) == [(1, "a", "mine"), (2, "b", "x")]


def test_a_reader_that_is_open_all_the_while_does_not_matter(site: Follower) -> None:
    reader = connect(site.path)
    reader.execute("begin")
    reader.execute("select * from part").fetchall()
    site.follow(State("part", (1, "a", "x")))
    assert reader.execute("select * from part").fetchall() == []
    reader.execute("commit")
    assert reader.execute("select * from part").fetchall() == [(1, "a", "x")]
    reader.close()


def test_another_replicators_position_stops_the_batch(site: Follower) -> None:
    batch = site.batch([State("part", (1, "a", "x"))])
    site.follow(State("part", (2, "b", "x")))
    with pytest.raises(StaleError):
        site.apply(batch)
    assert rows(site) == [(2, "b", "x")]


def test_what_the_applications_triggers_do_elsewhere_is_the_sites_own(make: Make) -> None:
    log = (
        "create table log (id integer primary key, what text);"
        "create trigger noted after insert on part begin insert into log (what) values ('new ' || new.id); end;"
    )
    site = make(PART + log)
    site.follow(State("part", (1, "a", "x"), base="1"))
    assert rows(site, "select what from log") == [("new 1",)]
    blocks, upto = site.read()
    assert [(row[1], row[3:]) for block in blocks for row in block.rows] == [("s", (1, "new 1"))]
    site.follow(State("log", (1, "new 1"), base="1"), State("part", (2, "b", "x")), marker=upto)
    assert len(rows(site, "select what from log")) == 2


def test_what_the_applications_triggers_do_to_our_rows_is_undone_and_else_sent(make: Make) -> None:
    stock = (
        "create table stock (id integer primary key, n integer); create table move (id integer primary key, n integer);"
        "create trigger moved after insert on move begin update stock set n = n + new.n; end;"
        "create trigger tidy after insert on part begin update part set note = lower(note) where id = new.id; end;"
        "create trigger tidied after update on part begin update part set note = lower(note) where id = new.id; end;"
    )
    site = make(PART + stock, types={"id": "bigint", "n": "bigint"})
    site.follow(State("stock", (1, 5)), State("move", (1, 5)), State("part", (1, "a", "quiet")))
    assert rows(site, "select n from stock") == [(5,)], "the centre has counted the move already"
    assert site.outbox() == []
    site.follow(State("part", (1, "a", "LOUD"), base="1"))
    assert rows(site) == [(1, "a", "loud")]
    blocks, _ = site.read()
    assert [row[3:] for block in blocks for row in block.rows] == [(1, "a", "loud")]
    assert [base.checksum for block in blocks for base in block.bases] == ["1"]


def test_another_topology_sends_on_what_comes(make: Make) -> None:
    site = make(PART)
    installer = SqliteInstaller(site.path)
    installer.install(installer.plan_site("another", site.up_plans))
    installer.close()
    site.follow(State("part", (1, "a", "x")))
    query = (
        "select op, k0 from replicator_outbox where relation in (select id from replicator_relation where topology = ?)"
    )
    assert site.application.execute(query, ("another",)).fetchall() == [("i", 1)]
    assert site.application.execute(query, (TOPOLOGY,)).fetchall() == []


def test_a_table_of_both_that_is_not_captured_is_an_error(make: Make) -> None:
    site = make(PART)
    site.application.execute("update replicator_relation set retired_at = 'now'")
    with pytest.raises(SetupError, match="not captured here"):
        site.follow(State("part", (1, "a", "x")))
