"""A database our tables and triggers are put into."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from replicator.model import (
    Catalogue,
    CentralTable,
    DatabasePlan,
    Finding,
    LinkRecord,
    TableName,
    TablePlan,
)


class Installable(Protocol):
    """A database our tables and triggers can be put into. Methods with a plan argument take all of one topology's."""

    def read_catalogue(self) -> Catalogue:
        """All user tables with columns, keys, unique and foreign keys. Read only."""
        ...

    def list_captured(self, topology: str) -> Mapping[TableName, Sequence[str]]:
        """Tables whose changes are captured here for a topology, with their columns, as install wrote it down. Read only."""
        ...

    def list_renamed(self, topology: str) -> Mapping[TableName, TableName]:
        """Captured tables that are called otherwise now, with the names they have. Read only."""
        ...

    def set_aside(self, topology: str, table: TableName) -> None:
        """Keep what waits of a captured table that is gone, until it is back or given up, where its rows are needed for that.

        Own short transaction; repeatable.
        """
        ...

    def read_rows(self, table: TableName) -> Sequence[Mapping[str, object]]:
        """All rows of a small table, column → value as the driver gives it. Read only."""
        ...

    def check(self, plans: Sequence[TablePlan], *, as_source: bool) -> Sequence[Finding]:
        """Connection, version, rights, settings, triggers as planned, table traps; each with the fix. Read only."""
        ...

    def check_captured(self, captured: Sequence[CentralTable]) -> Sequence[Finding]:
        """At a centre: what makes capturing its own changes slow. Read only."""
        ...

    def check_central(
        self, topology: str, plans: Sequence[TablePlan], captured: Sequence[CentralTable]
    ) -> Sequence[Finding]:
        """At a centre: whether its own changes can be captured, and, once installed, are captured as planned. Read only."""
        ...

    def plan_site(
        self, topology: str, plans: Sequence[TablePlan], *, unqueued: Collection[TableName] = ()
    ) -> DatabasePlan:
        """What is missing or drifted for capturing these tables: our tables, functions, triggers, relations. Read only.

        Rows that a table has when its capture begins go into the outbox, except those of ``unqueued`` tables.
        """
        ...

    def plan_centre(
        self, topology: str, plans: Sequence[TablePlan], captured: Sequence[CentralTable] = ()
    ) -> DatabasePlan:
        """What is missing at a target: our tables, user tables to create (parents first), capture. Read only.

        At a site ``plans`` are those of the link from the centre, and ``captured`` is empty.
        """
        ...

    def install(self, plan: DatabasePlan) -> None:
        """Run a plan: idempotent, each object in a short transaction with a lock timeout."""
        ...

    def plan_uninstall(self, topology: str) -> DatabasePlan:
        """What removes all of a topology's objects (ours only; triggers first). Read only."""
        ...

    def list_objects(self) -> Sequence[str]:
        """Every object of ours in the database, by catalogue query: empty proves that nothing is left."""
        ...

    def list_links(self, topology: str) -> Sequence[LinkRecord]:
        """Links recorded here (targets only)."""
        ...

    def read_clock(self) -> int:
        """The database's wall clock, microseconds since 1970. Needs nothing of ours."""
        ...

    def read_seen(self) -> int:
        """The highest hybrid time seen from elsewhere, microseconds since 1970: what is captured here is stamped above it.

        0 where nothing of ours is installed. Read only.
        """
        ...

    def read_identity(self) -> str:
        """What install named the database, and its epoch; empty where nothing of ours is installed. Read only."""
        ...

    def remember_site(self, topology: str, site: str, catalogue: Catalogue) -> None:
        """At a centre: keep what a site's tables are like, for when it is away. Own short transaction; repeatable."""
        ...

    def recall_sites(self, topology: str) -> Mapping[str, Catalogue]:
        """At a centre: the sites as they were remembered last; empty where nothing of ours is installed. Read only."""
        ...

    def close(self) -> None:
        """Release all connections. Repeatable."""
        ...
