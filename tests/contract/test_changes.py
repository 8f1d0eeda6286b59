"""Invariants 1, 2, 5 and 6 on every engine pair: what the site's tables hold, the centre's hold after a drain."""

from __future__ import annotations

import pytest

from tests.fixtures.pairs import MakePair, Pair

ITEM = "create table item (id integer primary key, name text, amount double precision, n bigint)"
CODE = "create table code (id integer primary key, code text not null unique, label text)"
PARENT = "create table parent (id integer primary key, name text)"
CHILD = "create table child (id integer primary key, parent_id integer not null references parent (id), name text)"


@pytest.fixture
def item(pair: Pair) -> Pair:
    """A pair with the table ``item`` captured."""
    pair.site.run(ITEM)
    pair.install("item")
    return pair


def test_insert_update_and_delete_arrive(item: Pair) -> None:
    item.site.run("insert into item values (1, 'a', 0.1, 9007199254740993), (2, '', null, -1), (3, null, 1e-320, 0)")
    assert [outcome.net for outcome in item.sync()] == [3]
    item.assert_equal("item")
    item.site.run("update item set name = 'b', amount = -0.5 where id = 1", "delete from item where id = 2")
    item.sync()
    item.assert_equal("item")
    assert item.centre.rows("select id, name from item order by id") == [(1, "b"), (3, None)]
    assert item.sync() == []


def test_several_changes_of_a_row_in_one_batch_are_one(item: Pair) -> None:
    item.site.run("insert into item values (5, 'old', 1, 1), (6, 'old', 1, 1), (7, 'old', 1, 1)")
    item.sync()
    item.site.run(
        "insert into item values (1, 'comes and goes', 1, 1)",
        "update item set n = 2 where id = 1",
        "delete from item where id = 1",
        "insert into item values (2, 'a', 1, 1)",
        "update item set name = 'b' where id = 2",
        "update item set name = 'c', n = 3 where id = 2",
        "update item set name = 'x' where id = 5",
        "update item set name = 'old' where id = 5",
        "delete from item where id = 6",
        "insert into item values (6, 'new', 2, 2)",
        "update item set name = 'gone' where id = 7",
        "delete from item where id = 7",
    )
    outcomes = item.sync()
    item.assert_equal("item")
    assert item.conflicts() == []
    assert sum(outcome.net for outcome in outcomes) <= 4


def test_changes_read_one_by_one_end_in_the_same_rows(item: Pair) -> None:
    for n in range(6):
        item.site.run(f"insert into item values ({n}, 'a', {n}, 0)", f"update item set n = n + 1 where id <= {n}")
    item.site.run("delete from item where id = 3", "insert into item values (3, 'again', 0, 0)")
    item.sync(limit=1)
    item.assert_equal("item")
    assert item.conflicts() == []


def test_a_key_update_moves_the_row(item: Pair) -> None:
    item.site.run("insert into item values (1, 'a', 1, 1), (2, 'b', 2, 2)")
    item.sync()
    item.site.run("update item set id = 10 where id = 1")
    item.sync()
    item.assert_equal("item")
    item.site.run("update item set id = 11, name = 'both' where id = 10", "update item set n = 5 where id = 11")
    item.sync()
    item.assert_equal("item")
    assert item.conflicts() == []


def test_a_chain_and_a_swap_of_keys_arrive(item: Pair) -> None:
    item.site.run("insert into item values (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', 3, 3), (4, 'd', 4, 4)")
    item.sync()
    item.site.commit(
        "update item set id = 5 where id = 4",
        "update item set id = 4 where id = 3",
        "update item set id = 3 where id = 2",
    )
    item.sync()
    item.assert_equal("item")
    item.site.commit(
        "update item set id = -1 where id = 1",
        "update item set id = 1 where id = 3",
        "update item set id = 3 where id = -1",
    )
    item.sync()
    item.assert_equal("item")
    assert item.parked() == []
    assert item.conflicts() == []


def test_all_keys_shifted_by_one_statement_arrive(item: Pair) -> None:
    item.site.run(*(f"insert into item values ({n}, 'row {n}', {n}, {n})" for n in range(1, 21)))
    item.sync()
    # Rows are moved out and back, as no engine takes "id = id + 1" on a key that is checked at once.
    item.site.commit("update item set id = -id", "update item set id = 1 - id")
    item.sync()
    item.assert_equal("item")
    assert item.parked() == []


def test_a_unique_value_goes_from_row_to_row(pair: Pair) -> None:
    pair.site.run(CODE)
    pair.install("code")
    pair.site.run("insert into code values (1, 'A', 'one'), (2, 'B', 'two'), (3, 'C', 'three')")
    pair.sync()
    pair.site.commit(
        "update code set code = 'tmp' where id = 1",
        "update code set code = 'A' where id = 2",
        "update code set code = 'B' where id = 1",
    )
    pair.site.run("delete from code where id = 3", "insert into code values (4, 'C', 'taken over')")
    pair.sync()
    pair.assert_equal("code")
    assert pair.parked() == []


def test_a_unique_value_swapped_where_the_centre_checks_at_once(pair: Pair) -> None:
    """The centre's own table has a plain unique key, not the deferred one that install would make."""
    pair.site.run(CODE)
    pair.centre.run("create table code (id bigint primary key, code text not null unique, label text)")
    pair.install("code")
    pair.site.run("insert into code values (1, 'A', 'one'), (2, 'B', 'two'), (3, 'C', 'three')")
    pair.sync()
    pair.site.commit("delete from code where id = 3", "insert into code values (4, 'C', 'taken over')")
    pair.sync()
    pair.assert_equal("code")
    pair.site.commit(
        "update code set code = 'tmp' where id = 1",
        "update code set code = 'A' where id = 2",
        "update code set code = 'B' where id = 1",
    )
    pair.sync()
    # What cannot be brought in without breaking the key on the way waits; nothing is lost, and it heals by command.
    while pair.parked() and any(pair.retry()):
        pass
    assert len(pair.centre.rows("select id from code")) + len(pair.parked()) >= 3


def test_parents_and_children_in_every_order(pair: Pair) -> None:
    pair.site.run(PARENT, CHILD)
    pair.install("child", "parent")
    pair.site.commit(
        "insert into parent values (1, 'p1'), (2, 'p2')",
        "insert into child values (10, 1, 'c'), (11, 1, 'c'), (12, 2, 'c')",
    )
    pair.sync()
    pair.assert_equal("parent", "child")
    pair.site.commit(
        "insert into parent values (3, 'p3')",
        "update child set parent_id = 3 where parent_id = 1",
        "delete from parent where id = 1",
    )
    pair.sync()
    pair.assert_equal("parent", "child")
    pair.site.run("delete from child where parent_id = 2", "delete from parent where id = 2")
    pair.site.run("insert into parent values (2, 'again')", "insert into child values (12, 2, 'again')")
    pair.sync()
    pair.assert_equal("parent", "child")
    pair.site.commit("delete from child", "delete from parent")
    pair.sync()
    pair.assert_equal("parent", "child")
    assert pair.parked() == []
    assert pair.conflicts() == []


def test_a_table_that_refers_to_itself(pair: Pair) -> None:
    pair.site.run("create table node (id integer primary key, up integer references node (id))")
    pair.install("node")
    pair.site.run(
        "insert into node values (1, null)", "insert into node values (2, 1)", "insert into node values (3, 2)"
    )
    pair.site.run("insert into node values (9, 3)", "update node set up = 9 where id = 1")
    pair.sync()
    pair.assert_equal("node")
    pair.site.run("update node set up = null", "delete from node where id < 9")
    pair.sync()
    pair.assert_equal("node")
    assert pair.parked() == []


def test_composite_and_text_keys(pair: Pair) -> None:
    pair.site.run("create table reading (device text, day integer, value double precision, primary key (device, day))")
    pair.install("reading")
    pair.site.run(
        "insert into reading values ('a', 1, 1.5), ('a', 2, 2.5), ('', 1, 0), ('a,\"b)', 1, 3), ('(', -1, 4)",
        "update reading set value = -value where device = 'a'",
        "delete from reading where device = ''",
        "update reading set day = 7 where day = -1",
    )
    pair.sync()
    pair.site.run("update reading set device = 'z' where device = 'a'", "update reading set value = 9 where day = 7")
    pair.sync()
    pair.assert_equal("reading")
    assert pair.parked() == []


def test_a_table_of_nothing_but_its_key(pair: Pair) -> None:
    pair.site.run("create table tag (a integer, b integer, primary key (a, b))")
    pair.install("tag")
    pair.site.run("insert into tag values (1, 1), (1, 2), (2, 1)")
    pair.sync()
    pair.site.run("delete from tag where a = 2", "update tag set b = 3 where b = 2", "insert into tag values (5, 5)")
    pair.sync()
    pair.assert_equal("tag")


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_replace_and_upsert_of_sqlite_arrive(make_pair: MakePair, target: str) -> None:
    pair = make_pair("sqlite", target)
    pair.site.run(CODE)
    pair.install("code")
    pair.site.run("insert into code values (1, 'A', 'one'), (2, 'B', 'two'), (3, 'C', 'three')")
    pair.sync()
    pair.site.run(
        "insert or replace into code values (4, 'A', 'takes the code of 1')",
        "replace into code values (2, 'B', 'same row')",
        "update or replace code set code = 'B' where id = 3",
        "insert into code values (4, 'D', 'x') on conflict (id) do update set label = excluded.label",
        "insert or ignore into code values (4, 'E', 'ignored')",
    )
    pair.sync()
    pair.assert_equal("code")
    assert pair.site.rows("select id from code order by id") == [(3,), (4,)]
    assert pair.parked() == []
    assert pair.conflicts() == []


def test_existing_rows_arrive_with_install(pair: Pair) -> None:
    pair.site.run(PARENT, CHILD)
    pair.site.run(*(f"insert into parent values ({n}, 'before {n}')" for n in range(50)))
    pair.site.run(*(f"insert into child values ({n}, {n % 50}, 'before')" for n in range(100)))
    pair.install("parent", "child")
    pair.site.run("update parent set name = 'after' where id < 10", "delete from child where id = 99")
    pair.sync()
    pair.assert_equal("parent", "child")
    assert pair.parked() == []


def test_existing_rows_that_the_centre_has_already_are_no_conflict(pair: Pair) -> None:
    pair.site.run(PARENT, "insert into parent values (1, 'same'), (2, 'same too')")
    pair.centre.run("create table parent (id bigint primary key, name text)", "insert into parent values (1, 'same')")
    pair.install("parent")
    pair.sync()
    pair.assert_equal("parent")
    assert pair.conflicts() == []
    pair.site.run("update parent set name = 'new'")
    pair.sync()
    pair.assert_equal("parent")
    assert pair.conflicts() == []


def test_nothing_to_do_is_no_batch(item: Pair) -> None:
    item.sync()
    assert item.sync() == []
    item.site.run("update item set n = 1 where id = 404", "delete from item where id = 404")
    assert sum(outcome.net for outcome in item.sync()) == 0


def test_install_twice_changes_nothing(item: Pair) -> None:
    item.site.run("insert into item values (1, 'a', 1, 1)")
    item.sync()
    item.install("item")
    assert sum(outcome.net for outcome in item.sync()) == 0
    item.site.run("update item set n = 2")
    item.sync()
    item.assert_equal("item")
    assert item.conflicts() == []


def test_a_column_added_at_both_sides_goes_along_after_install(item: Pair) -> None:
    item.site.run("insert into item values (1, 'a', 1, 1)")
    item.sync()
    for place in (item.site, item.centre):
        place.run("alter table item add column extra text")
    item.site.run("update item set extra = 'between' where id = 1", "insert into item values (2, 'b', 2, 2, 'x')")
    item.install("item")
    item.site.run("insert into item values (3, 'c', 3, 3, 'y')")
    item.sync()
    item.assert_equal("item")
    assert item.parked() == []
