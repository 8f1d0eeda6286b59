"""``replicator history``: what is known of one row, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from replicator.cli.options import common, open_app
from replicator.cli.output import (
    BAD,
    EXIT_DIFFERENT,
    EXIT_ERROR,
    errors_of,
    image,
    say,
    show_error,
    show_json,
    show_table,
)
from replicator.cli.times import at
from replicator.errors import ReplicatorError, SetupError

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.history import Known, Look
    from replicator.model import LinkName, TablePlan
    from replicator.ports import Source, Target

_EPILOG = """\b
Examples:
  replicator history patient 17
  replicator history devices_run factory_a 1 --json

Exit codes: 0 something is known, 1 nothing is, 3 a place did not answer (what the others know is shown).
"""


@click.command(epilog=_EPILOG, short_help="What is known of one row: who wrote what, where, when, what was decided.")
@common
@click.argument("table", metavar="TABLE")
@click.argument("key", metavar="KEY...", nargs=-1, required=True)
def history(config: str, sites: Sequence[str], as_json: bool, table: str, key: tuple[str, ...]) -> None:
    """Show what ledgers, conflicts, parked changes and outboxes know of one row, oldest first.

    TABLE is its name at the centre, KEY its key there: one argument per column.
    """
    from replicator.history import read_history

    app = open_app(config)
    failed = dict(app.read_catalogues())
    app.recall(failed)
    looks = list(_looks(app, app.chosen(sites), failed, table, key))
    if not looks and not failed:
        raise SetupError(f"no link carries a table {table!r}", hint="name it as it is called at the centre")
    found = read_history(looks)
    failed |= dict(found.failed)
    if as_json:
        events = [{"place": each.place, "link": str(each.link), **asdict(each.event)} for each in found.known]
        show_json({"table": table, "key": key, "events": events, "failed": errors_of(failed)})
    else:
        _show(found.known, f"{table} {', '.join(key)}")
        for place, error in failed.items():
            show_error(f"{place}: {error.message}", error.hint)
    raise SystemExit(EXIT_ERROR if failed else 0 if found.known else EXIT_DIFFERENT)


def _looks(
    app: App, sites: Sequence[str], failed: dict[str, ReplicatorError], table: str, key: tuple[str, ...]
) -> Iterator[Look]:
    """Both ends of every link that carries the table; of a site that is away the ends at the centre."""
    from replicator.history import Look
    from replicator.settings import CENTRE

    for site in sites:
        if not app.knows(site):
            continue
        for link in app.links(site):
            plans = app.link_plans(site, link.direction)
            for plan in plans:
                rises = link.direction.rises
                central, local = (plan.target, plan.source.name) if rises else (plan.source.name, plan.target)
                if str(central) != table:
                    continue
                short = key[-len(plan.key) :]
                ends = ((CENTRE, str(central), key), (site, str(local), short))
                source, target = ends[::-1] if rises else ends
                if source[0] not in failed:
                    yield Look(link, *source, _opener(app.source, link, plans))
                if target[0] not in failed:
                    yield Look(link, *target, _opener(app.target, link, plans))


def _opener(
    opened: Callable[[LinkName, Sequence[TablePlan]], Source | Target], link: LinkName, plans: Sequence[TablePlan]
) -> Callable[[], Source | Target]:
    return lambda: opened(link, plans)


def _show(known: Sequence[Known], row: str) -> None:
    if not known:
        say(f"nothing is known of {row}", BAD)
        return
    rows = [
        (
            at(each.event.at), each.place, each.event.source, each.event.origin or "application", each.event.what,
            image(each.event.image, 30) if each.event.image is not None else "", each.event.detail,
        )
        for each in known
    ]  # fmt: skip
    show_table(("at", "known at", "from", "by", "what", "values", "detail"), rows)
