"""A PostgreSQL centre that decides: row versions, decisions on record, answers to the site, a person's word."""

from __future__ import annotations

import json

import pytest

from replicator.errors import RejectedError, SetupError
from replicator.model import RecordedConflict
from replicator.pipeline import retry_parked
from tests.fixtures.pairs import MakePair, Pair

BOOK = {
    "postgres": "create table book (id bigint primary key, title text, n bigint)",
    "sqlite": "create table book (id integer primary key, title text, n integer)",
}
MERGE = {"name": "merge_columns", "columns": {"n": "add"}, "otherwise": "source_wins"}
ENGINES = ["postgres", "sqlite"]


def made(make_pair: MakePair, engine: str = "postgres", policy: object = "source_wins", **rule: object) -> Pair:
    """A site of one engine and a PostgreSQL centre that both write table book; three rows are agreed on."""
    pair = make_pair(engine, "postgres")
    pair.site.run(BOOK[engine])
    pair.install({"name": "book", "direction": "both", "policy": policy, **rule})
    pair.site.run("insert into book values (1, 'one', 1), (2, 'two', 2), (3, 'three', 3)")
    pair.send()
    return pair


def conflicts(pair: Pair) -> list[RecordedConflict]:
    """All recorded conflicts of the site's link."""
    with pair.ends() as ends:
        return list(ends.target.list_conflicts())


def versions(pair: Pair) -> list[tuple[object, ...]]:
    """(key, origin, version, deleted) of every row that has a version."""
    return pair.centre.rows(
        "select key, origin, version, deleted from replicator.ledger as l join replicator.feed as f on f.id = l.feed"
        " where f.link = 0 order by key"
    )


def outbox(pair: Pair) -> list[tuple[object, ...]]:
    """(op, key, route) of what is for the site alone, markers apart."""
    return pair.centre.rows(
        "select op, key, route from replicator.outbox where route like '@%' and op <> 'm' order by seq"
    )


# --- versions ---


@pytest.mark.parametrize("engine", ENGINES)
def test_the_ledger_knows_who_wrote_each_row_last(make_pair: MakePair, engine: str) -> None:
    pair = made(make_pair, engine)
    site = "bloodlab/factory_a"
    assert versions(pair) == [(f"({n})", site, 1, False) for n in (1, 2, 3)]
    pair.centre.run(
        "update book set n = 20 where id = 2", "delete from book where id = 3", "insert into book values (4)"
    )
    assert versions(pair)[1:] == [("(2)", None, 2, False), ("(3)", None, 2, True), ("(4)", None, 1, False)]
    pair.site.run("update book set n = 10 where id = 1", "insert into book values (5, 'five', 5)")
    pair.site.run("delete from book where id = 2")
    pair.send()
    assert versions(pair) == [
        ("(1)", site, 2, False), ("(2)", site, 3, True), ("(3)", None, 2, True), ("(4)", None, 1, False),
        ("(5)", site, 1, False),
    ]  # fmt: skip
    changed = pair.centre.rows("select changed_at from replicator.ledger where key = '(1)'")
    assert len(set(changed)) == (1 if engine == "sqlite" else len(changed))


def test_what_is_already_there_keeps_its_version(make_pair: MakePair) -> None:
    pair = made(make_pair)
    pair.centre.run("update book set n = 10 where id = 1", "insert into book values (9, 'nine', 9)")
    pair.site.run("update book set n = 10 where id = 1", "insert into book values (9, 'nine', 9), (8, 'eight', 8)")
    pair.send()
    site = "bloodlab/factory_a"
    assert [row[:2] for row in versions(pair)] == [
        ("(1)", None), ("(2)", site), ("(3)", site), ("(8)", site), ("(9)", None),
    ]  # fmt: skip
    assert conflicts(pair) == []


def test_a_key_that_moves_leaves_a_tombstone(make_pair: MakePair) -> None:
    pair = made(make_pair)
    pair.site.run("update book set id = 7 where id = 1", "update book set id = 1 where id = 2")
    pair.send()
    assert [(key, deleted) for key, _, _, deleted in versions(pair)] == [
        ("(1)", False), ("(2)", True), ("(3)", False), ("(7)", False),
    ]  # fmt: skip


def test_a_truncate_leaves_tombstones(make_pair: MakePair) -> None:
    pair = made(make_pair, truncate="replicate")
    pair.site.run("truncate book", "insert into book values (2, 'new', 2)")
    pair.send()
    assert [(key, deleted) for key, _, _, deleted in versions(pair)] == [("(1)", True), ("(2)", False), ("(3)", True)]


# --- conflicts on record, and answers ---


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", ["source_wins", "centre_wins"])
def test_a_conflict_is_recorded_with_all_it_was_decided_on(make_pair: MakePair, engine: str, policy: str) -> None:
    pair = made(make_pair, engine, policy)
    pair.centre.run("update book set title = 'centre' where id = 1", "delete from book where id = 2")
    pair.site.run("update book set title = 'site' where id in (1, 2)")
    pair.send()
    differs, deleted = sorted(conflicts(pair), key=lambda each: each.key)
    assert (differs.kind, deleted.kind) == ("update_differs", "update_deleted")
    assert differs.site == "factory_a"
    assert (differs.current_origin, deleted.current_origin) == ("centre", "centre")
    assert 0 < differs.current_at < deleted.current_at
    assert differs.based is (engine == "postgres")
    assert differs.before == ({"id": "1", "title": "one", "n": "1"} if engine == "postgres" else None)
    assert differs.result == {"id": "1", "title": "site" if policy == "source_wins" else "centre", "n": "1"}
    assert (deleted.result is None) is (policy == "centre_wins")
    assert (differs.state, differs.key) == ("decided", "(1)")
    corrections = [("u", "(1)", "@bloodlab/factory_a"), ("u", "(2)", "@bloodlab/factory_a")]
    assert outbox(pair) == ([] if policy == "source_wins" else corrections)


def test_every_batch_of_a_site_that_follows_leaves_its_marker(make_pair: MakePair) -> None:
    pair = made(make_pair)
    with pair.ends() as ends:
        position = ends.target.read_position()
    markers = pair.centre.rows("select relation, key, route from replicator.outbox where op = 'm' order by seq")
    assert markers[-1] == (0, position, "@bloodlab/factory_a")


@pytest.mark.parametrize("engine", ENGINES)
def test_columns_are_merged_by_their_base(make_pair: MakePair, engine: str) -> None:
    pair = made(make_pair, engine, MERGE)
    pair.centre.run("update book set n = n + 10 where id = 1", "update book set n = 7 where id = 2")
    pair.site.run(
        "update book set title = 'site', n = n + 100 where id = 1", "update book set title = 'x' where id = 2"
    )
    pair.send()
    assert pair.centre.rows("select id, title, n from book order by id") == [
        (1, "site", 111),
        (2, "x", 7),
        (3, "three", 3),
    ]
    assert [each.verdict for each in conflicts(pair)] == ["merge", "merge"]
    assert all(each.based for each in conflicts(pair))
    assert [key for _, key, _ in outbox(pair)] == ["(1)", "(2)"]
    pair.site.run("update book set n = n + 100 where id = 1")
    pair.send()
    assert pair.centre.rows("select n from book where id = 1") == [(211,)], (
        "the base is what the site made of the row itself"
    )


def test_a_rule_in_sql_reads_the_three_rows(make_pair: MakePair) -> None:
    rule = "case when site.n > centre.n then 'source' when base.n = 3 then 'park' else 'centre' end"
    pair = made(make_pair, "postgres", {"name": "rule", "sql": rule})
    pair.centre.run("update book set n = 50")
    pair.site.run("update book set n = 60 where id = 1", "update book set n = 40 where id in (2, 3)")
    pair.send()
    assert [(each.key, each.verdict) for each in conflicts(pair)] == [
        ("(1)", "apply"),
        ("(2)", "keep"),
        ("(3)", "park"),
    ]
    assert pair.centre.rows("select n from book order by id") == [(60,), (50,), (50,)]


# --- a person decides ---


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_for_a_person_waits_and_later_changes_wait_behind_it(make_pair: MakePair, engine: str) -> None:
    pair = made(make_pair, engine, "manual")
    pair.centre.run("update book set title = 'centre' where id = 1")
    pair.site.run("update book set title = 'site' where id = 1", "update book set n = 20 where id = 2")
    pair.send()
    pair.site.run("update book set n = 5 where id = 1")
    pair.send()
    (waiting,) = conflicts(pair)
    first, _ = pair.parked()
    assert (waiting.state, waiting.parked) == ("waiting", first.id)
    assert pair.centre.rows("select title, n from book where id in (1, 2) order by id") == [("centre", 1), ("two", 20)]
    with pair.ends() as ends:
        assert ends.target.list_queues(10) == []


def test_a_persons_word_becomes_the_row_everywhere(make_pair: MakePair) -> None:
    pair = made(make_pair, "postgres", "manual")
    pair.centre.run("update book set title = 'centre' where id = 1")
    pair.site.run("update book set title = 'site' where id = 1")
    pair.send()
    pair.site.run("update book set title = 'site again' where id = 1")
    pair.send()
    (waiting,) = conflicts(pair)
    with pair.ends() as ends:
        assert ends.target.read_row("book", waiting.key) == {"id": "1", "title": "centre", "n": "1"}
        with pytest.raises(SetupError):
            ends.target.settle_conflict(waiting.id, {"nonsense": "1"}, "by hand")
        with pytest.raises(SetupError):
            ends.target.settle_conflict(waiting.id + 100, {}, "by hand")
        with pytest.raises(RejectedError):
            ends.target.settle_conflict(waiting.id, {"n": "many"}, "by hand")
        assert len(ends.target.list_parked()) == 2, "nothing was done"
        assert ends.target.settle_conflict(waiting.id, {"title": "agreed", "n": "7"}, "by hand")
        assert ends.target.list_parked() == []
    assert pair.centre.rows("select title, n from book where id = 1") == [("agreed", 7)]
    settled, dropped = conflicts(pair)
    assert (settled.state, settled.resolution, settled.result) == (
        "resolved",
        "by hand",
        {"id": "1", "title": "agreed", "n": "7"},
    )
    assert (dropped.kind, dropped.after) == ("parked", {"id": "1", "title": "site again", "n": "1"})
    assert outbox(pair)[-1] == ("u", "(1)", "@bloodlab/factory_a")
    assert ("(1)", None) in [row[:2] for row in versions(pair)]
    with pair.ends() as ends:
        pair.centre.run("update book set n = 8 where id = 1")
        assert not ends.target.settle_conflict(waiting.id, None, "redo", expected=True)
        pair.centre.run("update book set n = 7 where id = 1")
        assert ends.target.settle_conflict(waiting.id, None, "redo", expected=True)
    assert pair.centre.rows("select count(*) from book where id = 1") == [(0,)]


def test_a_change_that_waited_and_is_tried_again_is_decided_anew(make_pair: MakePair) -> None:
    pair = made(make_pair, "postgres", "manual")
    pair.centre.run("update book set title = 'centre' where id = 1")
    pair.site.run("update book set title = 'site' where id = 1")
    pair.send()
    (change,) = pair.parked()
    with pair.ends() as ends:
        retry_parked(ends.target, change.id)
    assert [each.id for each in pair.parked()] == [change.id]
    assert [(each.state, each.parked) for each in conflicts(pair)] == [("resolved", change.id), ("waiting", change.id)]
    pair.centre.run("update book set title = 'one' where id = 1")
    with pair.ends() as ends:
        assert retry_parked(ends.target, change.id)
    assert pair.parked() == []
    assert pair.centre.rows("select title from book where id = 1") == [("site",)]


def test_a_healed_row_goes_to_every_site_and_keeps_its_time(make_pair: MakePair) -> None:
    pair = made(make_pair)
    pair.centre.run("alter table book add check (n < 100)")
    pair.site.run("update book set n = 500, title = 'a' where id = 1")
    pair.send()
    pair.site.run("update book set title = 'b' where id = 1")
    pair.send()
    pair.centre.run("alter table book drop constraint book_n_check")
    with pair.ends() as ends:
        (queue,) = ends.target.list_queues(10)
        assert len(queue) == 2
        assert retry_parked(ends.target, *queue)
        assert ends.target.list_queues(10) == []
    assert pair.centre.rows("select title, n from book where id = 1") == [("b", 500)]
    newest = pair.centre.rows(
        "select op, origin, route from replicator.outbox where op <> 'm' order by seq desc limit 1"
    )
    assert newest == [("u", None, "")]
    site_time = pair.centre.rows("select max(newest_changed_at) from replicator.link")
    assert pair.centre.rows("select origin, changed_at from replicator.ledger where key = '(1)'") == [
        ("bloodlab/factory_a", site_time[0][0])
    ]
    assert conflicts(pair) == []


def test_a_dropped_change_is_answered(make_pair: MakePair) -> None:
    pair = made(make_pair)
    pair.centre.run("alter table book add check (n < 100)")
    pair.site.run("update book set n = 500 where id = 1")
    pair.send()
    with pair.ends() as ends:
        ends.target.skip_parked(ends.target.list_parked()[0].id)
    assert outbox(pair) == [("u", "(1)", "@bloodlab/factory_a")]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rows_history_is_told_in_order(make_pair: MakePair, engine: str) -> None:
    pair = made(make_pair, engine, "centre_wins")
    pair.centre.run("update book set title = 'centre' where id = 1")
    pair.site.run("update book set title = 'site' where id = 1")
    pair.send()
    with pair.ends() as ends:
        events = ends.target.read_history("book", ["1"])
        with pytest.raises(SetupError):
            ends.target.read_history("book", ["1", "2"])
    assert [(event.source, event.origin) for event in events if event.what != "the site has the row"] == [
        ("ledger", "centre"), ("conflict", "factory_a"),
    ]  # fmt: skip
    assert events[-1].image == {"id": "1", "title": "centre", "n": "1"}
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert json.dumps(events[-1].image)


@pytest.mark.parametrize("policy", ["centre_wins", MERGE])
def test_what_a_file_knows_of_a_row_is_preferred_to_the_ledger(make_pair: MakePair, policy: object) -> None:
    """The site changes a row that the centre wrote there last: its base came down with the row, the ledger never had it."""
    pair = made(make_pair, "sqlite", policy)
    pair.centre.run("update book set title = 'centre', n = n + 10")
    pair.settle()
    pair.site.run("update book set n = n + 100 where id = 1", "delete from book where id = 2")
    pair.send()
    assert conflicts(pair) == []
    assert pair.centre.rows("select id, title, n from book order by id") == [(1, "centre", 111), (3, "centre", 13)]
    pair.centre.run("update book set n = n + 1000 where id = 3")
    pair.settle()
    pair.centre.run("update book set n = n + 10000 where id = 3")
    pair.site.run("update book set n = n + 7 where id = 3")
    pair.settle()
    (conflict,) = conflicts(pair)
    assert conflict.based is (policy == MERGE)
    assert pair.centre.rows("select n from book where id = 3") == [(11013 + (7 if policy == MERGE else 0),)]
    pair.assert_converged("book")
