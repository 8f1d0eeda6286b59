"""A link's session at a PostgreSQL target: connection, lease, transactions, and the lanes whose temporary tables live in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import psycopg
from psycopg.rows import TupleRow

from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.pieces import Cascade
from replicator.errors import BatchError, LeaseError, SetupError
from replicator.model import LinkName, Position, Relation, TableName, TablePlan
from replicator.sqlfiles import statement

_ANALYZE_ROWS = 5_000
_ANALYZE_SHARE = 0.2


def target_sql(name: str) -> str:
    """A statement of the bookkeeping file."""
    return statement("sql/postgres/target.sql", name)


def apply_sql(name: str) -> str:
    """A statement of the apply file that needs no rendering."""
    return statement("sql/postgres/apply.sql", name)


def versions_sql(name: str) -> str:
    """A statement of the versions file that needs no rendering."""
    return statement("sql/postgres/versions.sql", name)


class Session:
    """Opens on first use and again after a loss; everything bound to the connection starts anew with it."""

    def __init__(self, url: str, link: LinkName, plans: Sequence[TablePlan]) -> None:
        self.link = link
        self.place = describe(url)
        self.link_id = 0
        self._url = url
        self._plans: Mapping[TableName, TablePlan] = {plan.source.name: plan for plan in plans}
        self._order = {plan.source.name: place for place, plan in enumerate(plans)}
        self._connection: PostgresConnection | None = None
        self._leased = False
        self._lanes: dict[int, Lane] = {}
        self._new_lanes: list[int] = []
        self._grown: dict[str, tuple[int, int]] = {}
        self._feeds: dict[str, tuple[int, bool]] = {}
        self._versions: dict[str, int] = {}

    @property
    def connection(self) -> PostgresConnection:
        """The open connection."""
        if self._connection is None or self._connection.closed:
            self._lanes, self._new_lanes, self._leased = {}, [], False
            self._feeds, self._versions = {}, {}
            name = f"replicator {self.link.topology} {self.link.site}"
            self._connection = connect(self._url, application_name=name)
            with translated(self.place):
                # Users' triggers at the target expect their own search path; ours is spelled out in every statement.
                self.run(statement("sql/postgres/session.sql", "settle_target"))
                self.run(apply_sql("create_stage"))
                self.run(apply_sql("create_decision"))
                self.run(apply_sql("create_found"))
                self.run(statement("sql/postgres/bases.sql", "create_bases"))
                self.run(target_sql("ensure_link"), self.link.topology, self.link.site, self.link.direction)
                self.link_id = self.read_link()[0]
        return self._connection

    def run(self, sql: str, *parameters: object, prepare: bool = False) -> psycopg.Cursor[TupleRow]:
        """One statement. Set-based ones are never prepared: a cached plan would not know how much is staged."""
        return self.connection.execute(sql.encode(), parameters or None, prepare=prepare)

    def one(self, sql: str, *parameters: object, prepare: bool = False) -> TupleRow:
        """The only row of a statement that always gives one."""
        (row,) = self.run(sql, *parameters, prepare=prepare).fetchall()
        return row

    def takes_copy(self, table: TableName) -> bool:
        """Whether COPY does to a table what INSERT does. Once rows were copied, that stays so until the transaction ends."""
        return bool(self.one(apply_sql("takes_copy"), table.schema, table.name, prepare=True)[0])

    @property
    def plans(self) -> Mapping[TableName, TablePlan]:
        """The link's plans by source table."""
        return self._plans

    @property
    def targets(self) -> list[TableName]:
        """The tables this link writes."""
        return [plan.target for plan in self._plans.values()]

    def read_feed(self, table: str) -> tuple[int, bool]:
        """Our number for the link's feed of a target table, and whether its ledger has anything yet."""
        number, known = self._feeds.get(table, (0, False))
        if not known:
            if not number:
                self.run(target_sql("ensure_feed"), self.link_id, table, prepare=True)
            number, known = self.one(target_sql("read_feed"), self.link_id, table, prepare=True)
        self._feeds[table] = (number, known)
        return number, known

    def read_version_feed(self, table: str) -> int:
        """Our number for a target table's own feed, whose ledger has the versions of its rows."""
        number = self._versions.get(table)
        if number is None:
            found = self.run(versions_sql("read_feed"), table, prepare=True).fetchone()
            if found is None:
                self.run(versions_sql("ensure_feed"), table, prepare=True)
                found = self.one(versions_sql("read_feed"), table, prepare=True)
            number = self._versions[table] = int(found[0])
        return number

    def read_captured(self, table: TableName) -> int:
        """The number under which this database captures one of its tables. Raises SetupError when it does not."""
        sql = statement("sql/postgres/conflicts.sql", "find_captured")
        found = self.run(sql, self.link.topology, table.schema, table.name, prepare=True).fetchone()
        if found is None:
            raise SetupError(
                f"{self.place}: changes of {table} go to sites too, but are not captured here",
                hint="run: replicator install",
            )
        return int(found[0])

    def read_link(self) -> tuple[int, Position | None, str]:
        """Our number for the link, its position, and the identity of the database that fed it."""
        row = self.run(
            target_sql("read_link"), self.link.topology, self.link.site, self.link.direction, prepare=True
        ).fetchone()
        if row is None:
            raise SetupError(f"{self.place}: link {self.link} vanished", hint="run: replicator install")
        return row[0], None if row[1] is None else Position(row[1]), row[2]

    def take_lease(self) -> None:
        """See ports.Target: a session-level advisory lock, so that it ends with the session, however that ends."""
        with translated(self.place):
            if self._leased and self._connection is not None and not self._connection.closed:
                return
            self.read_link()  # opens the connection; a lost one took the lease with it
            if self.one(target_sql("take_lease"), self.link_id)[0]:
                self._leased = True
                return
            holder = self.run(target_sql("lease_holder"), self.link_id).fetchone()
        who = f"pid {holder[0]} ({holder[1]}) from {holder[2]}" if holder else "a session that has just ended"
        raise LeaseError(
            f"{self.place}: link {self.link} is held by {who}", hint="stop the other replicator, or let it work"
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction announced as this link's; lanes opened in it are forgotten when it rolls back."""
        self._new_lanes = []
        try:
            with translated(self.place), self.connection.transaction():
                self.announce(self.link.origin)
                self.run(apply_sql("defer_constraints"), prepare=True)
                yield
        except BaseException:
            for number in self._new_lanes:
                self._lanes.pop(number, None)
            self._forget()
            raise

    def announce(self, origin: str) -> None:
        """Tell capture on this database who writes from here to the end of the transaction; empty: nobody."""
        self.run(apply_sql("announce_origin"), origin, prepare=True)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Inside ``transaction``: rolls back to here on error, and forgets what was learnt meanwhile."""
        try:
            with translated(self.place), self.connection.transaction():
                yield
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self._feeds.clear()
        self._versions.clear()

    def analyze_grown(self, applied: Mapping[Lane, int], share: float = _ANALYZE_SHARE) -> None:
        """Refresh the statistics of target tables that have grown by ``share`` in this session. Outside any transaction."""
        for lane, rows in applied.items():
            since, total = self._grown.get(lane.place, (0, 0))
            since, total = since + rows, total + rows
            if since >= max(_ANALYZE_ROWS, total * share):
                self.run(lane.simple("analyze_target"))
                since = 0
            self._grown[lane.place] = (since, total)

    def lane(self, number: int, relations: Mapping[int, Relation] | None = None) -> Lane:
        """The lane of a relation; opened on first use from ``relations``.

        Raises BatchError when the relation or its table is not of this topology.
        """
        lane = self._lanes.get(number)
        relation = relations.get(number) if relations else None
        if lane is not None and (relation is None or relation == lane.relation):
            return lane
        plan = self._plans.get(relation.table) if relation else None
        if relation is None or plan is None:
            what = f"table {relation.table}" if relation else f"relation {number}"
            raise BatchError(
                f"link {self.link}: the outbox holds changes of {what}, which the topology does not name",
                hint="name the table in the YAML again, or run: replicator plan",
            )
        lane = Lane(max((lane.number for lane in self._lanes.values()), default=0) + 1, relation, plan)
        for create in lane.create():
            self.run(create)
        found = self.run(apply_sql("read_cascades"), plan.target.schema, plan.target.name).fetchall()
        lane.cascades = tuple(Cascade(TableName(*names), tuple(here), tuple(there)) for *names, here, there in found)
        self._lanes[number] = lane
        self._new_lanes.append(number)
        return lane

    def number_of(self, plan: TablePlan, columns: tuple[str, ...]) -> int:
        """A number for a relation known by its columns only: below zero, the same for the same columns of a table."""
        known = {
            (lane.relation.table, lane.relation.columns): number for number, lane in self._lanes.items() if number < 0
        }
        return known.get((plan.source.name, columns), min(known.values(), default=0) - 1)

    def in_order(self, numbers: set[int]) -> list[int]:
        """Relation numbers, parents before children, older versions of a table before newer ones."""
        return sorted(numbers, key=lambda number: (self._order[self._lanes[number].plan.source.name], number))

    def lanes_of(self, tables: Collection[str]) -> list[Lane]:
        """The lanes known so far that feed these target tables; one of a table without any is opened for all its columns."""
        found = [lane for lane in self._lanes.values() if lane.place in tables]
        for table in sorted(set(tables) - {lane.place for lane in found}):
            plan = self.plan_of(table)
            if plan is not None and not plan.hold:
                columns = tuple(column.source for column in plan.columns)
                number = self.number_of(plan, columns)
                found.append(self.lane(number, {number: Relation(number, plan.source.name, columns, plan.key)}))
        return list({lane.place: lane for lane in found}.values())

    def rank(self, lane: Lane) -> int:
        """A lane's place in the order parents before children."""
        return self._order[lane.plan.source.name]

    def plan_of(self, target: str) -> TablePlan | None:
        """The plan that feeds a target table, as the bookkeeping names it."""
        return next((plan for plan in self._plans.values() if str(plan.target) == target), None)

    def close(self) -> None:
        """Release the lease and the connection; a server takes a moment to notice that a session has ended."""
        if self._connection is not None:
            if self._leased and not self._connection.closed:
                with suppress(psycopg.Error):
                    self.run(target_sql("release_lease"))
            self._connection.close()
            self._connection = None
