"""Captured tables of a site that are gone or called otherwise: the link to the centre goes on, and what waits is not lost.

A renamed table goes on under the name it was captured by, until the YAML names it or install gives it up. Of one that was
dropped, PostgreSQL's outbox has whole images, which go on; SQLite's has keys, which wait for the table to come back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.errors import SetupError
from replicator.holding import hold_absent
from replicator.model import Catalogue, Engine, LinkName, TableName, TablePlan, TableShape
from replicator.resolve import matches
from replicator.settings import CENTRE
from replicator.topology import compile_site

if TYPE_CHECKING:
    from replicator.app.topology import App


class GoneError(SetupError):
    """A captured table is not there any more."""


@dataclass(frozen=True, slots=True)
class Gone:
    """One captured table that its site has no more under this name.

    ``now``: what it is called there; ``shape``: as what its changes go on; ``target``: its table at the centre.
    """

    site: str
    name: TableName
    now: TableName | None
    shape: TableShape | None
    target: str = ""

    @property
    def news(self) -> str:
        """What became of it, and what to do."""
        install = f"replicator install --site {self.site}"
        if self.now is not None:
            return (
                f"{self.site}: table {self.name} is called {self.now} now; its changes go on to {self.target or self.name}. "
                f"Rename it back, or put in the YAML: {{name: {self.now}, target: {self.target or self.name}}}, "
                f"and run: {install}"
            )
        waits = (
            "its last changes still go to the centre"
            if self.shape
            else "changes that wait of it are kept until it is back"
        )
        return (
            f"{self.site}: table {self.name} is gone; {waits}. If it is not to come back, run: {install} (gives it up)"
        )


def find_gone(app: App, site: str, remembered: Mapping[TableName, TableShape]) -> list[Gone]:
    """A site's captured tables that rules name and the site does not have under their names. Raises what reading raises."""
    now = app.catalogue(site)
    with closing(app.installable(site)) as database:
        missing = database.list_captured(app.settings.topology).keys() - now.tables.keys()
        renamed = database.list_renamed(app.settings.topology) if missing else {}
    found = []
    for name in sorted(missing):
        called = renamed.get(name)
        if not is_ruled(app, name, now.engine) and (called is None or not is_ruled(app, called, now.engine)):
            continue
        shape = now.tables.get(called) if called is not None else None
        if called is None and now.engine is Engine.POSTGRES:
            shape = remembered.get(name)
        found.append(Gone(site, name, called, shape and replace(shape, name=name)))
    return found


def is_ruled(app: App, name: TableName, engine: Engine) -> bool:
    """Whether a rule of the YAML names a table."""
    return any(matches(rule.name, name, engine) for rule in app.settings.tables)


def plans_without(app: App, link: LinkName, plans: Sequence[TablePlan], gone: Sequence[Gone]) -> tuple[TablePlan, ...]:
    """A rising link's plans while tables of it are gone: these go on as what they were. Own short transactions at the site.

    Raises GoneError where that cannot be known.
    """
    now, centre = app.catalogue(link.site), app.catalogue(CENTRE)
    for each in gone:
        if each.shape is None and now.engine is Engine.POSTGRES:
            raise GoneError(
                f"{link.site}: table {each.name} is gone, and what it was like is not known any more",
                hint=f"make it again; or give it up, with what waits of it: replicator install --site {link.site}",
            )
        if each.shape is None:
            with closing(app.installable(link.site)) as database:
                database.set_aside(app.settings.topology, each.name)
    ghosts = Catalogue(now.engine, now.version, {each.name: each.shape for each in gone if each.shape is not None})
    compiled = compile_site(app.filled_settings(), link.site, ghosts, centre, lenient=True).plans[link.site]
    going_on = {plan.source.name: hold_absent(plan, centre) for plan in compiled if plan.source.name in ghosts.tables}
    for each in gone:
        if each.now is not None and each.name not in going_on:
            raise GoneError(
                f"{link.site}: table {each.name} is called {each.now} now, and is not captured under that name yet",
                hint=f"run: replicator install --site {link.site}",
            )
    called = {each.now for each in gone}
    return (*(plan for plan in plans if plan.source.name not in called), *going_on.values())


def news_of(gone: Sequence[Gone], plans: Collection[TablePlan]) -> Iterator[str]:
    """What became of tables that are gone, one sentence or two each."""
    targets = {plan.source.name: str(plan.target) for plan in plans}
    for each in gone:
        yield replace(each, target=targets.get(each.name, "")).news
