"""What a DBA is told when something is wrong: the cause, and a next step that exists (invariant 13)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from replicator.app import App
from replicator.model import Direction
from replicator.simulate.world import World
from replicator.worker import LinkReport
from tests.fixtures.cli import answer, execute, replicator, rows
from tests.fixtures.databases import PostgresDatabases

TABLES = (
    "create table ward (id integer primary key, name text);"
    "create table bed (id integer primary key, ward integer not null references ward (id), note text unique);"
)


class Hospital:
    """A centre and one SQLite site that both write two tables."""

    def __init__(self, folder: Path, centre: str, policy: object = "newest_wins", name: str = "hospital") -> None:
        self.places = {"centre": centre, "s1": f"sqlite:///{folder}/s1.db"}
        self.file = folder / f"{name}.yaml"
        settings = {
            "topology": "hospital",
            "centre": {"url": centre},
            "sites": {"s1": {"url": self.places["s1"]}},
            "tables": [{"name": table, "direction": "both", "policy": policy} for table in ("ward", "bed")],
        }
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def make(self) -> Hospital:
        for url in self.places.values():
            execute(url, TABLES)
        self.run("install", "--yes")
        return self

    def write(self, place: str, script: str) -> None:
        execute(self.places[place], script)

    def run(self, *arguments: object, code: int | None = 0) -> str:
        return replicator(*arguments, "-c", self.file, code=code).output

    def ask(self, *arguments: object, code: int | None = 0) -> Any:
        return answer(*arguments, "-c", self.file, code=code)

    def link(self, direction: Direction) -> dict[str, Any]:
        found = self.ask("status", code=None)["links"]
        return next(each for each in found if each["direction"] == direction)


@pytest.fixture(params=["sqlite", "postgres"])
def centre(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/centre.db"
    return str(request.getfixturevalue("postgres_database")("hospital"))


# --- status ---


def test_invariant_13_a_link_that_never_brought_anything_is_not_healthy(tmp_path: Path, centre: str) -> None:
    here = Hospital(tmp_path, centre)
    for url in here.places.values():
        execute(url, TABLES)
    here.write("centre", "insert into ward values (1, 'a'), (2, 'b');")
    here.run("install", "--yes")
    app = App.open(here.file)
    ends = app.connect("s1", Direction.FROM_CENTRE)
    with closing(ends):
        ends.target.record_contact(ends.source.read_identity(), 0)  # both answer, yet no batch ever went through

    found = here.link(Direction.FROM_CENTRE)

    assert (found["health"], found["healthy"]) == ("never ran", False)
    assert found["behind_changes"]
    told = here.run("status", code=1)
    assert "not healthy" in told
    assert f"-c {here.file}" not in told, "nothing is parked"
    here.run("sync")
    assert here.link(Direction.FROM_CENTRE)["healthy"]


def test_a_clock_that_ran_far_ahead_is_told_until_the_wall_clock_has_caught_up(tmp_path: Path, centre: str) -> None:
    here = Hospital(tmp_path, centre).make()
    here.write("s1", "insert into ward values (1, 'a');")
    here.run("sync")
    assert here.ask("status")["clocks"] == []
    table = "replicator.clock" if centre.startswith("postgres") else "replicator_control"
    (now,) = (seen for (seen,) in rows(centre, f"select seen from {table}"))
    here.write("centre", f"update {table} set seen = {now + 7_200_000_000};")

    (ahead,) = here.ask("status")["clocks"]

    assert (ahead["place"], ahead["warning"]) == ("centre", True)
    assert "1 h 59 min ahead" in ahead["message"] or "2 h 0 min ahead" in ahead["message"]
    assert "equally late" in here.run("status")
    told = here.run("check")
    assert "hybrid clock" in told
    assert "heals by itself" in told
    here.write("centre", "update ward set name = 'centre' where id = 1;")
    here.write("s1", "update ward set name = 'site' where id = 1;")
    here.run("sync")
    assert "in the future: a clock ran ahead" in here.run("conflicts", "explain", 1)


# --- rights ---


@pytest.fixture
def plain(tmp_path: Path, postgres_database: PostgresDatabases) -> Iterator[tuple[Hospital, Hospital]]:
    """A topology installed by the owner, and the same as a role without any right sees it."""
    url = postgres_database("hospital")
    parts = conninfo_to_dict(url)
    role, host, port = f"plain_{parts['dbname']}", str(parts.get("host", "")), parts.get("port", 5432)
    owner = Hospital(tmp_path, url).make()
    poor = f"postgresql://{role}@{host}:{port}/{parts['dbname']}"
    if host.startswith("/"):
        poor = f"postgresql://{role}@/{parts['dbname']}?host={host}&port={port}"
    execute(url, f'create role "{role}" login')
    try:
        yield owner, Hospital(tmp_path, poor, name="poor")
    finally:
        execute(url, f'drop owned by "{role}"; drop role "{role}"')


def test_check_prints_the_grants_with_which_another_role_can_work(plain: tuple[Hospital, Hospital]) -> None:
    owner, poor = plain
    found = [each for each in poor.ask("check", code=1)["findings"]["centre"] if not each["ok"]]
    grants = [each["fix"] for each in found if each["fix"].startswith("grant ") and not each["warning"]]
    text = " ".join(grants)
    for words in (
        "grant usage on schema replicator to", "on all tables in schema replicator to", "all sequences in schema replicator",
        'on "public"."ward" to', 'on "public"."bed" to',
    ):  # fmt: skip
        assert words in text, text
    assert not any("replicator check" in each["fix"] for each in found), "check does not send one to check"
    assert "permission denied" in poor.run("sync", code=3)

    owner.write("centre", "; ".join(dict.fromkeys(grants)))

    owner.write("s1", "insert into ward values (1, 'a');")
    poor.run("sync")
    assert rows(owner.places["centre"], "select id from ward") == [(1,)]
    again = [each for each in poor.ask("check", code=None)["findings"]["centre"] if each["subject"] == "rights"]
    assert all(each["ok"] or each["warning"] for each in again)


# --- conflicts and parked changes ---


def test_a_base_that_is_no_row_is_neither_offered_nor_taken(tmp_path: Path, centre: str) -> None:
    here = Hospital(tmp_path, centre, "manual").make()
    here.write("centre", "insert into ward values (1, 'centre');")
    here.write("s1", "insert into ward values (1, 'site');")
    here.run("sync", code=None)
    (conflict,) = here.ask("conflicts", "list", "--waiting")["conflicts"]
    for command in ("show", "explain"):
        told = here.run("conflicts", command, conflict["id"])
        assert "--take site|centre" in told
        assert "|base" not in told
    refused = here.run("conflicts", "resolve", conflict["id"], "--take", "base", "--yes", code=3)
    assert "the site started from no row" in refused
    assert "--delete" in refused

    (parked,) = here.ask("parked", "list")["parked"]
    shown = here.run("parked", "show", parked["name"])
    assert f"conflict {conflict['id']}" in shown
    assert f"replicator conflicts resolve {conflict['id']}" in shown


def test_what_is_parked_says_which_row_lacks_which_parent_and_what_comes_next(tmp_path: Path) -> None:
    here = Hospital(tmp_path, f"sqlite:///{tmp_path}/centre.db").make()
    here.write("s1", "pragma foreign_keys = off; insert into bed values (3, 77, 'x');")
    here.run("sync", code=None)
    (parked,) = here.ask("parked", "list")["parked"]
    assert "bed (id) = (3) has ward = 77, and ward (id) = (77) is not there" in parked["cause"]
    assert f"replicator parked retry {parked['name']} -c {here.file}" in here.run("parked", "show", parked["name"])
    assert f"replicator parked list -c {here.file}" in here.run("status", code=1)

    here.write("s1", "pragma foreign_keys = off; insert into ward values (1, 'a'); insert into bed values (4, 1, 'y');")
    here.run("sync", code=None)
    here.write("s1", "pragma foreign_keys = off; delete from ward where id = 1;")
    here.run("sync", code=None)
    causes = " ".join(each["cause"] for each in here.ask("parked", "list")["parked"])
    assert "bed (id) = (4) has ward = 1, and ward (id) = (1) was removed" in causes
    deleting = next(each for each in here.ask("parked", "list")["parked"] if each["table"] == "ward")
    assert "deletes the row" in here.run("parked", "edit", deleting["name"], "--set", "name=x", code=3)


def test_workers_name_the_rows_that_were_parked_and_that_healed(tmp_path: Path, centre: str) -> None:
    here = Hospital(tmp_path, centre).make()
    here.write("s1", "pragma foreign_keys = off; insert into bed values (3, 77, 'x');")
    row = "bed (3)" if centre.startswith("postgres") else "bed [3]"
    reports: list[LinkReport] = []
    for worker in App.open(here.file).workers(["s1"], reports.append):
        worker.drain()
    assert next(each for each in reports if each.parked).rows == (row,)

    here.write("centre", "insert into ward values (77, 'late');")
    for worker in App.open(here.file).workers(["s1"], reports.append):
        worker.drain()
    assert next(each for each in reports if each.healed).rows == (row,)


def test_redo_by_priority_names_the_table_and_the_key_of_the_yaml(tmp_path: Path, centre: str) -> None:
    here = Hospital(tmp_path, centre).make()
    here.write("centre", "insert into ward values (1, 'centre');")
    here.write("s1", "insert into ward values (1, 'site');")
    here.run("sync")
    told = here.run("conflicts", "redo", "--policy", "site_priority", code=3)
    assert "ward has no order of sites" in told
    assert "priority: [centre, SITE" in told


# --- simulate ---


def test_simulate_plays_a_priority_that_names_sites_that_take_no_part(tmp_path: Path) -> None:
    priority = {"name": "site_priority", "priority": ["s3", "centre", "s2", "s1"]}
    settings = {
        "topology": "many",
        "centre": {"url": f"sqlite:///{tmp_path}/centre.db"},
        "sites": {f"s{n}": {"url": f"sqlite:///{tmp_path}/s{n}.db"} for n in (1, 2, 3)},
        "tables": [{"name": "ward", "direction": "both", "policy": priority}],
    }
    file = tmp_path / "many.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for place in ("centre", "s1", "s2", "s3"):
        execute(f"sqlite:///{tmp_path}/{place}.db", "create table ward (id integer primary key, name text);")
    folder = tmp_path / "world"
    folder.mkdir()
    with closing(World(folder, App.open(file), sites=2)) as world:
        (rule,) = world.app.settings.tables
        assert rule.policy is not None
        assert rule.policy.priority == ("centre", "s2", "s1")
