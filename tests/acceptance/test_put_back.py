"""A site put back from a copy is noticed by the link from the centre as well, also when nothing was written there since."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.fixtures.cli import answer, execute, replicator, rows
from tests.fixtures.copies import Copied

NOTES = "create table notes (id integer primary key, body text)"


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_a_file_put_back_from_a_copy_stops_its_links(
    engine: str, tmp_path: Path, postgres_database: Callable[[str], str]
) -> None:
    """What the copy lacks was pruned at the centre: going on from there would lose it for good (invariants 1, 13)."""
    centre = postgres_database("centre") if engine == "postgres" else f"sqlite:///{tmp_path}/centre.sqlite3"
    site, copy = tmp_path / "f.sqlite3", tmp_path / "f.copy"
    for url in (centre, f"sqlite:///{site}"):
        execute(url, f"{NOTES};")
    file = tmp_path / "topology.yaml"
    topology = {
        "topology": "back", "centre": {"url": centre}, "sites": {"f": {"url": f"sqlite:///{site}"}},
        "tables": [{"name": "notes", "direction": "both"}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(topology), encoding="utf-8")
    replicator("install", "--yes", "-c", file)
    execute(centre, "insert into notes values (1, 'a'), (2, 'b');")
    replicator("sync", "-c", file)
    shutil.copy(site, copy)
    execute(centre, "update notes set body = 'new' where id = 1;")
    replicator("sync", "-c", file)
    shutil.copy(copy, site)

    said = replicator("sync", "-c", file, code=None)

    assert said.exit_code != 0
    assert "copy" in said.output
    assert rows(f"sqlite:///{site}", "select body from notes where id = 1") == [("a",)]
    assert replicator("status", "-c", file, code=None).exit_code == 1
    told = replicator("audit", "-c", file, code=None).output
    assert "replicator rejoin --site f" in told
    assert "replicator resync" not in told, "a resync cannot mend a cut history"


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_one_command_brings_a_restored_site_back(
    engine: str, tmp_path: Path, postgres_database: Callable[[str], str]
) -> None:
    """What either side alone has, edits since the restore and known deletions all count; each decision is on record."""
    centre = f"sqlite:///{tmp_path}/centre.sqlite3"
    site = postgres_database("f") if engine == "postgres" else f"sqlite:///{tmp_path}/f.sqlite3"
    for url in (centre, site):
        execute(url, f"{NOTES};")
    file = tmp_path / "topology.yaml"
    topology = {
        "topology": "back", "centre": {"url": centre}, "sites": {"f": {"url": site}},
        "tables": [{"name": "notes", "direction": "both", "policy": "newest_wins"}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(topology), encoding="utf-8")
    replicator("install", "--yes", "-c", file)
    execute(site, "insert into notes values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');")
    replicator("sync", "-c", file)
    place = Copied(site, postgres_database)
    place.back_up()
    execute(site, "update notes set body = 'lost at the site' where id = 1; insert into notes values (5, 'e');")
    execute(centre, "update notes set body = 'newer' where id = 2; delete from notes where id = 3;")
    replicator("sync", "-c", file)
    replicator("sync", "-c", file)
    place.restore()
    execute(site, "update notes set body = 'since' where id = 4; insert into notes values (6, 'f');")
    replicator("sync", "-c", file, code=3)

    told = replicator("rejoin", "--site", "f", "--dry-run", "-c", file).output
    assert "restored" in told
    assert "new epoch of f" in told
    replicator("sync", "-c", file, code=3)
    assert "nothing was done" in replicator("rejoin", "--site", "f", "-c", file, code=2).output
    done = answer("rejoin", "--site", "f", "--yes", "-c", file)

    wanted = [(1, "lost at the site"), (2, "newer"), (4, "since"), (5, "e"), (6, "f")]
    assert rows(centre, "select id, body from notes order by id") == wanted
    assert rows(site, "select id, body from notes order by id") == wanted
    assert (done["done"], done["audit"]["verdict"]) == (True, "equal")
    assert "update_deleted" in replicator("conflicts", "list", "-c", file).output
    replicator("status", "-c", file)
    execute(site, "delete from notes where id = 2;")
    replicator("sync", "-c", file)
    assert rows(centre, "select id from notes order by id") == [(1,), (4,), (5,), (6,)]
