"""Row filters: what is refused and by which name, how columns are written. Same meaning: tests/integration."""

from __future__ import annotations

import sqlite3

import pglast
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import SetupError
from replicator.filters import compile_rule, parse_expression, render_postgres, render_sqlite, require_sqlite
from replicator.model import Engine

COLUMNS = {"a": "int", "b": "int", "f": "float", "x": "text", "flag": "bool", "d": "date", "ts": "timestamp",
           "tz": "timestamptz", 'We"ird N': "text", "e": "other", "Up": "int"}  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("a > (select 1)", "a subquery"), ("a in (select 1)", "a subquery"), ("exists (select 1)", "a subquery"),
        ("a = $1", "a parameter"), ("count(*) > 1", "count"), ("sum(a) over () = 1", "sum"),
        ("pg_sleep(1) is null", "pg_sleep"), ("random() < 0.5", "random"), ("nextval('s') = 1", "nextval"),
        ("now() > ts", "now"), ("current_date > d", "the clock"), ("generate_series(1, 2) = 1", "generate_series"),
        ("public.lower(x) = 'a'", "public.lower"), ("x::regclass = 1", "cast to regclass"),
        ("x::int8 = 1", "cast from text to int8"), ("x::varchar(3) = 'a'", "cast to varchar"),
        ("a, b", "more than one expression"), ("a = 1 as z", "more than one expression"),
        ("a = 1; drop table t", "more than one statement"), ("a = 1 from t", "more than an expression"),
        ("a = 1 union select true", "more than an expression"), ("a = 1 limit 1", "more than an expression"),
        ("a = 1 order by 1", "more than an expression"), ("a = 1 for update", "more than an expression"),
        ("nope = 1", "no column 'nope'"), ("t.a = 1", "without a table name"), ("*", "without a table name"),
        ("ctid = '(0,1)'", "no column 'ctid'"), ("a", "takes conditions"), ("not a", "takes conditions"),
        ("x = 5", "mixes int and text"), ("a = 'five'", "not a int constant"), ("flag = 'perhaps'", "not a bool"),
        ("d > '1.2.2024'", "not a date"), ("d > '2024-02-30'", "not a date"), ("tz > '2024-01-01'", "not a timestamptz"),
        ("ts > 'now'", "not a timestamp"), ("a = null", "IS NULL"), ("a / 0 = 1", "constant"), ("a / b = 1", "constant"),
        ("a / -1 = 1", "constant"), ("f * 2 > 1", "arithmetic on float"), ("x ~ 'a'", "operator ~"),
        ("a operator(pg_catalog.=) 1", "schema"),
        ("x = any(array['a'])", "OP ANY"), ("x similar to 'a'", "SIMILAR"), ("x like 'a' escape '!'", "ESCAPE"),
        ("x like 'a\\'", "backslash"), ('x collate "C" < \'a\'', "COLLATE"), ("row(a, b) = row(1, 2)", "a row"),
        ("a = 1 /*", "does not parse"), ("", "empty"), ("a = 1\0", "NUL"), ("lower(distinct x) = 'a'", "lower"),
        ("b'101' is null", "bit string"), ("case a when 1 then true end", "CASE with a value"),
    ],
)  # fmt: skip
def test_refused_by_name(sql: str, words: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse_expression(sql, COLUMNS)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "why"),
    [("x > 'b'", "collation"), ("lower(x) = 'a'", "lower()"), ("x ilike 'a'", "collation"), ("greatest(a, b) > 1", "NULL"),
     ("tz > '2024-01-01 00:00+00'", "PostgreSQL only"), ("e = 'ok'", "no SQLite form"),
     ("a + b + 1 > 2", "one arithmetic step"),
     ("a = f", "PostgreSQL only"), ("f > 0.1234567890123456", "too long")],
)  # fmt: skip
def test_what_sqlite_cannot_mean_exactly_is_said(sql: str, why: str) -> None:
    row_filter = parse_expression(sql, COLUMNS)
    assert row_filter.sqlite == ()
    with pytest.raises(SetupError) as caught:
        require_sqlite(row_filter)
    assert why in str(caught.value)


def test_columns_stand_behind_the_alias_and_are_quoted() -> None:
    row_filter = parse_expression("\"We\"\"ird N\" = 'it''s' and up is not null -- a comment", COLUMNS)
    assert render_postgres(row_filter, "n") == '((("n"."We""ird N" = \'it\'\'s\') and ("n"."Up" is not null)))'
    assert render_sqlite(row_filter, 'o"o').count('"o""o".') == 2


def test_before_the_table_is_known_any_column_will_do() -> None:
    assert parse_expression("region = 'eu' and n > 5 and created > '2024-01-01'", None).postgres


def test_backslashes_mean_the_same_whatever_the_session_says() -> None:
    assert "E'a\\\\b'" in render_postgres(parse_expression("x = 'a\\b'", COLUMNS), "n")


def test_new_and_old_work_in_a_sqlite_trigger() -> None:
    lite = sqlite3.connect(":memory:")
    lite.execute("create table t (a integer)")
    lite.execute("create table log (a)")
    condition = render_sqlite(parse_expression("a > 1 or a is null", {"a": "int"}), "new")
    lite.execute(f"create trigger g after insert on t when {condition} begin insert into log values (new.a); end")
    lite.executemany("insert into t values (?)", [(1,), (2,), (None,)])
    assert lite.execute("select a from log").fetchall() == [(2,), (None,)]
    lite.close()


@given(st.text(max_size=20))
def test_any_text_literal_comes_out_as_it_went_in(value: str) -> None:
    if "\0" in value or any(0xD800 <= ord(character) < 0xE000 for character in value):
        return
    escaped = value.replace("'", "''")
    row_filter = parse_expression(f"x = '{escaped}'", COLUMNS)
    tree = pglast.parse_sql(f"select {render_postgres(row_filter, 'n')}")
    assert tree[0].stmt.targetList[0].val.rexpr.val.sval == value


@given(st.text(alphabet="ab()'\"=<>,;$*:-/\\ \n1.", max_size=25))
def test_whatever_is_written_is_refused_cleanly_or_understood(sql: str) -> None:
    try:
        parse_expression(sql, {"a": "int", "b": "bool"})
    except SetupError as error:
        if not str(error).startswith("row filter"):
            raise


# --- conflict rules ---


def test_a_rule_reads_three_rows_and_gives_a_text() -> None:
    rule = compile_rule("case when site.a > centre.A or base.flag then 'source' else 'centre' end", COLUMNS)
    assert rule.postgres == """(case when ((site."a" > centre."a") or base."flag") then 'source' else 'centre' end)"""
    assert rule.sqlite == rule.postgres
    pglast.parse_sql(f"select {rule.postgres} from s as site, c as centre, b as base")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("a", "a does not say of which row it is"), ("nope.a", "nope.a does not say"), ("site.*", "site.* does not say"),
        ("site", "site does not say"), ("site.nope", "no column 'nope'"), ("site.a > 1", "it gives a bool value"),
        ("site.a", "it gives a int value"), ("null", "nothing but NULL"), ("(select 'source')", "a subquery"),
        ("case when site.a then 'source' end", "WHEN takes conditions"), ("pg_sleep(1)", "pg_sleep"), ("", "empty"),
        ("'source'; drop table t", "more than one statement"), ("s.site.a", "does not say"),
    ],
)  # fmt: skip
def test_a_rule_is_refused_by_name(sql: str, words: str) -> None:
    with pytest.raises(SetupError) as caught:
        compile_rule(sql, COLUMNS)
    assert words in str(caught.value)
    assert str(caught.value).startswith("rule ")


def test_a_rule_without_an_exact_sqlite_form_is_for_postgresql_centres() -> None:
    sql = "case when lower(site.x) = 'urgent' then 'source' else 'centre' end"
    assert compile_rule(sql, COLUMNS).sqlite == ""
    with pytest.raises(SetupError, match=r"SQLite centre: lower\(\)"):
        compile_rule(sql, COLUMNS, Engine.SQLITE)


def test_a_rule_answers_alike_in_sqlite() -> None:
    rule = compile_rule("case when site.a > centre.a then 'source' when centre.a is null then 'park' end", {"a": "int"})
    lite = sqlite3.connect(":memory:")
    asked = f"select {rule.sqlite} from (select ? as a) as site, (select ? as a) as centre, (select ? as a) as base"
    answers = [lite.execute(asked, row).fetchone()[0] for row in ((2, 1, 0), (1, 2, 0), (1, None, None))]
    lite.close()
    assert answers == ["source", None, "park"]
