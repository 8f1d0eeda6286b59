"""``check`` looks at what the centre captures: triggers that are gone, switched off, or not as planned."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.cli import answer, execute, replicator, rows
from tests.fixtures.databases import PostgresDatabases


def _topology(folder: Path, centre: str, site: str) -> Path:
    settings = {
        "topology": "shop",
        "centre": {"url": centre},
        "sites": {"till": {"url": site}},
        "tables": [{"name": "price", "direction": "from_centre"}, {"name": "sale", "direction": "both"}],
    }
    file = folder / "shop.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for url in (centre, site):
        execute(url, "create table price (code integer primary key); create table sale (id integer primary key);")
    return file


def _found(file: Path, code: int) -> list[dict[str, Any]]:
    return [each for each in answer("check", "-c", file, code=code)["findings"]["centre"] if not each["ok"]]


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_what_the_centre_captures_is_checked(
    engine: str, tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases
) -> None:
    centre = postgres_database("centre") if engine == "postgres" else f"sqlite:///{sqlite_file('centre')}"
    file = _topology(tmp_path, centre, f"sqlite:///{sqlite_file('till')}")
    assert _found(file, 0) == [each for each in _found(file, 0) if each["warning"]], (
        "nothing is installed, nothing drifts"
    )
    assert not [each for each in _found(file, 0) if "topology shop" in each["message"]]
    replicator("install", "-c", file)
    assert not [each for each in _found(file, 0) if "topology shop" in each["message"]]
    execute(centre, _drop(centre, engine, "price"))
    gone = [each for each in _found(file, 1) if not each["warning"]]
    assert any("not all captured" in each["message"] and "price" in each["subject"] for each in gone)
    assert not any("sale" in each["subject"] for each in gone)
    replicator("install", "-c", file)
    assert not [each for each in _found(file, 0) if "topology shop" in each["message"]]


def _drop(centre: str, engine: str, table: str) -> str:
    """Drop our triggers on a table, as somebody does who restores it from a script."""
    if engine == "sqlite":
        found = rows(centre, f"select name from sqlite_schema where type = 'trigger' and tbl_name = '{table}'")
        return "".join(f'drop trigger "{name}";' for (name,) in found)
    found = rows(centre, f"select tgname from pg_trigger where tgrelid = '{table}'::regclass and not tgisinternal")
    return "".join(f'drop trigger "{name}" on {table};' for (name,) in found)


def test_a_trigger_switched_off_and_a_function_of_another_wording_are_named(
    tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases
) -> None:
    centre = postgres_database("centre")
    file = _topology(tmp_path, centre, f"sqlite:///{sqlite_file('till')}")
    replicator("install", "-c", file)
    execute(centre, "alter table sale disable trigger user")
    assert any("not all captured" in each["message"] for each in _found(file, 1))
    replicator("install", "-c", file)
    names = rows(centre, "select proname from pg_proc where proname like 'central\\_%' and proname like '%price%'")
    execute(centre, f"comment on function replicator.\"{names[0][0]}\"() is 'replicator other'")
    (drift,) = [each for each in _found(file, 0) if "not as planned" in each["message"]]
    assert re.search("write what captures price", drift["message"])


def test_capture_at_the_centre_takes_the_owner(
    tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases
) -> None:
    centre = postgres_database("centre")
    file = _topology(tmp_path, centre, f"sqlite:///{sqlite_file('till')}")
    execute(centre, "drop role if exists replicator_poor; create role replicator_poor login;")
    try:
        execute(
            centre,
            "grant all on table price, sale to replicator_poor; grant create on schema public to replicator_poor;",
        )
        database = centre.rpartition("/")[2]
        execute(centre, f'grant create on database "{database}" to replicator_poor')
        poor = re.sub(r"//[^@]*@", "//replicator_poor@", centre)
        file.write_text(file.read_text(encoding="utf-8").replace(centre, poor), encoding="utf-8")
        told = [each for each in _found(file, 1) if "takes the table's owner" in each["message"]]
        assert {each["subject"] for each in told} == {"price", "sale"}
        assert all("grant" in each["fix"] for each in told)
    finally:
        execute(centre, "drop owned by replicator_poor; drop role replicator_poor;")
