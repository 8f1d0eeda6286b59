"""Rows that go to the sites their parents go to: the way to the parent, and every refusal with its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.errors import SettingsError
from replicator.model import ForeignKeyShape, Route, RouteStep, TableName
from tests.fixtures.catalogues import catalogue, table
from tests.fixtures.wards import BOTH, LITE, PATIENTS, PG, SITE, WARD, Make, compiled, down, maker, shown


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


PATIENT = RouteStep(("patient_id",), TableName("public", "patients"), ("id",))


def test_a_route_leads_over_the_parents_to_the_last(make: Make) -> None:
    rules = [WARD, f"{{name: vitals, {BOTH}, follows: patients}}", f"{{name: notes, {BOTH}, follows: vitals}}"]
    found = compiled(make(*rules))
    plan = down(found, "notes")
    assert plan.route == Route(
        ("ward",), (RouteStep(("vital_id",), TableName("public", "vitals"), ("id",)), PATIENT)
    )  # fmt: skip
    assert (plan.params, shown(plan)) == (("1",), '(("r"."ward" = 1))')
    assert [down(found, name).route.path for name in ("patients", "vitals")] == [(), (PATIENT,)]
    assert [plan.target.name for plan in found.downward["a"]] == ["patients", "vitals", "notes"]
    routes = {one.table.name.name: one.route for one in found.central}
    assert routes == {name: down(found, name).route for name in ("patients", "vitals", "notes")}


def test_via_names_the_columns_where_there_is_no_choice_to_make_or_more_than_one(make: Make) -> None:
    two = table(
        "moves", ["id INTEGER!", "old_id INTEGER", "new_id INTEGER", "loose_id INTEGER"],
        parents=[ForeignKeyShape("", (name,), TableName("", "patients"), ()) for name in ("old_id", "new_id")],
    )  # fmt: skip
    site = catalogue(LITE, PATIENTS, two)

    def step(follows: str, **more: str) -> tuple[str, ...]:
        settings = make(WARD, f"{{name: moves, {BOTH}, follows: {follows}}}", **more)
        return down(compiled(settings, site), "moves").route.path[0].columns

    assert step("{table: patients, via: [new_id]}") == ("new_id",)
    assert step("{table: patients, via: [LOOSE_ID]}") == ("loose_id",)
    for follows, words in (
        ("patients", r"several foreign keys to patients: \(old_id\) and \(new_id\)"),
        ("{table: patients, via: [nope]}", "no column 'nope'"),
        ("{table: patients, via: [old_id, new_id]}", r"cannot refer to patients, whose key is \(id\)"),
    ):
        with pytest.raises(SettingsError, match=words) as caught:
            step(follows)
        assert (caught.value.key, caught.value.line) == ("tables.1.follows", 8)
    lone = catalogue(LITE, PATIENTS, table("moves", ["id INTEGER!", "new_id INTEGER"]))
    with pytest.raises(SettingsError, match="no foreign key to patients"):
        compiled(make(WARD, f"{{name: moves, {BOTH}, follows: patients}}"), lone)


def test_the_centres_foreign_keys_count_where_it_has_the_table(make: Make) -> None:
    parents = [ForeignKeyShape("", ("patient_id",), TableName("public", "patients"), ("id",))]
    there = catalogue(
        PG, table("patients", ["id bigint!", "name text", "ward integer"], schema="public"),
        table("vitals", ["id bigint!", "patient_id bigint", "pulse integer"], schema="public", parents=parents),
    )  # fmt: skip
    bare = catalogue(LITE, PATIENTS, table("vitals", ["id INTEGER!", "patient_id INTEGER", "pulse INTEGER"]))
    found = compiled(make(WARD, f"{{name: vitals, {BOTH}, follows: patients}}"), bare, there)
    assert down(found, "vitals").route.path == (PATIENT,)


def test_children_of_a_table_keyed_by_site_follow_its_constants(make: Make) -> None:
    keyed = f"{BOTH}, keyed_by: [site]"
    found = compiled(make(f"{{name: patients, {keyed}}}", f"{{name: vitals, {keyed}, follows: patients}}"))
    plan = down(found, "vitals")
    assert plan.route == Route(
        ("site",), (RouteStep(("site", "patient_id"), TableName("public", "patients"), ("site", "id")),)
    )  # fmt: skip
    assert (plan.params, shown(plan), plan.source_constants) == (
        ("a",),
        """(("r"."site" = 'a'))""",
        (("site", "a"),),
    )


def test_a_parent_every_site_gets_cannot_be_followed(make: Make) -> None:
    with pytest.raises(SettingsError, match="of which every site gets every row") as caught:
        compiled(make(f"{{name: patients, {BOTH}}}", f"{{name: vitals, {BOTH}, follows: patients}}"))
    assert caught.value.key == "tables.1.follows"


@pytest.mark.parametrize(
    ("where", "columns", "watched"),
    [
        ("ward = :site.ward", ("ward",), ()),
        ("ward = :site.ward and name is null", ("ward",), ("name",)),
        ("ward > :site.ward or name is null and id > 5", (), ("ward", "name", "id")),
        ("name is null", (), ("name",)),
    ],
)
def test_what_else_decides_about_a_parent_is_watched(
    make: Make, where: str, columns: tuple[str, ...], watched: tuple[str, ...]
) -> None:
    rules = [f'{{name: patients, where: "{where}", {BOTH}}}', f"{{name: vitals, {BOTH}, follows: patients}}"]
    found = compiled(make(*rules))
    assert down(found, "vitals").route == Route(columns, (PATIENT,), watched)
    assert down(found, "patients").route == Route(columns)
    assert down(found, "vitals").where == down(found, "patients").where
    settings = make(*rules, centre="sqlite:///c.db")
    if not watched:
        assert down(compiled(settings, centre=catalogue(LITE)), "vitals").route.columns == columns
        return
    with pytest.raises(SettingsError, match="not divided by its columns alone") as caught:
        compiled(settings, centre=catalogue(LITE))
    assert caught.value.key == "tables.1.follows"


def test_circles_are_refused(make: Make) -> None:
    rules = [f"{{name: vitals, {BOTH}, follows: notes}}", f"{{name: notes, {BOTH}, follows: vitals}}"]
    with pytest.raises(SettingsError, match="follows itself: notes → vitals → notes"):
        compiled(make(*rules))


def test_two_rules_for_one_table_must_divide_it_alike(make: Make) -> None:
    other = table("people", ["id INTEGER!", "name TEXT", "ward INTEGER"])
    rules = [WARD, f"{{name: people, target: patients, {BOTH}}}"]
    sites = {"a": SITE, "b": catalogue(LITE, other)}
    with pytest.raises(SettingsError, match="divides patients otherwise than site a, table patients does"):
        compiled(make(*rules, params=("{ward: 1}", "{ward: 2}")), sites)
