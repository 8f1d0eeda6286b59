"""What is said where it takes no database: the log's lines of parked and healed rows, and next steps that exist."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from replicator.cli import main as cli
from replicator.cli.log import Log, Watcher
from replicator.errors import rejoin_hint
from replicator.model import Direction, LinkName
from replicator.worker import LinkReport
from tests.fixtures.wards import BOTH, compiled, maker

ROOT = Path(__file__).resolve().parents[2]


def test_the_log_names_the_rows_that_were_parked_and_that_healed(capsys: pytest.CaptureFixture[str]) -> None:
    link = LinkName("lab", "a", Direction.TO_CENTRE)
    watcher = Watcher(Log(as_json=True))
    watcher.listen(LinkReport(link))
    watcher.listen(LinkReport(link, parked=3, rows=("stock (4)", "stock (5)")))
    watcher.listen(LinkReport(link, parked=3, healed=1, rows=("stock (4)",)))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    found = {line["event"]: line for line in lines}
    assert found["parked"]["which"] == "stock (4), stock (5) and 1 more"
    assert (found["healed"]["rows"], found["healed"]["which"]) == (1, "stock (4)")
    assert [line["event"] for line in lines] == ["link_up", "parked", "healed"]


def test_the_command_for_a_restored_site_exists_as_messages_say() -> None:
    said = rejoin_hint("a").partition("replicator ")[2].partition(" (")[0]
    command, *arguments = said.split()
    assert arguments == ["--site", "a", "--dry-run"]
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    known = {option for parameter in found.params for option in parameter.opts}
    assert set(arguments) - {"a"} <= known
    assert "### Restored, copied, moved" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_policy_by_engine_keeps_the_word_it_was_written_with(tmp_path: Path) -> None:
    for written, name in (("sqlite_wins", "source_wins"), ("postgresql_wins", "centre_wins"), ("newest_wins", "")):
        found = compiled(maker(tmp_path)(f"{{name: patients, {BOTH}, policy: {written}}}"))
        policy = found.plans["a"][0].policy
        assert (policy.by_engine, str(policy.name)) == ((written, name) if name else ("", written))
