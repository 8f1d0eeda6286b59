"""The outboxes of a topology's places: how large they are, and who keeps them within their limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from replicator.capacity import Capacity, Guard, read_capacities
from replicator.settings import CENTRE

if TYPE_CHECKING:
    from replicator.app.topology import App
    from replicator.model import LinkName


def capacities(app: App, places: Sequence[str]) -> list[Capacity]:
    """How large the outboxes of these places are, and how long their room lasts; of those that answer and have one."""
    sends = {_reads(link) for site in app.sites for link in app.links(site)}
    wanted = [place for place in places if place in sends and place not in app.away]
    return read_capacities(wanted, app.outbox, app.settings.defaults.outbox.cap)


def read_gaps(app: App, sites: Sequence[str]) -> dict[str, int]:
    """Sites whose capture was stopped, and goes on since that time: for ``forget_gaps``, read before anything is compared."""
    found = {}
    for site in sites:
        with closing(app.outbox(site)) as outbox:
            facts = outbox.measure()
        if facts is not None and facts.resumed_at:
            found[site] = facts.resumed_at
    return found


def forget_gaps(app: App, gaps: Mapping[str, int]) -> None:
    """All tables of these sites have been found equal: what was written while their capture was stopped is not missing."""
    for site, resumed_at in gaps.items():
        with closing(app.outbox(site)) as outbox:
            outbox.forget_stop(resumed_at)


class Guards:
    """A guard per outbox: one for all the links that read it.

    Args:
        app: the topology.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._made: dict[str, Guard] = {}

    def of(self, link: LinkName) -> Callable[..., str]:
        """What looks after the outbox a link reads: see Guard.look."""
        place, app = _reads(link), self._app
        if place not in self._made:
            cap = app.settings.defaults.outbox.cap
            self._made[place] = Guard(place, lambda: app.outbox(place), cap, central=place == CENTRE)
        return self._made[place].look


def _reads(link: LinkName) -> str:
    return link.site if link.direction.rises else CENTRE
