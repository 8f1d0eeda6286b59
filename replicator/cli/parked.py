"""``replicator parked``: changes a database refused, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from replicator.cli.check import config_flag
from replicator.cli.options import common, open_app, plans_at_centre
from replicator.cli.output import (
    BAD,
    EXIT_DIFFERENT,
    EXIT_ERROR,
    GOOD,
    WARN,
    can_ask,
    count,
    errors_of,
    say,
    show_error,
    show_json,
    show_table,
    shown,
)
from replicator.cli.times import at
from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.model import LinkName, ParkedChange, TablePlan
    from replicator.parked import Found, Tried

_EPILOG = """\b
A change the centre refuses (a constraint, a value its type cannot hold) is set aside with its cause; later changes of
the same row wait behind it, everything else goes on. So does a site with what comes from the centre. A row whose cause
goes away is applied by itself; else mend the cause, then retry; or edit the change; or skip it.

Changes parked at the centre are called by their number, those at a site with its name before it: clinic1:7.

\b
Examples:
  replicator parked list
  replicator parked show 7
  replicator parked show clinic1:7
  replicator parked retry 7
  replicator parked retry --all
  replicator parked edit 7 --set result=12.5 --null comment
  replicator parked skip 7 --yes

Exit codes: 0 done, 1 a change was refused again, 3 a place did not answer (what the others know is shown), or error.
"""


_LIST = """\b
Examples:
  replicator parked list
  replicator parked list --site clinic1 --table patient --json

Exit codes: 0 listed (also when there is none), 3 a site did not answer (what the others know is shown), or error.
"""
_SHOW = """\b
Examples:
  replicator parked show 7
  replicator parked show clinic1:7

Exit codes: 0 shown, 3 error (such as no change of that number).
"""
_RETRY = """\b
Examples:
  replicator parked retry 7
  replicator parked retry --all

Exit codes: 0 applied, 1 one was refused again, 3 a site did not answer (the others are done), or error.
"""
_SKIP = """\b
Examples:
  replicator parked skip 7
  replicator parked skip clinic1:7 --yes

Exit codes: 0 dropped, 1 not confirmed, 2 called wrongly, 3 error.
"""
_EDIT = """\b
Examples:
  replicator parked edit 7 --set result=12.5 --null comment

Exit codes: 0 changed (now: replicator parked retry), 2 called wrongly, 3 error.
"""


@click.group(epilog=_EPILOG, short_help="Changes a database refused: list, show, retry, skip, edit.")
def parked() -> None:
    """List, show, retry, skip or edit changes that the centre or a site refused."""


@parked.command("list", epilog=_LIST)
@common
@click.option(
    "--table", metavar="NAME", default="", help="Only changes of this table, as it is called where they are parked."
)
def list_(config: str, sites: Sequence[str], as_json: bool, table: str) -> None:
    """List parked changes, oldest first."""
    app = open_app(config)
    found, failed = _list(app, sites, table)
    if as_json:
        show_json({"parked": [_document(each) for each in found], "failed": errors_of(failed)})
    else:
        _show_list(found, failed)
    raise SystemExit(EXIT_ERROR if failed else 0)


def _show_list(found: Sequence[Found], failed: Mapping[str, ReplicatorError]) -> None:
    _show_failed(failed)
    if not found:
        say("nothing else is parked" if failed else "nothing is parked", WARN if failed else GOOD)
        return
    head = ("id", "link", "table", "row", "change", "state", "since", "tries", "cause")
    rows = [
        (
            each.name, str(each.link), each.change.table, each.change.key, _word(each.change), str(each.change.state),
            at(each.change.parked_at), str(each.change.attempts), shown(_cause(each.change.cause), 90),
        )
        for each in found
    ]  # fmt: skip
    show_table(head, rows)
    say(f"{count(len(found), 'change')} parked; next: replicator parked show {found[0].name}", WARN)


@parked.command(epilog=_SHOW)
@common
@click.argument("name", metavar="ID")
def show(config: str, sites: Sequence[str], as_json: bool, name: str) -> None:
    """Show one parked change with its cause and its values, and the row that holds a unique value it wants."""
    app = open_app(config)
    found = _find(app, sites, name)
    blocking = _read_blocking(app, found)
    if as_json:
        show_json({**_document(found), "blocking": blocking})
    else:
        _show_change(found, blocking)
        _show_next(found, config_flag(config))


@parked.command(epilog=_RETRY)
@common
@click.argument("name", metavar="[ID]", required=False)
@click.option(
    "--all", "everything", is_flag=True, help="All parked changes; once one is refused, its row keeps waiting."
)
def retry(config: str, sites: Sequence[str], as_json: bool, name: str | None, everything: bool) -> None:
    """Apply a parked change again (or --all, in the order of their rows). Exit code 1 when one was refused again."""
    from replicator.parked import number_of
    from replicator.parked import retry as try_again

    if (name is None) is not everything:
        raise click.UsageError("name one change by its ID, or all of them with --all")
    app = open_app(config)
    found, failed = ([_find(app, sites, name)], {}) if name is not None else _list(app, sites)
    tried = []
    for link in dict.fromkeys(each.link for each in found):
        with closing(app.target(link, _plans(app, link))) as target:
            for each in try_again(link, target, [one.change for one in found if one.link == link]):
                tried.append(each)
                if not as_json:
                    _show_tried(each)
    applied = sum(each.applied is True for each in tried)
    if as_json:
        listed = [
            {
                "site": each.link.site,
                "direction": each.link.direction,
                "id": each.change.id,
                "name": number_of(each.link, each.change.id),
                "applied": each.applied,
                "cause": each.cause,
            }
            for each in tried
        ]
        show_json({"applied": applied, "tried": listed, "failed": errors_of(failed)})
    else:
        _show_failed(failed)
        say(f"{applied} of {count(len(tried), 'change')} applied" if tried else "nothing is parked")
    raise SystemExit(EXIT_ERROR if failed else 0 if applied == len(tried) else EXIT_DIFFERENT)


@parked.command(epilog=_SKIP)
@common
@click.argument("name", metavar="ID")
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking; needed without a terminal.")
def skip(config: str, sites: Sequence[str], as_json: bool, name: str, yes: bool) -> None:
    """Drop a parked change for good. It stays on record among the conflicts; the row may then differ (see audit)."""
    from replicator.parked import require_decided

    app = open_app(config)
    found = _find(app, sites, name)
    require_decided(found.change)
    if not yes:
        if as_json or not can_ask():
            raise click.UsageError("a change is not dropped without --yes")
        _show_change(found)
        click.confirm("drop this change for good?", abort=True)
    change = found.change
    with closing(app.target(found.link, _plans(app, found.link))) as target:
        target.skip_parked(change.id)
    if as_json:
        show_json({"skipped": _document(found)})
    else:
        say(f"dropped change {name} of {change.table} {change.key}; it is on record: replicator conflicts list")


@parked.command(epilog=_EDIT)
@common
@click.argument("name", metavar="ID")
@click.option("--set", "values", metavar="COLUMN=VALUE", multiple=True, help="A new value, as text; repeatable.")
@click.option("--null", "nulls", metavar="COLUMN", multiple=True, help="Make this column NULL; repeatable.")
def edit(
    config: str, sites: Sequence[str], as_json: bool, name: str, values: Sequence[str], nulls: Sequence[str]
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
    found = _find(app, sites, name)
    plans = _plans(app, found.link)
    with closing(app.target(found.link, plans)) as target:
        edit_change(target, plans, found.change, edits)
        (change,) = target.list_parked(ids=[found.change.id])
    found = replace(found, change=change)
    if as_json:
        show_json(_document(found))
    else:
        _show_change(found)
        say(f"next: replicator parked retry {name}{config_flag(config)}")


def _links(app: App, sites: Sequence[str]) -> list[LinkName]:
    return [link for site in app.chosen(sites) for link in app.links(site)]


def _plans(app: App, link: LinkName) -> Sequence[TablePlan]:
    """A link's plans; those of a link to the centre do not need the site."""
    return plans_at_centre(app, link) if link.direction.rises else app.link_plans(link.site, link.direction)


def _list(app: App, sites: Sequence[str], table: str = "") -> tuple[list[Found], dict[str, ReplicatorError]]:
    """What is parked at the centre and at the sites that answer; and the sites that do not, with their error."""
    from replicator.parked import list_changes

    links = _links(app, sites)
    found = list_changes([link for link in links if link.direction.rises], lambda link: app.target(link, ()), table)
    failed: dict[str, ReplicatorError] = {}
    for link in links:
        if not link.direction.rises:
            try:
                found += list_changes([link], lambda link: app.target(link, ()), table)
            except ReplicatorError as error:
                failed[link.site] = error
    return found, failed


def _show_failed(failed: Mapping[str, ReplicatorError]) -> None:
    for site, error in failed.items():
        show_error(f"what is parked at {site} is not known: {error.message}", error.hint)


def _find(app: App, sites: Sequence[str], name: str) -> Found:
    from replicator.parked import find_change

    return find_change(_links(app, sites), lambda link: app.target(link, ()), name)


def _read_blocking(app: App, found: Found) -> Mapping[str, object] | None:
    """The row that holds a unique value the change wants."""
    plans = _plans(app, found.link)
    with closing(app.target(found.link, plans)) as target:
        return target.find_blocking(found.change.id)


def _document(found: Found) -> dict[str, object]:
    change = found.change
    about = {"name": found.name, "link": found.link.site, "direction": found.link.direction}
    return {**asdict(change), **about, "op": change.op.name.lower()}


def _show_change(found: Found, blocking: Mapping[str, object] | None = None) -> None:
    change, link = found.change, found.link
    where = f"from {link.site}" if link.direction.rises else f"from the centre, parked at {link.site}"
    say(f"change {found.name}: {_word(change)} of {change.table} {change.key} {where}")
    say(f"  {change.state} since {at(change.parked_at)}, tried {count(change.attempts, 'time')}")
    code = f" [{change.sqlstate}]" if change.sqlstate and f"[{change.sqlstate}]" not in change.cause else ""
    say(f"  cause: {_cause(change.cause)}{code}", BAD)
    images = (change.before, change.after, *([blocking] if blocking else []))
    columns = list(dict.fromkeys(name for row in images for name in row or {}))
    rows = [(f"  {name}", *("" if row is None else shown(row.get(name), 200) for row in images)) for name in columns]
    if rows:
        show_table(("  column", "before", "after", *(["in its way"] if blocking else [])), rows)


def _show_next(found: Found, flag: str) -> None:
    """What ends the wait."""
    change = found.change
    if change.conflict:
        say(
            f"it waits for a decision on conflict {change.conflict}: replicator conflicts show {change.conflict}{flag}",
            WARN,
        )
        say(f"next: replicator conflicts resolve {change.conflict} --take site|centre{flag}")
    else:
        say(f"next: mend the cause, then replicator parked retry {found.name}{flag}; or parked edit, or parked skip")


def _show_tried(tried: Tried) -> None:
    from replicator.parked import number_of

    change = tried.change
    row = f"change {number_of(tried.link, change.id)} of {change.table} {change.key}"
    if tried.applied:
        say(f"{row}: applied", GOOD)
    elif tried.applied is None:
        say(f"{row}: not tried, {tried.cause}", WARN)
    else:
        say(f"{row}: refused again: {_cause(tried.cause)}", BAD)


def _word(change: ParkedChange) -> str:
    """What the change does, as people say it."""
    name = change.op.name.lower().replace("_", " ")
    return {"state": "write", "gone": "delete"}.get(name, name)


def _cause(cause: str) -> str:
    """The cause on one line, without the database's address: the link tells which one it is."""
    return " ".join(re.sub(r"^(postgresql://|/)[^\s:]*(:\d+)?\S*: ", "", cause).split())
