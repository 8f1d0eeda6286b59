"""``replicator parked``: changes the centre refused, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from replicator.cli.options import common, open_app
from replicator.cli.output import (
    BAD,
    EXIT_DIFFERENT,
    GOOD,
    WARN,
    can_ask,
    count,
    say,
    show_json,
    show_table,
    shown,
)
from replicator.cli.times import at

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.model import ParkedChange
    from replicator.ports import Target

_EPILOG = """\b
A change the centre refuses (a constraint, a value its type cannot hold) is set aside with its cause; later changes of
the same row wait behind it, everything else goes on. Mend the cause, then retry; or edit the change; or skip it.

\b
Examples:
  replicator parked list
  replicator parked show 7
  replicator parked retry 7
  replicator parked retry --all
  replicator parked edit 7 --set result=12.5 --null comment
  replicator parked skip 7 --yes
"""


@click.group(epilog=_EPILOG, short_help="Changes the centre refused: list, show, retry, skip, edit.")
def parked() -> None:
    """List, show, retry, skip or edit changes that the centre refused."""


@parked.command("list")
@common
@click.option("--table", metavar="NAME", default="", help="Only changes of this table at the centre.")
def list_(config: str, sites: Sequence[str], as_json: bool, table: str) -> None:
    """List parked changes, oldest first."""
    from replicator.parked import list_changes

    app = open_app(config)
    found = list_changes(app.chosen(sites), lambda site: app.target(site, ()), table)
    if as_json:
        show_json({"parked": [_document(site, change) for site, change in found]})
        return
    if not found:
        say("nothing is parked", GOOD)
        return
    head = ("id", "site", "table", "row", "change", "state", "since", "tries", "cause")
    rows = [
        (
            str(change.id), site, change.table, change.key, _word(change), str(change.state), at(change.parked_at),
            str(change.attempts), shown(_cause(change.cause), 90),
        )
        for site, change in found
    ]  # fmt: skip
    show_table(head, rows)
    say(f"{count(len(found), 'change')} parked; next: replicator parked show {found[0][1].id}", WARN)


@parked.command()
@common
@click.argument("number", metavar="ID", type=int)
def show(config: str, sites: Sequence[str], as_json: bool, number: int) -> None:
    """Show one parked change with its cause and its values."""
    app = open_app(config)
    site, change = _find(app, sites, number)
    if as_json:
        show_json(_document(site, change))
    else:
        _show_change(site, change)


@parked.command()
@common
@click.argument("number", metavar="[ID]", type=int, required=False)
@click.option(
    "--all", "everything", is_flag=True, help="All parked changes; once one is refused, its row keeps waiting."
)
def retry(config: str, sites: Sequence[str], as_json: bool, number: int | None, everything: bool) -> None:
    """Apply a parked change again (or --all, in the order of their rows). Exit code 1 when one was refused again."""
    from replicator.parked import list_changes
    from replicator.parked import retry as try_again

    if (number is None) is not everything:
        raise click.UsageError("name one change by its ID, or all of them with --all")
    app = open_app(config)
    if number is not None:
        found = [_find(app, sites, number)]
    else:
        found = list_changes(app.chosen(sites), lambda site: app.target(site, ()))
    tried = []
    for site in dict.fromkeys(site for site, _ in found):
        with closing(app.target(site, app.link_plans(site))) as target:
            for each in try_again(site, target, [change for owner, change in found if owner == site]):
                tried.append(each)
                if not as_json:
                    _show_tried(each.change, each.applied, each.cause)
    applied = sum(each.applied is True for each in tried)
    if as_json:
        listed = [
            {"site": each.site, "id": each.change.id, "applied": each.applied, "cause": each.cause} for each in tried
        ]
        show_json({"applied": applied, "tried": listed})
    else:
        say(f"{applied} of {count(len(tried), 'change')} applied" if tried else "nothing is parked")
    raise SystemExit(0 if applied == len(tried) else EXIT_DIFFERENT)


@parked.command()
@common
@click.argument("number", metavar="ID", type=int)
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking; needed without a terminal.")
def skip(config: str, sites: Sequence[str], as_json: bool, number: int, yes: bool) -> None:
    """Drop a parked change for good. It stays on record among the conflicts; the row may then differ (see audit)."""
    app = open_app(config)
    site, change = _find(app, sites, number)
    if not yes:
        if as_json or not can_ask():
            raise click.UsageError("a change is not dropped without --yes")
        _show_change(site, change)
        click.confirm("drop this change for good?", abort=True)
    with closing(app.target(site, ())) as target:
        target.skip_parked(number)
    if as_json:
        show_json({"skipped": _document(site, change)})
    else:
        say(f"dropped change {number} of {change.table} {change.key}; it is on record: replicator conflicts list")


@parked.command()
@common
@click.argument("number", metavar="ID", type=int)
@click.option("--set", "values", metavar="COLUMN=VALUE", multiple=True, help="A new value, as text; repeatable.")
@click.option("--null", "nulls", metavar="COLUMN", multiple=True, help="Make this column NULL; repeatable.")
def edit(
    config: str, sites: Sequence[str], as_json: bool, number: int, values: Sequence[str], nulls: Sequence[str]
) -> None:
    """Change values of a parked change (the site's columns, not its key), before trying it again.

    The site keeps its own values: audit goes on naming the row until it is corrected there, too.
    """
    from replicator.parked import edit as edit_change

    edits: dict[str, str | None] = dict.fromkeys(nulls)
    for text in values:
        column, equals, value = text.partition("=")
        if not (column and equals):
            raise click.BadParameter(f"{text!r} is not COLUMN=VALUE", param_hint="--set")
        if column in edits:
            raise click.UsageError(f"column {column} is named twice")
        edits[column] = value
    if not edits:
        raise click.UsageError("nothing to change: use --set COLUMN=VALUE or --null COLUMN")
    app = open_app(config)
    site, found = _find(app, sites, number)
    plans = app.link_plans(site)
    with closing(app.target(site, plans)) as target:
        edit_change(target, plans, found, edits)
        (change,) = target.list_parked(ids=[number])
    if as_json:
        show_json(_document(site, change))
    else:
        _show_change(site, change)
        say(f"next: replicator parked retry {number}")


def _find(app: App, sites: Sequence[str], number: int) -> tuple[str, ParkedChange]:
    from replicator.parked import find_change

    def opened(site: str) -> Target:
        return app.target(site, ())

    return find_change(app.chosen(sites), opened, number)


def _document(site: str, change: ParkedChange) -> dict[str, object]:
    return {**asdict(change), "link": site, "op": change.op.name.lower()}


def _show_change(site: str, change: ParkedChange) -> None:
    say(f"change {change.id}: {_word(change)} of {change.table} {change.key} from {site}")
    say(f"  {change.state} since {at(change.parked_at)}, tried {count(change.attempts, 'time')}")
    code = f" [{change.sqlstate}]" if change.sqlstate and f"[{change.sqlstate}]" not in change.cause else ""
    say(f"  cause: {_cause(change.cause)}{code}", BAD)
    columns = list(dict.fromkeys([*(change.before or {}), *(change.after or {})]))
    rows = [
        (f"  {name}", *("" if row is None else shown(row.get(name), 200) for row in (change.before, change.after)))
        for name in columns
    ]
    if rows:
        show_table(("  column", "before", "after"), rows)


def _show_tried(change: ParkedChange, applied: bool | None, cause: str) -> None:
    row = f"change {change.id} of {change.table} {change.key}"
    if applied:
        say(f"{row}: applied", GOOD)
    elif applied is None:
        say(f"{row}: not tried, {cause}", WARN)
    else:
        say(f"{row}: refused again: {_cause(cause)}", BAD)


def _word(change: ParkedChange) -> str:
    """What the change does, as people say it."""
    name = change.op.name.lower().replace("_", " ")
    return {"state": "write", "gone": "delete"}.get(name, name)


def _cause(cause: str) -> str:
    """The cause on one line, without the centre's address: it is always the centre."""
    return " ".join(re.sub(r"^(postgresql://|/)[^\s:]*(:\d+)?\S*: ", "", cause).split())
