"""``:site.parameter`` in row filters: what is one, what it becomes, and what it routes by."""

from __future__ import annotations

import pytest

from replicator import routes
from replicator.errors import SetupError
from replicator.filters import parse_expression, render_postgres, render_sqlite
from replicator.model import ColumnShape, Engine

PG, LITE = Engine.POSTGRES, Engine.SQLITE


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("clinic = :site.clinic", ("clinic",)),
        ("a = :site.x and b = :site.y and c = :site.x", ("x", "y")),
        ("a = ':site.x'", ()),
        ("a = 'it''s :site.x' and b = :site.y", ("y",)),
        ("a = E'\\' :site.x' and b = :site.y", ("y",)),
        ('":site.x" = :site.y', ("y",)),
        ("a = $q$ :site.x $q$", ()),
        ("a = :site.x -- :site.y", ("x",)),
        ("a = /* :site.y */ :site.x", ("x",)),
        ("a::text = :site.x::text", ("x",)),
        ("a > 5", ()),
    ],
)
def test_parameters_are_found_where_sql_would_see_them(sql: str, found: tuple[str, ...]) -> None:
    assert routes.parameters(sql) == found


@pytest.mark.parametrize("sql", ["a = :clinic", "a = :sites.x", "a = :site", "a = :site. x"])
def test_other_placeholders_are_refused(sql: str) -> None:
    with pytest.raises(SetupError, match="is not known"):
        routes.parameters(sql)


def test_values_become_literals_of_the_columns_type() -> None:
    sql = routes.fill("ward = :site.ward and name = :site.n", {"ward": "7", "n": "O'Neil; --"})
    parsed = parse_expression(sql, {"ward": "int", "name": "text"})
    assert render_postgres(parsed, "r") == """((("r"."ward" = 7) and ("r"."name" = 'O''Neil; --')))""".replace(
        "(((", "((("
    )
    assert "= 7" in render_sqlite(parsed, "r")
    with pytest.raises(SetupError, match="'x' is not a int constant"):
        parse_expression(routes.fill("ward = :site.ward", {"ward": "x"}), {"ward": "int"})


@pytest.mark.parametrize(
    ("sql", "found", "alone"),
    [
        ("ward = :site.ward", {"ward": "ward"}, True),
        (":site.ward = ward", {"ward": "ward"}, True),
        ("a = :site.x and (b = :site.y and c = :site.z)", {"a": "x", "b": "y", "c": "z"}, True),
        ('"Ward Nr" = :site.ward', {"Ward Nr": "ward"}, True),
        ("a = :site.x and b", {"a": "x"}, False),
        ("a = :site.x or b = :site.y", {}, False),
        ("not (a = :site.x)", {}, False),
        ("a <> :site.x", {}, False),
        ("a in (:site.x, 'all')", {}, False),
        ("a = ':site.x'", {}, False),
        ("a = :site.x and a = :site.y", {"a": "x"}, False),
        ("lower(a) = :site.x", {}, False),
        ("-a = 5", {}, False),
    ],
)
def test_what_routes_is_what_every_row_has_to_equal(sql: str, found: dict[str, str], alone: bool) -> None:
    assert routes.equalities(sql) == (found, alone)


def test_columns_are_renamed_behind_the_alias_only() -> None:
    parsed = parse_expression(
        '"a" = \'."a"\' and "b""c" > 5 and b between 1 and 2', {"a": "text", 'b"c': "int", "b": "int"}
    )
    renamed = routes.rename(parsed, {"a": 'x"y', 'b"c': "b", "b": "a"})
    text = render_postgres(renamed, "r")
    assert """"r"."x""y" = '."a"'""" in text
    assert '"r"."b" > 5' in text
    assert '"r"."a" >= 1' in text
    assert '"r"."x""y" collate binary' in render_sqlite(renamed, "r")
    assert renamed.source == parsed.source


@pytest.mark.parametrize(
    ("engine", "kind", "family", "collation", "can"),
    [
        (PG, "bigint", "int", "", True), (PG, "text", "text", "", True), (PG, "character varying(9)", "text", "", True),
        (PG, "uuid", "uuid", "", True), (PG, "date", "date", "", True), (PG, "character(3)", "text", "", False),
        (PG, "numeric", "numeric", "", False), (PG, "text", "text", '"ci"', False), (PG, "citext", "other", "", False),
        (PG, "timestamp with time zone", "timestamptz", "", False), (LITE, "INTEGER", "int", "", True),
        (LITE, "TEXT", "text", "", True), (LITE, "TEXT", "text", "BINARY", True), (LITE, "TEXT", "text", "NOCASE", False),
        (LITE, "", "text", "", False), (LITE, "DATE", "date", "", False), (LITE, "UUID", "uuid", "", False),
    ],
)  # fmt: skip
def test_only_columns_whose_equal_values_look_the_same_route(
    engine: Engine, kind: str, family: str, collation: str, can: bool
) -> None:
    assert routes.can_route(engine, ColumnShape("c", kind, collation=collation), family) is can


def test_values_are_spelled_as_columns_spell_them() -> None:
    assert routes.spell("int", " 007") == "7"
    assert routes.spell("text", " 007") == " 007"
    assert routes.spell("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11") == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    assert routes.spell("date", "2026-01-02") == "2026-01-02"
    for family, value in (("int", "x"), ("uuid", "x"), ("date", "2026-13-01")):
        with pytest.raises(ValueError, match=r"invalid|badly|must be|range"):
            routes.spell(family, value)
