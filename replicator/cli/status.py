"""``replicator status``: how far every link is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from replicator.cli.check import config_flag
from replicator.cli.loading import document, title, told
from replicator.cli.options import common, open_app
from replicator.cli.outboxes import show_outboxes
from replicator.cli.output import (
    BAD,
    EXIT_DIFFERENT,
    GOOD,
    WARN,
    count,
    say,
    seconds,
    show_error,
    show_json,
    show_table,
)

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.capacity import Capacity
    from replicator.model import Finding, LinkName, LinkRecord
    from replicator.ports import Source
    from replicator.status import LinkStatus

_EPILOG = """\b
States:
  up to date    both sides were asked just now, and nothing is missing
  behind        changes wait; `oldest` is the age of the oldest
  stalled       behind, and no replicator has worked on it for minutes
  never ran     nothing has been brought yet; `oldest`: since the link's install
  unreachable   the site or the centre does not answer
  broken        both answer, but a person has to mend something first
  expired       away for longer than the retention: replicator rejoin

Of a site that is away, the link from the centre is shown from what the centre knows.

Below the links: each outbox with the room it has, and how long that lasts at the present rate if nothing is taken out.

\b
Examples:
  replicator status
  replicator status --max-lag 30 --json

Exit codes: 0 every link is healthy, 1 one is not (not up to date or behind, older than --max-lag, or with parked
changes), or an outbox is full or no longer written, or changes were missed and a site is to be resynced, 3 the centre does
not answer.
"""


@click.command(epilog=_EPILOG, short_help="How far every link is, and whether it is healthy.")
@common
@click.option("--max-lag", metavar="SECONDS", type=click.FloatRange(min=0), default=60.0, show_default=True,
              help="Oldest change that may be missing at its target.")  # fmt: skip
def status(config: str, sites: Sequence[str], as_json: bool, max_lag: float) -> None:
    """Show per link: state, how much and how old is what is missing, the last proof, parked, conflicts, clock skew.

    Links to the centre and from it are shown apart.

    Backfills that are not done are named below, with their rows and rate.

    Everything is asked of the databases now; nothing is read from a flag.
    """
    from replicator.backfill import Progress, average

    app = open_app(config)
    found = read(app, app.chosen(sites))
    ahead = _clocks(app, sites)
    backfills = [each for each in app.backfills(app.chosen(sites))[0] if each.unfinished]
    now = int(time.time() * 1e6)
    outboxes = _outboxes(app, sites)
    held = [line for site in app.chosen(sites) for line in app.mender.held(site)]
    healthy = all(each.healthy(max_lag) for each in found) and all(each.healthy for each in outboxes)
    if as_json:
        links = [
            {"site": each.link.site, "direction": each.link.direction, "healthy": each.healthy(max_lag), **_plain(each)}
            for each in found
        ]
        show_json({
            "topology": app.settings.topology, "healthy": healthy, "max_lag_seconds": max_lag, "links": links,
            "clocks": [asdict(each) for each in ahead], "backfills": [document(each, now) for each in backfills],
            "held": held, "outboxes": [{**asdict(each), "healthy": each.healthy} for each in outboxes],
        })  # fmt: skip
    else:
        _show(found, max_lag, config_flag(config), outboxes)
        for each in ahead:
            say(f"warning: {each.subject} of {each.place}: {each.message}. {each.fix}", WARN)
        for each_order in backfills:
            say(
                f"backfill {title(each_order)}: {each_order.state}, {told(Progress(each_order, average(each_order, now)))}"
            )
        for line in held:
            say(line, WARN)
        if backfills:
            say(f"see backfills: replicator backfill status{config_flag(config)}")
    raise SystemExit(0 if healthy else EXIT_DIFFERENT)


def read(app: App, sites: Sequence[str]) -> list[LinkStatus]:
    """Status of the sites' links. Raises when the centre does not answer."""
    from replicator.settings import CENTRE
    from replicator.status import Looks, read_all

    records, now = app.read_links()
    failed = app.read_catalogues((CENTRE, *sites))
    app.recall(failed)

    def looks(link: LinkName) -> Looks:
        def record() -> tuple[LinkRecord | None, int]:
            if link.direction.rises:
                return _of(link, records), now
            if link.site in failed:
                raise failed[link.site]
            found, clock = app.read_links(link.site)
            return _of(link, found), clock

        def source() -> Source:
            if link.direction.rises and link.site in failed:
                raise failed[link.site]
            plans = app.link_plans(link.site, link.direction) if app.knows(link.site) else ()
            return app.source(link, plans)

        return Looks(link, record, source, app.knows(link.site))

    return read_all([looks(link) for site in sites for link in app.links(site)])


def _clocks(app: App, sites: Sequence[str]) -> list[Finding]:
    """Places that answer whose hybrid clock is far ahead."""
    from replicator.check import check_hybrids
    from replicator.settings import CENTRE

    return list(
        check_hybrids([place for place in (CENTRE, *app.chosen(sites)) if place not in app.away], app.installable)
    )


def _outboxes(app: App, sites: Sequence[str]) -> list[Capacity]:
    """The outboxes of the places that answer."""
    from replicator.app.outboxes import capacities
    from replicator.settings import CENTRE

    return capacities(app, (CENTRE, *app.chosen(sites)))


def _of(link: LinkName, records: Sequence[LinkRecord]) -> LinkRecord | None:
    return next((record for record in records if record.link == link), None)


def _plain(each: LinkStatus) -> dict[str, object]:
    document = asdict(each)
    del document["link"]
    return document


def _show(found: Sequence[LinkStatus], max_lag: float, flag: str, outboxes: Sequence[Capacity]) -> None:
    head = ["link", "state", "behind", "oldest", "last proof", "parked", "conflicts", "skew"]
    undecided = any(each.undecided for each in found)
    if undecided:
        head.insert(7, "undecided")
    rows = []
    for each in found:
        row = [
            str(each.link), str(each.health), "–" if each.behind_changes is None else count(each.behind_changes, "change"),
            seconds(each.behind_seconds) if each.behind_changes else "–",
            "never" if each.proof_seconds is None else f"{seconds(each.proof_seconds)} ago",
            f"{each.parked:,}", f"{each.conflicts:,}", f"{each.skew_seconds:+.2f} s",
        ]  # fmt: skip
        if undecided:
            row.insert(7, f"{each.undecided:,}")
        rows.append(row)
    show_table(head, rows, [_style(each, max_lag) for each in found])
    _show_troubles(found)
    show_outboxes(outboxes)
    bad = [each for each in found if not each.healthy(max_lag)]
    if bad:
        say(f"{count(len(bad), 'link')} of {len(found)} not healthy: {', '.join(str(each.link) for each in bad)}", BAD)
    elif full := [each.place for each in outboxes if not each.healthy]:
        say(f"{count(len(found), 'link')} healthy, but not the outbox of {', '.join(full)}", BAD)
    else:
        say(f"{count(len(found), 'link')} healthy", GOOD)
    if any(each.parked for each in found):
        say(f"see what is parked: replicator parked list{flag}")
    if undecided:
        say(f"decide what waits for you: replicator conflicts list --waiting{flag}")


def _show_troubles(found: Sequence[LinkStatus]) -> None:
    for each in found:
        if each.horizon_holder:
            say(f"{each.link}: held back by {each.horizon_holder}", WARN)
        if each.alarm:
            say(f"{each.link}: {each.alarm}", WARN)
        if each.problem:
            show_error(f"{each.link}: {each.problem}", each.hint)


def _style(each: LinkStatus, max_lag: float) -> str:
    if not each.healthy(max_lag):
        return BAD
    return WARN if each.behind_changes else ""
