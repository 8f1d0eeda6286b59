"""``replicator conflicts``: what was decided where a change did not fit the row it met. Read only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from replicator.cli.options import common, open_app
from replicator.cli.output import GOOD, count, say, show_json, show_table, shown
from replicator.cli.times import at
from replicator.errors import SetupError

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.model import RecordedConflict

_EPILOG = """\b
Examples:
  replicator conflicts list --site factory_a --limit 20
  replicator conflicts show 12
"""


@click.group(epilog=_EPILOG, short_help="Recorded conflicts and how they were decided.")
def conflicts() -> None:
    """See recorded conflicts: both rows, the rule, the decision and why."""


@conflicts.command("list")
@common
@click.option("--table", metavar="NAME", default="", help="Only conflicts of this table at the centre.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=50, show_default=True, help="The newest N.")
def list_(config: str, sites: Sequence[str], as_json: bool, table: str, limit: int) -> None:
    """List the newest decisions, oldest of them first."""
    app = open_app(config)
    found = _read(app, app.chosen(sites), (), table, limit)
    if as_json:
        show_json({"conflicts": [{"site": site, **asdict(each)} for site, each in found]})
        return
    if not found:
        say("no conflict is on record", GOOD)
        return
    head = ("id", "site", "table", "row", "conflict", "decision", "rule", "at")
    rows = [
        (str(c.id), site, c.table, c.key, c.kind, c.verdict, c.policy, at(c.decided_at)) for site, c in found
    ]  # fmt: skip
    show_table(head, rows)
    say(f"{count(len(found), 'conflict')}; see one: replicator conflicts show {found[-1][1].id}")


@conflicts.command()
@common
@click.argument("number", metavar="ID", type=int)
def show(config: str, sites: Sequence[str], as_json: bool, number: int) -> None:
    """Show one decision with all it was made on."""
    app = open_app(config)
    found = _read(app, app.chosen(sites), [number], "", 1)
    if not found:
        raise SetupError(f"there is no conflict {number} on record", hint="see them with: replicator conflicts list")
    ((site, conflict),) = found
    if as_json:
        show_json({"site": site, **asdict(conflict)})
    else:
        _show(site, conflict)


def _read(
    app: App, sites: Sequence[str], ids: Sequence[int], table: str, limit: int
) -> list[tuple[str, RecordedConflict]]:
    found: list[tuple[str, RecordedConflict]] = []
    for site in sites:
        with closing(app.target(site, ())) as target:
            found += [(site, each) for each in target.list_conflicts(ids=ids, table=table, limit=limit)]
    return sorted(found, key=lambda each: (each[1].decided_at, each[1].id))[-limit:]


def _show(site: str, conflict: RecordedConflict) -> None:
    say(f"conflict {conflict.id}: {conflict.kind} on {conflict.table} {conflict.key}, change from {site}")
    say(f"  {conflict.verdict} by {conflict.policy} at {at(conflict.decided_at)}: {conflict.reason}")
    images = (conflict.before, conflict.after, conflict.current)
    columns = list(dict.fromkeys(name for row in images for name in row or {}))
    rows = [(f"  {name}", *("" if row is None else shown(row.get(name), 200) for row in images)) for name in columns]
    if rows:
        show_table(("  column", "site before", "site after", "centre then"), rows)
