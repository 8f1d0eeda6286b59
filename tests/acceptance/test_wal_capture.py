"""A PostgreSQL site captured from its log, through the command line: no trigger on its tables, all else as ever."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fixtures.cli import Laboratory, same
from tests.fixtures.databases import PostgresDatabases

TRIGGERS = "select count(*) from pg_trigger where tgname like '!replicator%'"
RUNS = "select id, analyser, note from devices_run"


def capture(laboratory: Laboratory, how: str) -> None:
    """Say in the YAML how the site is captured."""
    text = laboratory.file.read_text(encoding="utf-8")
    text = re.sub(r"(factory_c: \{url: [^ ,}]+)(, capture: \w+)?\}", rf"\1, capture: {how}}}", text)
    assert f"capture: {how}" in text
    laboratory.file.write_text(text, encoding="utf-8")


@pytest.fixture
def laboratory(tmp_path: Path, postgres_database: PostgresDatabases) -> Laboratory:
    """A PostgreSQL factory with rows, captured from its log; nothing installed."""
    made = Laboratory(tmp_path, postgres_database("centre"), {"factory_c": postgres_database("site")})
    made.fill()
    capture(made, "wal")
    return made


def expect_equal(laboratory: Laboratory) -> None:
    """Nothing is left to move, and both sides have the same rows."""
    laboratory.run("sync")
    at_centre = "select id, analyser, note from devices_run where site = 'factory_c'"
    assert same(laboratory.read("factory_c", RUNS), laboratory.read("centre", at_centre))
    assert laboratory.ask("audit", code=None)["verdict"] == "equal"


def test_a_site_captured_from_its_log_works_as_any_other(laboratory: Laboratory) -> None:
    checked = laboratory.ask("check", code=None)
    assert checked["problems"] == 0
    laboratory.run("install")
    assert not laboratory.ask("plan")["plans"]["factory_c"]["statements"]
    expect_equal(laboratory)
    laboratory.write("factory_c", "insert into devices_run values (4, 1, 'new');")
    laboratory.write("factory_c", "update devices_run set note = 'x' where id = 1;")
    laboratory.write("factory_c", "delete from devices_run where id = 2; update devices_run set id = 30 where id = 3;")
    expect_equal(laboratory)
    assert laboratory.read("factory_c", TRIGGERS) == [(0,)]
    assert laboratory.run("status", code=None).exit_code == 0
    laboratory.write("factory_c", "insert into devices_run values (5, 1, 'in flight');")
    assert laboratory.ask("audit", code=2)["verdict"] == "not proven", (
        "what is only in the log is in flight, not different"
    )
    laboratory.run("uninstall", "--yes")
    slots = "select count(*) from pg_replication_slots where database = current_database()"
    assert laboratory.read("factory_c", slots) == [(0,)]
    assert laboratory.read("factory_c", "select count(*) from pg_publication") == [(0,)]


def test_going_over_to_triggers_and_back_is_an_install(laboratory: Laboratory) -> None:
    laboratory.run("install")
    laboratory.run("sync")
    for number, how in enumerate(("triggers", "wal", "triggers"), 1):
        laboratory.write("factory_c", f"insert into devices_run values ({number * 10}, 1, 'before {how}');")
        capture(laboratory, how)
        laboratory.run("install")
        laboratory.write("factory_c", f"insert into devices_run values ({number * 10 + 1}, 1, 'after {how}');")
        laboratory.write("factory_c", "update devices_run set note = note || '!';")
        expect_equal(laboratory)
        assert (laboratory.read("factory_c", TRIGGERS) == [(0,)]) is (how == "wal")
        assert laboratory.ask("conflicts", "list")["conflicts"] == []
    laboratory.run("install")
    assert laboratory.read("factory_c", "select count(*) from pg_publication") == [(0,)]
    assert laboratory.read("factory_c", "select relreplident::text from pg_class where relname = 'devices_run'") == [
        ("d",)
    ]


def test_after_a_lost_slot_the_site_is_to_be_resynced_until_it_was(laboratory: Laboratory) -> None:
    laboratory.run("install")
    expect_equal(laboratory)
    laboratory.write("factory_c", "delete from devices_run where id = 3;")
    laboratory.write("factory_c", "select pg_drop_replication_slot(name) from replicator.slot;")
    first, *_ = laboratory.ask("check", code=1)["findings"]["factory_c"]
    assert "is gone" in first["message"], "the problem stands before what follows from it"
    told = laboratory.run("install").output
    assert re.search(r"ordered, for the next sync or run to bring: all rows of .*devices_run", told)
    assert "still to do: what was written meanwhile is to be looked at; run: replicator resync --site factory_c" in told
    laboratory.run("sync")
    for again in ("status", "install"):
        assert "to be resynced since" in laboratory.run(again, code=None).output
    found = laboratory.ask("status", code=1)
    assert [each["room"] for each in found["outboxes"] if not each["healthy"]] == ["to be resynced"]
    laboratory.run("resync", "devices_run", "--site", "factory_c", "--yes")
    laboratory.run("status", code=1)  # one table is not the whole site
    laboratory.run("resync", "--site", "factory_c", "--yes")
    laboratory.run("status")
    expect_equal(laboratory)
