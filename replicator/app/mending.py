"""Capture that no longer fits its tables is made anew by whoever runs the links, where that can be done safely.

Only tables that are captured already, only the statements that install would run for them, and never a long one: what has to
be done by a person is said, with the command.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from replicator.differences import describe
from replicator.errors import SetupError
from replicator.model import Catalogue, CentralTable, DatabasePlan, Direction, LinkName, TableName, TablePlan, kept
from replicator.resolve import matches
from replicator.settings import CENTRE
from replicator.topology import compile_site, compile_topology

if TYPE_CHECKING:
    from replicator.app.topology import App

_LARGEST = 200_000
"""Rows of a table that are captured anew without a person's word."""
_UPWARD = {"direction": Direction.TO_CENTRE, "where": "", "follows": None, "policy": None}
_FOREIGN = ("migration ", "schema ", "rows of link")


class GoneError(SetupError):
    """A captured table is not there any more."""


class Mender:
    """Makes capture right for the links of one topology; may be called from any thread."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()

    def look(
        self, link: LinkName, plans: Sequence[TablePlan], now: Catalogue, before: Catalogue | None, *, again: bool
    ) -> list[str]:
        """Before a link begins: make capture right, and say what changed and what is held.

        ``now``: the site's tables; ``before``: as they were, where they are not any more; ``again``: after an error. Raises
        SetupError where the link has to wait: what cannot be taken can be parked at the centre, but not at a site.
        """
        for plan in plans:
            if plan.hold and not link.direction.rises:
                message = f"{link} waits for table {plan.source.name}: {plan.hold}"
                raise SetupError(message, hint="run: replicator schema diff")
        news = list(site_news(link.site, before, now))
        news += self.mend_site(link.site, drifted=before is not None or again)
        if again and not link.direction.rises:
            news += self.mend_centre()
        return [*news, *held_news(plans)]

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
        """What is held of a site's tables, one sentence each; nothing where they are not known or not right at all."""
        try:
            found = (
                [self._app.link_plans(site, link.direction) for link in self._app.links(site)]
                if self._app.knows(site)
                else []
            )
        except SetupError:
            return []  # the link's own state says it
        return list(dict.fromkeys(line for plans in found for line in held_news(plans)))

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
                captured = database.list_captured(self._app.settings.topology)
                self._require_present(site, captured)
                plans = [plan for plan in self._app.link_plans(site) if plan.source.name in captured]
                if not plans or not (drifted or any(_differs(plan, captured[plan.source.name]) for plan in plans)):
                    return []
                plan = database.plan_site(self._app.settings.topology, plans)
                if obstacle := self._obstacle(plan, plans):
                    return [f"{site}: {obstacle}"]
                database.install(plan)
            except SetupError as error:
                return [
                    f"{site}: capture could not be made anew: {error.message}; run: replicator install --site {site}"
                ]
        return [f"{site}: {step.purpose}" for step in plan.statements]

    def _require_present(self, site: str, captured: Iterable[TableName]) -> None:
        """A table that is gone may have left changes that wait: they would be passed over. Raises GoneError."""
        catalogue = self._app.catalogue(site)
        rules = self._app.settings.tables
        for name in captured:
            if name not in catalogue.tables and any(matches(rule.name, name, catalogue.engine) for rule in rules):
                raise GoneError(
                    f"{site}: table {name} is gone, dropped or renamed, and changes of it may wait to be brought",
                    hint=f"rename it back; or give it up, with what waits of it: replicator install --site {site}",
                )

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


def site_news(site: str, before: Catalogue | None, now: Catalogue) -> Iterator[str]:
    """What has changed in a site's tables since they were looked at last, one sentence each."""
    for name, was in before.tables.items() if before is not None else ():
        shape = now.tables.get(name)
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
