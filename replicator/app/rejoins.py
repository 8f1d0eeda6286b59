"""What ``rejoin`` needs of a topology: a site's links, tables and databases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from replicator.errors import BatchError
from replicator.model import Direction, LinkName, TablePlan
from replicator.ports import Reached
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
        reached=lambda: read_reached(app, site, plans.get(Direction.TO_CENTRE, ())),
        at_site=lambda: app.epochs(site), at_centre=lambda: app.epochs(CENTRE),
        target=lambda link: app.target(link, plans.get(link.direction, ())), drain=drain, say=say,
        prepare=lambda: prepare_log(app, site, plans.get(Direction.TO_CENTRE, ()), say), covered=lambda: close_gap(app, site),
    )  # fmt: skip


def read_reached(app: App, site: str, plans: Sequence[TablePlan]) -> Reached | None:
    """How far the centre has read a site, and whether in the history that the site's database has now."""
    link = app.link(site)
    record = next((each for each in app.read_links()[0] if each.link == link), None)
    if record is None or record.position is None:
        return None
    with closing(app.source(link, plans)) as source, closing(app.target(link, plans)) as target:
        try:
            proven = source.prove_history(record.position, record.stamp, target.read_identity())
        except BatchError:
            proven = False
    return Reached(record.position, proven)


def prepare_log(app: App, site: str, plans: Sequence[TablePlan], say: Callable[[str], None]) -> None:
    """Where changes come from the log: make a slot anew that does not go with the database.

    Of one that does, the outbox gets everything, so that what the centre has of it already is known by its time.
    """
    log = app.log_of(site)
    if log is None:
        return
    with closing(log):
        topology = app.settings.topology
        if not log.reads_on(topology):
            say(f"{app.link(site)}: making the replication slot anew")
            log.install(log.plan_site(topology, [plan for plan in plans if not plan.hold]))
        elif not log.has_gap(topology):
            app.fill_outbox(site)


def close_gap(app: App, site: str) -> None:
    """All rows of the site are on order: whatever its log misses comes with them."""
    log = app.log_of(site)
    if log is not None:
        with closing(log):
            log.close_gap(app.settings.topology)


def begin_centre(app: App) -> None:
    """A new epoch of a centre that was put back: whoever still has the old one is told apart."""
    with closing(app.epochs(CENTRE)) as centre:
        centre.begin_centre()
