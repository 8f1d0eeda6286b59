"""Tables, parameters and conditions that change while a link runs: the site gets the share it is to have (invariant 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.cli import answer, execute, replicator, rows
from tests.fixtures.databases import PostgresDatabases

TABLES = """
create table patient (id integer primary key, ward integer, name text);
create table visit (id integer primary key, patient integer references patient (id), note text);
create table price (code integer primary key, cents integer);
"""
PATIENT = {"name": "patient", "direction": "both", "policy": "centre_wins", "where": "ward = :site.ward"}
VISIT = {"name": "visit", "direction": "both", "policy": "centre_wins", "follows": "patient"}
PRICE = {"name": "price", "direction": "from_centre"}


class Hospital:
    """A centre and two sites; its rules are written anew as often as wanted."""

    def __init__(self, folder: Path, places: Mapping[str, str]) -> None:
        self.file, self.places = folder / "hospital.yaml", places

    def rules(self, *tables: Mapping[str, str], east: int = 1, west: int = 2) -> None:
        sites = {
            name: {"url": self.places[name], "params": {"ward": ward}}
            for name, ward in (("east", east), ("west", west))
        }
        settings = {
            "topology": "hospital", "centre": {"url": self.places["centre"]}, "sites": sites, "tables": list(tables),
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def run(self, *arguments: object, code: int | None = 0) -> None:
        replicator(*arguments, "-c", self.file, code=code)

    def ask(self, *arguments: object) -> Any:
        return answer(*arguments, "-c", self.file)

    def write(self, place: str, script: str) -> None:
        execute(self.places[place], script)

    def read(self, place: str, query: str) -> list[Any]:
        return [row if len(row) > 1 else row[0] for row in rows(self.places[place], query)]

    def patients(self, place: str) -> list[Any]:
        return self.read(place, "select id from patient order by id")

    def visits(self, place: str) -> list[Any]:
        return self.read(place, "select id from visit order by id")


@pytest.fixture(params=["postgres", "sqlite"])
def hospital(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sqlite_file: Callable[[str], Path],
    postgres_database: PostgresDatabases,
) -> Hospital:
    """In step, with patients of three wards and no rule for prices yet; one site of each engine."""
    centre = postgres_database("centre") if request.param == "postgres" else f"sqlite:///{sqlite_file('centre')}"
    places = {"centre": centre, "east": f"sqlite:///{sqlite_file('east')}", "west": postgres_database("west")}
    made = Hospital(tmp_path, places)
    for place in places:
        made.write(place, TABLES)
    made.write("centre", "insert into patient values (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c'), (4, 1, 'd')")
    made.write("centre", "insert into visit values (10, 1, ''), (20, 2, ''), (30, 3, ''), (40, 4, '')")
    made.write("centre", "insert into price values (1, 100), (2, 200)")
    made.rules(PATIENT, VISIT)
    made.run("install")
    made.run("sync")
    assert (made.patients("east"), made.patients("west")) == ([1, 4], [2])
    return made


def test_a_parameter_that_changes(hospital: Hospital) -> None:
    hospital.write("centre", "delete from visit where id = 40; delete from patient where id = 4")  # not sent yet
    hospital.rules(PATIENT, VISIT, east=3)
    hospital.run("install")
    hospital.run("sync")
    assert (hospital.patients("east"), hospital.visits("east")) == ([3], [30])
    assert (hospital.patients("west"), hospital.visits("west")) == ([2], [20])
    assert hospital.patients("centre") == [1, 2, 3], "what leaves a site stays at the centre"
    assert hospital.ask("audit")["verdict"] == "equal"
    hospital.write("centre", "update patient set name = 'seen' where id = 3")
    hospital.run("sync")
    assert hospital.read("east", "select name from patient") == ["seen"]


def test_a_condition_that_changes(hospital: Hospital) -> None:
    for where, codes in (("cents > 0", [1, 2]), ("cents > 100", [2]), ("cents < 200", [1])):
        hospital.rules(PATIENT, VISIT, {**PRICE, "where": where})
        hospital.run("install")
        hospital.run("sync")
        for site in ("east", "west"):
            assert hospital.read(site, "select code from price order by code") == codes, where


def test_a_table_that_is_added(hospital: Hospital) -> None:
    hospital.rules(PATIENT, VISIT, PRICE)
    hospital.run("install")
    hospital.run("sync")
    for site in ("east", "west"):
        assert hospital.read(site, "select code, cents from price order by code") == [(1, 100), (2, 200)]
    assert hospital.ask("audit")["verdict"] == "equal"


def test_a_change_of_the_sites_own_that_the_centre_does_not_know_is_not_lost(hospital: Hospital) -> None:
    hospital.write("east", "update patient set name = 'written here' where id = 1")
    hospital.rules(PATIENT, VISIT, east=3)
    hospital.run("install")
    hospital.run("sync")
    hospital.run("sync")
    assert hospital.read("centre", "select name from patient where id = 1") == ["written here"]
    assert hospital.patients("east") == [3]


def test_status_reads_only_and_a_share_is_read_whole_but_once(hospital: Hospital) -> None:
    hospital.rules(PATIENT, VISIT, east=3)
    hospital.run("install")
    hospital.run("status", code=None)
    first = hospital.ask("sync")["links"]
    again = hospital.ask("sync")["links"]
    moved = {each["link"]: each["changes"] for each in first}
    assert moved["centre→east"] >= 3
    assert {each["link"]: each["changes"] for each in again} == dict.fromkeys(moved, 0)
