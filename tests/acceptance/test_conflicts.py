"""``replicator conflicts`` as a DBA uses it: a person's word, another policy over the record, on both centres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.cli import answer, execute, replicator, rows

TABLE = "create table stock (id integer primary key, note text, amount integer);"


class Shop:
    """A centre and two SQLite sites that write one table; ``policy`` is YAML."""

    def __init__(self, folder: Path, centre: str, policy: str) -> None:
        self.places = {"centre": centre, "a": f"sqlite:///{folder}/a.db", "b": f"sqlite:///{folder}/b.db"}
        for url in self.places.values():
            execute(url, TABLE)
        file = folder / "shop.yaml"
        file.write_text(
            f"topology: shop\ncentre: {{url: '{centre}'}}\n"
            f"sites:\n  a: {{url: '{self.places['a']}'}}\n  b: {{url: '{self.places['b']}'}}\n"
            f"tables:\n  - {{name: stock, direction: both, policy: {policy}}}\n",
            encoding="utf-8",
        )
        self.options = ("-c", file)
        self.run("install", "--yes")
        self.write("a", "insert into stock values (1, 'old', 5);")
        self.run("sync")

    def write(self, place: str, script: str) -> None:
        execute(self.places[place], script)

    def run(self, *arguments: object, code: int | None = 0) -> str:
        return replicator(*arguments, *self.options, code=code).output

    def ask(self, *arguments: object, code: int | None = 0) -> dict[str, object]:
        found = answer(*arguments, *self.options, code=code)
        assert isinstance(found, dict)
        return found

    def row(self) -> tuple[object, ...] | None:
        """The one row, the same everywhere."""
        self.run("sync")
        found = {place: rows(url, "select note, amount from stock where id = 1") for place, url in self.places.items()}
        assert found["a"] == found["b"] == found["centre"], found
        return found["centre"][0] if found["centre"] else None

    def collide(self) -> int:
        """Both sides change the row; the conflict's number."""
        self.write("a", "update stock set note = 'site', amount = 7 where id = 1;")
        self.write("centre", "update stock set note = 'centre', amount = 6 where id = 1;")
        self.run("sync", code=None)
        listed = self.ask("conflicts", "list", "--site", "a")["conflicts"]
        assert isinstance(listed, list)
        return int(listed[-1]["id"])


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Shop]:
    def made(policy: str) -> Shop:
        if request.param == "sqlite":
            return Shop(tmp_path, f"sqlite:///{tmp_path}/centre.db", policy)
        return Shop(tmp_path, request.getfixturevalue("postgres_database")("shop"), policy)

    return made


def test_the_centres_row_stands_everywhere_while_a_change_waits(shop: Callable[[str], Shop]) -> None:
    here = shop("manual")
    here.collide()
    for _ in range(2):
        here.run("sync", code=None)
        assert [rows(url, "select note from stock") for url in here.places.values()] == [[("centre",)]] * 3


@pytest.mark.parametrize(
    ("choice", "row"),
    [
        (["--take", "site"], ("site", 7)),
        (["--take", "centre"], ("centre", 6)),
        (["--take", "base"], ("old", 5)),
        (["--column", "note=site"], ("site", 6)),
        (["--take", "site", "--set", "amount=12", "--null", "note"], (None, 12)),
        (["--delete"], None),
    ],
)
def test_a_person_decides_and_every_site_gets_it(
    shop: Callable[[str], Shop], choice: list[str], row: tuple[object, ...] | None
) -> None:
    """Invariant 6: the decision travels as an ordinary change."""
    here = shop("manual")
    number = here.collide()
    told = here.run("conflicts", "list", "--waiting")
    assert "waiting" in told
    assert f"replicator conflicts resolve {number}" in told
    here.run("conflicts", "resolve", number, *choice, code=2)
    said = here.run("conflicts", "resolve", number, *choice, "--yes")
    assert f"conflict {number} is resolved" in said

    assert here.row() == row
    assert here.ask("conflicts", "list", "--waiting")["conflicts"] == []
    assert here.ask("parked", "list")["parked"] == []
    assert "A person has settled it since" in here.run("conflicts", "explain", number)
    here.run("audit")


def test_later_changes_build_on_the_centres_row_and_the_last_one_is_what_is_taken(shop: Callable[[str], Shop]) -> None:
    here = shop("manual")
    number = here.collide()
    here.run("sync", code=None)
    here.write("a", "update stock set amount = amount + 2 where id = 1;")
    here.run("sync", code=1)
    assert [rows(url, "select note, amount from stock") for url in here.places.values()] == [[("centre", 6)]] * 3

    said = here.run("conflicts", "resolve", number, "--take", "site", "--yes")

    assert "1 later change of the row from a will be dropped" in said
    assert here.row() == ("centre", 8)


def test_a_row_that_moved_on_is_not_overwritten_unasked(shop: Callable[[str], Shop]) -> None:
    here = shop("centre_wins")
    number = here.collide()
    here.write("centre", "update stock set amount = 99 where id = 1;")

    refused = here.run("conflicts", "resolve", number, "--take", "site", "--yes", code=3)

    assert "has changed since" in refused
    assert "--force" in refused
    assert here.row() == ("centre", 99)
    here.run("conflicts", "resolve", number, "--take", "site", "--yes", "--force")
    assert here.row() == ("site", 7)


def test_show_and_explain(shop: Callable[[str], Shop]) -> None:
    here = shop("{name: merge_columns, columns: {amount: add, note: centre_wins}}")
    number = here.collide()
    assert here.row() == ("centre", 8), "both increments count"

    shown = here.run("conflicts", "show", number)
    for line in ("note", "amount"):
        found = next(each.split() for each in shown.splitlines() if each.split()[:1] == [line])
        assert (
            found[1:]
            == {"note": ["both", "old", "site", "centre", "centre"], "amount": ["both", "5", "7", "6", "8"]}[line]
        )
    document = here.ask("conflicts", "show", number)
    assert (document["left"], document["verdict"]) == ({"id": "1", "note": "centre", "amount": "8"}, "merge")
    assert document["changed"] == {"note": "both", "amount": "both"}
    told = here.run("conflicts", "explain", number)
    for words in (
        "a started from: id = '1', note = 'old', amount = '5'.",
        "a wrote: id = '1', note = 'site', amount = '7', at ",
        "written by the centre at ",
        "Column amount: base '5', site '7', centre '6'; add: the centre's 6, and the site's step from 5 to 7; it became '8'.",
        "Column note: base 'old', site 'site', centre 'centre'; centre_wins: the centre's; it became 'centre'.",
        "With source_wins the row would have become: id = '1', note = 'site', amount = '7'.",
    ):
        assert words in told, told


def test_equal_increments_of_two_sites_both_count(shop: Callable[[str], Shop]) -> None:
    here = shop("{name: merge_columns, columns: {amount: add}}")
    for place in ("a", "b", "centre"):
        here.write(place, "update stock set amount = amount + 1 where id = 1;")
    assert here.row() == ("old", 8)


def test_redo_shows_what_another_policy_would_have_decided_and_does_it_if_told_to(shop: Callable[[str], Shop]) -> None:
    here = shop("centre_wins")
    number = here.collide()
    assert here.row() == ("centre", 6)

    dry = here.run("conflicts", "redo", "--policy", "source_wins")
    assert "1 conflict: source_wins would have decided 1 otherwise; 1 can be changed" in dry
    assert here.row() == ("centre", 6)
    same = here.ask("conflicts", "redo", "--policy", "centre_wins")
    assert [each["differs"] for each in same["conflicts"]] == [False]  # type: ignore[attr-defined]

    here.run("conflicts", "redo", "--policy", "source_wins", "--apply", code=2)
    here.run("conflicts", "redo", "--policy", "source_wins", "--apply", "--yes", "--table", "nothing")
    assert here.row() == ("centre", 6)
    done = here.run("conflicts", "redo", "--policy", "source_wins", "--apply", "--yes", "--since", "1h")
    assert "1 of 1 row changed" in done
    assert here.row() == ("site", 7)
    again = here.ask("conflicts", "redo", "--policy", "centre_wins", "--apply", "--yes")
    assert again["applied"] == 0
    (entry,) = again["conflicts"]  # type: ignore[misc]
    assert (entry["id"], entry["obstacle"]) == (number, "a person has resolved it")  # type: ignore[index]


def test_redo_leaves_rows_alone_that_moved_on(shop: Callable[[str], Shop]) -> None:
    here = shop("centre_wins")
    here.collide()
    here.write("centre", "update stock set amount = 99 where id = 1;")
    told = here.run("conflicts", "redo", "--policy", "source_wins", "--apply", "--yes")
    assert "the row has changed since" in told
    assert here.row() == ("centre", 99)


def test_redo_settles_what_waits(shop: Callable[[str], Shop]) -> None:
    here = shop("manual")
    here.collide()
    here.run("conflicts", "redo", "--policy", "newest_wins", "--apply", "--yes")
    assert here.row() == ("centre", 6), "the centre wrote last"
    assert here.ask("conflicts", "list", "--waiting")["conflicts"] == []


def test_mistakes_are_told_with_what_to_do_next(shop: Callable[[str], Shop]) -> None:
    here = shop("manual")
    number = here.collide()
    assert "replicator conflicts list" in here.run("conflicts", "show", 999, code=3)
    assert "replicator conflicts list" in here.run("conflicts", "resolve", 999, "--take", "site", "--yes", code=3)
    assert "it has: id, note, amount" in here.run("conflicts", "resolve", number, "--set", "x=1", "--yes", code=3)
    assert "key" in here.run("conflicts", "resolve", number, "--set", "id=2", "--yes", code=3)
    assert "--take" in here.run("conflicts", "resolve", number, "--yes", code=3)
    assert "NAME=site" in here.run("conflicts", "resolve", number, "--column", "note=left", "--yes", code=2)
    assert "is not one of" in here.run("conflicts", "redo", "--policy", "loudest", code=2)
    assert "is no moment" in here.run("conflicts", "list", "--since", "yesterday", code=2)
    for command in ("list", "show", "explain", "resolve", "redo"):
        assert "Examples:" in replicator("conflicts", command, "--help").output
