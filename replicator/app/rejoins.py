"""What ``rejoin`` needs of a topology: a site's links, tables and databases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from replicator.model import Direction, LinkName
from replicator.rejoin import Rejoining
from replicator.settings import CENTRE
from replicator.worker import Worker

if TYPE_CHECKING:
    from replicator.app.topology import App


def rejoining(app: App, site: str, say: Callable[[str], None]) -> Rejoining:
    """A site that is to rejoin. Raises as ``App.link_plans``."""
    links = app.links(site)
    directions = {link.direction for link in links}
    rises, falls = Direction.TO_CENTRE in directions, Direction.FROM_CENTRE in directions
    plans = {link.direction: app.link_plans(site, link.direction) for link in links}

    def drain(link: LinkName) -> object:
        worker = Worker(
            link, lambda again: app.connect(link.site, link.direction),
            batch_changes=app.settings.defaults.batch_changes,
        )  # fmt: skip
        return worker.drain()

    return Rejoining(
        link=app.link(site), rises=rises, falls=falls,
        tables=plans.get(Direction.TO_CENTRE, ()),
        newest=max((each.newest_changed_at for each in app.read_links()[0] if each.link == app.link(site)), default=0),
        at_site=lambda: app.epochs(site), at_centre=lambda: app.epochs(CENTRE),
        target=lambda link: app.target(link, plans.get(link.direction, ())), drain=drain, say=say,
    )  # fmt: skip


def begin_centre(app: App) -> None:
    """A new epoch of a centre that was put back: whoever still has the old one is told apart."""
    with closing(app.epochs(CENTRE)) as centre:
        centre.begin_centre()
