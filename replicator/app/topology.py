"""The application's object: one topology, its catalogues, plans, links and workers.

Catalogues are read once per run and per database; a site that is away is simply not known yet, and its links ask again
each time they connect. Plans come parents first at their target, so that engines can apply in that order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path

from replicator.app.audits import audit_site, audited_tables
from replicator.app.backfills import read_backfills
from replicator.app.engines import CapturedSource, Engines
from replicator.app.first_loads import hold_first_loads, release_first_loads
from replicator.app.gaps import bring_missed
from replicator.app.memory import Memory
from replicator.app.mending import Mender
from replicator.app.outboxes import Guards
from replicator.audit import Audited, Limits, OnUnequal, TableReport
from replicator.engines.postgres.wal.installer import PostgresWalInstaller
from replicator.errors import ReplicatorError, SetupError
from replicator.holding import hold_absent
from replicator.install import Existing, Roles, install_database
from replicator.model import (
    Backfill,
    Catalogue,
    CentralTable,
    DatabasePlan,
    Direction,
    Engine,
    LinkName,
    LinkRecord,
    TablePlan,
)
from replicator.ports import Auditable, Epochs, Installable, Orders, Outbox, Target
from replicator.resolve import matches
from replicator.settings import CENTRE, Database, Settings, load, with_params
from replicator.shapes import in_foreign_key_order
from replicator.topology import Topology, check_expressions, compile_site, compile_topology
from replicator.worker import Ends, LinkReport, Worker

_CONNECTIONS = 16
"""Connections to the centre the service uses at most; with more links than that, each connects only while it moves."""


class App:
    """One topology, ready to work with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engines = Engines(settings)
        self._catalogues: dict[str, Catalogue] = {}
        self._compiled: tuple[frozenset[str], Topology] | None = None
        self._filled: Settings | None = None
        self._lock = threading.Lock()
        self._memory = Memory(settings.topology, lambda: self.installable(CENTRE))
        self.mender = Mender(self)
        self.away: dict[str, ReplicatorError] = {}
        """Sites that do not answer and are taken as the centre knew them last, for work at the centre alone."""

    @classmethod
    def open(cls, path: str | Path) -> App:
        """Load a topology YAML and check all that can be checked without a database. Raises SettingsError."""
        settings = load(path)
        check_expressions(settings)
        return cls(settings)

    # --- places and links ---

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of all sites."""
        return tuple(self.settings.sites)

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """The sites called ``names``, all when empty. Raises SettingsError for a name the YAML does not have."""
        for name in names:
            if name not in self.settings.sites:
                raise self.settings.error(
                    f"there is no site {name!r}", key="sites", hint=f"sites are: {', '.join(self.sites)}"
                )
        return tuple(names) or self.sites

    def database(self, place: str) -> Database:
        """The settings of a place: a site's name, or CENTRE."""
        return self._engines.database(place)

    def link(self, site: str, direction: Direction = Direction.TO_CENTRE) -> LinkName:
        """The site's link to the centre, or from it."""
        return LinkName(self.settings.topology, site, direction)

    def links(self, site: str) -> tuple[LinkName, ...]:
        """The links the rules give a site: to the centre first, then from it."""
        return tuple(self.link(site, direction) for direction in self._engines.directions)

    def installable(self, place: str) -> Installable:
        """A place as a database to install into; close it."""
        return self._engines.installable(place)

    def auditable(self, place: str) -> Auditable:
        """A place as a database to digest; close it."""
        return self._engines.auditable(place)

    def orders(self, place: str) -> Orders:
        """A place as a database with backfills on record; close it."""
        return self._engines.orders(place)

    def epochs(self, place: str) -> Epochs:
        """A place as a database that begins a new epoch; close it."""
        return self._engines.epochs(place)

    def outbox(self, place: str) -> Outbox:
        """A place's outbox, to be measured and kept within its limits; close it."""
        return self._engines.outbox(place)

    def log_of(self, site: str) -> PostgresWalInstaller | None:
        """A site's capture from its log, where it has one; close it."""
        return self._engines.log_of(site)

    def fill_outbox(self, site: str) -> None:
        """Bring what a site's log has into its outbox. Raises RetryableError when that takes too long."""
        self._engines.fill_outbox(site)

    def source(self, link: LinkName, plans: Sequence[TablePlan]) -> CapturedSource:
        """Where a link's changes come from, for one who only looks on; close it."""
        return self._engines.source(link, plans, looks=True)

    def target(self, link: LinkName, plans: Sequence[TablePlan]) -> Target:
        """Where a link's changes go; close it."""
        return self._engines.target(link, plans)

    def connect(
        self, site: str, direction: Direction = Direction.TO_CENTRE, *, keep_open: bool = True, again: bool = False
    ) -> Ends:
        """Both ends of a link, planned against the catalogues as they are now.

        Where the site's tables are not as they were, or with ``again`` (after an error), capture that no longer fits its tables
        is made anew.
        """
        link = self.link(site, direction)
        if site in self.away:
            self.forget(site)
        plans = self.link_plans(site, direction)
        with self._lock:
            catalogue = self._catalogues[site]
        news, looked = self.mender.look(link, plans, catalogue, self._memory, again=again)
        plans = _parents_first(looked) if direction.rises else plans
        source = self._engines.source(link, plans, keep_open=keep_open)
        return Ends(source, self.target(link, plans), tuple(news), lambda: self.mender.is_as_planned(site))

    # --- catalogues ---

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

    def recall(self, failed: Mapping[str, ReplicatorError]) -> None:
        """Take sites that did not answer as the centre knew them last, where it ever did: from here on they are `away`."""
        for site, error in failed.items():
            catalogue = None if site == CENTRE or CENTRE in failed else self._memory.recall(site)
            if catalogue is not None:
                with self._lock:
                    self._catalogues[site], self._compiled = catalogue, None
                    self.away[site] = error

    def plans_at_centre(self, link: LinkName) -> tuple[TablePlan, ...]:
        """A link's plans for work at the centre alone, which does not need the site. Raises its error if it never answered."""
        if not self.knows(link.site):
            failed = self.read_catalogues([link.site])
            self.recall(failed)
            for site in failed.keys() - self.away.keys():
                raise failed[site]
        return self.link_plans(link.site, link.direction)

    def _is_unmade(self, place: str) -> bool:
        """Whether the place is a SQLite file that is not there yet; a centre's is made by install."""
        database = self.database(place)
        return database.engine is Engine.SQLITE and not database.path.exists()

    def catalogue(self, place: str) -> Catalogue:
        """A place's tables as they were read last, or now. Raises what reading them raises."""
        if not self.knows(place):
            self._require(place)
        with self._lock:
            return self._catalogues[place]

    def knows(self, place: str) -> bool:
        """Whether the place's catalogue has been read."""
        return place in self._catalogues

    def _require(self, *places: str) -> None:
        for error in self.read_catalogues(places).values():
            raise error

    def forget(self, place: str) -> None:
        """Read a place's catalogue again when it is next needed; of the centre, the sites' parameters as well."""
        with self._lock:
            self._catalogues.pop(place, None)
            self.away.pop(place, None)
            self._compiled = None
            self._filled = None if place == CENTRE else self._filled

    # --- plans ---

    def topology(self) -> Topology:
        """The topology compiled against the catalogues read so far; the centre's is required.

        Raises SetupError or SettingsError when rules and tables do not fit, RetryableError when the centre is away.
        """
        if CENTRE not in self._catalogues:
            self._require(CENTRE)
        settings = self.filled_settings()
        with self._lock:
            known = frozenset(self._catalogues)
            if self._compiled is None or self._compiled[0] != known:
                sites = {site: self._catalogues[site] for site in self.sites if site in known}
                self._compiled = known, compile_topology(settings, sites, self._catalogues[CENTRE])
            return self._compiled[1]

    def filled_settings(self) -> Settings:
        """The settings with the sites' parameters from their table at the centre, where the YAML names one."""
        wanted = self.settings.params_from
        if wanted is None:
            return self.settings
        with self._lock:
            known, centre = self._filled, self._catalogues[CENTRE]
        if known is None:
            table = next((name for name in centre.tables if matches(wanted.table, name, centre.engine)), None)
            if table is None:
                raise self.settings.error(
                    f"the centre has no table {wanted.table!r}", key="params_from.table", hint="create it there first"
                )
            with closing(self._engines.installable(CENTRE)) as database:
                known = with_params(self.settings, database.read_rows(table))
            with self._lock:
                self._filled = known
        return known

    def plans(self, site: str) -> tuple[TablePlan, ...]:
        """What a site sends to the centre, parents first there. Raises what ``topology`` raises, for the site as well."""
        topology = self._topology_with(site)
        order = {shape.name: place for place, shape in enumerate(topology.centre_tables)}
        return tuple(sorted(topology.plans[site], key=lambda plan: order[plan.target]))

    def downward(self, site: str) -> tuple[TablePlan, ...]:
        """What a site gets from the centre, parents first at the site. Raises as ``plans``."""
        return self._topology_with(site).downward[site]

    def _topology_with(self, site: str) -> Topology:
        if site not in self._catalogues:
            self._require(site)
        return self.topology()

    def central(self) -> tuple[CentralTable, ...]:
        """What the centre captures. Raises as ``topology``."""
        return self.topology().central

    def link_plans(self, site: str, direction: Direction = Direction.TO_CENTRE) -> tuple[TablePlan, ...]:
        """A link's plans; another site whose tables do not fit the topology does not stop this one (invariant 9).

        What does not fit at this site, because one side has changed, is held: see TablePlan.
        """
        for place in (site, CENTRE):
            if place not in self._catalogues:
                self._require(place)
        centre = self.catalogue(CENTRE)
        try:
            found = self.plans(site) if direction.rises else self.downward(site)
        except SetupError:
            alone = compile_site(self.filled_settings(), site, self.catalogue(site), centre, lenient=True)
            found = _parents_first(alone.plans[site]) if direction.rises else alone.downward[site]
        return tuple(hold_absent(plan, centre) for plan in found) if direction.rises else found

    def roles(self, place: str) -> Roles:
        """What is to be installed at a place; at the centre for the sites whose catalogues were read so far."""
        if place != CENTRE:
            gets = Direction.FROM_CENTRE in self._engines.directions
            sends = Direction.TO_CENTRE in self._engines.directions
            return Roles(self.plans(place) if sends else None, self.downward(place) if gets else None)
        known = [site for site in self.sites if site in self._catalogues]
        return Roles(None, tuple(plan for site in known for plan in self.plans(site)), self.central())

    def read_links(self, place: str = CENTRE) -> tuple[list[LinkRecord], int]:
        """What a place has on record of the links that end there, and its clock (microseconds since 1970)."""
        with closing(self.installable(place)) as database:
            return list(database.list_links(self.settings.topology)), database.read_clock()

    # --- work ---

    def audited(self, site: str) -> list[Audited]:
        """All tables of a site that can be audited. Raises as ``link_plans``."""
        return audited_tables(self, site)

    def audit(
        self, site: str, tables: Sequence[Audited | TablePlan], limits: Limits, on_unequal: OnUnequal | None = None
    ) -> Iterator[TableReport]:
        """Audit a site's tables one by one; read only, also while the replicator works.

        A plan of the link to the centre stands for its table. ``on_unequal``: called with every row that differs.
        """
        return audit_site(self, site, tables, limits, on_unequal)

    def backfills(self, sites: Sequence[str]) -> tuple[list[Backfill], dict[str, ReplicatorError]]:
        """All backfills on record of the sites' links, oldest first per link, and the places that did not answer."""
        return read_backfills(self, sites)

    def install(
        self, place: str, advance: Callable[[int, str], None], existing: Existing = Existing.OUTBOX
    ) -> tuple[DatabasePlan, Roles]:
        """Put our tables and triggers into one database, and user tables it lacks; what was run, and for what."""
        asked: list[Roles] = []

        def roles() -> Roles:
            if asked and self._lacks_tables(place, asked[-1]):
                self.forget(place)
            asked.append(self.roles(place))
            return asked[-1]

        done = install_database(
            lambda: self.installable(place), self.settings.topology, roles, advance, existing,
            lambda tables: hold_first_loads(self, place, tables),
        )  # fmt: skip
        if place == CENTRE:
            self._memory.forget()
            for site in self.sites:
                if self.knows(site) and site not in self.away:
                    self._memory.keep(site, self._catalogues[site])
        else:
            bring_missed(self, place)
            release_first_loads(self, place)
        return done

    def _lacks_tables(self, place: str, roles: Roles) -> bool:
        """Whether what is received goes to tables the place did not have when it was looked at."""
        known = self._catalogues[place].tables
        return any(plan.target not in known for plan in roles.receives or ())

    def workers(self, sites: Sequence[str], listen: Callable[[LinkReport], None] = lambda report: None) -> list[Worker]:
        """A worker per link. When links outnumber the connections meant for the centre, they take turns."""
        links = [link for site in sites for link in self.links(site)]
        few = len(links) <= _CONNECTIONS
        turn = None if few else threading.BoundedSemaphore(_CONNECTIONS)
        guards = Guards(self)
        return [
            Worker(
                link, self._connector(link, few), batch_changes=self.settings.defaults.batch_changes,
                listen=listen, slot=turn, keep_open=few, guard=guards.of(link),
            )
            for link in links
        ]  # fmt: skip

    def keep_filling(self, sites: Sequence[str]) -> AbstractContextManager[None]:
        """For the service: where changes are captured from a log, it is read also while the centre does not answer."""
        return self._engines.keep_filling(sites)

    def _connector(self, link: LinkName, keep_open: bool) -> Callable[[bool], Ends]:
        """Opens a link's ends; after an error it reads both sides' tables anew, as they may have changed."""

        def connect(again: bool) -> Ends:
            if again:
                for place in (link.site, CENTRE):
                    self.forget(place)
            return self.connect(link.site, link.direction, keep_open=keep_open, again=again)

        return connect


def _parents_first(plans: Iterable[TablePlan]) -> tuple[TablePlan, ...]:
    by_target = {plan.target: plan for plan in plans}
    return tuple(
        by_target[shape.name] for shape in in_foreign_key_order(plan.target_shape for plan in by_target.values())
    )
