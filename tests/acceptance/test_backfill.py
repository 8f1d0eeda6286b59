"""``replicator backfill`` and ``resync`` on real databases: alone, beside a service, interrupted, paused, steered."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.cli import Laboratory, answer, execute, replicator, rows, same, started
from tests.fixtures.databases import PostgresDatabases
from tests.fixtures.services import DEADLINE, Running, until

RUNS = "select id, analyser, note from devices_run"
NUMBERS = "(with recursive x(n) as (select 10 union all select n + 1 from x where n < {last}) select n from x) q"


@pytest.fixture
def laboratory(tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases) -> Laboratory:
    """A SQLite factory and a PostgreSQL one, installed and drained."""
    sites = {"factory_a": f"sqlite:///{sqlite_file('a')}", "factory_c": postgres_database("site")}
    made = Laboratory(tmp_path, postgres_database("centre"), sites)
    made.fill()
    for site in sites:
        made.write(site, f"insert into devices_run select n, 1, 'run ' || n from {NUMBERS.format(last=800)};")
    made.run("install")
    made.run("sync")
    return made


@pytest.fixture
def begun() -> Iterator[Callable[..., Running]]:
    """Starts commands as processes; none outlives the test."""
    running: list[Running] = []

    def start(*arguments: object) -> Running:
        running.append(Running(started(*arguments)))
        return running[-1]

    yield start
    for each in running:
        each.close()


def centre_of(lab: Laboratory, site: str) -> list[tuple[Any, ...]]:
    return lab.read("centre", f"{RUNS} where site = '{site}'")


def lose(lab: Laboratory) -> None:
    """The centre loses two thirds of the rows, behind everybody's back."""
    lab.write("centre", "delete from devices_run where id % 3 > 0;")


def assert_whole(lab: Laboratory, *sites: str) -> None:
    for site in sites or lab.sites:
        assert same(lab.read(site, RUNS), centre_of(lab, site)), site


def brought(lab: Laboratory) -> int:
    return sum(each["rows"] for each in lab.ask("backfill", "status", "--all")["backfills"])


# --- the command alone ---


def test_backfill_brings_what_the_centre_lacks_and_proves_it(laboratory: Laboratory) -> None:
    lose(laboratory)
    laboratory.write(
        "centre",
        "delete from devices_run where site = 'factory_c'; delete from devices_analyser where site = 'factory_c';",
    )
    done = laboratory.ask("backfill", "--chunk-rows", 400)
    assert_whole(laboratory)
    assert done["audit"]["verdict"] == "equal"
    assert not done["failed"]
    found = {(each["site"], each["table"].rpartition(".")[2]): each for each in done["backfills"]}
    assert len(found) == 4
    assert {each["state"] for each in found.values()} == {"done"}
    assert found["factory_a", "devices_run"]["rows"] == len(laboratory.read("factory_a", RUNS))
    order = [each["table"].rpartition(".")[2] for each in done["backfills"] if each["site"] == "factory_c"]
    assert order == ["devices_analyser", "devices_run"], "parents first"


def test_another_row_at_the_centre_meets_the_policy_and_is_on_record(laboratory: Laboratory) -> None:
    laboratory.write("centre", "update devices_run set note = 'other' where site = 'factory_a' and id < 15;")
    laboratory.write("centre", "insert into devices_run values ('factory_a', 9999, 1, 'of the centre');")
    output = laboratory.run("backfill", "devices_run", "--site", "factory_a", code=1).output
    assert "id = 9999: extra at centre" in output
    assert "replicator resync devices_run --site factory_a" in output
    kept = {row[0] for row in centre_of(laboratory, "factory_a")} - {
        row[0] for row in laboratory.read("factory_a", RUNS)
    }
    assert kept == {9999}, "a row only the centre has stays"
    assert laboratory.ask("conflicts", "list", "--site", "factory_a")["conflicts"]
    laboratory.run("resync", "--site", "factory_a", "devices_run", "--yes")
    assert_whole(laboratory)


def test_wrong_names_are_said(laboratory: Laboratory) -> None:
    assert "no captured table is called 'nothing'" in laboratory.run("backfill", "nothing", code=3).output
    assert "there is no site 'nowhere'" in laboratory.run("backfill", "--site", "nowhere", code=3).output
    assert "tables are: " in laboratory.run("resync", "nothing", "--site", "factory_a", code=3).output
    laboratory.run("backfill", "--direction", "from_centre", code=3)
    for word in ("pause", "continue", "cancel"):
        laboratory.run("backfill", word, code=1)
    assert laboratory.ask("backfill", "status") == {"backfills": [], "failed": {}}


# --- pausing, going on, crashes ---


def test_paused_by_another_terminal_then_continued(laboratory: Laboratory, begun: Callable[..., Running]) -> None:
    lose(laboratory)
    command = begun(
        "backfill", "devices_run", "--site", "factory_c", "--chunk-rows", 50, "--rate", 500, *laboratory.options
    )

    def order() -> dict[str, Any]:
        found = laboratory.ask("backfill", "status", "--all")["backfills"]
        return found[0] if found else {"rows": 0}

    until(lambda: order()["rows"] > 0)
    assert [each["table"] for each in laboratory.ask("status", code=None)["backfills"]] == [order()["table"]]
    laboratory.run("backfill", "pause", "--site", "factory_c")
    assert command.process.wait(DEADLINE) == 2
    stopped = order()
    assert stopped["state"] == "paused"
    assert stopped["rows"] < stopped["estimate"]
    done = laboratory.ask("backfill", "continue")
    assert done["backfills"][0]["state"] == "done"
    assert done["backfills"][0]["id"] == stopped["id"]
    assert_whole(laboratory, "factory_c")


def test_cancelled_is_not_done(laboratory: Laboratory) -> None:
    output = laboratory.run("backfill", "devices_run", "--site", "factory_a", "--no-wait").output
    assert "no replicator works on factory_a→centre" in output
    assert "backfill factory_a→centre devices_run" in laboratory.run("status").output
    laboratory.run("backfill", "cancel", "devices_run")
    laboratory.run("backfill", "continue", code=1)
    assert laboratory.ask("backfill", "status", "--all")["backfills"][0]["state"] == "cancelled"


@pytest.mark.long
def test_a_command_that_was_ended_goes_on_when_run_again(laboratory: Laboratory, begun: Callable[..., Running]) -> None:
    lose(laboratory)
    again = ("backfill", "devices_run", "--chunk-rows", 30, "--rate", 1000, *laboratory.options)
    for how in (signal.SIGINT, signal.SIGKILL):
        command, reached = begun(*again), brought(laboratory)
        until(lambda reached=reached: brought(laboratory) > reached)
        command.end(how)
    orders = laboratory.ask("backfill", "status")["backfills"]
    assert len(orders) == 2, "one order for each site, whatever happens"
    done = laboratory.ask("backfill", "continue")
    assert {each["id"] for each in done["backfills"]} == {each["id"] for each in orders}
    assert_whole(laboratory)


# --- beside a service ---


def test_a_running_service_begins_at_once(laboratory: Laboratory, begun: Callable[..., Running]) -> None:
    """Not at its next contact, a minute later (``until`` gives up after half of it); and the command only looks on."""
    service = begun("run", *laboratory.options)
    for site in laboratory.sites:
        service.wait_for("link_up", site)
    time.sleep(1.0)  # so that it sleeps
    lose(laboratory)
    for _ in range(2):
        assert not laboratory.ask("backfill", "--no-wait")["without_replicator"]
        until(lambda: not laboratory.ask("backfill", "status")["backfills"])
    assert_whole(laboratory)
    lose(laboratory)
    laboratory.run("backfill", "devices_run")
    assert_whole(laboratory)
    assert service.end() == 0


@pytest.mark.long
def test_a_killed_service_is_taken_over(laboratory: Laboratory, begun: Callable[..., Running]) -> None:
    service = begun("run", *laboratory.options)
    for site in laboratory.sites:
        service.wait_for("link_up", site)
    lose(laboratory)
    command = begun("backfill", "devices_run", "--chunk-rows", 30, "--rate", 300, *laboratory.options)
    until(lambda: sum(e["rows"] for e in laboratory.ask("backfill", "status")["backfills"]) > 0)
    service.end(signal.SIGKILL)
    assert command.process.wait(60) == 0
    assert_whole(laboratory)


# --- from the centre, and both ways ---

TABLES = """
create table patient (id integer primary key, clinic text not null, name text);
create table visit (id integer primary key, patient integer not null references patient (id), note text);
create table price (code text primary key, cents integer);
"""


class Clinics:
    """Two clinics and a centre: one table both ways and divided, one that follows it, one from the centre."""

    def __init__(self, folder: Path, centre: str, sites: dict[str, str]) -> None:
        self.places = {"centre": centre, **sites}
        self.file = folder / "clinics.yaml"
        both = {"direction": "both", "policy": "newest_wins"}
        settings = {
            "topology": "clinics",
            "centre": {"url": centre},
            "sites": {name: {"url": url, "params": {"clinic": name}} for name, url in sites.items()},
            "tables": [
                {"name": "patient", **both, "where": "clinic = :site.clinic"},
                {"name": "visit", **both, "follows": "patient"},
                {"name": "price", "direction": "from_centre"},
            ],
        }
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        for url in self.places.values():
            execute(url, TABLES)
        for place, first in zip(sites, (100, 200), strict=True):
            values = ", ".join(f"({n}, '{place}', 'p{n}')" for n in range(first, first + 30))
            execute(sites[place], f"insert into patient values {values};")
            execute(sites[place], "insert into visit select id, id, 'first' from patient;")
        execute(centre, "insert into price values ('a', 1), ('b', 2), ('c', 3);")
        self.run("install", "--yes")
        self.run("sync")

    def run(self, *arguments: object, code: int | None = 0) -> str:
        return replicator(*arguments, "-c", self.file, code=code).output

    def ask(self, *arguments: object, code: int | None = 0) -> Any:
        return answer(*arguments, "-c", self.file, code=code)

    def forge(self, place: str, script: str) -> None:
        """Write behind the triggers' back, as a restored table or a script with triggers off would."""
        url = self.places[place]
        if url.startswith("postgresql:"):
            tables = ("patient", "visit", "price")
            ours = rows(url, "select tgrelid::regclass::text, tgname from pg_trigger where tgname like 'replicator%'")
            off = " ".join(f"alter table {table} disable trigger all;" for table in tables)
            on = " ".join(f"alter table {table} enable trigger all;" for table in tables)
            always = " ".join(f'alter table {table} enable always trigger "{name}";' for table, name in ours)
            execute(url, f"{off} {script} {on} {always}")
            return
        triggers = rows(url, "select name, sql from sqlite_master where type = 'trigger' and name like 'replicator%'")
        names = " ".join(f'drop trigger "{name}";' for name, _ in triggers)
        made = " ".join(f"{sql};" for _, sql in triggers)
        execute(url, f"begin; {names} {script} {made} commit;")


@pytest.fixture(params=["sqlite", "postgres"])
def clinics(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sqlite_file: Callable[[str], Path],
    postgres_database: PostgresDatabases,
) -> Clinics:
    """One with each engine as the centre; a SQLite clinic and a PostgreSQL one."""
    centre = postgres_database("centre") if request.param == "postgres" else f"sqlite:///{sqlite_file('centre')}"
    sites = {"clinic1": f"sqlite:///{sqlite_file('one')}", "clinic2": postgres_database("two")}
    return Clinics(tmp_path, centre, sites)


def test_resync_mends_what_nobody_captured_each_side_by_its_rule(clinics: Clinics) -> None:
    for site, first in (("clinic1", 100), ("clinic2", 200)):
        clinics.forge(site, "delete from price where code = 'a'; update price set cents = 9 where code = 'b';"
                      " insert into price values ('z', 26);"
                      f" delete from visit where id = {first}; delete from patient where id = {first};"
                      f" update visit set note = 'forged' where id = {first + 1};")  # fmt: skip
        clinics.forge(
            "centre", f"delete from visit where id = {first + 2}; delete from patient where id = {first + 2};"
        )
    before = clinics.ask("audit", code=1)
    assert {each["verdict"] for each in before["tables"]} == {"different"}
    shown = clinics.run("resync", "--site", "clinic1", "--dry-run", code=1)
    assert "price: 2 rows to bring, 1 row to remove at clinic1; the centre's row stands" in shown
    assert "else the table's policy decides (newest_wins); a row only one side has comes to the other" in shown
    assert clinics.ask("audit", code=1)["verdict"] == "different", "a dry run mends nothing"
    for site in ("clinic1", "clinic2"):
        done = clinics.ask("resync", "--site", site, "--yes")
        assert done["audit"]["verdict"] == "equal", done
    clinics.run("audit")
    for site, first in (("clinic1", 100), ("clinic2", 200)):
        url = clinics.places[site]
        assert same(rows(url, "select * from price"), [("a", 1), ("b", 2), ("c", 3)])
        assert rows(url, f"select name from patient where id = {first}"), "nothing is deleted where both sides write"
        assert rows(clinics.places["centre"], f"select name from patient where id = {first + 2}")


def test_backfill_from_the_centre_beside_a_service(clinics: Clinics, begun: Callable[..., Running]) -> None:
    service = begun("run", "-c", clinics.file)
    for site in ("clinic1", "clinic2"):
        service.wait_for("link_up", f"centre→{site}")
        clinics.forge(site, "delete from price where code = 'a'; delete from visit;")
    time.sleep(1.0)
    assert not clinics.ask("backfill", "price", "visit", "--direction", "from_centre", "--no-wait")[
        "without_replicator"
    ]
    until(lambda: not clinics.ask("backfill", "status")["backfills"])
    clinics.run("audit")
    assert service.end() == 0


@pytest.mark.parametrize("clinics", ["postgres"], indirect=True)
def test_whose_row_stands_must_be_said_where_both_sides_write(clinics: Clinics) -> None:
    output = clinics.run("backfill", "patient", "--prefer", "source", code=3)
    assert "--direction to_centre or --direction from_centre" in output
    clinics.forge("clinic1", "update patient set name = 'forged' where id = 105;")
    clinics.run("resync", "patient", "--site", "clinic1", "--direction", "from_centre")
    assert rows(clinics.places["clinic1"], "select name from patient where id = 105") == [("p105",)]
    clinics.forge("clinic2", "update patient set name = 'right' where id = 205;")
    clinics.run("resync", "patient", "--site", "clinic2", "--direction", "to_centre", "--full")
    assert rows(clinics.places["centre"], "select name from patient where id = 205") == [("right",)]
