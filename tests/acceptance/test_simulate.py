"""``replicator simulate`` as a user runs it: on our topology, on one of his own, and with a history that fails."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.engines.sqlite.source import SqliteSource
from replicator.engines.sqlite.target import SqliteTarget
from replicator.simulate.steps import Action, Backup, Move, Restore, Write, to_json
from tests.fixtures.cli import answer, replicator

TABLES = """
create table owner (id integer primary key, region text not null, mail text unique, remark text);
create table thing (owner integer references owner (id), part text, price decimal, remark varchar(40),
  primary key (owner, part));
create trigger shout after update of mail on owner when new.mail = 'never' begin select raise(abort, 'no'); end;
insert into owner values (1, 'north', 'a@b', 'as it was');
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's topology with rows in it."""
    for place in ("centre", "one", "two"):
        with closing(sqlite3.connect(tmp_path / f"{place}.db")) as file:
            file.executescript(TABLES)
    settings = {
        "topology": "mine",
        "centre": {"url": "sqlite:///centre.db"},
        "sites": {name: {"url": f"sqlite:///{name}.db", "params": {"region": name}} for name in ("one", "two")},
        "tables": [
            {"name": "owner", "direction": "both", "where": "region = :site.region", "policy": "newest_wins"},
            {"name": "thing", "direction": "both", "follows": "owner"},
        ],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tmp_path / "mine.yaml"


def test_our_topology_converges() -> None:
    told = replicator("simulate", "--seeds", 8).output
    assert "8 histories" in told
    assert "every history converged" in told


def test_a_topology_of_the_users_own_converges_and_his_files_are_not_touched(own: Path) -> None:
    before = {path.name: path.read_bytes() for path in own.parent.iterdir()}
    found = answer("simulate", "-c", own, "--seeds", 4, "--sites", "2", "--policy", "centre_wins", "--policy", "manual")
    assert found["converged"] is True
    assert found["counts"]["batches"] > 20
    assert {path.name: path.read_bytes() for path in own.parent.iterdir()} == before


def _ignoring(inner: Any) -> Any:
    """Conflicts that leave nothing on record."""
    return lambda *given, **named: []


def test_a_failing_history_is_told_short_and_can_be_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteTarget, "list_conflicts", _ignoring(SqliteTarget.list_conflicts))
    kept = tmp_path / "kept"
    arguments = ("simulate", "--policy", "source_wins", "--sites", "3", "--seeds", 40, "--keep", kept, "--shrink", "20")
    told = replicator(*arguments, code=1).output
    assert "a write vanished" in told
    assert "no conflict is on record" in told
    assert "  1. " in told
    (file,) = kept.glob("seed_*.json")
    steps = json.loads(file.read_text(encoding="utf-8"))["steps"]
    assert len(steps) < 10
    assert f"again: replicator simulate --replay {file}" in told
    again = answer("simulate", "--replay", file, "--shrink", "0", code=1)
    assert [each["kind"] for each in again["failed"]] == ["a write vanished"]
    monkeypatch.undo()
    assert answer("simulate", "--replay", file)["converged"] is True


def test_a_restore_is_noticed_and_one_that_nobody_notices_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(number: int, row: int) -> Write:
        return Write(number, "alpha", (Action("put", "price", row, number),))

    steps = [
        written(1, 0), Move(2, "alpha", True, 1000), Backup(3, "alpha"), written(4, 2), Move(5, "alpha", True, 1000),
        Restore(6, "alpha"), written(7, 4), written(8, 0), Move(9, "alpha", True, 1000),
    ]  # fmt: skip
    file = tmp_path / "restored.json"
    document = {"seed": 0, "policy": "source_wins", "sites": 2, "engine": "sqlite", "steps": to_json(steps)}
    file.write_text(json.dumps(document), encoding="utf-8")
    found = answer("simulate", "--replay", file)
    assert (found["converged"], found["counts"]["restores"], found["counts"]["noticed"]) == (True, 1, 1)
    monkeypatch.setattr(SqliteSource, "_is_of_this_history", lambda *given: True)
    found = answer("simulate", "--replay", file, "--shrink", "0", code=1)
    assert found["failed"][0]["kind"] == "replicas differ"


def test_wrong_calls_are_told(tmp_path: Path) -> None:
    assert "choose from source_wins" in replicator("simulate", "--policy", "loudest", code=2).output
    assert "2..5" in replicator("simulate", "--sites", "many", code=2).output
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    assert "not a history" in replicator("simulate", "--replay", tmp_path / "x.json", code=3).output
