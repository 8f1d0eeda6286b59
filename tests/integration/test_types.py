"""Invariant 5: every value arrives exact, or is parked with a reason; on every pair of engines. The audit must agree.

What "exact" means is said in tests/fixtures/values.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import psycopg
import pytest

from tests.fixtures import zoo
from tests.fixtures.pairs import MakePair, Pair, PostgresPlace, SqlitePlace
from tests.fixtures.values import cells, changed, settled, unequal


def postgres_tables(pair: Pair) -> dict[str, str]:
    """A table per type with its values at a PostgreSQL site."""
    assert isinstance(pair.site, PostgresPlace)
    tables = {}
    with settled(pair.site) as connection:
        modern = connection.info.server_version >= 140000
        for statement in zoo.SETUP:
            connection.execute(statement)
        kinds = [*zoo.POSTGRES, *(zoo.MULTIRANGES if modern else ())]
        try:
            connection.execute("select '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            kinds.remove("xml")  # this server was built without it
        for place, kind in enumerate(kinds):
            table = f"zoo_{place:02}"
            tables[table] = kind
            connection.execute(f'create table "{table}" (id integer primary key, v {kind})')
    return tables


def fill_postgres(pair: Pair, tables: dict[str, str]) -> None:
    """All values of all tables, and a NULL each."""
    assert isinstance(pair.site, PostgresPlace)
    with settled(pair.site) as connection:
        modern = connection.info.server_version >= 140000
        for table, kind in tables.items():
            values = {**zoo.POSTGRES, **zoo.MULTIRANGES}[kind]
            for number, value in enumerate(values, 1):
                if modern or kind != "numeric" or "Inf" not in value:
                    connection.execute(f'insert into "{table}" values (%s, %s::{kind})', (number, value))
            connection.execute(f'insert into "{table}" values (0, null)')


def rotate(pair: Pair, tables: Sequence[str]) -> None:
    """Every row gets the value of the next one, so that updates compare and carry every value too."""
    for table in tables:
        pair.site.run(
            f'create table "tmp_{table}" as select id, v from "{table}"',
            f'update "{table}" set v = (select t.v from "tmp_{table}" t where t.id > "{table}".id order by t.id limit 1)',
            f'drop table "tmp_{table}"',
        )


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_invariant_5_every_postgres_type_arrives_exact_or_is_parked(make_pair: MakePair, target: str) -> None:
    pair = make_pair("postgres", target)
    tables = postgres_tables(pair)
    pair.install("zoo_*")
    fill_postgres(pair, tables)
    pair.sync()
    assert list(changed(pair, tables)) == []
    if target == "postgres":
        assert pair.parked() == [], "whatever PostgreSQL holds, a table of the same type holds"
    assert unequal(pair) == []
    if target == "postgres":
        rotate(pair, list(tables))
        pair.sync()
        assert list(changed(pair, tables)) == []
        assert (pair.conflicts(), pair.parked()) == ([], [])
        pair.site.run(*(f'delete from "{table}"' for table in tables))
        pair.sync()
        assert [table for table in tables if cells(pair.centre, table)] == []


def test_invariant_5_types_made_by_the_site_arrive_in_a_centre_that_has_them(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    kinds = ["mood", "mood[]", "small_text", "positive", "pair", "pair[]"]
    tables = {f"zoo_{place}": kind for place, kind in enumerate(kinds)}
    for place in (pair.site, pair.centre):
        place.run(
            *zoo.SETUP, *(f"create table {name} (id integer primary key, v {kind})" for name, kind in tables.items())
        )
    pair.install("zoo_*")
    fill_postgres(pair, tables)
    pair.sync()
    assert list(changed(pair, tables)) == []
    rotate(pair, list(tables))
    pair.sync()
    assert list(changed(pair, tables)) == []
    assert (pair.conflicts(), pair.parked()) == ([], [])


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_invariant_5_every_sqlite_value_in_every_declared_type_arrives_exact_or_is_parked(
    make_pair: MakePair, target: str
) -> None:
    pair = make_pair("sqlite", target)
    assert isinstance(pair.site, SqlitePlace)
    tables = {f"zoo_{place:02}": kind for place, kind in enumerate(zoo.DECLARED)}
    with closing(pair.site.connect()) as file:
        for table, kind in tables.items():
            file.execute(f'create table "{table}" (id integer primary key, v {kind})')
    pair.install("zoo_*")
    with closing(pair.site.connect()) as file:
        for table in tables:
            file.executemany(f'insert into "{table}" values (?, ?)', list(enumerate(zoo.STORED)))
            file.execute(f"insert into \"{table}\" values (1000, cast(x'fffe41' as text))")
    pair.sync()
    assert list(changed(pair, tables)) == []
    if target == "sqlite":
        odd = [change for change in pair.parked() if "UTF-8" not in change.cause]
        assert odd == [], "whatever SQLite holds, a column of the same declared type holds"
    else:
        assert not [
            change for change in pair.parked() if change.table == "zoo_01" and int(str((change.after or {})["id"])) < 8
        ]
    assert unequal(pair) == []


# --- narrower columns at the centre ---


@pytest.mark.parametrize(
    ("kind", "narrow", "fits", "does_not"),
    [
        ("numeric", "numeric(6,2)", "12.3", "12.345"),
        ("text", "character(5)", "abc", "abcdef"),
        ("numeric", "integer", "12", "12.5"),
        ("double precision", "real", "0.5", "0.1"),
        ("bigint", "integer", "5", "3000000000"),
        ("bigint", "double precision", "9007199254740992", "9007199254740993"),
        ("text", "character varying(3)", "abc", "abcd"),
        ("text", "character varying(3)", "ab ", "abc "),
        ("text", "name", "x" * 63, "x" * 64),
        ("timestamp", "timestamp(0)", "2024-01-01 00:00:01", "2024-01-01 00:00:01.5"),
        ("timestamp", "date", "2024-01-01 00:00:00", "2024-01-01 00:00:01"),
        ("interval", "interval(0)", "1 day", "00:00:00.5"),
        ("bit varying", "bit(3)", "101", "1011"),
        ("numeric[]", "numeric(6,2)[]", "{1.25}", "{1.255}"),
    ],
)
def test_invariant_5_what_the_target_would_round_or_cut_is_parked(
    make_pair: MakePair, kind: str, narrow: str, fits: str, does_not: str
) -> None:
    pair = make_pair("postgres", "postgres")
    pair.site.run(f"create table zoo (id integer primary key, v {kind})")
    pair.centre.run(f"create table zoo (id integer primary key, v {narrow})")
    pair.install("zoo")
    pair.site.run(f"insert into zoo values (1, '{fits}'), (2, '{does_not}')")
    pair.sync()
    assert list(changed(pair, {"zoo": kind})) == []
    assert pair.centre.rows("select id from zoo") == [(1,)]
    (parked,) = pair.parked()
    assert parked.cause
    pair.site.run("update zoo set v = null where id = 1", f"update zoo set v = '{fits}' where id = 1")
    pair.sync()
    pair.site.run("update zoo set v = null where id = 1")
    pair.sync()
    assert (pair.conflicts(), len(pair.parked())) == ([], 1)


@pytest.mark.parametrize(
    ("kind", "narrow", "fits", "does_not"),
    [
        ("REAL", "numeric(6,2)", "12.5", "12.345"),
        ("TEXT", "character(5)", "'abc'", "'abcdef'"),
        ("NUMERIC", "numeric(6,2)", "12", "99999"),
        ("REAL", "real", "0.5", "0.30000000000000004"),
        ("INTEGER", "smallint", "5", "40000"),
        ("INTEGER", "double precision", "9007199254740992", "9007199254740993"),
        ("TEXT", "character varying(3)", "'abc'", "'abcd'"),
        ("TEXT", "name", "'abc'", f"'{'x' * 64}'"),
        ("TEXT", "timestamp(0)", "'2024-01-01 00:00:01'", "'2024-01-01 00:00:01.5'"),
        ("TEXT", "date", "'2024-01-01'", "'2024-01-01 10:00:00'"),
        ("INTEGER", "boolean", "1", "2"),
        ("TEXT", "uuid", "'00000000-0000-0000-0000-000000000001'", "'nothing'"),
        ("TEXT", "jsonb", "'[1]'", "'[1'"),
    ],
)
def test_invariant_5_what_a_narrow_centre_would_make_of_sqlite_values_is_parked(
    make_pair: MakePair, kind: str, narrow: str, fits: str, does_not: str
) -> None:
    pair = make_pair("sqlite", "postgres")
    pair.site.run(f"create table zoo (id integer primary key, v {kind})")
    pair.centre.run(f"create table zoo (id bigint primary key, v {narrow})")
    pair.install("zoo")
    pair.site.run(f"insert into zoo values (1, {fits}), (2, {does_not})")
    pair.sync()
    assert list(changed(pair, {"zoo": kind})) == []
    assert pair.centre.rows("select id from zoo") == [(1,)]
    assert len(pair.parked()) == 1
    pair.site.run(
        "update zoo set v = null where id = 1",
        f"update zoo set v = {fits} where id = 1",
        f"insert into zoo values (3, {fits})",
    )
    pair.sync()
    pair.site.run("update zoo set v = null where id in (1, 3)")
    pair.sync()
    assert list(changed(pair, {"zoo": kind})) == []
    assert (pair.conflicts(), len(pair.parked())) == ([], 1)
