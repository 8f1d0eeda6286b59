"""Wiring: settings → engines, plans, links. The only module that knows all of them.

Catalogues are read once per run and per database; a site that is away is simply not known yet, and its link asks again
each time it connects. Plans come parents first, so that engines can apply in that order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

from replicator.audit import Audit, Limits, TableReport, Watch
from replicator.engines.postgres.audit import PostgresAudit
from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.source import PostgresSource
from replicator.engines.postgres.target import PostgresTarget
from replicator.engines.sqlite.audit import SqliteAudit
from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.source import SqliteSource
from replicator.engines.sqlite.target import SqliteTarget
from replicator.engines.sqlite.watch import Watcher
from replicator.errors import ReplicatorError, SettingsError, SetupError
from replicator.model import Catalogue, Engine, LinkName, LinkRecord, Position, TableName, TablePlan
from replicator.ports import Auditable, InFlight, Installable, Source, Target
from replicator.settings import CENTRE, Database, Settings, load
from replicator.shapes import in_foreign_key_order
from replicator.topology import Topology, check_expressions, compile_site, compile_topology
from replicator.worker import Ends, LinkReport, Worker

__all__ = ["CENTRE", "App", "CapturedSource"]

_CONNECTIONS = 16
"""Target connections the service uses at most; with more links than that, each link connects only while it moves."""


class CapturedSource(Source, InFlight, Protocol):
    """A source as both engines have it: it also tells what is in flight."""


class App:
    """One topology, ready to work with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._watcher = Watcher()
        self._catalogues: dict[str, Catalogue] = {}
        self._compiled: tuple[frozenset[str], Topology] | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path) -> App:
        """Load a topology YAML and check all that can be checked without a database. Raises SettingsError."""
        settings = load(path)
        check_expressions(settings)
        return cls(settings)

    # --- places ---

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of all sites."""
        return tuple(self.settings.sites)

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """The sites called ``names``, all when empty. Raises SettingsError for a name the YAML does not have."""
        for name in names:
            if name not in self.settings.sites:
                raise self._unknown_site(name)
        return tuple(names) or self.sites

    def _unknown_site(self, name: str) -> SettingsError:
        return self.settings.error(
            f"there is no site {name!r}", key="sites", hint=f"sites are: {', '.join(self.sites)}"
        )

    def database(self, place: str) -> Database:
        """The settings of a place: a site's name, or CENTRE."""
        return self.settings.centre if place == CENTRE else self.settings.sites[place]

    def link(self, site: str) -> LinkName:
        """The site's link to the centre."""
        return LinkName(self.settings.topology, site)

    # --- engines ---

    def installable(self, place: str) -> Installable:
        """A place as a database to install into; close it."""
        database = self.database(place)
        if database.engine is Engine.SQLITE:
            return SqliteInstaller(database.path, may_be_absent=place == CENTRE)
        return PostgresInstaller(database.dsn)

    def auditable(self, place: str) -> Auditable:
        """A place as a database to digest; close it."""
        database = self.database(place)
        if database.engine is Engine.SQLITE:
            return SqliteAudit(database.path)
        return PostgresAudit(database.dsn)

    def source(self, site: str, plans: Sequence[TablePlan]) -> CapturedSource:
        """A site as the source of its link; close it."""
        database = self.database(site)
        if database.engine is Engine.SQLITE:
            return SqliteSource(database.path, self.link(site), plans, watcher=self._watcher)
        return PostgresSource(database.dsn, self.link(site), plans)

    def target(self, site: str, plans: Sequence[TablePlan]) -> Target:
        """The centre as the target of a site's link; close it."""
        if self.settings.centre.engine is Engine.SQLITE:
            return SqliteTarget(self.settings.centre.path, self.link(site), plans)
        return PostgresTarget(self.settings.centre.dsn, self.link(site), plans)

    # --- plans ---

    def read_catalogues(self, places: Iterable[str] = ()) -> Mapping[str, ReplicatorError]:
        """Read the catalogues of ``places`` (all when empty), several at a time; those that failed, with their error."""
        wanted = tuple(places) or (CENTRE, *self.sites)
        failed: dict[str, ReplicatorError] = {}

        def read(place: str) -> None:
            if place == CENTRE and self._is_unmade(place):
                with self._lock:
                    self._catalogues[place] = Catalogue(Engine.SQLITE, "", {})
                return
            try:
                with closing(self.installable(place)) as database:
                    catalogue = database.read_catalogue()
            except ReplicatorError as error:
                failed[place] = error
                return
            with self._lock:
                self._catalogues[place] = catalogue
                self._compiled = None

        with ThreadPoolExecutor(max_workers=min(8, len(wanted))) as pool:
            list(pool.map(read, wanted))
        return failed

    def _is_unmade(self, place: str) -> bool:
        """Whether the place is a SQLite file that is not there yet; a centre's is made by install."""
        database = self.database(place)
        return database.engine is Engine.SQLITE and not database.path.exists()

    def topology(self) -> Topology:
        """The topology compiled against the catalogues read so far; the centre's is required.

        Raises SetupError or SettingsError when rules and tables do not fit, RetryableError when the centre is away.
        """
        if CENTRE not in self._catalogues:
            self._require(CENTRE)
        with self._lock:
            known = frozenset(self._catalogues)
            if self._compiled is None or self._compiled[0] != known:
                sites = {site: self._catalogues[site] for site in self.sites if site in known}
                self._compiled = known, compile_topology(self.settings, sites, self._catalogues[CENTRE])
            return self._compiled[1]

    def _require(self, place: str) -> None:
        for error in self.read_catalogues([place]).values():
            raise error

    def forget(self, place: str) -> None:
        """Read a place's catalogue again when it is next needed."""
        with self._lock:
            self._catalogues.pop(place, None)
            self._compiled = None

    def plans(self, site: str) -> tuple[TablePlan, ...]:
        """What a site captures, parents first. Raises what ``topology`` raises, for the site as well."""
        if site not in self._catalogues:
            self._require(site)
        topology = self.topology()
        order = {shape.name: place for place, shape in enumerate(topology.centre_tables)}
        return tuple(sorted(topology.plans[site], key=lambda plan: order[plan.target]))

    def plans_at(self, place: str) -> tuple[TablePlan, ...]:
        """The plans that concern a place: a site's own; for the centre those of every site read so far."""
        if place != CENTRE:
            return self.plans(place)
        known = [site for site in self.sites if site in self._catalogues]
        return tuple(plan for site in known for plan in self.plans(site))

    def read_links(self) -> tuple[list[LinkRecord], int]:
        """What the centre has on record of its links, and its clock (microseconds since 1970)."""
        with closing(self.installable(CENTRE)) as centre:
            return list(centre.list_links(self.settings.topology)), centre.read_clock()

    def link_plans(self, site: str) -> tuple[TablePlan, ...]:
        """As ``plans``, but another site whose tables do not fit the topology does not stop this one (invariant 9)."""
        for place in (site, CENTRE):
            if place not in self._catalogues:
                self._require(place)
        try:
            return self.plans(site)
        except SetupError:
            with self._lock:
                site_catalogue, centre = self._catalogues[site], self._catalogues[CENTRE]
            plans = {plan.target: plan for plan in compile_site(self.settings, site, site_catalogue, centre)}
            ordered = in_foreign_key_order(plan.target_shape for plan in plans.values())
            return tuple(plans[shape.name] for shape in ordered)

    # --- work ---

    def audit(self, site: str, plans: Sequence[TablePlan], limits: Limits) -> Iterator[TableReport]:
        """Audit a site's tables one by one; read only, also while the replicator works."""
        link = self.link(site)
        with ExitStack() as opened:
            source, target = (opened.enter_context(closing(self.auditable(place))) for place in (site, CENTRE))
            in_flight = opened.enter_context(closing(self.source(site, self.link_plans(site))))
            centre = opened.enter_context(closing(self.installable(CENTRE)))

            def record() -> LinkRecord | None:
                return next((each for each in centre.list_links(link.topology) if each.link == link), None)

            def position() -> Position | None:
                known = record()
                return known.position if known else None

            def parked(plan: TablePlan) -> set[tuple[str | None, ...]]:
                known = record()
                return self._parked_keys(site, plan) if known and known.parked else set()

            watch = Watch(in_flight, position, parked)
            yield from Audit(site, source, target, watch, limits=limits, shared=self._shared()).run(plans)

    def _parked_keys(self, site: str, plan: TablePlan) -> set[tuple[str | None, ...]]:
        """Source keys of the changes of one table that are parked."""
        with closing(self.target(site, ())) as target:
            changes = target.list_parked(table=str(plan.target))
        images = [image for change in changes for image in (change.before, change.after) if image is not None]
        return {tuple(_text(image.get(name)) for name in plan.key) for image in images}

    def _shared(self) -> set[TableName]:
        """Target tables that more than one site writes, as far as is known, with nothing that tells their rows apart."""
        feeders: dict[TableName, int] = {}
        unknown = False
        for site in self.sites:
            try:
                plans = self.link_plans(site) if site in self._catalogues else None
            except SetupError:
                plans = None
            unknown = unknown or plans is None
            for plan in plans or ():
                feeders[plan.target] = feeders.get(plan.target, 0) + (not plan.constants)
        return {name for name, sites in feeders.items() if sites > 1 or (sites and unknown)}

    def connect(self, site: str) -> Ends:
        """Both ends of a site's link, planned against the catalogues as they are now."""
        plans = self.link_plans(site)
        return Ends(self.source(site, plans), self.target(site, plans))

    def workers(self, sites: Sequence[str], listen: Callable[[LinkReport], None] = lambda report: None) -> list[Worker]:
        """A worker per site. When links outnumber the connections meant for the centre, they take turns."""
        few = len(sites) <= _CONNECTIONS
        turn = None if few else threading.BoundedSemaphore(_CONNECTIONS)
        return [
            Worker(
                self.link(site), self._connector(site), batch_changes=self.settings.defaults.batch_changes,
                listen=listen, slot=turn, keep_open=few,
            )
            for site in sites
        ]  # fmt: skip

    def _connector(self, site: str) -> Callable[[], Ends]:
        """Opens a link's ends; from the second time on it reads both sides' tables anew, as they may have changed."""
        connected: list[bool] = []

        def connect() -> Ends:
            if connected:
                for place in (site, CENTRE):
                    self._require(place)
            connected.append(True)
            return self.connect(site)

        return connect


def _text(value: object) -> str | None:
    return None if value is None else str(value)
