"""A clinic on both sides, through the command line: written everywhere, offline for a while, parked, healed, equal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.cli import answer, execute, replicator, rows, started
from tests.fixtures.databases import PostgresDatabases

TABLES = """
create table patient (id integer primary key, clinic integer not null, name text, email text unique);
create table visit (id integer primary key, patient integer not null references patient (id), note text);
create table price (code text primary key, cents integer);
"""
SITES = ("clinic1", "clinic2", "clinic3")


class Clinic:
    """Three clinics (two SQLite files, one PostgreSQL database) and a centre."""

    def __init__(self, folder: Path, centre: str, sites: dict[str, str]) -> None:
        self.file = folder / "clinic.yaml"
        self.places = {"centre": centre, **sites}
        both = {"direction": "both", "policy": "newest_wins"}
        settings = {
            "topology": "clinic",
            "centre": {"url": centre},
            "sites": {
                name: {"url": url, "params": {"clinic": str(n)}} for n, (name, url) in enumerate(sites.items(), 1)
            },
            "tables": [
                {"name": "patient", **both, "where": "clinic = :site.clinic"},
                {"name": "visit", **both, "follows": "patient"},
                {"name": "price", "direction": "from_centre"},
            ],
        }
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        for place in self.places:
            self.write(place, TABLES)

    def write(self, place: str, script: str) -> None:
        execute(self.places[place], script)

    def read(self, place: str, query: str) -> list[tuple[Any, ...]]:
        return rows(self.places[place], query)

    def run(self, *arguments: object, code: int | None = 0) -> str:
        return replicator(*arguments, "-c", self.file, code=code).output

    def ask(self, *arguments: object, code: int | None = 0) -> Any:
        return answer(*arguments, "-c", self.file, code=code)

    def assert_equal(self) -> None:
        """By our own eyes, not by the audit's."""
        for number, site in enumerate(SITES, 1):
            mine = f"select id, name, email from patient where clinic = {number} order by id"
            assert self.read(site, "select id, name, email from patient order by id") == self.read("centre", mine), site
            visits = "select v.id, v.note from visit v join patient p on p.id = v.patient"
            wanted = self.read("centre", f"{visits} where p.clinic = {number} order by 1")
            assert self.read(site, f"{visits} order by 1") == wanted, site
            prices = "select code, cents from price order by code"
            assert self.read(site, prices) == self.read("centre", prices), site


@pytest.fixture
def clinic(tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases) -> Clinic:
    """Installed, with two patients at each clinic and a price list."""
    urls = [f"sqlite:///{sqlite_file('one')}", f"sqlite:///{sqlite_file('two')}", postgres_database("three")]
    made = Clinic(tmp_path, postgres_database("centre"), dict(zip(SITES, urls, strict=True)))
    for number, site in enumerate(SITES, 1):
        made.write(
            site,
            f"insert into patient values ({number}1, {number}, 'first', 'first{number}@x');"
            f"insert into patient values ({number}2, {number}, 'second', null);"
            f"insert into visit values ({number}1, {number}1, 'hello');",
        )
    made.write("centre", "insert into price values ('a', 100), ('b', 200);")
    assert made.ask("check")["problems"] == 0
    made.run("install")
    made.run("sync")
    return made


def test_all_write_and_all_are_equal(clinic: Clinic) -> None:
    clinic.assert_equal()
    clinic.write("clinic1", "update patient set name = 'of the site' where id = 11;")
    clinic.write("centre", "update patient set name = 'of the centre' where id = 21;")
    clinic.write("centre", "insert into visit values (39, 32, 'from the centre');")
    clinic.write("centre", "update price set cents = 150 where code = 'a'; delete from price where code = 'b';")
    clinic.run("sync")
    clinic.assert_equal()
    assert clinic.ask("audit")["verdict"] == "equal"
    status = clinic.ask("status")
    assert status["healthy"]
    assert sorted((link["site"], link["direction"]) for link in status["links"]) == sorted(
        (site, direction) for site in SITES for direction in ("to_centre", "from_centre")
    )
    assert all(link["behind_changes"] == 0 for link in status["links"])


def test_a_patient_moves_with_its_visits(clinic: Clinic) -> None:
    clinic.write("centre", "update patient set clinic = 3 where id = 11;")
    clinic.run("sync")
    clinic.assert_equal()
    assert clinic.read("clinic1", "select id from patient") == [(12,)]
    assert clinic.read("clinic1", "select id from visit") == []
    assert (11, "hello") in clinic.read("clinic3", "select id, note from visit")
    assert clinic.ask("audit")["verdict"] == "equal"


def test_a_conflict_while_a_clinic_was_away(clinic: Clinic) -> None:
    clinic.write("clinic1", "update patient set name = 'earlier' where id = 11;")
    clinic.write("centre", "update patient set name = 'later' where id = 11;")
    behind = clinic.ask("status", code=None)
    waiting = {(each["site"], each["direction"]): each["behind_changes"] for each in behind["links"]}
    assert waiting["clinic1", "to_centre"] == 1
    assert waiting["clinic1", "from_centre"] == 1
    clinic.run("sync", "--site", "clinic2")
    clinic.run("sync")
    clinic.assert_equal()
    assert clinic.read("clinic1", "select name from patient where id = 11") == [("later",)]
    (conflict,) = clinic.ask("conflicts", "list")["conflicts"]
    assert (conflict["site"], conflict["verdict"]) == ("clinic1", "keep")
    known = clinic.ask("history", "patient", "11")["events"]
    assert [each["at"] for each in known] == sorted(each["at"] for each in known)
    (decided,) = [each for each in known if each["source"] == "conflict"]
    assert (decided["place"], decided["origin"]) == ("centre", "clinic1")
    assert {each["place"] for each in known if each["source"] == "outbox"} <= {"centre", "clinic1"}


def test_where_a_change_has_arrived(clinic: Clinic) -> None:
    clinic.write("clinic1", "update patient set name = 'x' where id = 11;")
    clinic.write("clinic3", "update patient set name = 'y' where id = 31;")
    for site, key in (("clinic1", 11), ("clinic3", 31)):
        found = [each for each in clinic.ask("history", "patient", key)["events"] if each["place"] == site]
        name = f"{site}:{found[-1]['detail'].removeprefix('change ')}"
        waiting = clinic.ask("change", "status", name, code=1)
        assert waiting["change"]["key"] == [str(key)]
        assert [(each["place"], each["state"]) for each in waiting["arrivals"]] == [("centre", "on its way")]
        with_centre = clinic.run("sync", "--site", site)
        assert "drained" in with_centre
        arrived = clinic.ask("change", "status", name)
        others = {"clinic1", "clinic2", "clinic3"} - {site}
        states = {each["place"]: each["state"] for each in arrived["arrivals"]}
        assert states == {"centre": "arrived"} | dict.fromkeys(others, "nothing waits for it")


def test_a_unique_value_taken_on_both_sides_is_parked_shown_and_heals(clinic: Clinic) -> None:
    """Invariant 8: nobody's row is deleted for another's sake."""
    clinic.write("clinic1", "insert into patient values (18, 1, 'new', 'same@x');")
    clinic.write("centre", "insert into patient values (19, 2, 'new', 'same@x');")
    clinic.run("sync", code=1)
    (parked,) = clinic.ask("parked", "list")["parked"]
    assert (parked["name"], parked["direction"]) == (str(parked["id"]), "to_centre")
    shown = clinic.ask("parked", "show", parked["name"])
    assert shown["blocking"]["id"] == "19"
    assert clinic.ask("status", code=1)["healthy"] is False
    clinic.write("centre", "update patient set email = 'other@x' where id = 19;")
    clinic.run("sync")
    assert clinic.ask("parked", "list")["parked"] == []
    clinic.assert_equal()


def test_what_a_site_refuses_is_parked_there(clinic: Clinic) -> None:
    clinic.write(
        "clinic1",
        "create trigger no before insert on price when new.code = 'z' begin select raise(abort, 'no such price'); end;",
    )
    clinic.write("centre", "insert into price values ('z', 1), ('y', 2);")
    clinic.run("sync", code=1)
    assert clinic.read("clinic1", "select code from price where code > 'x'") == [("y",)]
    (parked,) = clinic.ask("parked", "list")["parked"]
    assert parked["name"] == f"clinic1:{parked['id']}"
    assert "no such price" in clinic.run("parked", "show", parked["name"])
    assert "refused again" in clinic.run("parked", "retry", parked["name"], code=1)
    clinic.write("clinic1", "drop trigger no;")
    clinic.run("parked", "retry", parked["name"])
    clinic.assert_equal()
    clinic.run("status")


def test_a_dead_site_does_not_spoil_the_table(clinic: Clinic) -> None:
    """Invariants 9 and 13: what the centre knows of a site that is away is shown, and the others as ever."""
    path = Path(clinic.places["clinic1"].removeprefix("sqlite:///"))
    away = path.with_suffix(".away")
    clinic.write("centre", "update price set cents = 1 where code = 'a';")
    path.rename(away)
    links = {(each["site"], each["direction"]): each for each in clinic.ask("status", code=1)["links"]}
    assert links["clinic1", "to_centre"]["health"] == links["clinic1", "from_centre"]["health"] == "unreachable"
    assert links["clinic1", "to_centre"]["proof_seconds"] > 0
    assert links["clinic1", "from_centre"]["behind_changes"] == 1, "as the centre knows the site"
    assert links["clinic1", "from_centre"]["proof_seconds"] > 0
    assert links["clinic2", "from_centre"]["behind_changes"] == 1
    failed = clinic.ask("sync", code=3)["links"]
    assert {each["link"] for each in failed if each["error"]} == {"clinic1→centre", "centre→clinic1"}
    away.rename(path)
    clinic.run("sync")
    clinic.assert_equal()


def test_nothing_is_left_behind(clinic: Clinic) -> None:
    removed = clinic.ask("uninstall", "--yes")["removed"]
    assert {place: each["left"] for place, each in removed.items()} == {place: [] for place in clinic.places}


def test_plan_is_empty_once_installed_and_files_do_the_same(clinic: Clinic, tmp_path: Path) -> None:
    plans = clinic.ask("plan")["plans"]
    assert {place: each["statements"] for place, each in plans.items()} == {place: [] for place in clinic.places}
    clinic.run("uninstall", "--yes")
    folder = tmp_path / "by_hand"
    files = [Path(name) for name in clinic.ask("plan", "--sql", folder)["files"]]
    for place, path in zip(clinic.places, files, strict=True):
        clinic.write(place, path.read_text(encoding="utf-8"))
    plans = clinic.ask("plan")["plans"]
    assert {place: each["statements"] for place, each in plans.items()} == {place: [] for place in clinic.places}


def test_the_service_moves_both_ways_and_names_the_links(clinic: Clinic) -> None:
    service = started("run", "-c", clinic.file, "--log-format", "json")
    try:
        clinic.write("clinic1", "update patient set name = 'up' where id = 12;")
        clinic.write("centre", "update patient set name = 'down' where id = 11;")
        clinic.write("centre", "update patient set name = 'down' where id = 31;")
        until(lambda: clinic.read("centre", "select name from patient where id = 12") == [("up",)])
        until(lambda: clinic.read("clinic1", "select name from patient where id = 11") == [("down",)])
        until(lambda: clinic.read("clinic3", "select name from patient where id = 31") == [("down",)])
    finally:
        service.terminate()
        _, log = service.communicate(timeout=60)
    assert service.returncode == 0, log
    events = [json.loads(line) for line in log.splitlines()]
    up = {event["link"] for event in events if event["event"] == "link_up"}
    assert up == {name for site in SITES for name in (f"{site}→centre", f"centre→{site}")}
    clinic.assert_equal()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, not longer than half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)
