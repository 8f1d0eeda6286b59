"""Opens databases by their engine: as places to install into and to digest, and as the two ends of links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Protocol

from replicator.engines.postgres.audit import PostgresAudit
from replicator.engines.postgres.epochs import PostgresEpochs
from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.orders import PostgresOrders
from replicator.engines.postgres.outbox import PostgresOutbox
from replicator.engines.postgres.routed import PostgresRoutedSource
from replicator.engines.postgres.target import PostgresTarget
from replicator.engines.postgres.wal.bypass import PostgresBypassSource
from replicator.engines.postgres.wal.installer import PostgresWalInstaller
from replicator.engines.postgres.wal.outbox import PostgresWalOutbox
from replicator.engines.postgres.wal.pump import Pumps
from replicator.engines.postgres.wal.reach import Reach
from replicator.engines.postgres.wal.source import PostgresWalSource
from replicator.engines.sqlite.audit import SqliteAudit
from replicator.engines.sqlite.epochs import SqliteEpochs
from replicator.engines.sqlite.installer import SqliteInstaller
from replicator.engines.sqlite.orders import SqliteOrders
from replicator.engines.sqlite.outbox import SqliteOutbox
from replicator.engines.sqlite.routed import SqliteRoutedSource
from replicator.engines.sqlite.source import SqliteSource
from replicator.engines.sqlite.target import SqliteTarget
from replicator.engines.sqlite.watch import Watcher
from replicator.model import Direction, Engine, LinkName, TablePlan
from replicator.ports import Auditable, Epochs, InFlight, Installable, Orders, Outbox, Source, Target
from replicator.settings import CENTRE, Database, Settings

_FILL_SECONDS = 600.0


class CapturedSource(Source, InFlight, Protocol):
    """A source as both engines have it: it also tells what is in flight."""


class Engines:
    """The databases of one topology.

    What waits for changes is shared: one watcher of files, one listener at a PostgreSQL centre for all of its links, and one
    reader of each replication slot.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watcher = Watcher()
        self._pumps = Pumps()
        directions = {settings.direction_of(rule) for rule in settings.tables}
        self._rises = any(direction.rises for direction in directions)
        self._falls = any(direction.falls for direction in directions)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions every site has a link for, the one to the centre first."""
        known = ((Direction.TO_CENTRE, self._rises), (Direction.FROM_CENTRE, self._falls))
        return tuple(direction for direction, used in known if used)

    def database(self, place: str) -> Database:
        """The settings of a place: a site's name, or CENTRE."""
        return self._settings.centre if place == CENTRE else self._settings.sites[place]

    def installable(self, place: str) -> Installable:
        """A place as a database to install into; close it."""
        database = self.database(place)
        if database.engine is Engine.SQLITE:
            return SqliteInstaller(database.path, may_be_absent=place == CENTRE)
        if self._from_log(place):
            return PostgresWalInstaller(database.dsn)
        return PostgresInstaller(database.dsn)

    def _from_log(self, place: str) -> bool:
        """Whether a place's changes are captured from its write-ahead log."""
        return place != CENTRE and self._settings.sites[place].capture == "wal"

    def auditable(self, place: str) -> Auditable:
        """A place as a database to digest; close it."""
        database = self.database(place)
        if database.engine is Engine.SQLITE:
            return SqliteAudit(database.path)
        return PostgresAudit(database.dsn)

    def orders(self, place: str) -> Orders:
        """A place as a database with backfills on record; close it."""
        database = self.database(place)
        return SqliteOrders(database.path) if database.engine is Engine.SQLITE else PostgresOrders(database.dsn)

    def epochs(self, place: str) -> Epochs:
        """A place as a database that begins a new epoch; close it."""
        database, centre = self.database(place), self.database(CENTRE).engine
        if database.engine is Engine.SQLITE:
            return SqliteEpochs(database.path, centre)
        return PostgresEpochs(database.dsn, centre)

    def outbox(self, place: str) -> Outbox:
        """A place's outbox, to be measured and kept within its limits; close it."""
        database = self.database(place)
        if database.engine is Engine.SQLITE:
            return SqliteOutbox(database.path, self._settings.topology)
        if self._from_log(place):
            return PostgresWalOutbox(database.dsn, self._settings.topology, self._pumps)
        return PostgresOutbox(database.dsn, self._settings.topology)

    def source(
        self, link: LinkName, plans: Sequence[TablePlan], *, keep_open: bool = True, looks: bool = False
    ) -> CapturedSource:
        """Where a link's changes come from: the site, or the centre; close it.

        ``keep_open``: whether a source at the centre may keep its connection while idle. ``looks``: for one who replicates
        nothing, and may take nothing from the one who does.
        """
        days = self._settings.defaults.retention_days
        if link.direction.rises:
            database = self.database(link.site)
            if database.engine is Engine.SQLITE:
                return SqliteSource(database.path, link, plans, watcher=self._watcher, retention_days=days)
            if self._settings.sites[link.site].outbox == "bypass" and not looks:
                return PostgresBypassSource(database.dsn, link, plans, pumps=self._pumps)
            return PostgresWalSource(
                database.dsn, link, plans, expected=self._from_log(link.site), pumps=self._pumps, looks=looks
            )
        centre = self.database(CENTRE)
        if centre.engine is Engine.SQLITE:
            return SqliteRoutedSource(centre.path, link, plans, watcher=self._watcher, retention_days=days)
        return PostgresRoutedSource(centre.dsn, link, plans, retention_days=days, keep_open=keep_open)

    def log_of(self, site: str) -> PostgresWalInstaller | None:
        """A site's capture from its log, where it has one; close it."""
        return PostgresWalInstaller(self.database(site).dsn) if self._from_log(site) else None

    def fill_outbox(self, site: str) -> None:
        """Bring what a site's log has into its outbox, or see to it that another does."""
        with closing(Reach(self.database(site).dsn, self._settings.topology, self._pumps)) as reach:
            reach.catch_up(_FILL_SECONDS)

    @contextmanager
    def keep_filling(self, sites: Iterable[str]) -> Iterator[None]:
        """Meanwhile, what the logs of these sites have goes into their outboxes, whether or not a link can bring it on."""
        with ExitStack() as taps:
            for site in sites:
                if self._rises and self._from_log(site):
                    taps.callback(self._pumps.keep(self.database(site).dsn, self._settings.topology).close)
            yield

    def target(self, link: LinkName, plans: Sequence[TablePlan]) -> Target:
        """Where a link's changes go: the centre, or the site; close it.

        At the centre, links of sites that get changes too are answered with markers, and what they bring is sent on.
        """
        database = self.database(CENTRE if link.direction.rises else link.site)
        answers = link.direction.rises and self._falls
        if database.engine is Engine.SQLITE:
            return SqliteTarget(database.path, link, plans, answers=answers)
        return PostgresTarget(database.dsn, link, plans, answers=answers, pumps=self._pumps)
