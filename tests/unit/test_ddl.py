"""Changes of tables: read from SQL, said in either dialect, and what became of a table. No database."""

from __future__ import annotations

import pytest

from replicator.ddl import Act, Alteration, after, parse_changes, translated
from replicator.differences import compare, describe
from replicator.errors import SetupError
from replicator.model import ColumnPlan, Engine, HeldColumn, TableName, TablePlan, TableShape
from tests.fixtures.catalogues import table

PG, LITE = Engine.POSTGRES, Engine.SQLITE
HERE = table("item", ["id INTEGER!", "name TEXT", "n INTEGER"])
THERE = table("item", ["id bigint!", "name text", "n bigint"], schema="public")


def one(text: str) -> Alteration:
    (change,) = parse_changes(text, "change.sql")
    return change


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("alter table item add column c varchar(5) not null default 'x'", "add column c of item (varchar(5))"),
        ("alter table item drop column n", "drop column n of item"),
        ("alter table only item rename name to label", "rename column name of item to label"),
        ("alter table item alter column n type numeric(9, 2)", "set type n of item (numeric(9, 2))"),
        ("alter table item alter n set not null", "set not null n of item"),
        ("alter table item alter n drop not null", "drop not null n of item"),
        ('alter table lab."We""ird" drop column "a b"', 'drop column a b of lab.We"ird'),
    ],
)
def test_what_is_read(text: str, wanted: str) -> None:
    assert str(one(text)) == wanted


def test_one_statement_may_hold_many_changes() -> None:
    text = "alter table item add c text, drop column n; alter table item rename c to d;"
    assert [change.act for change in parse_changes(text, "f")] == [Act.ADD, Act.DROP, Act.RENAME]


@pytest.mark.parametrize(
    "text",
    [
        "alter table item add column c text default now()",
        "alter table item add column c text unique",
        "alter table item add column c integer references other",
        "alter table item add column c integer generated always as (n * 2) stored",
        "alter table item alter column n type text using n::text",
        "alter table item add primary key (id)",
        "alter view item rename column n to m",
        "drop table item",
        "create index on item (n)",
        "truncate item",
        "update item set n = 1",
        "alter table item ad column c text",
    ],
)
def test_all_else_is_refused_by_name_before_anything_runs(text: str) -> None:
    with pytest.raises(SetupError, match=r"^change\.sql: "):
        parse_changes(f"alter table item add column fine text; {text}", "change.sql")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("create table thing (id integer primary key)", "name it there, and run: replicator install"),
        ("alter table item rename to thing", "put the new name there, and run: replicator install"),
        ("create index on item (n)", "is to be run at each place"),
    ],
)
def test_tables_themselves_are_the_yaml_s(text: str, hint: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse_changes(text, "change.sql")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "lite", "postgres"),
    [
        (
            "alter table item add column c timestamptz",
            'alter table "item" add column "c" TIMESTAMPTZ_TEXT',
            'alter table "public"."item" add column "c" timestamptz',
        ),
        (
            "alter table item add column c boolean not null default false",
            None,
            'alter table "public"."item" add column "c" boolean not null default false',
        ),
        (
            "alter table item rename column name to label",
            'alter table "item" rename column "name" to "label"',
            'alter table "public"."item" rename column "name" to "label"',
        ),
        (
            "alter table item drop column n",
            'alter table "item" drop column "n"',
            'alter table "public"."item" drop column "n"',
        ),
    ],
)
def test_a_change_in_each_dialect(text: str, lite: str | None, postgres: str) -> None:
    change = one(text)
    for shape, engine, wanted in ((HERE, LITE, lite), (THERE, PG, postgres)):
        sql, refused = translated(change, shape, engine, change.column, PG)
        assert refused == ""
        assert wanted is None or sql.lower() == wanted.lower()
        again = after(shape, change, change.column)
        assert translated(change, again, engine, change.column, PG) == ("", ""), "it is so already"


@pytest.mark.parametrize("text", ["alter table item alter n type text", "alter table item alter n set not null"])
def test_sqlite_changes_no_column_in_place(text: str) -> None:
    sql, refused = translated(one(text), HERE, LITE, "n", PG)
    assert sql == ""
    assert "rebuild item" in refused
    assert translated(one(text), THERE, PG, "n", PG)[0].startswith('alter table "public"."item" alter column "n" ')


def test_what_cannot_be_there_is_refused_with_its_reason() -> None:
    assert translated(one("alter table item drop column id"), HERE, LITE, "id", PG)[1] == "id is of the key of item"
    assert "no column gone" in translated(one("alter table item rename gone to x"), HERE, LITE, "gone", PG)[1]
    assert translated(one("alter table item drop column gone"), HERE, LITE, "gone", PG) == ("", "")
    renamed = translated(one("alter table item rename label to x"), HERE, LITE, "name", PG)[1]
    assert "columns.rename" in renamed


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (["id INTEGER!", "name TEXT", "n INTEGER", "c TEXT"], ["column c TEXT added"]),
        (["id INTEGER!", "name TEXT"], ["column n dropped"]),
        (["id INTEGER!", "label TEXT", "n INTEGER"], ["column name renamed to label"]),
        (["id INTEGER!", "label BLOB", "n INTEGER"], ["column name dropped", "column label BLOB added"]),
        (["id INTEGER!", "name TEXT", "n REAL"], ["column n is REAL, was INTEGER"]),
        (["id INTEGER!", "name TEXT!", "n INTEGER"], ["column name is NOT NULL now"]),
        (["n INTEGER", "id INTEGER!", "name TEXT"], []),
    ],
)
def test_what_became_of_a_table(columns: list[str], wanted: list[str]) -> None:
    assert list(describe(HERE, table("item", columns))) == wanted


def test_another_key_is_told() -> None:
    keyed = TableShape(HERE.name, HERE.columns, key=("id", "name"))
    (told,) = describe(TableShape(HERE.name, HERE.columns, key=("id",)), keyed)
    assert told == "the key is (id, name), was (id)"


def plan(
    *columns: ColumnPlan, held: tuple[HeldColumn, ...] = (), hold: str = "", there: TableShape = THERE
) -> TablePlan:
    return TablePlan(
        source=HERE, target=TableName("public", "item"), columns=columns, key=("id",), source_engine=LITE,
        target_engine=PG, target_shape=there, held=held, hold=hold,
    )  # fmt: skip


ID, NAME, N = (
    ColumnPlan("id", "INTEGER", "id", "bigint"), ColumnPlan("name", "TEXT", "name", "text"),
    ColumnPlan("n", "INTEGER", "n", "bigint"),
)  # fmt: skip


def test_tables_that_are_alike_differ_in_nothing() -> None:
    assert list(compare("a", plan(ID, NAME, N))) == []


def test_what_the_centre_has_alone_does_not_matter_and_what_the_site_has_alone_does() -> None:
    (found,) = compare("a", plan(ID, NAME))
    assert (found.column, found.matters, [fix.place for fix in found.fixes]) == ("n", False, ["a", "centre"])
    assert [fix.loses for fix in found.fixes] == [False, True]
    held = HeldColumn("n", "which item at the centre lacks", "centre", "alter table item add column n bigint")
    found = next(each for each in compare("a", plan(ID, NAME, held=(held,))) if each.matters)
    assert (found.kind, found.column) == ("column", "n")
    assert [(fix.place, fix.loses) for fix in found.fixes] == [("centre", False), ("a", True)]


def test_a_column_that_the_centre_wants_filled() -> None:
    strict = table("item", ["id bigint!", "name text!", "n bigint"], schema="public")
    (found,) = compare("a", plan(ID, NAME, N, there=strict))
    assert (found.kind, found.column, found.matters) == ("null", "name", False)
    assert found.fixes[0].sql == 'alter table "public"."item" alter column "name" drop not null'


def test_a_table_that_is_held_or_not_there_is_one_difference() -> None:
    (found,) = compare("a", plan(ID, NAME, N, hold="why"))
    assert (found.kind, found.message, found.matters) == ("table", "why", True)
    (found,) = compare("a", plan(ID, NAME, N), known=False)
    assert "replicator install makes it" in found.message
