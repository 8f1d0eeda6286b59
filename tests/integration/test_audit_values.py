"""The audit's eyes: for every pair of types, equal values are equal and one row that differs the hard way is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from replicator.audit import AuditVerdict, Kind
from replicator.canonical import Form
from replicator.model import Engine, TablePlan
from tests.fixtures.audits import audit, auditable, plan_of, write
from tests.fixtures.databases import PostgresDatabases

SqliteFile = Callable[[str], Path]
INF = float("inf")
UUID_1 = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


class Same(NamedTuple):
    """A SQLite value and the PostgreSQL literal that means exactly it."""

    sqlite_type: str
    postgres_type: str
    value: Any
    literal: str


class Apart(NamedTuple):
    """Two PostgreSQL literals of one type that differ the hard way; ``value``: the first as SQLite stores it."""

    sqlite_type: str
    postgres_type: str
    value: Any
    literal: str
    other: str


SAME = [
    *(Same("INTEGER", "bigint", n, str(n)) for n in (0, -1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63))),
    Same("INTEGER", "smallint", -32768, "-32768"),
    Same("INTEGER", "numeric(30)", 2**63 - 1, "9223372036854775807"),
    *(Same("REAL", "double precision", n, repr(n).replace("inf", "Infinity")) for n in (
        0.1, 0.1 + 0.2, 5e-324, 2.225073858507201e-308, 1.7976931348623157e308, 123456789.12345679, -1.5, INF, -INF)),
    Same("REAL", "double precision", 0.0, "-0"),
    Same("REAL", "real", 0.1, "0.1"),
    Same("REAL", "real", 1.401298464324817e-45, "1e-45"),
    Same("DECIMAL(12,2)", "numeric", 10.5, "10.500"),
    Same("DECIMAL(12,2)", "numeric(12,2)", 7, "7"),
    Same("DECIMAL(40,20)", "numeric", 0.1, "0.1"),
    Same("TEXT", "numeric", "12345678901234567890.1234567890", "12345678901234567890.123456789"),
    Same("TEXT", "numeric", "1" * 1000, "1" * 1000),
    Same("TEXT", "numeric", "0.000", "0"),
    Same("BOOLEAN", "boolean", 1, "true"),
    Same("BOOLEAN", "boolean", 0, "false"),
    *(Same("TEXT", "text", text, text) for text in ("", " ", "NULL", "~", "a|b", "👩‍🔬", "e\u0301", "é", "日本",
    "\x01\n\t\\'\"")), Same("VARCHAR(9)", "character varying(9)", "varying", "varying"), Same("TEXT", "character(9)",
    "pad", "pad"), Same("BLOB", "bytea", bytes(range(256)), "\\x" + bytes(range(256)).hex()), Same("BLOB", "bytea", b"",
    "\\x"), Same("DATE", "date", "2024-02-29", "2024-02-29"), Same("TEXT", "date", "0044-03-15 BC", "0044-03-15 BC"),
    Same("DATE_TEXT", "date", "infinity", "infinity"), Same("TIME", "time", "12:30", "12:30:00"), Same("TIME", "time",
    "23:59:59.999999", "23:59:59.999999"), *(Same("TIMESTAMP", "timestamp", text, "2024-01-02 03:04:00") for text in (
        "2024-01-02 03:04", "2024-01-02T03:04:00", "2024-01-02 03:04:00.000", "2024-01-02T03:04:00Z")),
    Same("DATETIME", "timestamp", "1969-12-31 23:59:59.000001", "1969-12-31 23:59:59.000001"),
    Same("TIMESTAMP", "timestamp", "2024-01-02", "2024-01-02"),
    Same("TEXT", "timestamp", "4713-01-01 00:00:00 BC", "4713-01-01 00:00:00 BC"),
    Same("TIMESTAMPTZ_TEXT", "timestamptz", "2024-01-02T03:04:00+05:30", "2024-01-01 21:34:00+00"),
    Same("TIMESTAMPTZ_TEXT", "timestamptz", "2024-01-02 03:04:00+00", "2024-01-02 03:04:00Z"),
    Same("TIMESTAMPTZ_TEXT", "timestamptz", "-infinity", "-infinity"),
    Same("UUID", "uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    Same("TEXT", "jsonb", '{"b":1,  "a":[1.50,"\\u00e9"], "a":[1.0]}', '{"a":[1.0],"b":1}'),
    Same("JSON", "json", '{"b": 1,"a" :2}', '{"b": 1,"a" :2}'),
    Same("TEXT", "inet", "10.0.0.1/8", "10.0.0.1/8"),
    Same("TEXT", "interval", "1 mon", "1 month"),
    Same("TEXT", "integer[]", "{1,NULL,3}", "{1,null,3}"),
]  # fmt: skip

APART = [
    Apart("INTEGER", "bigint", -1, "-1", "4294967295"),
    Apart("INTEGER", "bigint", 1, "1", "4294967296"),
    Apart("INTEGER", "bigint", 2**53, str(2**53), str(2**53 + 1)),
    Apart("REAL", "double precision", 0.1, "0.1", "0.10000000000000002"),
    Apart("REAL", "double precision", 5e-324, "5e-324", "0"),
    Apart("REAL", "double precision", 1e-15, "1e-15", "2e-15"),
    Apart("REAL", "double precision", INF, "Infinity", "1.7976931348623157e308"),
    Apart("REAL", "real", 0.1, "0.1", "0.10000001"),
    Apart("TEXT", "numeric", "0.12345678901234567890", "0.12345678901234567890", "0.12345678901234567891"),
    Apart("BOOLEAN", "boolean", 1, "true", "false"),
    Apart("TEXT", "text", "", "", "NULL"),
    Apart("TEXT", "text", "NULL", "NULL", "null"),
    Apart("TEXT", "text", "a", "a", "a "),
    Apart("TEXT", "text", "é", "é", "e\u0301"),
    Apart("TEXT", "text", "A", "A", "a"),
    Apart("BLOB", "bytea", b"\x00", "\\x00", "\\x0000"),
    Apart("DATE", "date", "2024-02-29", "2024-02-29", "2024-03-01"),
    Apart("TEXT", "date", "0044-03-15 BC", "0044-03-15 BC", "0044-03-15"),
    Apart("TIME", "time", "00:00", "00:00", "00:00:00.000001"),
    Apart("TIMESTAMP", "timestamp", "2024-01-01 00:00:00", "2024-01-01", "2024-01-01 00:00:00.000001"),
    Apart("TEXT", "timestamp", "0044-03-15 12:00:00 BC", "0044-03-15 12:00:00 BC", "0044-03-15 12:00:00"),
    Apart("TIMESTAMPTZ_TEXT", "timestamptz", "2024-01-01 00:00:00+00", "2024-01-01 00:00+00", "2024-01-01 00:00+01"),
    Apart("UUID", "uuid", UUID_1, UUID_1, UUID_1[:-1] + "2"),
    Apart("TEXT", "interval", "1 mon", "1 month", "30 days"),
    Apart("TEXT", "jsonb", '{"a":1.0}', '{"a":1.0}', '{"a":1.00}'),
    Apart("JSON", "json", '{"a":1}', '{"a":1}', '{"a": 1}'),
    Apart("TEXT", "integer[]", "{1,NULL}", "{1,null}", "{1,0}"),
    Apart("TEXT", "bit varying", "01", "01", "010"),
]  # fmt: skip


def pair_plan(n: int, source: Engine, target: Engine, source_type: str, target_type: str) -> TablePlan:
    """Table ``t<n>`` with an integer key and one column ``v``."""
    ours, theirs = ("INTEGER" if engine is Engine.SQLITE else "bigint" for engine in (source, target))
    return plan_of(source, target, [("id", ours, theirs), ("v", source_type, target_type)], ["id"], name=f"t{n}")


def make_sqlite(path: Path, n: int, declared: str, values: Sequence[Any]) -> None:
    """Table ``t<n>`` in a file: row 1 holds the first value, and so on."""
    rows = [(f"insert into t{n} values (?, ?)", row) for row in enumerate(values, 1)]
    write(path, f"create table t{n} (id integer primary key, v {declared})", rows)


def make_postgres(url: str, n: int, kind: str, literals: Sequence[str | None]) -> None:
    """The same in a PostgreSQL database, from literals."""
    spelled = ("null" if text is None else "'" + text.replace("'", "''") + "'" for text in literals)
    rows = ", ".join(f"({key}, {text})" for key, text in enumerate(spelled, 1))
    write(url, f"create table t{n} (id bigint primary key, v {kind}); insert into t{n} values {rows}")


@pytest.mark.parametrize("form", [form for form in Form if form is not Form.STORAGE])
def test_both_engines_hash_the_test_vector_alike(
    form: Form, postgres_database: PostgresDatabases, sqlite_file: SqliteFile
) -> None:
    path = sqlite_file("site")
    write(path, "")
    with auditable(path) as ours, auditable(postgres_database()) as theirs:
        assert list(ours.prove_form(form)) == list(theirs.prove_form(form))


def test_equal_values_are_equal_across_the_engines(
    postgres_database: PostgresDatabases, sqlite_file: SqliteFile
) -> None:
    path, url = sqlite_file("site"), postgres_database()
    wrong = []
    for n, case in enumerate(SAME):
        make_sqlite(path, n, case.sqlite_type, [case.value, None])
        make_postgres(url, n, case.postgres_type, [case.literal, None])
        there = pair_plan(n, Engine.SQLITE, Engine.POSTGRES, case.sqlite_type, case.postgres_type)
        back = pair_plan(n, Engine.POSTGRES, Engine.SQLITE, case.postgres_type, case.sqlite_type)
        for report in (audit(path, url, there), audit(url, path, back)):
            if report.verdict is not AuditVerdict.EQUAL:
                wrong.append((case, report.reason, report.differences))
    assert wrong == []


@pytest.mark.parametrize("engine", Engine)
def test_one_row_that_differs_the_hard_way_is_found(
    engine: Engine, postgres_database: PostgresDatabases, sqlite_file: SqliteFile
) -> None:
    path, url, target = sqlite_file("site"), postgres_database(), postgres_database()
    missed = []
    for n, case in enumerate(APART):
        make_postgres(target, n, case.postgres_type, [case.literal, case.other, case.literal])
        if engine is Engine.SQLITE:
            make_sqlite(path, n, case.sqlite_type, [case.value] * 3)
        else:
            make_postgres(url, n, case.postgres_type, [case.literal] * 3)
        kind = case.sqlite_type if engine is Engine.SQLITE else case.postgres_type
        plan = pair_plan(n, engine, Engine.POSTGRES, kind, case.postgres_type)
        report = audit(path if engine is Engine.SQLITE else url, target, plan)
        found = [(row.key, row.kind, [column.column for column in row.columns]) for row in report.differences]
        if report.verdict is not AuditVerdict.DIFFERENT or found != [({"id": "2"}, Kind.DIFFERS, ["v"])]:
            missed.append((case, report.reason, report.differences))
    assert missed == []


def test_postgres_pairs_keep_what_only_postgres_holds(postgres_database: PostgresDatabases) -> None:
    source, target = postgres_database(), postgres_database()
    table = "create table item (id int primary key, f float8, r real, n numeric, c text, v text)"
    write(
        source,
        f"{table}; insert into item values (1, '-0', '-0', '1.0', 'x', 'a|b'), (2, 'NaN', 'NaN', 'NaN', '', 'a')",
    )
    write(
        target,
        f"{table}; insert into item values (1, '0', '-0', '1.00', 'x', 'a|b'), (2, 'NaN', 'NaN', 'NaN', '', 'a')",
    )
    write(target, "update item set f = 'Infinity'::float8 - 'Infinity'::float8 where id = 2")
    kinds = [
        ("id", "integer"),
        ("f", "double precision"),
        ("r", "real"),
        ("n", "numeric"),
        ("c", "text"),
        ("v", "text"),
    ]
    columns = [(name, kind, kind) for name, kind in kinds]
    report = audit(source, target, plan_of(Engine.POSTGRES, Engine.POSTGRES, columns, ["id"]))
    found = [(row.key["id"], [(c.column, c.source, c.target) for c in row.columns]) for row in report.differences]
    assert found == [("1", [("f", "-0.0", "0.0")])]


ODD = [
    ("INTEGER", "bigint", b"\x01", "a blob"),
    ("INTEGER", "bigint", "five", "text"),
    ("INTEGER", "bigint", 5.5, "a real"),
    ("TEXT", "text", "a\0b", "NUL"),
    ("TEXT", "text", b"blob", "a blob"),
    ("REAL", "double precision", "abc", "text"),
    ("TIMESTAMP", "timestamp", 1_700_000_000, "an integer"),
    ("DATE", "date", "2024-02-30", "no such day"),
    ("BOOLEAN", "boolean", 2, "neither"),
    ("BLOB", "bytea", "text", "text"),
]


def test_a_value_without_form_is_a_difference_with_its_reason(
    postgres_database: PostgresDatabases, sqlite_file: SqliteFile
) -> None:
    path, url = sqlite_file("site"), postgres_database()
    for n, (declared, kind, value, reason) in enumerate(ODD):
        make_sqlite(path, n, declared, [value, value])
        make_postgres(url, n, kind, [None])
        report = audit(path, url, pair_plan(n, Engine.SQLITE, Engine.POSTGRES, declared, kind))
        assert report.verdict is AuditVerdict.DIFFERENT
        assert [(row.key["id"], row.kind) for row in report.differences] == [("1", Kind.DIFFERS), ("2", Kind.MISSING)]
        assert all(reason in row.columns[0].reason for row in report.differences)


def test_text_that_is_not_utf8_is_a_difference(postgres_database: PostgresDatabases, sqlite_file: SqliteFile) -> None:
    path, url = sqlite_file("site"), postgres_database()
    table = "create table item (id text primary key, v text); insert into item values ('a', 'x')"
    write(path, f"{table}, (cast(x'ff00' as text), 'y'), ('c', cast(x'ff' as text))")
    write(url, f"{table}, ('c', '?')")
    plan = plan_of(Engine.SQLITE, Engine.POSTGRES, [("id", "TEXT", "text"), ("v", "TEXT", "text")], ["id"])
    report = audit(path, url, plan)
    assert (report.missing, report.differing) == (1, 1)
    assert {row.key["id"] for row in report.differences} == {"\\xff00", "c"}


def test_sqlite_pairs_are_compared_by_storage(sqlite_file: SqliteFile) -> None:
    source, target = sqlite_file("site"), sqlite_file("centre")
    values = [1, 1.0, "1", b"1", None, "", b"", "a\0b", 0.1 + 0.2, 2**63 - 1, -0.0, INF]
    rows = [("insert into item values (?, ?)", (n, value)) for n, value in enumerate(values)]
    for place in (source, target):
        write(place, "create table item (id integer primary key, v)", rows)
    plan = plan_of(Engine.SQLITE, Engine.SQLITE, [("id", "INTEGER", "INTEGER"), ("v", "", "")], ["id"])
    assert audit(source, target, plan).verdict is AuditVerdict.EQUAL
    write(target, "update item set v = '1' where id = 0; update item set v = 1 where id = 1")
    write(target, "update item set v = '' where id = 4; update item set v = 0.0 where id = 10")
    report = audit(source, target, plan)
    assert [row.key["id"] for row in report.differences] == ["0", "1", "4", "10"]
    assert report.differences[0].columns[0].reason == "integer at the site, text at the centre"
