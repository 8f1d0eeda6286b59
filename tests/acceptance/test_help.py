"""What the commands say of themselves, and the file ``init`` writes for tables that go both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from replicator.cli import main
from tests.fixtures.cli import replicator


def _leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_help_of_every_command_has_examples_and_exit_codes() -> None:
    found = dict(_leaves(main))
    assert {"parked edit", "conflicts redo", "change status", "init"} <= found.keys()
    for name, command in found.items():
        shown = command.epilog or ""
        assert f"replicator {name}" in shown, name
        assert "Exit codes: 0 " in shown, name


def test_init_for_tables_that_go_both_ways(tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    sites = ["--site", "a=a.sqlite3", "--site", "b=b.sqlite3"]
    flags = ["--topology", "clinic", "--centre", "c.sqlite3", *sites, "--table", "patient", "--both"]
    replicator("init", "--file", file, *flags)
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["tables"] == [{"name": "patient", "direction": "both"}]
    replicator("init", "--file", file, "--force", *flags, "--keyed-by-site")
    (rule,) = yaml.safe_load(file.read_text(encoding="utf-8"))["tables"]
    assert rule == {"name": "patient", "direction": "both", "keyed_by": ["site"]}
