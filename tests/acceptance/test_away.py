"""Work at the centre does not need a site that is away: conflicts, parked changes, history, status (invariants 9 and 13)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.cli import answer, execute, replicator, rows
from tests.fixtures.databases import PostgresDatabases

TABLES = "create table stock (id integer primary key, ward integer, name text unique, amount integer);"


class Wards:
    """A centre with one site that goes away and one that stays."""

    def __init__(self, folder: Path, centre: str, away: str, here: str, leave: Callable[[], None]) -> None:
        self.file, self.leave = folder / "wards.yaml", leave
        self.places = {"centre": centre, "gone": away, "here": here}
        rule = {"name": "stock", "direction": "both", "policy": "manual", "where": "ward = :site.ward"}
        sites = {"gone": {"url": away, "params": {"ward": "1"}}, "here": {"url": here, "params": {"ward": "2"}}}
        settings = {"topology": "wards", "centre": {"url": centre}, "sites": sites, "tables": [rule]}
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def run(self, *arguments: object, code: int | None = 0) -> str:
        return replicator(*arguments, "-c", self.file, code=code).output

    def ask(self, *arguments: object, code: int | None = 0) -> Any:
        return answer(*arguments, "-c", self.file, code=code)

    def write(self, place: str, script: str) -> None:
        execute(self.places[place], script)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self.places["centre"], query)


@pytest.fixture(params=["sqlite at postgres", "postgres at postgres", "sqlite at sqlite"])
def wards(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sqlite_file: Callable[[str], Path],
    postgres_database: PostgresDatabases,
) -> Wards:
    """The site has gone; a conflict of its waits for a person, and two of its changes are parked."""
    site, centre = str(request.param).split(" at ")
    urls = {}
    for place, engine in (("centre", centre), ("gone", site), ("here", "sqlite")):
        urls[place] = postgres_database(place) if engine == "postgres" else f"sqlite:///{sqlite_file(place)}"

    def leave() -> None:
        if site == "sqlite":
            path = Path(urls["gone"].removeprefix("sqlite:///"))
            path.rename(path.with_suffix(".away"))
        else:
            execute(urls["centre"], f'drop database "{urls["gone"].rpartition("/")[2]}" with (force)')

    made = Wards(tmp_path, urls["centre"], urls["gone"], urls["here"], leave)
    for place in made.places:
        made.write(place, TABLES)
    made.write("gone", "insert into stock values (1, 1, 'a', 5), (2, 1, 'b', 5);")
    made.run("install")
    made.run("sync")
    made.write("gone", "update stock set amount = 6 where id = 1;")
    made.write("centre", "update stock set amount = 7 where id = 1;")
    made.write("gone", "insert into stock values (3, 1, 'taken', 1), (4, 1, 'also', 1);")
    made.write("centre", "insert into stock values (8, 2, 'taken', 9), (9, 2, 'also', 9);")
    made.run("sync", code=None)
    made.write("centre", "update stock set amount = 70 where id = 2;")
    leave_it = made.leave
    leave_it()
    return made


def test_what_is_at_the_centre_is_decided_without_the_site(wards: Wards) -> None:
    (conflict,) = wards.ask("conflicts", "list", "--waiting")["conflicts"]
    number = conflict["id"]
    assert wards.ask("conflicts", "explain", number)["explanation"]
    assert wards.ask("conflicts", "show", number)["site"] == "gone"
    redone = wards.ask("conflicts", "redo", "--policy", "centre_wins", code=None)
    assert [each["id"] for each in redone["conflicts"]] == [number]
    assert wards.ask("conflicts", "resolve", number, "--take", "site", "--yes")["row"]["amount"] == "6"
    assert wards.read("select amount from stock where id = 1") == [(6,)]
    events = wards.ask("history", "stock", "1", code=3)
    assert "gone" in events["failed"]
    assert {each["link"] for each in events["events"]} >= {"gone→centre"}


def test_what_is_parked_at_the_centre_is_mended_without_the_site(wards: Wards) -> None:
    listed = wards.ask("parked", "list", code=3)
    assert list(listed["failed"]) == ["gone"]
    names = [
        each["name"] for each in listed["parked"] if each["table"] == "stock" and "duplicate" in each["cause"].lower()
    ]
    names = names or [each["name"] for each in listed["parked"] if "unique" in each["cause"].lower()]
    assert len(names) == 2
    assert wards.ask("parked", "show", names[0])["blocking"]["id"] == "8"
    wards.run("parked", "edit", names[0], "--set", "name=free")
    wards.run("parked", "retry", names[0])
    assert wards.read("select name from stock where id = 3") == [("free",)]
    wards.run("parked", "skip", names[1], "--yes")
    left = [each["name"] for each in wards.ask("parked", "list", code=3)["parked"]]
    assert not set(names) & set(left)


def test_both_links_of_the_site_are_shown_from_what_the_centre_knows(wards: Wards) -> None:
    wards.ask("status", code=1)
    links = {(each["site"], each["direction"]): each for each in wards.ask("status", code=1)["links"]}
    up, down = links["gone", "to_centre"], links["gone", "from_centre"]
    assert up["health"] == down["health"]
    assert up["health"] == ("unreachable" if "sqlite:" in wards.places["gone"] else "broken")
    assert (up["undecided"], up["proof_seconds"] > 0) == (1, True)
    assert up["parked"] >= 2
    assert down["behind_changes"] >= 1
    assert links["here", "to_centre"]["health"] == "up to date"
