"""What an audit of one site needs from all floors: both databases, what is in flight on its links, what is parked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from replicator.audit import Audit, Audited, Limits, OnUnequal, TableReport, Watch
from replicator.errors import SetupError
from replicator.model import Direction, LinkName, LinkRecord, Position, TableName, TablePlan
from replicator.settings import CENTRE

if TYPE_CHECKING:
    from replicator.app.topology import App


def audited_tables(app: App, site: str) -> list[Audited]:
    """All tables of a site's links, each once: those that go to the centre first, parents first."""
    links = {link.direction for link in app.links(site)}
    rising = app.link_plans(site, Direction.TO_CENTRE) if Direction.TO_CENTRE in links else ()
    falling = app.link_plans(site, Direction.FROM_CENTRE) if Direction.FROM_CENTRE in links else ()
    for plan in (*rising, *falling):
        if plan.hold:
            message = f"site {site}: table {plan.source.name} cannot be compared: {plan.hold}"
            raise SetupError(message, hint="run: replicator schema diff")
    down = {plan.source.name: plan for plan in falling}
    found = [Audited(plan, down.pop(plan.target, None)) for plan in rising]
    return found + [Audited(None, plan) for plan in down.values()]


def audit_site(
    app: App, site: str, tables: Sequence[Audited | TablePlan], limits: Limits, on_unequal: OnUnequal | None = None
) -> Iterator[TableReport]:
    """Audit a site's tables one by one; read only, also while the replicator works.

    A plan of the link to the centre stands for its table, the link from the centre included. ``on_unequal``: called with
    every row that differs.
    """
    known = {each.rising.source.name: each for each in audited_tables(app, site) if each.rising is not None}
    wanted = [each if isinstance(each, Audited) else known.get(each.source.name, Audited(each)) for each in tables]
    with ExitStack() as opened:
        ours, theirs = (opened.enter_context(closing(app.auditable(place))) for place in (site, CENTRE))
        watches = {
            link.direction: _watch(app, link, opened)
            for link in app.links(site)
            if any(each.rising if link.direction.rises else each.falling for each in wanted)
        }
        audit = Audit(
            site, ours, theirs, watches.get(Direction.TO_CENTRE), falling=watches.get(Direction.FROM_CENTRE),
            limits=limits, shared=_shared(app), on_unequal=on_unequal,
        )  # fmt: skip
        yield from audit.run(wanted)


def _watch(app: App, link: LinkName, opened: ExitStack) -> Watch:
    """One link: its source says what is in flight, its target where it is and what is parked there."""
    plans = app.link_plans(link.site, link.direction)
    source = opened.enter_context(closing(app.source(link, plans)))
    place = opened.enter_context(closing(app.installable(CENTRE if link.direction.rises else link.site)))

    def record() -> LinkRecord | None:
        return next((each for each in place.list_links(link.topology) if each.link == link), None)

    def position() -> Position | None:
        known = record()
        return known.position if known else None

    def parked(plan: TablePlan) -> set[tuple[str | None, ...]]:
        known = record()
        return _parked_keys(app, link, plan) if known and known.parked else set()

    return Watch(source, position, parked)


def _parked_keys(app: App, link: LinkName, plan: TablePlan) -> set[tuple[str | None, ...]]:
    """Source keys of the changes of one table that are parked."""
    with closing(app.target(link, ())) as target:
        changes = target.list_parked(table=str(plan.target))
    images = [image for change in changes for image in (change.before, change.after) if image is not None]
    return {tuple(_text(image.get(name)) for name in plan.key) for image in images}


def _shared(app: App) -> set[TableName]:
    """Target tables that more than one site writes, as far as is known, with nothing that tells their rows apart."""
    feeders: dict[TableName, int] = {}
    unknown = False
    for site in app.sites:
        try:
            plans = app.link_plans(site) if app.knows(site) else None
        except SetupError:
            plans = None
        unknown = unknown or plans is None
        for plan in plans or ():
            feeders[plan.target] = feeders.get(plan.target, 0) + (not plan.constants)
    return {name for name, sites in feeders.items() if sites > 1 or (sites and unknown)}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
