"""What a resync would remove is said and asked for first; copies of a site are named before anything is done with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.fixtures.cli import Result, answer, execute, replicator, rows

TABLE = "create table note (id integer primary key, body text);"


class Field:
    """Two sites and a centre, all SQLite files; at the centre the rows of each site are its own."""

    def __init__(self, folder: Path, places: dict[str, str]) -> None:
        self.file, self.places = folder / "field.yaml", places
        for place in ("north", "south"):
            execute(places[place], f"{TABLE} insert into note values (1, 'one'), (2, 'two');")
        self.save()

    def save(self) -> None:
        sites = {place: {"url": url} for place, url in self.places.items() if place != "centre"}
        settings = {
            "topology": "field", "centre": {"url": self.places["centre"]}, "sites": sites,
            "tables": [{"name": "note", "keyed_by": ["site"]}],
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def run(self, *arguments: object, code: int | None = 0) -> Result:
        return replicator(*arguments, "-c", self.file, code=code)

    def extra(self, *sites: str) -> None:
        """Rows that only the centre has."""
        for site in sites:
            execute(
                self.places["centre"],
                f"insert into note (site, id, body) values ('{site}', 9, 'x'), ('{site}', 10, 'y')",
            )

    def centre_rows(self) -> int:
        return int(rows(self.places["centre"], "select count(*) from note")[0][0])


@pytest.fixture
def field(tmp_path: Path, sqlite_file: Callable[[str], Path]) -> Field:
    made = Field(tmp_path, {place: f"sqlite:///{sqlite_file(place)}" for place in ("centre", "north", "south")})
    made.run("install", "--yes")
    made.run("sync")
    assert made.centre_rows() == 4
    return made


def test_rows_are_removed_on_a_persons_word_only(field: Field) -> None:
    field.extra("north")
    execute(field.places["centre"], "update note set body = 'forged' where site = 'north' and id = 1")
    for words in ((), ("--full",)):
        refused = field.run("resync", "--site", "north", *words, code=2).output
        assert "2 rows of note (north) at centre" in refused
        assert "Nothing was done" in refused
        assert "--yes" in refused
        assert rows(field.places["centre"], "select body from note where site = 'north' and id = 1") == [("forged",)]
    shown = field.run("resync", "--site", "north", "--dry-run", code=1).output.strip().splitlines()
    assert "north note: 2 rows only the centre has, 1 row that differs" in shown
    assert "bring 1 row and DELETE 2 rows of note (north) at centre" in shown[-1]
    assert field.centre_rows() == 6
    document = answer("resync", "--site", "north", "--yes", "-c", field.file)
    assert (document["mended"][0]["removed"], document["mended"][0]["removed_at"]) == (2, "centre")
    assert field.centre_rows() == 4


def test_a_resync_that_removes_nothing_does_not_ask(field: Field) -> None:
    execute(field.places["centre"], "delete from note where site = 'north'")
    field.run("resync", "--site", "north")
    assert field.centre_rows() == 4


def test_without_a_site_all_are_resynced(field: Field) -> None:
    field.extra("north", "south")
    refused = field.run("resync", code=2).output
    assert "(north)" in refused
    assert "(south)" in refused
    field.run("resync", "--yes")
    assert field.centre_rows() == 4
    field.run("audit")


def test_a_rejoin_says_what_differs_and_what_a_resync_would_delete(field: Field) -> None:
    field.extra("north")
    told = field.run("rejoin", "--site", "north", "--yes", code=1).output
    assert "north note: 2 rows only the centre has" in told
    assert f"replicator resync --site north -c {field.file} would DELETE the 2 rows only the target has" in told
    assert field.centre_rows() == 6


def test_a_copy_entered_as_a_site_is_named(field: Field, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite3"
    shutil.copy(field.places["north"].removeprefix("sqlite:///"), copy)
    field.places = {"centre": field.places["centre"], "copy": f"sqlite:///{copy}", **field.places}
    field.save()
    for told in (field.run("check", code=1).output, field.run("install", "--yes", code=3).output):
        assert "this is the database of site north, or a copy of it" in told
        assert "replicator rejoin --site copy --new-identity" in told
        assert "nothing stands in the way" not in told
    field.run("rejoin", "--site", "copy", "--new-identity", "--yes")
    field.run("check")
    field.run("install", "--yes")
    assert field.centre_rows() == 6


def test_sizes_of_an_outbox_are_no_setting_of_a_site(field: Field) -> None:
    settings = yaml.safe_load(field.file.read_text(encoding="utf-8"))
    settings["sites"]["north"]["outbox"] = {"max_size": "1GB"}
    field.file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert "defaults.outbox" in field.run("check", code=3).output


def test_schema_apply_says_a_wrong_name_once(field: Field) -> None:
    told = field.run("schema", "apply", "--table", "nosuch", code=3).output
    assert told.count("nosuch") == 1
    assert "later" not in told


def test_a_column_that_may_have_been_renamed_is_offered_so_first(field: Field) -> None:
    execute(field.places["north"], "alter table note rename column body to text")
    told = field.run("schema", "diff", "--site", "north", code=1).output
    renames = [line for line in told.splitlines() if "rename column" in line]
    assert [line.strip().partition(":")[0] for line in renames] == ["at centre", "at north"]
    assert all(line.endswith("(if it was renamed)") for line in renames)
    assert told.index("rename column") < told.index("add column")
