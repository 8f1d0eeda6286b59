"""``replicator schema diff`` and ``schema apply`` at the command line: a SQLite site, a PostgreSQL site and centre."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.fixtures.cli import answer, execute, replicator, rows
from tests.fixtures.databases import PostgresDatabases

TABLE = "create table patient (id integer primary key, name text not null, ward text);"


class Hospital:
    """Two sites and a centre that share a table both ways."""

    def __init__(self, folder: Path, centre: str, sites: dict[str, str]) -> None:
        self.places = {"centre": centre, **sites}
        self.file = folder / "topology.yaml"
        self.file.write_text(yaml.safe_dump({
            "topology": "hospital", "centre": {"url": centre}, "sites": {name: {"url": url} for name, url in sites.items()},
            "tables": [{"name": "patient", "direction": "both"}],
        }))  # fmt: skip
        for site in sites:
            execute(self.places[site], TABLE)
            execute(self.places[site], f"insert into patient values ({len(site)}, 'of {site}', 'a');")
        replicator("install", "-y", "-c", self.file)
        replicator("sync", "-c", self.file)

    def write(self, place: str, script: str) -> None:
        execute(self.places[place], script)

    def read(self, place: str, query: str) -> list[tuple[object, ...]]:
        return sorted(rows(self.places[place], query))

    def run(self, *arguments: object, code: int = 0) -> str:
        return replicator(*arguments, "-c", self.file, code=code).output


@pytest.fixture
def hospital(tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases) -> Hospital:
    sites = {"ann": f"sqlite:///{sqlite_file('ann')}", "berta": postgres_database("berta")}
    return Hospital(tmp_path, postgres_database("centre"), sites)


def test_alike_tables_are_told_to_be(hospital: Hospital) -> None:
    assert "all tables are alike" in hospital.run("schema", "diff")
    assert answer("schema", "diff", "-c", hospital.file) == {"differences": [], "failed": {}}
    assert "nothing to do" in hospital.run("schema", "apply", "--yes")


def test_what_a_site_has_more_is_held_and_the_statement_for_either_side_is_shown(hospital: Hospital) -> None:
    hospital.write("ann", "alter table patient add column age integer;")
    hospital.write("ann", "update patient set age = 40;")
    told = hospital.run("schema", "diff", code=1)
    assert "age: INTEGER here; the centre has no such column   [held]" in told
    assert 'at centre: alter table "public"."patient" add column "age" bigint;' in told
    assert 'at ann: alter table "patient" drop column "age";' in told
    (found,) = answer("schema", "diff", "--site", "ann", "-c", hospital.file, code=1)["differences"]
    assert (found["kind"], found["column"], found["matters"]) == ("column", "age", True)
    hospital.write("ann", "update patient set ward = 'b' where id = 3;")
    assert "held" in hospital.run("sync")
    assert hospital.read("centre", "select id, ward from patient")[0] == (3, "b")
    hospital.write("centre", found["fixes"][0]["sql"] + ";")
    hospital.run("sync")
    assert hospital.read("centre", "select id, age from patient where age is not null") == [(3, 40), (5, 40)]


def test_a_column_of_the_centre_is_carried_to_every_site(hospital: Hospital) -> None:
    hospital.write("centre", "alter table patient add column born timestamptz;")
    hospital.write("centre", "update patient set born = '1980-01-02 03:04:05+00' where id = 3;")
    assert "born: timestamp with time zone at the centre, not here" in hospital.run("schema", "diff")
    shown = hospital.run("schema", "apply", "--dry-run", code=1)
    assert 'ann: add column born of patient: alter table "patient" add column "born" TIMESTAMPTZ_TEXT;' in shown
    assert "nothing is altered without --yes" in hospital.run("schema", "apply", code=2)
    hospital.run("schema", "apply", "--yes")
    assert "all tables are alike" in hospital.run("schema", "diff")
    hospital.run("sync")
    assert hospital.read("ann", "select id, born from patient where id = 3") == [(3, "1980-01-02 03:04:05+00:00")]
    hospital.write("ann", "update patient set born = '1990-01-01 00:00:00+00:00' where id = 5;")
    hospital.run("sync")
    for place in ("centre", "berta"):
        assert hospital.read(place, "select id, born::date::text from patient where id = 5") == [(5, "1990-01-01")]


def test_a_file_of_changes_is_made_everywhere_in_each_dialect_and_only_once(hospital: Hospital, tmp_path: Path) -> None:
    file = tmp_path / "change.sql"
    file.write_text(
        "alter table patient add column code character varying(10) default 'x';\n"
        "alter table patient rename column ward to unit; alter table patient alter column name drop not null;"
    )
    shown = hospital.run("schema", "apply", "--file", file, "--yes", code=1)
    assert "SQLite changes no column in place: rebuild patient" in shown
    assert (
        'berta: drop not null name of patient: alter table "public"."patient" alter column "name" drop not null;'
        in shown
    )
    again = hospital.run("schema", "apply", "--file", file, "--yes", code=1)
    assert "ann: add column code of patient (varchar(10)): is so already" in again
    for place in hospital.places:
        hospital.write(place, f"insert into patient (id, name, unit) values ({len(place) + 10}, 'new', '{place}');")
    hospital.run("sync")
    wanted = hospital.read("centre", "select id, name, unit, code from patient")
    assert [row[2] for row in wanted] == ["a", "a", "ann", "berta", "centre"]
    for site in ("ann", "berta"):
        assert hospital.read(site, "select id, name, unit, code from patient") == wanted


def test_what_cannot_be_carried_is_refused_before_anything_is_run(hospital: Hospital, tmp_path: Path) -> None:
    file = tmp_path / "change.sql"
    file.write_text("alter table patient add column a text; create index on patient (a);")
    assert "CREATE INDEX ON patient (a): is not carried" in hospital.run(
        "schema", "apply", "--file", file, "--yes", code=3
    )
    file.write_text("alter table elsewhere add column a text;")
    assert "no site's table goes to elsewhere" in hospital.run("schema", "apply", "--file", file, "--yes", code=3)
    assert "all tables are alike" in hospital.run("schema", "diff")


def test_a_site_that_is_away_is_done_later(hospital: Hospital) -> None:
    away = Path(hospital.places["ann"].removeprefix("sqlite:///"))
    hospital.write("centre", "alter table patient add column note text;")
    away.rename(away.with_suffix(".away"))
    told = hospital.run("schema", "apply", "--yes", code=3)
    assert "later:" in told
    assert "for: ann" in told
    away.with_suffix(".away").rename(away)
    hospital.run("schema", "apply", "--yes")
    assert "all tables are alike" in hospital.run("schema", "diff")
