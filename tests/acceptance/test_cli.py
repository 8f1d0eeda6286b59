"""The command line as an operator meets it, on real databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from replicator.cli import COMMANDS
from tests.fixtures.cli import ROOT, Laboratory, answer, execute, replicator, started
from tests.fixtures.databases import PostgresDatabases

DRIVERS = ("psycopg", "sqlite3", "pglast", "pydantic", "yaml", "rich", "sqlite_utils", "watchdog")


@pytest.fixture
def laboratory(tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases) -> Laboratory:
    """Two SQLite factories and a PostgreSQL one with rows; an empty PostgreSQL centre. Nothing installed."""
    sites = {f"factory_{name}": f"sqlite:///{sqlite_file(name)}" for name in "ab"}
    made = Laboratory(tmp_path, postgres_database("centre"), {**sites, "factory_c": postgres_database("site")})
    made.fill()
    return made


@pytest.fixture
def running(laboratory: Laboratory) -> Laboratory:
    """The same, installed and drained."""
    laboratory.run("install")
    laboratory.run("sync")
    return laboratory


# --- help ---


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_imports_no_driver(arguments: list[str]) -> None:
    program = (
        "import sys; from replicator.cli import main\n"
        f"try: main({arguments!r})\n"
        f"except SystemExit as end: print(end.code, [name for name in {DRIVERS!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples(name: str) -> None:
    help_text = replicator(name, "--help").output
    assert f"replicator {name}" in help_text
    assert "Examples:" in help_text


def test_readme_tells_every_command() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("README.md is not written yet")
    text = readme.read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"replicator {name}" not in text] == []


# --- the quickstart ---


def test_quickstart_end_to_end(laboratory: Laboratory, tmp_path: Path) -> None:
    checked = laboratory.ask("check")
    assert checked["problems"] == 0
    assert {"centre", "factory_a", "factory_b", "factory_c"} <= set(checked["findings"])

    planned = laboratory.ask("plan")
    assert {place for place, plan in planned["plans"].items() if plan["statements"]} == {"centre", *laboratory.sites}
    assert laboratory.ask("plan") == planned, "equal plans have equal fingerprints"
    assert "nothing to do" not in laboratory.run("plan").output

    assert laboratory.ask("status", code=1)["links"][0]["health"] == "never ran"
    assert '"public"."devices_run"' in laboratory.run("install", "-v").output
    assert "in place already" in laboratory.run("install").output
    assert "nothing to do" in laboratory.run("plan").output

    first = laboratory.ask("sync")
    assert [(link["site"], link["rows"], link["error"]) for link in first["links"]] == [
        (s, 5, "") for s in laboratory.sites
    ]
    assert [link["changes"] for link in laboratory.ask("sync")["links"]] == [0, 0, 0]

    laboratory.write(
        "factory_a", "update devices_run set note = 'é' where id = 1; delete from devices_run where id = 2;"
    )
    laboratory.write("factory_c", "insert into devices_run values (4, 2, 'new'); delete from devices_run where id = 1;")
    behind = laboratory.ask("status")["links"]
    assert [(link["health"], link["behind_changes"] > 0) for link in behind] == [
        ("behind", True), ("up to date", False), ("behind", True),
    ]  # fmt: skip
    assert 0 <= behind[0]["behind_seconds"] < 60
    laboratory.run("status", "--max-lag", 0, code=1)
    assert "different" not in laboratory.run("audit", "--wait", 0, code=2).output, (
        "what is in flight is not called different"
    )

    laboratory.run("sync")
    assert laboratory.ask("status", "--max-lag", 0)["healthy"] is True
    report = laboratory.ask("audit")
    assert (report["verdict"], len(report["tables"])) == ("equal", 6)

    before = laboratory.read("centre", "select * from devices_run order by site, id")
    laboratory.run("uninstall", code=2)
    assert laboratory.run("uninstall", "--yes").output.count("nothing of ours is left") == 4
    assert laboratory.read("centre", "select * from devices_run order by site, id") == before
    assert laboratory.read("factory_a", "select name from sqlite_master where name like 'replicator%'") == []
    assert laboratory.read("factory_c", "select nspname from pg_namespace where nspname = 'replicator'") == []
    laboratory.write("factory_c", "insert into devices_run values (9, 2, 'after')")


def test_files_of_plan_run_by_hand_do_what_install_does(laboratory: Laboratory, tmp_path: Path) -> None:
    folder = tmp_path / "by hand"
    laboratory.run("plan", "--sql", folder)
    files = sorted(folder.iterdir())
    assert [path.name.split("_", 1)[1] for path in files] == [
        "centre.sql",
        *(f"{site}.sql" for site in laboratory.sites),
    ]
    for path, place in zip(files, ("centre", *laboratory.sites), strict=True):
        laboratory.write(place, path.read_text(encoding="utf-8"))
    assert all(not plan["statements"] for plan in laboratory.ask("plan", "--sql", folder)["plans"].values())
    assert list(folder.iterdir()) == [], "files of an older plan are taken away"
    laboratory.run("sync")
    laboratory.run("audit")


def test_plan_does_not_touch_files_of_others(laboratory: Laboratory, tmp_path: Path) -> None:
    mine = tmp_path / "001_mine.sql"
    mine.write_text("select 1;")
    assert "is not a file of replicator plan" in laboratory.run("plan", "--sql", tmp_path, code=3).output
    assert mine.exists()


def test_centre_in_a_sqlite_file(tmp_path: Path, sqlite_file: Callable[[str], Path]) -> None:
    made = Laboratory(tmp_path, f"sqlite:///{tmp_path}/central.sqlite3", {"a": f"sqlite:///{sqlite_file('a')}"})
    made.fill()
    for command in ("check", "install", "sync", "status", "audit", "check"):
        made.run(command)
    made.run("uninstall", "--yes")
    assert made.read("centre", "select site, id from devices_analyser order by id") == [("a", 1), ("a", 2)]


def test_a_site_alone(laboratory: Laboratory) -> None:
    laboratory.run("install", "--site", "factory_a")
    laboratory.run("sync", "--site", "factory_a")
    assert [link["healthy"] for link in laboratory.ask("status", code=1)["links"]] == [True, False, False]
    laboratory.run("uninstall", "--site", "factory_a", "--yes")
    assert laboratory.read("factory_a", "select name from sqlite_master where name like 'replicator%'") == []
    assert laboratory.read("centre", "select count(*) from replicator.link") == [(1,)]


def test_two_topologies_in_one_centre_do_not_take_each_other_down(running: Laboratory, tmp_path: Path) -> None:
    other = Laboratory(tmp_path, running.centre, {"elsewhere": running.sites["factory_b"]}, name="second")
    other.run("install")
    other.run("sync")
    removed = running.ask("uninstall", "--yes")["removed"]
    assert {place for place, each in removed.items() if each["shared"]} == {"centre", "factory_b"}
    assert all(not each["left"] for each in removed.values())
    running.write("factory_b", "insert into devices_run values (7, 2, 'later')")
    other.run("sync")
    other.run("audit")
    assert other.run("uninstall", "--yes").output.count("nothing of ours is left") == 2


# --- init ---


def test_init_writes_over_nothing_and_nothing_wrong(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    flags = ["init", "--file", path, "--centre", "c.sqlite3", "--site", "a=a.sqlite3", "--table", "*", "--topology"]
    replicator(*flags, "good")
    text = path.read_text()
    assert "exists already" in replicator(*flags, "good", code=3).output
    assert "nothing written" in replicator(*flags, "Not Good", "--force", code=3).output
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]
    assert "no terminal" in replicator("init", "--file", tmp_path / "u.yaml", code=2).output


def test_init_keeps_passwords_out_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    done = replicator(
        "init",
        "--file",
        path,
        "--topology",
        "t",
        "--centre",
        "postgresql://me:secret@h/db",
        "--site",
        "a=x.db",
        "--table",
        "*",
    )
    assert ":secret" not in path.read_text() + done.output
    assert "CENTRE_PASSWORD" in done.output


# --- what goes wrong ---


def test_wrong_yaml_names_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("topology: t\ncentre: {url: sqlite:///c}\nsites: {a: {url: sqlite:///a}}\ntable: []\n")
    for command in ("check", "plan", "install", "sync", "run", "status", "audit", "uninstall"):
        done = replicator(command, "-c", path, code=3)
        assert f"{path}:1: tables: this key is required" in done.output, command
        assert "line 4: table: unknown key" in done.output
    assert "replicator init" in replicator("sync", "-c", tmp_path / "missing.yaml", code=3).output
    assert answer("status", "-c", path, code=3)["error"].startswith(str(path))
    assert "Traceback (most" in main_output("--debug", "status", "-c", str(path))


def main_output(*arguments: str) -> str:
    process = started(*arguments)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 3
    return errors


def test_wrong_calls_exit_with_two(running: Laboratory) -> None:
    for arguments in (["frobnicate"], ["sync", "--nonsense"], ["parked", "retry"], ["parked", "skip", "1", "2"]):
        replicator(*arguments, code=2)
    running.run("audit", "--table", "nothing_*", code=2)
    assert "factory_a" in running.run("sync", "--site", "factory_x", code=3).output, "the sites there are, are named"


def test_rows_without_rights_are_told_with_the_grant(laboratory: Laboratory, tmp_path: Path) -> None:
    role = f"nobody_{laboratory.centre.rpartition('/')[2].partition('?')[0]}"
    execute(laboratory.centre, f'create role "{role}" login')
    try:
        url = make_conninfo(laboratory.centre, user=role)
        parts = psycopg.conninfo.conninfo_to_dict(url)
        centre = f"postgresql://{role}@{parts.get('host', '')}:{parts.get('port', 5432)}/{parts['dbname']}"
        if str(parts.get("host", "")).startswith("/"):
            centre = f"postgresql://{role}@/{parts['dbname']}?host={parts['host']}&port={parts.get('port', 5432)}"
        poor = Laboratory(tmp_path, centre, {"factory_a": laboratory.sites["factory_a"]}, name="poor")
        output = poor.run("check", code=1).output
        assert "PROBLEM" in output
        assert f'grant create on database "{parts["dbname"]}" to "{role}";' in output
        poor.run("install", code=3)
        laboratory.run("install")
        assert "grant select, insert" in poor.run("check", code=1).output
        assert "permission denied" in poor.run("sync", code=3).output
    finally:
        execute(laboratory.centre, f'drop role "{role}"')


def test_invariant_9_a_dead_site_stops_only_itself(running: Laboratory) -> None:
    Path(running.sites["factory_b"].removeprefix("sqlite:///")).rename(running.file.parent / "moved")
    running.write("factory_a", "insert into devices_run values (5, 2, 'x')")
    assert "no such file" in running.run("check", code=1).output
    links = {link["site"]: link for link in running.ask("sync", code=3)["links"]}
    assert (links["factory_a"]["rows"], links["factory_b"]["state"], links["factory_c"]["state"]) == (
        1,
        "failed",
        "drained",
    )
    running.run("install", code=3)
    running.run("plan", code=3)
    states = {link["site"]: link["healthy"] for link in running.ask("status", code=1)["links"]}
    assert states == {"factory_a": True, "factory_b": False, "factory_c": True}
    report = running.ask("audit", code=2)
    assert [table["verdict"] for table in report["tables"]].count("not proven") == 1


def test_a_dead_centre_is_an_error_of_every_command(running: Laboratory) -> None:
    text = running.file.read_text()
    name = running.centre.rpartition("/")[2].partition("?")[0]
    running.file.write_text(text.replace(name, "there_is_no_such_database"))
    assert "create the database" in running.run("check", code=1).output
    for command in (["plan"], ["install"], ["sync"], ["status"], ["audit"], ["parked", "list"]):
        assert "there_is_no_such_database" in running.run(*command, code=3).output


def test_invariant_13_status_tells_what_is_not_yet_at_the_centre(running: Laboratory) -> None:
    def state(site: str, *arguments: object, code: int) -> dict[str, Any]:
        links = running.ask("status", *arguments, code=code)["links"]
        return next(link for link in links if link["site"] == site)

    assert state("factory_a", code=0)["health"] == "up to date"
    running.write("factory_a", "insert into devices_run values (77, 2, 'not there yet')")
    running.write("factory_c", "insert into devices_run values (77, 2, 'not there yet')")
    for site in ("factory_a", "factory_c"):
        link = state(site, code=0)
        assert (link["health"], link["behind_changes"]) == ("behind", 1)
        assert link["behind_seconds"] > 0
        assert not state(site, "--max-lag", "0.000001", code=1)["healthy"]
    running.run("sync")
    assert state("factory_a", code=0)["health"] == "up to date"


def test_audit_names_what_differs(running: Laboratory) -> None:
    running.write("centre", "update devices_run set note = 'tampered' where site = 'factory_a' and id = 1")
    running.write("centre", "delete from devices_run where site = 'factory_c' and id = 2")
    output = running.run("audit", code=1).output
    assert "id = 1: differs" in output
    assert "note: first at the site, tampered at the centre" in output
    assert "id = 2: missing at centre" in output
    running.run("audit", "--site", "factory_b")
    running.run("audit", "--table", "devices_analyser")


# --- parked and conflicts ---


def test_parked_changes_by_command(running: Laboratory) -> None:
    assert "nothing is parked" in running.run("parked", "list").output
    running.write("centre", "alter table devices_run add constraint short check (length(note) < 8)")
    running.write("factory_a", "update devices_run set note = 'far too long' where id in (1, 2);")
    running.write("factory_c", "update devices_run set note = 'far too long' where id = 1;")
    assert "3 changes parked" in running.run("sync", code=1).output
    found = running.ask("parked", "list")["parked"]
    assert {(each["link"], each["op"]) for each in found} == {("factory_a", "state"), ("factory_c", "update")}
    assert [link["healthy"] for link in running.ask("status", code=1)["links"]] == [False, True, False]

    first, second, third = (each["id"] for each in sorted(found, key=lambda each: (each["link"], each["id"])))
    shown = running.run("parked", "show", first).output
    assert "short" in shown
    assert "far too long" in shown
    assert "refused again" in running.run("parked", "retry", "--all", code=1).output
    assert "has no column" in running.run("parked", "edit", first, "--set", "nothing=1", code=3).output
    running.run("parked", "edit", first, "--set", "note=fine")
    running.run("parked", "retry", first)
    running.run("parked", "skip", second, code=2)
    running.run("parked", "skip", second, "--yes")
    running.run("parked", "show", second, code=3)
    running.write("centre", "alter table devices_run drop constraint short")
    (tried,) = running.ask("parked", "retry", "--all")["tried"]
    assert (tried["site"], tried["id"], tried["applied"], tried["cause"]) == ("factory_c", third, True, "")
    notes = "select site, id, note from devices_run where site <> 'factory_b' and id < 3 order by 1, 2"
    assert running.read("centre", notes) == [
        ("factory_a", 1, "fine"), ("factory_a", 2, ""), ("factory_c", 1, "far too long"), ("factory_c", 2, ""),
    ]  # fmt: skip
    assert "parked" in running.run("conflicts", "list").output


def test_conflicts_are_on_record(running: Laboratory) -> None:
    assert "no conflict is on record" in running.run("conflicts", "list").output
    for site in ("factory_a", "factory_c"):
        running.write("centre", f"update devices_run set note = 'centre' where site = '{site}' and id = 1")
        running.write(site, "update devices_run set note = 'site' where id = 1")
    assert sum(link["conflicts"] for link in running.ask("sync")["links"]) == 2
    found = running.ask("conflicts", "list")["conflicts"]
    assert [(each["site"], each["kind"], each["verdict"]) for each in found] == [
        ("factory_a", "update_differs", "apply"), ("factory_c", "update_differs", "apply"),
    ]  # fmt: skip
    shown = running.run("conflicts", "show", found[0]["id"]).output
    assert "centre then" in shown
    assert "source_wins" in shown
    running.run("audit")
