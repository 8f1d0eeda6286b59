"""A site whose history is not the one its links know comes back: a new epoch, positions from now on, every row looked at.

It was put back from a backup, copied, made anew, or away for longer than the retention; or the centre was put back. What is
true of its rows nobody knows without looking, so all that was believed of them is forgotten, and a backfill brings every row
of the site to the centre, which decides what differs as it decides conflicts. Only then the site reads its part anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from replicator.errors import LeaseError, SetupError
from replicator.model import BackfillState, Direction, LinkName, ParkedChange, Prefer, TablePlan
from replicator.ports import Begun, Epochs, Reached, Target

REASON = "rejoin"
"""Why the backfills are ordered."""
_LEASE_SECONDS, _LOOK_SECONDS = 40.0, 0.25


class PreferPlace(StrEnum):
    """Whose row stands where site and centre have different ones."""

    POLICY = "policy"
    """The table's policy decides; of a table that only the site writes, the site's."""
    SITE = "site"
    CENTRE = "centre"


_PREFERS = {
    PreferPlace.POLICY: Prefer.POLICY,
    PreferPlace.SITE: Prefer.SOURCE,
    PreferPlace.CENTRE: Prefer.TARGET,
}


@dataclass(frozen=True, slots=True)
class Rejoining:
    """One site and how its databases are opened.

    ``link``: its link to the centre; ``rises``, ``falls``: which links its rules use. ``tables``: what it sends, parents first.
    ``newest``: the time of the newest change the centre has of it (microseconds since 1970, 0: none). ``reached``: how far the
    centre has read the site, ``None`` where it knows nothing of it. ``at_site`` and
    ``at_centre`` open the two databases, ``target`` the target of a link, ``drain`` moves a link until nothing is left.
    ``prepare`` makes capture at the site work before anything is forgotten, ``covered`` says that backfills are on record which
    bring what it may have missed.
    """

    link: LinkName
    rises: bool
    falls: bool
    tables: Sequence[TablePlan]
    newest: int
    reached: Callable[[], Reached | None]
    at_site: Callable[[], Epochs]
    at_centre: Callable[[], Epochs]
    target: Callable[[LinkName], Target]
    drain: Callable[[LinkName], object]
    prepare: Callable[[], None]
    covered: Callable[[], None]
    say: Callable[[str], None]


def rejoin(site: Rejoining, prefer: PreferPlace, *, copy: bool) -> None:
    """Bring one site back; safe to repeat from the start after a crash at any point.

    ``copy``: its database is a copy of another site's and becomes one of its own. Raises LeaseError when a replicator keeps
    working on a link, and what the ports raise.
    """
    with closing(site.target(site.link)) as rising:
        if site.rises:
            _take_lease(rising)
            site.prepare()
        begun = _begin(site, copy=copy)
        if site.rises:
            _order(site, rising, prefer)
            site.covered()
        with closing(site.at_centre()) as centre:
            centre.begin_at_centre(site.link, begun, rises=site.rises, falls=site.falls)
    if site.rises:
        site.say(f"{site.link}: looking at every row of {len(site.tables)} tables")
        _load(site)
    if site.falls:
        with closing(site.at_site()) as here:
            here.let_fall(site.link.reverse)
        site.say(f"{site.link.reverse}: reading all of the site's part")


def list_parked(site: Rejoining) -> list[ParkedChange]:
    """Changes of the links set aside before: they are kept, and later changes of their rows wait behind them."""
    found: list[ParkedChange] = []
    for link, used in ((site.link, site.rises), (site.link.reverse, site.falls)):
        if used:
            with closing(site.target(link)) as target:
                found += target.list_parked()
    return found


def _begin(site: Rejoining, *, copy: bool) -> Begun:
    """The site's part, while nobody applies there."""
    reached = site.reached() if site.rises else None
    if not site.falls:
        with closing(site.at_site()) as here:
            return here.begin_at_site(site.link, site.newest, reached, rises=site.rises, falls=False, copy=copy)
    with closing(site.target(site.link.reverse)) as falling:
        _take_lease(falling)
        with closing(site.at_site()) as here:
            return here.begin_at_site(site.link, site.newest, reached, rises=site.rises, falls=True, copy=copy)


def _order(site: Rejoining, target: Target, prefer: PreferPlace) -> None:
    """Order every table anew: what was ordered before has passed rows that may be others now."""
    for each in target.list_backfills(unfinished=True):
        target.steer_backfill(each.id, BackfillState.CANCELLED)
    for plan in site.tables:
        alone = plan.direction is not Direction.BOTH and prefer is PreferPlace.POLICY
        wanted = Prefer.SOURCE if alone else _PREFERS[prefer]
        target.order_backfill(plan.source.name, prefer=wanted, reason=REASON)


def _load(site: Rejoining) -> None:
    """Move the link to the centre, or look on while a service does, until every row was looked at."""
    while True:
        try:
            site.drain(site.link)
        except LeaseError:
            time.sleep(_LOOK_SECONDS)
        with closing(site.target(site.link)) as target:
            left = target.list_backfills(unfinished=True)
        if not left:
            return
        paused = [each for each in left if each.state is BackfillState.PAUSED]
        if paused:
            raise SetupError(
                f"{site.link}: the backfill of {paused[0].table} is paused",
                hint=f"run: replicator backfill continue --site {site.link.site}, then rejoin again",
            )


def _take_lease(target: Target) -> None:
    """Wait for the lease: a service that stands before an error lets it go between two tries."""
    deadline = time.monotonic() + _LEASE_SECONDS
    while True:
        try:
            target.take_lease()
            return
        except LeaseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_SECONDS)
