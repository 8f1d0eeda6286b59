"""Type mapping: every promise of the table in sql/README.md, and the SQL that tells which values fit."""

from __future__ import annotations

import math
import re
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator import sqlfiles
from replicator.canonical import Form
from replicator.model import Engine
from replicator.types import canonical_form, centre_type, fits_form, incompatible, may_lose, staging_type

PG, LITE = Engine.POSTGRES, Engine.SQLITE


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        ("INTEGER", "bigint"), ("int", "bigint"), ("UNSIGNED BIG INT", "bigint"), ("INT8", "bigint"),
        ("BOOLEAN", "boolean"), ("bool", "boolean"), ("VARCHAR(20)", "text"), ("text", "text"), ("CLOB", "text"),
        ("BLOB", "bytea"), ("REAL", "double precision"), ("FLOAT", "double precision"), ("DOUBLE", "double precision"),
        ("NUMERIC(10,2)", "numeric"), ("decimal", "numeric"), ("DATE", "date"),
        ("DATETIME", "timestamp(6) without time zone"), ("timestamp", "timestamp(6) without time zone"),
        ("TIMESTAMPTZ", "timestamp(6) with time zone"), ("TIMESTAMP WITH TIME ZONE", "timestamp(6) with time zone"),
        ("TIME", "time(6) without time zone"), ("JSON", "json"), ("UUID", "uuid"), ("", "text"), ("ANY", "text"),
        ("INTERVAL", "text"), ("STRING", "text"), ("whatever", "text"), ("DECIMAL_TEXT", "numeric"),
    ],
)  # fmt: skip
def test_sqlite_to_postgres(declared: str, wanted: str) -> None:
    assert centre_type(LITE, declared, PG) == wanted


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("integer", "INTEGER"), ("bigint", "INTEGER"), ("double precision", "REAL"), ("real", "REAL"),
        ("boolean", "BOOLEAN"), ("bytea", "BLOB"), ("numeric(10,2)", "DECIMAL_TEXT"), ("text", "TEXT"),
        ("timestamp(3) without time zone", "TIMESTAMP_TEXT"), ("timestamp with time zone", "TIMESTAMPTZ_TEXT"),
        ("jsonb", "JSON_TEXT"), ("interval", "TEXT"), ("integer[]", "TEXT"), ("int4range", "TEXT"), ("mood", "TEXT"),
        ('"Lab"."mood"', "TEXT"), ("uuid", "UUID_TEXT"), ("date", "DATE_TEXT"), ("point", "TEXT"),
    ],
)  # fmt: skip
def test_postgres_to_sqlite_keeps_every_digit(kind: str, wanted: str) -> None:
    assert centre_type(PG, kind, LITE) == wanted


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("numeric(10,2)", "numeric(10,2)"), ("integer[]", "integer[]"), ("lab.mood", "text"), ('"Mood"', "text"),
     ("interval day to second(3)", "interval day to second(3)"), ("citext", "text"), ('"char"', '"char"'),
     ("character varying(5)[]", "character varying(5)[]"), ("mood[]", "text")],
)  # fmt: skip
def test_postgres_to_postgres_keeps_built_in_types(kind: str, wanted: str) -> None:
    assert centre_type(PG, kind, PG) == wanted


@pytest.mark.parametrize(
    ("source", "target", "staged"),
    [
        ("numeric", "numeric(10,2)", "numeric"), ("numeric(8,2)", "numeric(10,2)", "numeric(10,2)"),
        ("numeric(8,3)", "numeric(10,2)", "numeric"), ("integer", "numeric(10,2)", "numeric(10,2)"),
        ("text", "character varying(5)", "text"), ("character varying(3)", "character varying(5)", "character varying(5)"),
        ("text", "character(5)", "bpchar"), ("character(3)", "character(5)", "character(5)"), ("text", "text", "text"),
        ("double precision", "real", "double precision"), ("real", "double precision", "double precision"),
        ("bigint", "double precision", "bigint"), ("integer", "double precision", "double precision"),
        ("numeric", "double precision", "numeric"),
        ("timestamp without time zone", "timestamp(3) without time zone", "timestamp without time zone"),
        ("timestamp(2) without time zone", "timestamp(3) without time zone", "timestamp(3) without time zone"),
        ("timestamp with time zone", "date", "timestamp with time zone"),
        ("timestamp with time zone", "timestamp without time zone", "timestamp with time zone"),
        ("date", "timestamp without time zone", "timestamp without time zone"),
        ("time without time zone", "time(0) without time zone", "time without time zone"),
        ("interval", "interval(3)", "interval"), ("interval", "interval day to second", "interval"),
        ("bit varying", "bit(3)", "bit varying"), ("bit(3)", "bit(3)", "bit(3)"), ("numeric[]", "numeric(10,2)[]", "numeric[]"),
        ("integer", "bigint", "bigint"), ("mood", "mood", "mood"), ("json", "jsonb", "jsonb"),
    ],
)  # fmt: skip
def test_staging_takes_off_what_would_cut(source: str, target: str, staged: str) -> None:
    assert staging_type(source, target) == staged
    assert may_lose(source, target) is (staged != target)


@pytest.mark.parametrize(
    ("pair", "form"),
    [
        ((LITE, "INTEGER", PG, "bigint"), Form.INTEGER), ((LITE, "NUMERIC", PG, "numeric"), Form.NUMERIC),
        ((LITE, "REAL", PG, "double precision"), Form.FLOAT8_ZERO), ((PG, "real", LITE, "REAL"), Form.FLOAT4),
        ((PG, "real", PG, "real"), Form.FLOAT8), ((PG, "real", PG, "double precision"), Form.FLOAT4),
        ((PG, "double precision", PG, "double precision"), Form.FLOAT8), ((PG, "integer", PG, "numeric"), Form.NUMERIC),
        ((LITE, "TEXT", PG, "text"), Form.TEXT), ((LITE, "", PG, "text"), Form.LOOSE_TEXT),
        ((LITE, "TEXT", LITE, "TEXT"), Form.STORAGE), ((PG, "jsonb", PG, "json"), Form.JSONB),
        ((PG, "json", PG, "json"), Form.TEXT), ((LITE, "JSON", PG, "jsonb"), Form.JSONB),
        ((PG, "character(4)", PG, "character(4)"), Form.PADDED), ((PG, "inet", LITE, "TEXT"), Form.TEXT),
        ((PG, "numeric", LITE, "DECIMAL_TEXT"), Form.NUMERIC), ((PG, "integer[]", PG, "integer[]"), Form.TEXT),
        ((PG, "timestamp with time zone", PG, "timestamp without time zone"), Form.TIMESTAMPTZ),
        ((LITE, "DATETIME", PG, "timestamp(6) without time zone"), Form.TIMESTAMP), ((PG, "mood", PG, "text"), Form.TEXT),
    ],
)  # fmt: skip
def test_canonical_forms(pair: tuple[Engine, str, Engine, str], form: Form) -> None:
    assert canonical_form(*pair) is form


def test_what_has_no_meaning_is_named() -> None:
    assert incompatible(PG, "bytea", PG, "integer") == "bytea values have no meaning as integer"
    assert incompatible(PG, "boolean", PG, "integer")
    assert incompatible(LITE, "BLOB", PG, "text")
    assert not incompatible(LITE, "DATETIME", PG, "bigint")
    assert not incompatible(PG, "integer", PG, "text")


# --- which values fit ---------------------------------------------------------------------------------------------


def fits(form: str, value: object, declared: str = "") -> bool:
    expression = sqlfiles.render(sqlfiles.statement("sql/sqlite/fits.sql", form), identifiers={"column": 'c "x'})
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(f'create table t ("c ""x" {declared})')
        connection.execute("insert into t values (?)", [value])
        (answer,) = connection.execute(f"select {expression} from t").fetchone()
    finally:
        connection.close()
    assert answer in (0, 1)
    return bool(answer)


def test_every_form_has_its_block_and_the_other_way_round() -> None:
    kinds = ["smallint", "integer", "bigint", "numeric(3,1)", "double precision", "real", "boolean", "text", "bytea",
             "uuid", "timestamp(6) without time zone", "timestamp with time zone", "date", "time without time zone",
             "json", "jsonb", "inet", "oid"]  # fmt: skip
    named = {fits_form("", kind) for kind in kinds} | {
        fits_form("REAL", kind, LITE) for kind in ("", "TEXT", "INT", "REAL")
    }
    named |= {fits_form("TEXT", "REAL", LITE)}
    assert named == set(sqlfiles.statements("sql/sqlite/fits.sql"))


@pytest.mark.parametrize("form", sorted(sqlfiles.statements("sql/sqlite/fits.sql")))
def test_null_fits_everywhere(form: str) -> None:
    assert fits(form, None)


@pytest.mark.parametrize("declared", ["", "TEXT", "INTEGER", "DATE", "TEXT COLLATE NOCASE"])
@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("date", ["2024-02-29", "0001-01-01", "9999-12-31"],
         ["2023-02-29", "2023-04-31", "0000-01-01", "2024-1-1", "2024-01-01\0", "2024-01-01 ", "x", b"2024-01-01"]),
        ("time", ["23:59:59", "00:00:00.000001"],
         ["24:00:00", "12:00", "12:00:00.", "12:00:00.1234567", "12:00:60", "12:00:00.1\0"]),
        ("timestamp", ["2024-01-01 00:00:00", "2024-01-01T00:00:00.5", "2024-01-01 23:59:59.123456"],
         ["2024-01-01", "2024-02-30 00:00:00", "2024-01-01 24:00:00", "0000-01-01 00:00:00",
          "2024-01-01 00:00:00.1234567", "2024-01-01 00:00:00Z", "2024-01-01 00:00:00.x", "now"]),
        ("timestamptz", ["2024-01-01 00:00:00Z", "2024-01-01T00:00:00.123456+05:30", "2024-01-01 00:00:00-15:59"],
         ["2024-01-01 00:00:00", "2024-01-01 00:00:00+16:00", "2024-01-01 00:00:00.1234567Z", "0001-01-01 00:00:00+10:00",
          "2024-01-01 00:00:00.Z", "2024-01-01 00:00:00 +01:00", "2024-01-01 00:00:00+1:00"]),
        ("uuid", ["12345678-1234-1234-1234-123456789abC"], ["12345678123412341234123456789abc", "x" * 36]),
        ("json", ['{"a": [1]}', "null", '"x"'], ["{'a': 1}", "[1", "", '"\n"', "NaN"]),
        ("jsonb", ['{"a": [1]}'], ['"\\u0000"', "[1e99999]"]),
    ],
)  # fmt: skip
def test_text_forms(form: str, good: list[object], bad: list[object], declared: str) -> None:
    assert [value for value in good if not fits(form, value, declared)] == []
    assert [value for value in bad if fits(form, value, declared)] == []


@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(), st.binary()))
def test_storage_class_forms(value: object) -> None:
    whole = isinstance(value, int)
    assert fits("int64", value) is whole
    assert fits("int32", value) is (whole and -(2**31) <= value < 2**31)
    assert fits("int16", value) is (whole and -(2**15) <= value < 2**15)
    assert fits("bool", value) is (whole and value in (0, 1))
    assert fits("float8", value) is (isinstance(value, float) or (whole and abs(value) <= 2**53))
    assert fits("bytes", value) is isinstance(value, bytes)
    assert fits("text", value) is (isinstance(value, str) and "\0" not in value)
    number = isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value) is not None
    assert fits("numeric", value) is (whole or number or (isinstance(value, float) and math.isfinite(value)))
