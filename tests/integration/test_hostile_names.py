"""Names as people and programs make them: quotes, blanks, unicode, reserved words, 63 bytes, case, percent signs, ``$1``."""

from __future__ import annotations

from contextlib import closing

import pytest

from replicator.audit import AuditVerdict, Limits
from replicator.model import Engine
from tests.fixtures.pairs import MakePair, Pair, exact

NAMES = [
    'say "hi"', "it's", "two words", " leading and trailing ", "select", "table", "user", "MixedCase", "UPPER", "$1", "$$",
    ":name", "?", "100%", "%s %(a)s", "back\\slash", "semi;colon", "--comment", "/* block */", "täble", "表", "🧪", "a.b",
    "[brackets]", "{brace}",
    "new", "old", "t", "c", "k0", "v0", "b0", "ord", "op", "x" * 63, "é" * 31, "__table__", "/*: name */",
    "replicator", "tab\there", "line\nbreak", "1st", "", "rowid", "null", "`tick`", "a,b", "(paren)",
]  # fmt: skip
"""Used for tables and columns. The empty name is dropped on PostgreSQL, which has none."""

SITES = ["Fabrik Süd", "it's", 'a "quoted" site', "100% $1", "select", "工場", "back\\slash", "x" * 63]
"""Names of sites: values of the key, parts of link names and of the origin."""


def quoted(name: str) -> str:
    """A quoted identifier, the same in both engines."""
    return '"' + name.replace('"', '""') + '"'


def unique(table: str) -> str:
    """The name of a table's unique column: nearly the table's own."""
    return quoted(table + "_" if len(table) < 60 else "u")


def names_for(pair: Pair) -> list[str]:
    """The names both engines of the pair can have."""
    engines = {pair.site.engine, pair.centre.engine}
    return [name for name in NAMES if name or engines == {Engine.SQLITE}]


def settled(pair: Pair, site: str, table: str, columns: str = "*", where: str = "") -> None:
    """The site's table and its part of the centre's are equal."""
    here = pair.sites[site].rows(f"select {columns} from {quoted(table)}")
    there = pair.centre.rows(f"select {columns} from {quoted(table)} {where}")
    assert exact(there) == exact(here), table


def test_hostile_columns_and_key_columns(pair: Pair) -> None:
    """One table of all names; its key is two of the worst."""
    names = [name for name in names_for(pair) if name]
    if pair.site.engine is Engine.SQLITE or pair.centre.engine is Engine.SQLITE:
        names = list({name.lower(): name for name in names}.values())
    key = [name for name in names if name in ('say "hi"', "select")]
    columns = ", ".join(f"{quoted(name)} text not null" for name in names)
    pair.site.run(f"create table {quoted('ta%ble')} ({columns}, primary key ({', '.join(map(quoted, key))}))")
    pair.install("*")

    def row(n: int) -> str:
        return ", ".join(f"'value {n} of column {place}'" for place in range(len(names)))

    pair.site.run(*(f"insert into {quoted('ta%ble')} values ({row(n)})" for n in range(5)))
    pair.sync()
    settled(pair, pair.name, "ta%ble")
    pair.site.run(
        *(
            f"update {quoted('ta%ble')} set {quoted(name)} = 'new' where {quoted(key[0])} like 'value 1 %'"
            for name in names[4:9]
        ),
        f"update {quoted('ta%ble')} set {quoted(key[1])} = 'moved' where {quoted(key[0])} like 'value 2 %'",
        f"delete from {quoted('ta%ble')} where {quoted(key[0])} like 'value 3 %'",
    )
    pair.sync()
    settled(pair, pair.name, "ta%ble")
    assert (pair.parked(), pair.conflicts()) == ([], [])


def test_hostile_tables_keyed_by_hostile_sites(make_pair: MakePair, pair: Pair) -> None:
    """A table per name with a parent, a unique column and a filter's worth of changes; two sites write the same keys."""
    engines = (str(pair.site.engine), str(pair.centre.engine))
    pair = make_pair(*engines, sites=SITES[:2])
    names = [name for name in names_for(pair) if name not in ("replicator", "")]
    if Engine.SQLITE in {pair.site.engine, pair.centre.engine}:
        names = list({name.lower(): name for name in names}.values())
    for site in pair.sites.values():
        site.commit(
            "create table parent (id integer primary key, name text)",
            *(
                f"create table {quoted(name)} (id integer primary key, {unique(name)} text unique,"
                " up integer references parent (id))"
                for name in names
            ),
        )
    pair.install({"name": "*", "keyed_by": ["site"]})
    for site in pair.sites.values():
        site.commit(
            "insert into parent values (1, 'p'), (2, 'q')",
            *(f"insert into {quoted(name)} values (1, 'a', 1), (2, 'b', 2), (3, null, null)" for name in names),
        )
    for name in pair.sites:
        pair.sync(name)
    for site in pair.sites.values():
        site.commit(
            *(f"update {quoted(name)} set up = 2 where id = 1" for name in names),
            *(f"delete from {quoted(name)} where id = 3" for name in names),
            *(f"update {quoted(name)} set id = 9 where id = 2" for name in names),
        )
    for name in pair.sites:
        pair.sync(name)
        where = "where site = '" + name.replace("'", "''") + "'"
        for table in names:
            settled(pair, name, table, f"id, {unique(table)}, up", where)
        assert pair.parked(name) == []
        for report in pair.app.audit(name, pair.app.plans(name), Limits()):
            assert report.verdict is AuditVerdict.EQUAL, (report.source, report.reason)
    assert pair.conflicts() == []


def test_hostile_sites(make_pair: MakePair) -> None:
    for engines in (("sqlite", "postgres"), ("sqlite", "sqlite")):
        pair = make_pair(*engines, sites=SITES)
        for site in pair.sites.values():
            site.run("create table item (id integer primary key, name text)")
        pair.install({"name": "item", "keyed_by": ["site"]})
        for name, site in pair.sites.items():
            site.run("insert into item values (1, 'a'), (2, 'b')", "update item set name = 'c' where id = 2")
            pair.sync(name)
        assert {site for (site,) in pair.centre.rows("select site from item")} == set(SITES)
        assert pair.centre.rows("select count(*) from item") == [(2 * len(SITES),)]


def test_hostile_schemas(make_pair: MakePair) -> None:
    for target in ("postgres", "sqlite"):
        pair = make_pair("postgres", target)
        schemas = ["Sché ma", 'a "b".c', "select", "x" * 63 if target == "postgres" else "short", "100%"]
        for schema in schemas:
            pair.site.run(
                f"create schema {quoted(schema)}",
                f"create table {quoted(schema)}.{quoted('My Table')} (id integer primary key, name text)",
            )
        pair.install({"name": "*.*"})
        for schema in schemas:
            pair.site.run(f"insert into {quoted(schema)}.{quoted('My Table')} values (1, 'in'), (2, 'in')")
            pair.site.run(f"update {quoted(schema)}.{quoted('My Table')} set name = 'changed' where id = 1")
        pair.sync()
        for schema in schemas:
            table = f"{quoted(schema)}.{quoted('My Table')}" if target == "postgres" else quoted(f"{schema}_My Table")
            assert pair.centre.rows(f"select id, name from {table} order by id") == [(1, "changed"), (2, "in")]
        assert pair.parked() == []


def test_names_that_differ_only_in_case_stay_apart_on_postgres(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    pair.site.run('create table item (id integer primary key, name text, "Name" text, "NAME" text)')
    pair.install("item")
    pair.site.run("insert into item values (1, 'a', 'b', 'c')", "update item set \"Name\" = 'B'")
    pair.sync()
    pair.assert_equal("item")
    assert pair.centre.rows("select * from item") == [(1, "a", "B", "c")]


@pytest.mark.parametrize(
    "engines", [("postgres", "postgres"), ("sqlite", "postgres"), ("sqlite", "sqlite")], ids="-".join
)
def test_five_hundred_tables(make_pair: MakePair, engines: tuple[str, str]) -> None:
    many = 500
    pair = make_pair(*engines)
    pair.site.commit(*(f"create table t{n:03} (id integer primary key, name text)" for n in range(many)))
    pair.install("t*")
    with closing(pair.app.installable(pair.name)) as site:
        assert site.plan_site("bloodlab", pair.app.plans(pair.name)).statements == ()
    pair.site.commit(*(f"insert into t{n:03} values ({n}, 'change of {n}')" for n in range(many)))
    pair.sync()
    pair.site.commit(*(f"update t{n:03} set name = 'again'" for n in range(0, many, 50)))
    pair.sync()
    union = " union all ".join(f"select id, name from t{n:03}" for n in range(many))
    for place in (pair.site, pair.centre):
        found = place.rows(union) if place.engine == "postgres" else [
            row for start in range(0, many, 100)
            for row in place.rows(" union all ".join(f"select id, name from t{n:03}" for n in range(start, start + 100)))
        ]  # fmt: skip
        assert sorted(map(str, found)) == sorted(
            str((n, "again" if n % 50 == 0 else f"change of {n}")) for n in range(many)
        )
    assert pair.parked() == []
