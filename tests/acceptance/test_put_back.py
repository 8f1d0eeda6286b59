"""A site put back from a copy is noticed by the link from the centre as well, also when nothing was written there since."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.fixtures.cli import execute, replicator, rows

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
