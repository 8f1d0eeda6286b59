"""Links from the centre: plans turned round, rows divided among sites, and every refusal with its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.errors import SettingsError, SetupError
from replicator.filters import render_sqlite
from replicator.model import Direction, PolicyName, Route, TableName, TableShape, UniqueShape
from replicator.settings import with_params
from replicator.topology import compile_site
from tests.fixtures.catalogues import catalogue, column, table
from tests.fixtures.wards import BOTH, EMPTY, LITE, PATIENTS, PG, SITE, WARD, Make, compiled, down, maker, shown


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


# --- directions ---------------------------------------------------------------------------------------------------


def test_a_plan_from_the_centre_is_the_one_to_it_turned_round(make: Make) -> None:
    rule = f"{{name: patients, {BOTH}, columns: {{rename: {{name: label}}, exclude: [ward]}}}}"
    found = compiled(make(rule))
    (up,), (plan,) = found.plans["a"], found.downward["a"]
    assert (plan.source, plan.target, plan.target_shape) == (up.target_shape, TableName("", "patients"), PATIENTS)
    assert (plan.source_engine, plan.target_engine) == (PG, LITE)
    assert [(c.source, c.source_type, c.target, c.target_type) for c in plan.columns] == [
        ("id", "bigint", "id", "INTEGER"), ("label", "text", "name", "TEXT"),
    ]  # fmt: skip
    assert [c.form for c in plan.columns] == [c.form for c in up.columns]
    assert plan.key == ("id",)
    assert (plan.direction, plan.where, plan.route, plan.ledgered, plan.versioned) == (
        Direction.BOTH, None, Route(), False, False,
    )  # fmt: skip
    assert up.versioned
    (central,) = found.central
    assert (central.table, central.key, central.route) == (up.target_shape, ("id",), Route())
    assert (central.sent, central.versioned) == (True, True)


def test_directions_choose_the_links(make: Make) -> None:
    settings = make(
        "{name: patients, direction: from_centre}", "{name: vitals}", "{name: notes, direction: both}",
        more="defaults: {direction: to_centre}",
    )  # fmt: skip
    found = compiled(settings)
    assert [plan.target.name for plan in found.plans["a"]] == ["notes", "vitals"]
    assert [plan.target.name for plan in found.downward["a"]] == ["patients", "notes"]
    assert {one.table.name.name: (one.sent, one.versioned) for one in found.central} == {
        "notes": (True, True), "patients": (True, False),
    }  # fmt: skip
    assert {shape.name.name for shape in found.missing} == {"patients", "vitals", "notes"}


@pytest.mark.parametrize("policy", ["newest_wins", "{name: site_priority, priority: [centre, a]}", "merge_columns"])
def test_policies_that_ask_for_the_last_writer_keep_versions(make: Make, policy: str) -> None:
    found = compiled(make(f"{{name: patients, policy: {policy}}}"))
    assert found.plans["a"][0].versioned
    assert found.downward["a"] == ()
    assert [(one.sent, one.versioned) for one in found.central] == [(False, True)]


def test_one_way_tables_of_plain_policies_are_not_captured_at_the_centre(make: Make) -> None:
    found = compiled(make("{name: patients, policy: centre_wins}"))
    assert found.central == ()
    assert not found.plans["a"][0].versioned


def test_types_must_fit_on_the_way_back_too(make: Make) -> None:
    own = table("patients", ["id integer!", "photo bytea"], schema="public")
    there = catalogue(PG, table("patients", ["id integer!", "photo text"], schema="public"))
    with pytest.raises(SetupError, match="no meaning as"):
        compiled(make("{name: patients, direction: from_centre}"), catalogue(PG, own), there)
    with pytest.raises(
        SetupError, match=r"column 'photo' \(bytea\).*on the way back.*column 'photo' of patients, text"
    ):
        compiled(make("{name: patients, direction: from_centre}"), catalogue(PG, own), there)


def test_a_site_column_that_nobody_fills_is_named(make: Make) -> None:
    own = table("patients", ["id INTEGER!", "name TEXT!", "ward INTEGER"])
    rule = "{name: patients, direction: from_centre, columns: {include: [id, ward]}}"
    with pytest.raises(SetupError, match="'name' is NOT NULL at the site"):
        compiled(make(rule), catalogue(LITE, own))


# --- keyed by site ------------------------------------------------------------------------------------------------


def test_a_table_keyed_by_site_comes_back_by_its_constants(make: Make) -> None:
    found = compiled(make(f"{{name: patients, {BOTH}, keyed_by: [site, ward]}}".replace("ward]", "code]")))
    plan = down(found, "patients")
    assert plan.source_constants == (("site", "a"), ("code", "x"))
    assert plan.key == ("id",)
    assert [c.source for c in plan.columns] == ["id", "name", "ward"]
    assert (plan.route, plan.params, plan.where) == (Route(("site", "code")), ("a", "x"), None)
    assert found.central[0].key == ("site", "code", "id")


def test_constants_and_conditions_route_together(make: Make) -> None:
    rule = f"{{name: patients, {BOTH}, keyed_by: [site], where: \"ward = :site.ward and name <> 'x'\"}}"
    plan = down(compiled(make(rule)), "patients")
    assert (plan.route.columns, plan.params) == (("site", "ward"), ("a", "1"))
    assert shown(plan) == """((("r"."ward" = 1) and ("r"."name" <> 'x')))"""


# --- conditions ---------------------------------------------------------------------------------------------------


def test_a_condition_with_parameters_divides_and_does_not_filter_what_is_sent(make: Make) -> None:
    found = compiled(make(WARD, params=("{ward: 01}", "{ward: 2}")))
    assert [found.plans[site][0].where for site in "ab"] == [None, None]
    plans = [down(found, "patients", site) for site in "ab"]
    assert [plan.params for plan in plans] == [("1",), ("2",)]
    assert [shown(plan) for plan in plans] == ['(("r"."ward" = 01))', '(("r"."ward" = 2))']
    assert {plan.route for plan in plans} == {Route(("ward",))} == {found.central[0].route}


def test_a_condition_without_parameters_filters_both_ways_in_each_sides_names(make: Make) -> None:
    rule = f"{{name: patients, {BOTH}, where: ward > 5, columns: {{rename: {{ward: id_2, name: ward}}}}}}"
    found = compiled(make(rule))
    (up,) = found.plans["a"]
    assert up.where is not None
    assert render_sqlite(up.where, "r") == '(("r"."ward" > 5))'
    assert shown(down(found, "patients")) == '(("r"."id_2" > 5))'


def test_a_condition_with_parameters_is_about_the_centres_columns(make: Make) -> None:
    there = catalogue(PG, table("patients", ["id bigint!", "label text", "clinic text"], schema="public"))
    columns = "columns: {include: [id, name], rename: {name: label}}"
    rule = f'{{name: patients, {BOTH}, {columns}, where: "clinic = :site.name and name is not null"}}'
    plan = down(compiled(make(rule), centre=there), "patients")
    assert shown(plan) == """((("r"."clinic" = 'a') and ("r"."label" is not null)))"""
    assert (plan.route.columns, plan.params) == (("clinic",), ("a",))


def test_a_column_that_cannot_route_is_left_to_the_condition(make: Make) -> None:
    there = catalogue(PG, table("patients", ["id bigint!", "name text", "ward numeric(5,0)"], schema="public"))
    plan = down(compiled(make(WARD), centre=there), "patients")
    assert (plan.route, plan.params) == (Route(), ())
    assert shown(plan) == '(("r"."ward" = 1))'


@pytest.mark.parametrize(
    ("rule", "words", "key"),
    [
        ('{name: patients, where: "ward = :site.ward"}', "only goes to the centre", "tables.0.where"),
        ('{name: patients, direction: both, where: "ward = :ward"}', ":ward is not known", "tables.0.where"),
        ('{name: patients, direction: both, where: "ward = :site.wad"}', "did you mean ward", "tables.0.where"),
        ('{name: patients, direction: both, where: "ward = :site.code"}', "'x' is not a int constant", "tables.0.where"),
        ('{name: patients, direction: both, where: "wrd = :site.ward"}', "no column 'wrd'", "tables.0.where"),
        ('{name: patients, direction: both, where: "ward = :site.ward and"}', "more than one expression", "tables.0.where"),
        ("{name: patients, follows: vitals}", "only goes to the centre", "tables.0.follows"),
        ("{name: vitals, direction: both, where: id > 5, follows: patients}", "row filter of its own", "tables.0.where"),
        ("{name: vitals, direction: both, follows: patients}", "does not come from the centre", "tables.0.follows"),
        ("{name: vitals, direction: both, follows: vitals}", "follows itself: vitals → vitals", "tables.0.follows"),
        ("{name: patients, direction: from_centre, policy: manual}", "never asked", "tables.0.policy"),
        ("{name: patients, direction: from_centre, truncate: park}", "never asked", "tables.0.truncate"),
    ],
)  # fmt: skip
def test_refusals_name_the_line_and_the_fix(make: Make, rule: str, words: str, key: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        compiled(make(rule))
    assert (caught.value.key, caught.value.line) == (key, 7)


def test_a_sqlite_centre_takes_conditions_it_can_hold(make: Make) -> None:
    settings = make(WARD, "{name: vitals, direction: both, follows: patients}", centre="sqlite:///c.db")
    plan = down(compiled(settings, centre=catalogue(LITE)), "vitals")
    assert plan.where is not None
    assert render_sqlite(plan.where, "r") == '(("r"."ward" = 1))'
    settings = make(f'{{name: patients, {BOTH}, where: "name > :site.code"}}', centre="sqlite:///c.db")
    with pytest.raises(SettingsError, match="would not mean the same on SQLite"):
        compiled(settings, centre=catalogue(LITE))


# --- tables a site lacks ------------------------------------------------------------------------------------------


def test_a_site_gets_a_table_that_only_the_centre_has(make: Make) -> None:
    there = catalogue(
        PG,
        table(
            "drugs", ["site text!", "code character varying(9)!", "price numeric(8,2)", "made timestamp with time zone"],
            schema="public", key=["site", "code"],
            uniques=[UniqueShape("u", ("site", "price")), UniqueShape("v", ("price", "made"))],
        ),
    )  # fmt: skip
    columns = "columns: {rename: {pretium: price}, exclude: [made]}"
    found = compiled(
        make(f"{{name: drugs, direction: both, keyed_by: [site], {columns}}}", "{name: patients}"), centre=there
    )
    plan = down(found, "drugs")
    assert [(c.name, c.type, c.not_null) for c in plan.target_shape.columns] == [
        ("code", "TEXT", True), ("pretium", "DECIMAL_TEXT", False),
    ]  # fmt: skip
    assert plan.target_shape.key == ("code",)
    assert [unique.columns for unique in plan.target_shape.uniques] == [("code",), ("pretium",)]
    assert [(c.source, c.target) for c in plan.columns] == [("code", "code"), ("price", "pretium")]
    assert "site a has no table drugs: install creates it as the centre has it" in found.notes


def test_a_site_gets_a_table_that_another_site_brings(make: Make) -> None:
    found = compiled(make(f"{{name: patients, {BOTH}}}", params=("{}", "{}")), {"a": SITE, "b": catalogue(LITE)})
    assert down(found, "patients", "b").target_shape.columns[0] == column("id INTEGER!")
    assert [plan.source.name.name for plan in found.plans["b"]] == ["patients"]


def test_globs_and_tables_to_the_centre_create_nothing_at_a_site(make: Make) -> None:
    there = catalogue(PG, table("drugs", ["id bigint!"], schema="public"))
    with pytest.raises(SettingsError, match=r"neither a site nor the centre has a table 'drug\*'"):
        compiled(make('{name: "drug*", direction: from_centre}', "{name: patients}"), centre=there)
    with pytest.raises(SettingsError, match="no site has a table 'drugs'"):
        compiled(make("{name: drugs}", "{name: patients}"), centre=there)


# --- policies -----------------------------------------------------------------------------------------------------


def test_policies_by_engine_are_told_apart(make: Make) -> None:
    pg = table("patients", ["id bigint!", "name text", "ward bigint"], schema="public")
    settings = make(
        f"{{name: patients, {BOTH}, policy: {{name: sqlite_wins, kinds: {{update_deleted: postgresql_wins}}}}}}"
    )
    policy = compiled(settings).plans["a"][0].policy
    assert policy.name is PolicyName.SOURCE_WINS
    assert [name for _, name in policy.kinds] == [PolicyName.CENTRE_WINS]
    with pytest.raises(SettingsError, match="sqlite_wins does not say who") as caught:
        compiled(settings, catalogue(PG, pg))
    assert (caught.value.key, caught.value.line) == ("tables.0.policy.name", 7)


def test_policies_by_column_speak_of_the_centres_columns(make: Make) -> None:
    def policy(columns: str, rule: str = "name: patients") -> tuple[tuple[str, PolicyName], ...]:
        written = f"{{name: merge_columns, columns: {{{columns}}}}}"
        settings = make(f"{{{rule}, {BOTH}, columns: {{rename: {{name: label}}}}, policy: {written}}}")
        return compiled(settings).plans["a"][0].policy.columns

    assert policy("NAME: centre_wins, ward: add") == (("label", PolicyName.CENTRE_WINS), ("ward", PolicyName.ADD))
    assert policy("label: manual") == (("label", PolicyName.MANUAL),)
    for columns, words in (
        ("id: add", "key column"), ("nope: add", "no table of this policy has a column 'nope'"),
        ("name: add", "only numbers can be added"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=words) as caught:
            policy(columns)
        assert (caught.value.key, caught.value.line) == (f"tables.0.policy.columns.{columns.split(':')[0]}", 7)


# --- parameters from a table --------------------------------------------------------------------------------------


def test_parameters_come_from_a_table_at_the_centre(make: Make) -> None:
    more = "params_from: {table: clinics, site: code}"
    settings = make(WARD, f"{{name: vitals, {BOTH}, keyed_by: [region]}}", params=("{ward: 9}", "{}"), more=more)
    rows: list[dict[str, object]] = [
        {"code": "a", "ward": 1, "region": "eu"},
        {"code": "b", "ward": 2, "region": "us"},
        {"code": "z", "ward": 3, "region": None},
    ]
    filled = with_params(settings, rows)
    found = compiled(filled)
    assert [down(found, "patients", site).params for site in "ab"] == [("9",), ("2",)]
    assert down(found, "vitals", "b").source_constants == (("region", "us"),)
    with pytest.raises(SettingsError, match=r"site b has no parameter 'region'.*\n.*in its row of clinics"):
        with_params(settings, [rows[0], {"code": "b", "ward": 2, "region": None}])
    with pytest.raises(SettingsError, match="two rows for site a"):
        with_params(settings, [rows[0], rows[0]])
    with pytest.raises(SettingsError, match="clinics has no column 'code'"):
        with_params(settings, [{"kode": "a"}])
    with pytest.raises(SettingsError, match="site b has no parameter 'ward'"):
        compiled(with_params(settings, [rows[0], {"code": "b", "region": "us"}]))


def test_one_site_can_be_compiled_alone(make: Make) -> None:
    settings = make(WARD, f"{{name: vitals, {BOTH}, follows: patients}}", params=("{ward: 1}", "{ward: 2}"))
    alone = compile_site(settings, "b", SITE, EMPTY)
    assert list(alone.downward) == ["b"]
    assert alone.downward["b"] == compiled(settings).downward["b"]


# --- rules of one's own -------------------------------------------------------------------------------------------


def test_a_rule_in_sql_is_compiled_over_the_centres_columns(make: Make) -> None:
    sql = "case when site.label = centre.label then 'source' else 'park' end"
    rule = f'{{name: patients, {BOTH}, columns: {{rename: {{name: label}}}}, policy: {{sql: "{sql}"}}}}'
    policy = compiled(make(rule)).plans["a"][0].policy
    assert policy.rule is not None
    assert '"label"' in policy.rule.postgres
    assert policy.merges
    with pytest.raises(SettingsError, match="no column 'name'") as caught:
        compiled(make(rule.replace("site.label", "site.name")))
    assert (caught.value.key, caught.value.line) == ("tables.0.policy.sql", 7)
    with pytest.raises(SettingsError, match="a subquery is not allowed") as caught:
        make(f'{{name: patients, {BOTH}, policy: {{sql: "(select 1)"}}}}')
    assert (caught.value.key, caught.value.line) == ("tables.0.policy.sql", 7)


def test_a_key_that_is_checked_late_cannot_take_rows(make: Make) -> None:
    late = table(
        "patients", ["id bigint!"], schema="public", key=[], uniques=[UniqueShape("p", ("id",), deferrable=True)]
    )
    own = TableShape(late.name, late.columns, ("id",), late.uniques)
    there = catalogue(PG, table("patients", ["id bigint!"], schema="public"))
    with pytest.raises(SetupError, match="checked at the end of a transaction only"):
        compiled(make("{name: patients, direction: from_centre}"), catalogue(PG, own), there)
    assert compiled(make("{name: patients}"), catalogue(PG, own), there).plans["a"]


def test_a_table_under_another_name_is_not_made_again(make: Make) -> None:
    other = table("people", ["id INTEGER!", "name TEXT", "ward INTEGER"])
    rules = [f"{{name: patients, {BOTH}}}", f"{{name: people, target: patients, {BOTH}}}"]
    found = compiled(make(*rules, params=("{}", "{}")), {"a": SITE, "b": catalogue(LITE, other)})
    assert [plan.target.name for plan in found.downward["a"]] == ["patients"]
    assert [plan.target.name for plan in found.downward["b"]] == ["people"]


def test_a_thousand_sites_compile(make: Make) -> None:
    names = [f"s{number}" for number in range(1000)]
    settings = make(WARD, f"{{name: vitals, {BOTH}, follows: patients}}", params=("{ward: 1}",))
    sites = {name: settings.sites["a"].model_copy(update={"params": {"ward": name[1:]}}) for name in names}
    found = compiled(settings.model_copy(update={"sites": sites}))
    assert [down(found, "vitals", name).params for name in names[:3]] == [("0",), ("1",), ("2",)]
    assert len({plan.route for plans in found.downward.values() for plan in plans}) == 2
