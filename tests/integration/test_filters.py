"""Row filters mean the same on both engines: random expressions over rows of edge values, and over NULLs."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from replicator.errors import SetupError
from replicator.filters import parse_expression, render_postgres, render_sqlite
from tests.fixtures.databases import PostgresDatabases

COLUMNS = {"a": "int", "b": "int", "f": "float", "x": "text", "y": "text", "flag": "bool", "d": "date",
           "ts": "timestamp", "num": "numeric", "u": "uuid"}  # fmt: skip
SQLITE_DDL = """create table t (id integer primary key, a integer, b bigint, f real, x text collate nocase, y varchar(9),
    flag boolean, d date, ts datetime, num numeric, u uuid)"""
POSTGRES_DDL = """create table t (id bigint primary key, a bigint, b bigint, f float8, x text, y text, flag boolean,
    d date, ts timestamp, num numeric, u uuid)"""
VALUES = {
    "a": [None, 0, 1, -1, 2, 7, 2**63 - 1, -(2**63), 2**53 + 1],
    "b": [None, 0, 1, -3, 5, 2**63 - 1, -(2**63)],
    "f": [None, 0.0, -0.0, 0.1, 1.5, 1e300, float("inf"), float("-inf"), 0.30000000000000004],
    "x": [None, "", "a", "A", "ab", "a%b", "a_b", "a*b", "[a]", "é", "É", "\U0001f600b", "a\nb", "\\", "a?"],
    "y": [None, "", "a", "A", "aB", "B", "5", "é\\"],
    "flag": [None, 0, 1],
    "d": [None, "2024-01-01", "2023-12-31", "0001-01-01", "9999-12-31"],
    "ts": [None, "2024-01-01 00:00:00", "2024-01-01T00:00:00", "2024-01-01 00:00:00.5", "2024-01-01T00:00:00.500000",
           "2024-01-01 00:00:00.000001", "2023-12-31 23:59:59.999999"],
    "num": [None, 0, 1, 1.5, 0.1, 2**60, -7],
    "u": [None, "12345678-1234-1234-1234-123456789abc", "12345678-1234-1234-1234-123456789ABC"],
}  # fmt: skip


def literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def ints() -> st.SearchStrategy[str]:
    leaf = st.sampled_from(["a", "b", "0", "1", "-1", "7", "9223372036854775807", "'5'", "a + b", "a - 1", "-b", "a * b",
                            "a / 2", "b % 3", "a % -3", "length(x)", "length(y)"])  # fmt: skip
    return leaf | st.builds("coalesce({}, {})".format, leaf, leaf) | st.builds("nullif({}, {})".format, leaf, leaf)


def texts() -> st.SearchStrategy[str]:
    leaf = st.sampled_from(["x", "y", *[literal(v) for v in VALUES["x"] if v is not None]])
    return leaf | st.builds("coalesce({}, {})".format, leaf, leaf) | st.builds("({} || {})".format, leaf, leaf)


def comparisons() -> st.SearchStrategy[str]:
    order = st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from"])
    same = st.sampled_from(["=", "<>", "!=", "is distinct from", "is not distinct from"])
    days = st.sampled_from(["d", "'2024-01-01'", "date '2023-12-31'"])
    moments = st.sampled_from(["ts", "'2024-01-01'", "'2024-01-01T00:00:00.5'", "timestamp '2024-01-01 00:00'",
                               "coalesce(ts, '2024-01-01')"])  # fmt: skip
    numbers = st.sampled_from(["f", "num", "0.1", "1.5", "1", "-7", "0.30000000000000004", "a"])
    patterns = st.text(alphabet="aAb%_*?[]\\é", max_size=5).filter(lambda p: (len(p) - len(p.rstrip("\\"))) % 2 == 0)
    return st.one_of(
        st.builds("{} {} {}".format, ints(), order, ints()),
        st.builds("{} {} {}".format, texts(), same, texts()),
        st.builds("{} {} {}".format, days, order, days),
        st.builds("{} {} {}".format, moments, order, moments),
        st.builds("{} {} {}".format, numbers, order, numbers),
        st.builds("{} {} {}".format, st.sampled_from(["x", "y"]), st.sampled_from(["like", "not like"]),
                  patterns.map(literal)),
        st.builds("{} between {} and {}".format, ints(), ints(), ints()),
        st.builds("{} not between {} and {}".format, days, days, days),
        st.builds("{} in ({}, {})".format, ints(), ints(), ints()),
        st.builds("{} not in ({}, {})".format, texts(), texts(), texts()),
        st.builds("{} is {} null".format, st.sampled_from(list(COLUMNS)), st.sampled_from(["", "not"])),
        st.builds("u = {}".format, st.sampled_from([literal(v) for v in VALUES["u"] if v])),
        st.sampled_from(["flag", "flag = true", "flag <> 'no'", "true", "false", "flag is unknown"]),
    )  # fmt: skip


def conditions() -> st.SearchStrategy[str]:
    return st.recursive(
        comparisons().map(lambda text: f"({text})"),
        lambda inner: st.one_of(
            st.builds("({} and {})".format, inner, inner),
            st.builds("({} or {})".format, inner, inner),
            st.builds("(not {})".format, inner),
            st.builds("({} is not true)".format, inner),
            st.builds("(case when {} then {} else {} end)".format, inner, inner, inner),
        ),
        max_leaves=5,
    )


@pytest.fixture
def databases(postgres_database: PostgresDatabases) -> Iterator[tuple[sqlite3.Connection, psycopg.Connection]]:
    width = max(len(values) for values in VALUES.values())
    columns = [list(itertools.islice(itertools.cycle(values), width * 6)) for values in VALUES.values()]
    rows = [(number, *row) for number, row in enumerate(zip(*columns, strict=True))]
    with psycopg.connect(postgres_database("filters"), autocommit=True) as postgres:
        postgres.execute(POSTGRES_DDL)
        with postgres.cursor() as cursor:
            cursor.executemany(f"insert into t values ({', '.join(['%s'] * 6)}, %s::int::bool, {', '.join(['%s'] * 4)})",
                               rows)  # fmt: skip
        lite = sqlite3.connect(":memory:")
        lite.execute(SQLITE_DDL)
        lite.executemany(f"insert into t values ({', '.join('?' * 11)})", rows)
        yield lite, postgres
        lite.close()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=conditions())
def test_a_filter_selects_the_same_rows(
    databases: tuple[sqlite3.Connection, psycopg.Connection], expression: str
) -> None:
    lite, postgres = databases
    try:
        row_filter = parse_expression(expression, COLUMNS)
    except SetupError as error:
        if "mixes" not in error.message and "overflow" not in error.hint:
            raise
        reject()
    there = postgres.execute(f"select id from t n where {render_postgres(row_filter, 'n')} order by id").fetchall()
    if row_filter.sqlite:
        here = lite.execute(f"select id from t o where {render_sqlite(row_filter, 'o')} order by id").fetchall()
        assert here == there


def test_a_filter_with_very_many_values(databases: tuple[sqlite3.Connection, psycopg.Connection]) -> None:
    lite, postgres = databases
    row_filter = parse_expression(f"a in ({', '.join(map(str, range(3000)))})", COLUMNS)
    there = postgres.execute(f"select id from t n where {render_postgres(row_filter, 'n')} order by id").fetchall()
    assert lite.execute(f"select id from t o where {render_sqlite(row_filter, 'o')} order by id").fetchall() == there
