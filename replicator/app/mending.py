"""Capture that no longer fits its tables is made anew by whoever runs the links, where that can be done safely.

Only tables that are captured already, only the statements that install would run for them, and never a long one: what has to
be done by a person is said, with the command.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.app.gone import GoneError, find_gone, is_ruled, news_of, plans_without
from replicator.app.memory import Memory
from replicator.differences import describe
from replicator.errors import SetupError
from replicator.model import Catalogue, CentralTable, DatabasePlan, Direction, LinkName, TableName, TablePlan, kept
from replicator.settings import CENTRE
from replicator.topology import compile_site, compile_topology

if TYPE_CHECKING:
    from replicator.app.topology import App

_LARGEST = 200_000
"""Rows of a table that are captured anew without a person's word."""
_UPWARD = {"direction": Direction.TO_CENTRE, "where": "", "follows": None, "policy": None}
_FOREIGN = ("migration ", "schema ", "rows of link")


class Mender:
    """Makes capture right for the links of one topology; may be called from any thread."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()

    def look(
        self, link: LinkName, plans: Sequence[TablePlan], now: Catalogue, memory: Memory, *, again: bool
    ) -> tuple[list[str], Sequence[TablePlan]]:
        """Before a link begins: make capture right, and say what changed and what is held; the plans it then has.

        ``now``: the site's tables; ``memory``: knows them as they were; ``again``: after an error. Raises SetupError where the
        link has to wait: what cannot be taken can be parked at the centre, but not at a site.
        """
        for plan in plans:
            if plan.hold and not link.direction.rises:
                message = f"{link} waits for table {plan.source.name}: {plan.hold}"
                raise SetupError(message, hint="run: replicator schema diff")
        known = memory.recall(link.site)
        was = known.tables if known is not None else {}
        gone = find_gone(self._app, link.site, was)
        kept_shapes = {each.name: was[each.name] for each in gone if each.name in was}
        before = memory.keep(link.site, replace(now, tables={**now.tables, **kept_shapes}))
        news = list(site_news(link.site, before, now, kept_shapes))
        news += self.mend_site(link.site, drifted=before is not None or again)
        gone = find_gone(self._app, link.site, was) if gone else gone
        if gone and not link.direction.rises:
            raise GoneError(f"{link} waits: {gone[0].news}", hint="see: replicator schema diff")
        if gone:
            plans = plans_without(self._app, link, plans, gone)
            news += news_of(gone, plans)
        if again and not link.direction.rises:
            news += self.mend_centre()
        return [*news, *held_news(plans)], plans

    def is_as_planned(self, site: str) -> bool:
        """Whether the tables of a site and of the centre are as they were read last."""
        for place in (site, CENTRE):
            known = self._app.catalogue(place)
            with closing(self._app.installable(place)) as database:
                if kept(database.read_catalogue()) != kept(known):
                    return False
        return True

    def plans(self, site: str) -> tuple[TablePlan, ...]:
        """Every table of a site as a plan of the link to the centre, whatever its direction; held where it does not fit."""
        app = self._app
        catalogue, centre = app.catalogue(site), app.catalogue(CENTRE)
        settings = app.filled_settings()
        rules = tuple(rule.model_copy(update=_UPWARD) for rule in settings.tables)
        upward = settings.model_copy(update={"tables": rules})
        return compile_site(upward, site, catalogue, centre, lenient=True).plans[site]

    def held(self, site: str) -> list[str]:
        """What is held of a site's tables, or gone, one sentence each; nothing where they are not known or not right at all."""
        if not self._app.knows(site) or site in self._app.away:
            return []
        try:
            found = [self._app.link_plans(site, link.direction) for link in self._app.links(site)]
            gone = news_of(find_gone(self._app, site, self._app.catalogue(site).tables), ())
        except SetupError:
            return []  # the link's own state says it
        return list(dict.fromkeys([*gone, *(line for plans in found for line in held_news(plans))]))

    def gone(self, site: str) -> list[tuple[TableName, str]]:
        """A site's captured tables that it has no more under their names, with what became of each. Raises as reading."""
        found = find_gone(self._app, site, self._app.catalogue(site).tables)
        return [(each.name, each.news) for each in found]

    def mend(self, site: str) -> list[str]:
        """Look at a site's tables again and make their capture right; what was done or has to be done, one sentence each."""
        self._app.forget(site)
        return self.mend_site(site, drifted=True)

    def _central(self) -> Sequence[CentralTable]:
        """What the centre captures for the sites known so far, also where some of their tables do not fit."""
        app = self._app
        sites = {site: app.catalogue(site) for site in app.sites if app.knows(site)}
        return compile_topology(app.filled_settings(), sites, app.catalogue(CENTRE), lenient=True).central

    def mend_site(self, site: str, *, drifted: bool) -> list[str]:
        """Make the capture of a site's tables as install would; what was done or has to be done, one sentence each.

        ``drifted``: something has changed there; else only tables are done whose columns are not those captured so far.
        """
        if Direction.TO_CENTRE not in {link.direction for link in self._app.links(site)}:
            return []
        with self._lock, closing(self._app.installable(site)) as database:
            try:
                captured = dict(database.list_captured(self._app.settings.topology))
                missing = captured.keys() - self._app.catalogue(site).tables.keys()
                renamed = database.list_renamed(self._app.settings.topology) if missing else {}
                called = set(renamed.values())
                engine = self._app.catalogue(site).engine
                held = {name for old, name in renamed.items() if not is_ruled(self._app, old, engine)}
                plans = [
                    plan
                    for plan in self._app.link_plans(site)
                    if plan.source.name in captured or plan.source.name in (held if plan.hold else called)
                ]
                if not plans or not (drifted or any(_differs(p, captured.get(p.source.name, ())) for p in plans)):
                    return []
                plan = database.plan_site(self._app.settings.topology, plans)
                plan = replace(plan, statements=tuple(step for step in plan.statements if not step.gives_up))
                if obstacle := self._obstacle(plan, plans):
                    return [f"{site}: {obstacle}"]
                database.install(plan)
            except SetupError as error:
                return [
                    f"{site}: capture could not be made anew: {error.message}; run: replicator install --site {site}"
                ]
        return [f"{site}: {step.purpose}" for step in plan.statements]

    def mend_centre(self) -> list[str]:
        """The same for the centre's own changes."""
        with self._lock, closing(self._app.installable(CENTRE)) as database:
            try:
                captured = database.list_captured(self._app.settings.topology)
                tables = [each for each in self._central() if each.table.name in captured]
                if not tables:
                    return []
                plan = database.plan_centre(self._app.settings.topology, (), tables)
                if obstacle := self._obstacle(plan, ()):
                    return [f"{CENTRE}: {obstacle}"]
                database.install(plan)
            except SetupError as error:
                return [f"{CENTRE}: capture could not be made anew: {error.message}; run: replicator install"]
        return [f"{CENTRE}: {step.purpose}" for step in plan.statements]

    @staticmethod
    def _obstacle(plan: DatabasePlan, plans: Sequence[TablePlan]) -> str:
        """Why a person has to run the plan; empty when nobody has to."""
        if any(step.object.startswith(_FOREIGN) or step.purpose.startswith("make ") for step in plan.statements):
            return "not installed as this version needs it; run: replicator install"
        rows = {f"rows of {each.source.name}": each.source.estimate for each in plans}
        for step in plan.statements:
            if rows.get(step.object, 0) > _LARGEST:
                return (
                    f"{rows[step.object]:,} {step.object.partition(' of ')[0]}: {step.purpose}; run: replicator install"
                )
        return ""


def _differs(plan: TablePlan, captured: Sequence[str]) -> bool:
    return {column.source for column in plan.columns} != set(captured)


def site_news(site: str, before: Catalogue | None, now: Catalogue, gone: Container[TableName]) -> Iterator[str]:
    """What has changed in a site's tables since they were looked at last, one sentence each; of those ``gone`` nothing."""
    for name, was in before.tables.items() if before is not None else ():
        shape = now.tables.get(name)
        if shape is None and name in gone:
            continue
        if shape is None:
            yield f"{site}: table {name} is gone"
        else:
            yield from (f"{site}: table {name}: {what}" for what in describe(was, shape))


def held_news(plans: Iterable[TablePlan]) -> Iterator[str]:
    """What of a link's tables is held, and what mends it."""
    for plan in plans:
        if plan.hold:
            yield f"table {plan.source.name} is held: {plan.hold}"
        for column in plan.held:
            yield f"column {column.name} of {plan.source.name} is held: {column.reason}; run at {column.place}: {column.fix}"
