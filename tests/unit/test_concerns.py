"""What ``check`` says of a compiled topology before it hurts: each finding, and the topologies that do not have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.concerns import (
    check_skews,
    find_concerns,
    new_tables,
    second_keys,
    slow_conditions,
    spreading_truncates,
)
from replicator.model import Direction, LinkName, LinkRecord, UniqueShape
from tests.fixtures.catalogues import catalogue, table
from tests.fixtures.wards import BOTH, LITE, PG, WARD, Make, compiled, maker

PEOPLE = table("patients", ["id bigint!", "name text", "ward integer"], schema="public")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


def test_a_condition_that_does_not_route_is_a_warning(make: Make) -> None:
    slow = f'{{name: patients, {BOTH}, where: "ward >= :site.ward"}}'
    found = compiled(make(slow, params=("{ward: 1}", "{ward: 2}")))
    (finding,) = slow_conditions(found)
    assert (finding.ok, finding.warning, finding.subject) == (False, True, "patients")
    assert "'ward >= :site.ward'" in finding.message
    assert "column = :site.parameter" in finding.fix
    assert list(slow_conditions(compiled(make(WARD)))) == []
    assert list(slow_conditions(compiled(make(f"{{name: patients, {BOTH}, where: ward > 5}}")))) == []


def test_a_truncate_that_would_empty_every_site_is_a_warning(make: Make) -> None:
    def places(more: str) -> list[str]:
        settings = make(f"{{name: patients, {more}}}", params=("{}", "{}"))
        return [finding.place for finding in spreading_truncates(compiled(settings, catalogue(PG, PEOPLE)))]

    assert places(f"{BOTH}, truncate: replicate") == ["a", "b"]
    assert places(BOTH) == []
    assert places("truncate: replicate") == []
    assert places(f"{BOTH}, truncate: replicate, keyed_by: [site]") == []


def test_second_unique_keys_are_named_once_with_what_happens(make: Make) -> None:
    mail = table("patients", ["id INTEGER!", "name TEXT"], uniques=[UniqueShape("u", ("name",))])
    settings = make(f"{{name: patients, {BOTH}}}", params=("{}", "{}"))
    (finding,) = second_keys(compiled(settings, catalogue(LITE, mail)))
    assert (finding.ok, finding.subject) == (True, "patients")
    assert "unique on (name) at 2 sites: a row that collides there is parked" in finding.message
    assert list(second_keys(compiled(settings))) == []
    assert list(second_keys(compiled(make("{name: patients}"), catalogue(LITE, mail)))) == []


def record(site: str, skew_us: int, direction: Direction = Direction.TO_CENTRE) -> LinkRecord:
    return LinkRecord(LinkName("t", site, direction), None, "", 0, 0, 0, 0, skew_us, 0)


def test_a_wrong_clock_matters_where_the_later_edit_wins(make: Make) -> None:
    newest = compiled(make(f"{{name: patients, {BOTH}, policy: newest_wins}}", params=("{}", "{}")))
    links = [record("a", -3_500_000), record("b", 900_000), record("b", 9_000_000, Direction.FROM_CENTRE)]
    (finding,) = check_skews(newest, links)
    assert (finding.place, finding.warning) == ("a", True)
    assert "-3.5 s" in finding.message
    assert "patients" in finding.message
    assert list(check_skews(newest, [])) == []
    assert list(check_skews(compiled(make(f"{{name: patients, {BOTH}}}")), links)) == []


def test_new_tables_are_listed_in_one_line(make: Make) -> None:
    (finding,) = new_tables(compiled(make(f"{{name: patients, {BOTH}}}")))
    assert (finding.ok, finding.message) == (True, "install creates at the centre: patients")
    settings = make('{name: "*"}')
    many = catalogue(LITE, *(table(f"t{number:02}", ["id INTEGER!"]) for number in range(14)))
    (finding,) = new_tables(compiled(settings, many))
    assert finding.message.endswith("t11 and 2 more")
    assert list(new_tables(compiled(make("{name: patients}"), centre=catalogue(PG, PEOPLE)))) == []


def test_a_plain_topology_gives_no_concern(make: Make) -> None:
    assert find_concerns(compiled(make("{name: patients}"), centre=catalogue(PG, PEOPLE))) == []
