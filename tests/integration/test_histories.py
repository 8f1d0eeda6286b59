"""Databases put back from a backup, copied, moved or made anew: the links notice, or go on where nothing was lost.

The table: who was put back (site, centre) × engine × direction × older or equal × with writes behind it or without. What
is older than its link knows must stop the link, whatever was written since; what is equal must go on (invariants 1, 3, 13).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from _pytest.mark import ParameterSet

from tests.fixtures.cli import execute, replicator, rows
from tests.fixtures.copies import Copied

NOTES = "create table notes (id integer primary key, body text)"
READ = "select id, body from notes order by id"
Make = Callable[..., str]
LOGS = {"wal": {"capture": "wal"}, "bypass": {"capture": "wal", "outbox": "bypass"}}
"""PostgreSQL sites that are captured from the log."""


class Pair:
    """A site, its centre, and a table ``notes`` of one direction."""

    def __init__(self, folder: Path, engines: str, make: Make, direction: str) -> None:
        site, centre = engines.split("-")
        self.urls = {
            place: f"sqlite:///{folder}/{place}.sqlite3" if engine == "sqlite" else make(place)
            for place, engine in (("site", site), ("centre", centre))
        }
        self.site = {"url": self.urls["site"], **LOGS.get(site, {})}
        self.copies = {place: Copied(url, make) for place, url in self.urls.items()}
        self.file, self._number = folder / "topology.yaml", 0
        self.writers = [p for p, d in (("site", "to_centre"), ("centre", "from_centre")) if direction in (d, "both")]
        topology = {
            "topology": "past", "centre": {"url": self.urls["centre"]}, "sites": {"site": self.site},
            "tables": [{"name": "notes", "direction": direction}],
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(topology), encoding="utf-8")
        for url in self.urls.values():
            execute(url, f"{NOTES};")
        self.run("install", "--yes")
        self.write()
        self.run("sync")

    def run(self, *arguments: str, code: int | None = 0) -> str:
        """A command's output."""
        return replicator(*arguments, "-c", self.file, code=code).output

    def write(self) -> None:
        """A new row wherever the application may write, and a change of that place's first one."""
        for place in self.writers:
            self._number += 1
            number = self._number * 10 + (place == "site")
            execute(self.urls[place], f"insert into notes values ({number}, '{place}');")
            execute(self.urls[place], f"update notes set body = body || '{number}' where id = {number};")

    def read(self, place: str) -> list[tuple[object, ...]]:
        """The table there."""
        return rows(self.urls[place], READ)

    @property
    def equal(self) -> bool:
        """Whether both have the same rows."""
        return self.read("site") == self.read("centre")


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path, postgres_database: Make) -> Pair:
    """Parametrized by (engines, direction)."""
    return Pair(tmp_path, request.param[0], postgres_database, request.param[1])


ENGINES = ["sqlite-postgres", "postgres-postgres", "postgres-sqlite", "sqlite-sqlite"]
DIRECTIONS = ["to_centre", "from_centre", "both"]
QUICK = {
    ("postgres-postgres", "both", "site", "writes"), ("postgres-postgres", "both", "centre", "writes"),
    ("sqlite-postgres", "from_centre", "site", "idle"), ("postgres-sqlite", "to_centre", "centre", "writes"),
    ("sqlite-sqlite", "both", "centre", "writes"), ("postgres-postgres", "both", "site", "equal"),
    ("sqlite-postgres", "both", "centre", "equal"), ("wal-postgres", "both", "site", "writes"),
    ("wal-sqlite", "to_centre", "site", "idle"), ("bypass-postgres", "to_centre", "site", "writes"),
    ("bypass-postgres", "to_centre", "centre", "writes"), ("bypass-postgres", "to_centre", "site", "equal"),
}  # fmt: skip
"""Played always; the whole table is slow."""


def _cases(*states: str) -> list[ParameterSet]:
    whole = [
        *itertools.product(ENGINES, DIRECTIONS, ["site", "centre"], states),
        *sorted(each for each in QUICK if each[0].startswith(tuple(LOGS)) and each[3] in states),
    ]
    return [
        pytest.param(each[:2], *each[2:], id="-".join(each), marks=() if each in QUICK else pytest.mark.long)
        for each in whole
    ]


@pytest.mark.parametrize(("pair", "who", "then"), _cases("idle", "writes"), indirect=["pair"])
def test_an_older_backup_stops_the_link(pair: Pair, who: str, then: str) -> None:
    """Going on would lose what is written from here on, or what the backup lacks (invariant 1)."""
    pair.copies[who].back_up()
    pair.write()
    pair.run("sync")
    pair.copies[who].restore()
    if then == "writes":
        for _ in range(3):
            pair.write()
    before = pair.read("site"), pair.read("centre")

    said = pair.run("sync", code=3)

    assert "replicator rejoin" in said
    assert (pair.read("site"), pair.read("centre")) == before
    assert "rejoin" in pair.run("status", code=1)
    pair.run("rejoin", *(["--centre"] if who == "centre" else ["--site", "site"]), "--yes", code=None)
    after = dict(pair.read("site")), dict(pair.read("centre"))
    assert all(after[place].keys() >= dict(before[place]).keys() for place in (0, 1)), "a row was lost"
    for place in pair.writers:
        assert after[0 if place == "centre" else 1].keys() >= after[0 if place == "site" else 1].keys()
    pair.write()
    pair.run("sync")
    assert pair.run("status")
    if len(pair.writers) == 2:
        assert pair.equal
        pair.run("audit")


@pytest.mark.parametrize(("pair", "who", "then"), _cases("equal"), indirect=["pair"])
def test_an_equal_backup_goes_on(pair: Pair, who: str, then: str) -> None:
    """Nothing was lost, so nobody is asked, and what comes then arrives."""
    del then
    pair.copies[who].back_up()
    pair.copies[who].restore()
    pair.write()
    if who == "site" and "capture" in pair.site:
        # No slot comes with a copy of a database; what was written since is missed by it, and brought.
        assert "run: replicator install" in pair.run("sync", code=3)
        pair.run("install", "--yes")

    pair.run("sync")
    pair.run("sync")

    assert pair.equal
    assert len(pair.read("centre")) == 2 * len(pair.writers)
