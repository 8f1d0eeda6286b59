"""``replicator change status``: where one change of a site has arrived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from replicator.cli.options import common, open_app
from replicator.cli.output import EXIT_DIFFERENT, EXIT_ERROR, GOOD, WARN, say, show_error, show_json, show_table
from replicator.cli.times import at
from replicator.errors import ReplicatorError, SetupError
from replicator.model import Direction

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.model import CapturedChange, LinkName, Position, RowEvent, TablePlan

_EPILOG = """\b
Examples:
  replicator change status clinic1:812
  replicator change status clinic1:812 --json

The number is the change's in its site's outbox: replicator history TABLE KEY shows it.
Exit codes: 0 it is where it belongs, 1 it is on its way or parked somewhere, 3 a place did not answer, or the
site's outbox has no such change (any more).
"""


_WAITS, _PARKED = "on its way", "parked"


@dataclass(frozen=True, slots=True)
class _Arrival:
    """One place and what became of the change there."""

    place: str
    state: str
    detail: str = ""


@click.group(epilog=_EPILOG, short_help="Where one change has arrived.")
def change() -> None:
    """See where one change of a site has arrived."""


@change.command(epilog=_EPILOG)
@common
@click.argument("name", metavar="SITE:ID")
def status(config: str, sites: Sequence[str], as_json: bool, name: str) -> None:
    """Show for one change of a site whether it is at the centre, what was decided, and which sites have it."""
    app = open_app(config)
    site, _, digits = name.rpartition(":")
    if not (site and digits.isascii() and digits.isdigit()):
        raise SetupError(f"{name!r} is no change", hint="write SITE:ID, such as clinic1:812")
    (site,) = app.chosen([site])
    found, arrivals, failed = _ask(app, site, int(digits), app.chosen(sites))
    arrived = not any(each.state in (_WAITS, _PARKED) for each in arrivals)
    if as_json:
        errors = {place: {"error": error.message, "hint": error.hint} for place, error in failed.items()}
        show_json({"change": found, "arrivals": [asdict(each) for each in arrivals], "failed": errors})
    else:
        say(f"change {name}: {found.event.what} of {found.table} {', '.join(found.key)} at {at(found.event.at)}")
        styles = [WARN if each.state in (_WAITS, _PARKED) else GOOD for each in arrivals]
        show_table(("  place", "state", ""), [(f"  {e.place}", e.state, e.detail) for e in arrivals], styles)
        for place, error in failed.items():
            show_error(f"{place}: {error.message}", error.hint)
    raise SystemExit(EXIT_ERROR if failed else 0 if arrived else EXIT_DIFFERENT)


def _ask(
    app: App, site: str, number: int, others: Sequence[str]
) -> tuple[CapturedChange, list[_Arrival], dict[str, ReplicatorError]]:
    link = app.link(site)
    plans = app.link_plans(site)
    position = _position(app, link, "centre")
    with closing(app.source(link, plans)) as source:
        found = source.read_change(number, position)
    if found is None:
        raise SetupError(
            f"there is no change {number} in the outbox of {site}",
            hint="never captured, or pruned once every link had passed it: see replicator history TABLE KEY",
        )
    plan = next((each for each in plans if str(each.source.name) == found.table), None)
    if plan is None:
        raise SetupError(f"{found.table} goes nowhere any more", hint="the YAML no longer names it")
    if not found.passed:
        return found, [_Arrival("centre", _WAITS)], {}
    key = (*(value for _, value in plan.constants), *found.key)
    with closing(app.target(link, plans)) as target:
        arrivals = [_at_centre(found, target.read_history(str(plan.target), key))]
    failed: dict[str, ReplicatorError] = {}
    for other in others:
        if other != site and app.link(other, Direction.FROM_CENTRE) in app.links(other):
            try:
                arrivals += _at_site(app, other, plan, key)
            except ReplicatorError as error:
                failed[other] = error
    return found, arrivals, failed


def _at_centre(found: CapturedChange, events: Sequence[RowEvent]) -> _Arrival:
    """What the centre did with the change; a conflict and a parked change carry its time."""
    same = [event for event in events if event.at == found.event.at or found.event.at == 0]
    parked = next((event for event in same if event.source == "parked"), None)
    if parked is not None:
        return _Arrival("centre", _PARKED, parked.detail)
    decided = next((event for event in same if event.source == "conflict"), None)
    return _Arrival("centre", "arrived", f"{decided.what} {decided.detail}".strip() if decided else "")


def _at_site(app: App, site: str, plan: TablePlan, key: Sequence[str]) -> Iterator[_Arrival]:
    """Whether something of the row is still on its way from the centre to a site."""
    link = app.link(site, Direction.FROM_CENTRE)
    plans = app.link_plans(site, link.direction)
    theirs = next((each for each in plans if each.source.name == plan.target), None)
    if theirs is None:
        yield _Arrival(site, "not sent there")
        return
    position = _position(app, link, site)
    with closing(app.source(link, plans)) as source:
        events = source.read_history(str(theirs.source.name), tuple(key))
        numbers = [int(event.detail.split(",")[0].removeprefix("change ")) for event in events]
        changes = [source.read_change(number, position) for number in numbers]
    waiting = [each for each in changes if each is not None and not each.passed]
    yield _Arrival(site, _WAITS if waiting else "nothing waits for it")


def _position(app: App, link: LinkName, place: str) -> Position | None:
    records, _ = app.read_links(place)
    return next((record.position for record in records if record.link == link), None)
