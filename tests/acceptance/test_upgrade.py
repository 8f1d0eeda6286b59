"""Our own upgrades: every released schema comes forward, with its backlog, and ends as a fresh install does."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from replicator import sqlfiles
from replicator.engines.postgres.installer import PostgresInstaller
from replicator.errors import SetupError
from tests.fixtures.cli import ROOT, answer, execute, opened, replicator, rows, started
from tests.fixtures.databases import PostgresDatabases

RELEASED = ROOT / "tests" / "fixtures" / "released"
RULES: Mapping[str, list[dict[str, object]]] = {
    "spine": [{"name": "machine", "keyed_by": ["site"]}, {"name": "run", "keyed_by": ["site"]}],
    "both": [
        {"name": "machine", "keyed_by": ["site"], "direction": "both", "policy": "newest_wins"},
        {"name": "run", "keyed_by": ["site"]}, {"name": "price", "direction": "from_centre"},
    ],
}  # fmt: skip
"""The topology each released installation was made for."""
PRICE = "create table price (code integer primary key, cents integer);"
BACKLOG = """
insert into machine values (6, 'SN-6', -0.0);
insert into run values (10, 6, 'backlog'), (11, 1, 'über');
update machine set serial = 'SN-1b', weight = 0.1 where id = 1;
update run set note = 'moved' where id = 2;
delete from run where id = 3;
"""
COMMANDS = (
    "check",
    "plan",
    "install --yes",
    "sync",
    "status",
    "audit",
    "parked list",
    "conflicts list",
    "uninstall --yes",
)


class Works:
    """One topology whose databases an earlier version may have installed."""

    def __init__(self, folder: Path, release: str, places: Mapping[str, str]) -> None:
        self.file, self.places = folder / "works.yaml", places
        sites = {name: {"url": url} for name, url in places.items() if name != "centre"}
        settings = {"topology": "works", "centre": {"url": places["centre"]}, "sites": sites, "tables": RULES[release]}
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def run(self, command: str, code: int | None = 0) -> Any:
        return replicator(*command.split(), "-c", self.file, code=code)

    def ask(self, command: str, code: int | None = 0) -> Any:
        return answer(*command.split(), "-c", self.file, code=code)

    def objects(self) -> dict[str, list[tuple[Any, ...]]]:
        return {place: objects(url) for place, url in self.places.items()}


def objects(url: str) -> list[tuple[Any, ...]]:
    """Everything of ours, with its definition."""
    if url.startswith("postgresql:"):
        numbers = rows(url, "select id, table_name from replicator.relation where retired_at is null")
        found = rows(url, (ROOT / "tests/fixtures/objects.sql").read_text(encoding="utf-8"))
        return [(kind, name, _unnumbered(text, numbers) if kind == "function" else text) for kind, name, text in found]
    numbers = rows(url, "select id, table_name from replicator_relation where retired_at is null")
    found = rows(
        url,
        "select type, name, tbl_name, sql from sqlite_master"
        " where name like 'replicator%' and sql is not null order by type, name",
    )
    return [
        (*rest, _unnumbered(sql, numbers) if kind == "trigger" else sql) for *rest, sql in found for kind in rest[:1]
    ]


def _unnumbered(text: str, numbers: list[tuple[Any, ...]]) -> str:
    """A capturing text with the table's name in place of the number its version got."""
    for number, table in numbers:
        text = re.sub(rf"(?<![\w.$'])(-?){number}(?= ?(,| as|::| */\*:|\)))", rf"\1<{table}>", text)
    return text


def released(url: str, release: str, name: str, before: str = "") -> None:
    """What a released version left in a database, or would have run in it."""
    script = (RELEASED / release / f"{name}.sql").read_text(encoding="utf-8")
    if not url.startswith("postgresql:"):
        with opened(url) as file:
            file.execute("pragma foreign_keys = off")
            file.execute("pragma journal_mode = wal")
            file.executescript(before)
            file.executescript(re.sub(r"(?<=commit)$", ";", script, flags=re.MULTILINE))
        return
    execute(url, before + script)


@pytest.fixture(params=["spine", "both"])
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Places = Callable[[str], dict[str, str]]


@pytest.fixture
def places(sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases) -> Places:
    """Empty databases for a PostgreSQL centre with a site of each engine, or for a SQLite centre with one site."""

    def made(kind: str) -> dict[str, str]:
        north = f"sqlite:///{sqlite_file('north')}"
        if kind == "living":
            return {"centre": f"sqlite:///{sqlite_file('centre')}", "north": north}
        return {"centre": postgres_database("centre"), "north": north, "south": postgres_database("south")}

    return made


def old_installation(places: Mapping[str, str], release: str) -> None:
    """A PostgreSQL centre and two sites, as installed by the release, with rows, and changes that wait."""
    tables = (RELEASED / "tables.sql").read_text(encoding="utf-8")
    released(places["centre"], release, "postgres_centre", PRICE if release == "both" else "")
    released(places["north"], release, "sqlite_site", tables)
    released(places["south"], release, "postgres_site", tables)
    for site in ("north", "south"):
        execute(places[site], BACKLOG)


def fresh_installation(folder: Path, places: Mapping[str, str], release: str) -> Works:
    """The same topology, installed by this version alone."""
    tables = (RELEASED / "tables.sql").read_text(encoding="utf-8")
    for place, url in places.items():
        execute(url, tables if place != "centre" else PRICE if release == "both" else "select 1")
    folder.mkdir()
    works = Works(folder, release, places)
    works.run("install --yes")
    return works


def test_an_upgraded_installation_equals_a_fresh_one_and_loses_nothing(
    tmp_path: Path, release: str, places: Places
) -> None:
    old = places("whole")
    old_installation(old, release)
    works = Works(tmp_path, release, old)
    assert works.run("sync", code=3).output.count("replicator install") >= 1  # says what to do, and does nothing
    assert any(
        each["subject"] == "schema" and not each["ok"] for each in works.ask("check", code=1)["findings"]["south"]
    )

    works.run("install --yes")

    fresh = fresh_installation(tmp_path / "fresh", places("whole"), release)
    upgraded, wanted = works.objects(), fresh.objects()
    for place in wanted:
        assert upgraded[place] == wanted[place], place
    works.run("sync")
    works.run("audit")
    for site in ("north", "south"):
        found = rows(old["centre"], f"select id, machine, note from run where site = '{site}' order by id")
        assert found == [(1, 1, "first"), (2, 1, "moved"), (10, 6, "backlog"), (11, 1, "über")]
    assert not works.ask("plan")["plans"]["centre"]["statements"]


def test_a_link_in_the_middle_of_its_work_goes_on(tmp_path: Path, release: str, places: Places) -> None:
    old = places("living")
    released(old["centre"], release, "living_centre")
    released(old["north"], release, "living_site")
    works = Works(tmp_path, release, old)

    works.run("install --yes")
    (plans,) = [works.ask("plan")["plans"]]
    assert not any(plan["statements"] for plan in plans.values())
    works.run("sync")
    works.run("audit")
    assert works.ask("status")["healthy"]
    assert works.ask("conflicts list")["conflicts"] == [] or release == "both"
    assert rows(old["centre"], "select serial, weight from machine where site = 'north' and id in (5, 6) order by id") == [
        ("SN-5b", 0.1), ("SN-6", 0.0),
    ]  # fmt: skip
    if release == "both":
        assert rows(old["north"], "select code, cents from price order by code") == [(1, 150), (2, 200), (3, 300)]
        assert rows(old["north"], "select serial from machine where id = 1") == [("SN-1c",)]
    fresh = fresh_installation(tmp_path / "fresh", places("living"), release)
    upgraded, wanted = works.objects(), fresh.objects()
    for place in wanted:
        assert upgraded[place] == wanted[place], place


@pytest.mark.slow
def test_an_upgrade_killed_half_way_goes_on(tmp_path: Path, places: Places) -> None:
    """Killed twice: while it waits for a SQLite file to write to, and for our outbox on PostgreSQL, one migration done."""
    old = places("whole")
    old_installation(old, "spine")
    works = Works(tmp_path, "spine", old)
    newest = int(sqlfiles.names("sql/postgres/migrations")[-1].split("_")[0])
    with opened(old["north"]) as holder:
        holder.execute("begin immediate")
        _kill_install(works, lambda: rows(old["centre"], "select max(number) from replicator.migration") == [(newest,)])
    assert rows(old["north"], "select max(number) from replicator_migration") == [(1,)]
    with psycopg.connect(old["south"]) as locking:
        locking.execute("lock table replicator.outbox in share mode")
        _kill_install(works, lambda: _waiting(old["south"]))
    assert rows(old["south"], "select max(number) from replicator.migration") == [(1,)]
    for site in ("north", "south"):
        execute(old[site], "update run set note = 'between' where id = 1")  # the applications write on

    works.run("install --yes")

    fresh = fresh_installation(tmp_path / "fresh", places("whole"), "spine")
    assert works.objects() == fresh.objects()
    works.run("sync")
    works.run("audit")


def _kill_install(works: Works, when: Callable[[], bool]) -> None:
    process = started("install", "--yes", "-c", works.file)
    _wait_for(when)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)


def _waiting(url: str) -> bool:
    waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    return bool(rows(url, waits)[0][0])


def _wait_for(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_older_replicator_refuses_a_newer_schema_at_every_command(tmp_path: Path, places: Places) -> None:
    works = fresh_installation(tmp_path / "fresh", places("whole"), "both")
    works.run("sync")
    for place in ("north", "south", "centre"):
        url = works.places[place]
        table = "replicator.migration" if url.startswith("postgresql:") else "replicator_migration"
        execute(url, f"insert into {table} (number, name, checksum) values (999, '0999_later.sql', 'x')")
        before = objects(url)
        for command in COMMANDS:
            if place != "centre" and command.startswith(("parked", "conflicts")):
                continue  # is asked of the centre alone
            alone = f" --site {place}" if place != "centre" and command.startswith("uninstall") else ""
            result = works.run(command + alone, code=None)
            assert result.exit_code in (1, 2, 3), (command, result.output)  # 2: not proven
            assert "schema 999" in result.output, (command, result.output)
            assert "upgrade this one" in result.output, (command, result.output)
        assert objects(url) == before
        assert rows(url, f"select max(number) from {table}") == [(999,)]
        execute(url, f"delete from {table} where number = 999")


def test_a_service_meets_a_newer_schema_and_stops_only_that_link(tmp_path: Path, places: Places) -> None:
    works = fresh_installation(tmp_path / "fresh", places("whole"), "spine")
    execute(works.places["south"], "insert into replicator.migration values (999, '0999_later.sql', 'x')")
    execute(works.places["north"], "insert into machine values (77, 'SN-77', 7)")
    process = started("run", "-c", works.file)
    try:
        _wait_for(lambda: rows(works.places["centre"], "select id from machine where id = 77") == [(77,)])
    finally:
        process.send_signal(signal.SIGTERM)
        told = "".join(process.communicate(timeout=30))
    assert "schema 999" in told
    assert "Traceback" not in told
    assert rows(works.places["centre"], "select count(*) from machine where site = 'south'") == [(0,)]


def test_a_released_migration_that_was_edited_is_refused(postgres_database: PostgresDatabases) -> None:
    url = postgres_database("edited")
    released(url, "both", "postgres_site", (RELEASED / "tables.sql").read_text(encoding="utf-8"))
    execute(url, "update replicator.migration set checksum = 'another' where number = 2")
    installer = PostgresInstaller(url)
    with pytest.raises(SetupError, match=r"0002_both_ways\.sql is not the one that ran here"):
        installer.plan_site("works", [])
    installer.close()


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_released_migrations_are_as_they_were_released(engine: str) -> None:
    """The files hold, word for word, what earlier versions ran."""
    for release in ("spine", "both"):
        ran = (RELEASED / release / f"{engine}_site.sql").read_text(encoding="utf-8")
        for name in sqlfiles.names(f"sql/{engine}/migrations"):
            if f"({name})" in ran:
                assert sqlfiles.text(f"sql/{engine}/migrations/{name}").strip().rstrip(";") in ran, name
