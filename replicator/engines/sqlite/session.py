"""One link's connection to a SQLite target: lease, transactions, the write lock, and what the file looks like."""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from replicator.engines.sqlite.catalogue import read_catalogue
from replicator.engines.sqlite.connection import connect, transaction, translate, translated
from replicator.engines.sqlite.lane import Lane
from replicator.engines.sqlite.values import checksum, encode_image, image_value
from replicator.engines.sqlite.versions import (
    CentralLane,
    CentralRelation,
    fold_local,
    read_relations,
    return_strays,
    tag_tail,
)
from replicator.errors import BatchError, LeaseError, ReplicatorError, RetryableError, SchemaError, SetupError
from replicator.model import LinkName, Position, Prefer, Relation, TableName, TablePlan, TableShape
from replicator.sqlfiles import quote, render, statement

_LEASE_US = 30_000_000
_TRANSACTIONS = "sql/sqlite/transactions.sql"
_CATALOGUE = "sql/sqlite/catalogue.sql"

Row = tuple[object, ...]


def target_sql(name: str) -> str:
    """A statement of the bookkeeping."""
    return statement("sql/sqlite/target.sql", name)


def apply_sql(name: str) -> str:
    """A statement of the apply file."""
    return statement("sql/sqlite/apply.sql", name)


class Session:
    """Holds connection and lease of one link; one thread.

    Args:
        path: the target file.
        link: the link.
        plans: the site's table plans.
    """

    def __init__(self, path: Path, link: LinkName, plans: Sequence[TablePlan]) -> None:
        self.path, self.link, self.place = path, link, str(path)
        self._plans = {plan.source.name: plan for plan in plans}
        self._opened: sqlite3.Connection | None = None
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._leased_until = 0
        self._schema_version: int | None = None
        self._shapes: Mapping[TableName, TableShape] = {}
        self._lanes: dict[tuple[int, Relation], Lane] = {}
        self._outbox_top: int | None = None
        self.tail_origin: str | None = link.origin
        """Who is said to have written what is applied in this transaction; None: nobody, so that every site gets it."""
        self.answers = False
        """Whether the site gets this file's rows too."""
        self.central: Mapping[str, CentralRelation] = {}
        """What is captured here, by lower-case table name; read when the write lock is taken."""
        self.loading: frozenset[str] = frozenset()
        """Target tables a row of which may be missing because it was not brought yet; known under the write lock."""
        self.prefer = Prefer.POLICY
        """Whose rows stand where a backfill's rows meet others."""
        self.seen = 0
        """What the site is known to have had of this file's outbox before a backfill's rows were read there."""
        self._skews: Mapping[str, int] | None = None
        self._depth = 0
        self.link_id = 0
        self.width = max((len(plan.columns) for plan in plans), default=1)
        self.key_width = max((len(plan.key) for plan in plans), default=1)

    # --- connection -----------------------------------------------------------------------------------------------

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, with the stage made."""
        if self._opened is None:
            connection = connect(self.path)
            with translated(self.place):
                # Foreign keys are checked by apply itself: their actions would touch rows no change speaks of.
                connection.execute(statement(_TRANSACTIONS, "no_foreign_key_actions"))
                add_functions(connection)
                self._make_stage(connection)
            self._opened = connection
        return self._opened

    def _make_stage(self, connection: sqlite3.Connection) -> None:
        places = [f"k{n}" for n in range(self.key_width)]
        places += [f"{image}{n}" for image in "ba" for n in range(self.width)]
        for name in ("create_stage", "create_net", "create_net_index"):
            connection.execute(render(apply_sql(name), fragments={"places": ", ".join(places)}))

    def run(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        """Execute one statement."""
        return self.connection.execute(sql, parameters)

    def now(self) -> int:
        """The target's wall clock in microseconds."""
        return int(self.run(target_sql("read_clock")).fetchone()[0])

    # --- link and lease -------------------------------------------------------------------------------------------

    def read_link(self) -> tuple[Position | None, str]:
        """The link's position and its source's identity; makes the link's row when it is new."""
        row = self._link_row()
        if row is None:
            self.run(target_sql("ensure_link"), self.link.topology, self.link.site, str(self.link.direction))
            row = self._link_row()
        if row is None:
            raise SetupError(f"{self.place}: link {self.link} cannot be put on record")
        self.link_id = int(str(row[0]))
        return (None if row[1] is None else Position(str(row[1]))), str(row[2])

    def _link_row(self) -> Row | None:
        try:
            found = self.run(target_sql("read_link"), self.link.topology, self.link.site, str(self.link.direction))
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            raise SetupError(f"{self.place}: not installed", hint="run: replicator install") from error
        row: Row | None = found.fetchone()
        return row

    def take_lease(self) -> None:
        """Become the only replicator of the link, or renew; written only when half of the time is used up."""
        if self._opened is not None and self._leased_until - _clock() > _LEASE_US // 2:
            return
        self.read_link()
        row = self._link_row() or ()
        holder, until = (str(row[3]), row[4]) if row[3] is not None else ("", 0)
        dead = holder if _is_gone(holder) else ""
        now = _clock()
        parameters = (self._holder, now + _LEASE_US, self.link_id, now, dead)
        if self.run(target_sql("take_lease"), *parameters).rowcount != 1:
            rest = (int(str(until)) - now) / 1e6
            raise LeaseError(
                f"{self.place}: link {self.link} is worked on by {holder}",
                hint=f"stop that replicator, or wait {rest:.0f} s if it was killed on another machine",
            )
        self._leased_until = now + _LEASE_US

    @property
    def holder(self) -> str:
        """This session's name in the lease."""
        return self._holder

    # --- transactions ---------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begins without a lock: staging touches only temporary tables, so the file is free while the source is read."""
        with translated(self.place):
            self.look()
        with translated(self.place), transaction(self.connection, statement(_TRANSACTIONS, "begin_read")):
            self._outbox_top, self._depth, self._skews = None, 0, None
            self.tail_origin = self.link.origin
            self.run(apply_sql("empty_stage"))
            self.run(apply_sql("empty_net"))
            yield
            self._settle_tail()

    def _settle_tail(self) -> None:
        """What capture noted of our own writes goes on to other sites from a centre; at a site Follow takes it out again."""
        if self._outbox_top is not None and self.link.direction.rises:
            if self.answers and self.central:
                width = max(len(relation.key) for relation in self.central.values())
                return_strays(self.connection, self._outbox_top, width, self.link)
            tag_tail(self.connection, self._outbox_top, self.tail_origin)

    def lock(self) -> None:
        """Take the write lock, renew the lease, and look at the file. Raises LeaseError when the lease is lost."""
        now = _clock()
        if self.run(target_sql("hold_lease"), now + _LEASE_US, self.link_id, self._holder).rowcount != 1:
            raise LeaseError(f"{self.place}: another replicator has taken over link {self.link}")
        self._leased_until = now + _LEASE_US
        if self.run(statement(_CATALOGUE, "schema_version")).fetchone()[0] != self._schema_version:
            raise RetryableError(f"{self.place}: the schema moved while a batch was staged")
        if self._outbox_top is None:
            self.read_central()
            self._outbox_top = int(self.run(target_sql("outbox_top")).fetchone()[0] or 0)

    @property
    def outbox_top(self) -> int:
        """Where the outbox ended when the write lock was taken."""
        return self._outbox_top or 0

    def begin_by_hand(self) -> None:
        """At the start of a transaction that the caller began with the write lock: the stage is empty, the centre known."""
        self._outbox_top, self._depth, self._skews = None, 0, None
        self.run(apply_sql("empty_stage"))
        self.run(apply_sql("empty_net"))
        self.read_central()

    def read_central(self) -> None:
        """Look at what is captured here, and bring what was written here into the ledger. Under the write lock."""
        if self.link.direction.rises:
            self.central = read_relations(self.connection, self.link.topology)
            fold_local(self.connection, self.central, self._shapes)

    def central_lane(self, lane: Lane) -> CentralLane:
        """What the centre knows and captures of a lane's table."""
        return CentralLane(lane, self.central.get(lane.shape.name.name.lower()))

    def clock_error(self, site: str) -> int:
        """How far this link's clock and the clock of another site (or none: the centre's) may be apart, in microseconds."""
        if self._skews is None:
            rows = self.run(statement("sql/sqlite/versions.sql", "list_skews"), self.link.topology)
            self._skews = {str(name): abs(int(skew)) for name, skew in rows}
        return self._skews.get(self.link.site, 0) + self._skews.get(site, 0)

    @property
    def plans(self) -> Mapping[TableName, TablePlan]:
        """The link's plans by source table."""
        return self._plans

    def read_schema_mark(self) -> str:
        """Another text whenever the tables this link writes have changed; our own migrations and indexes do not count."""
        self.look()
        shapes = {shape.name.name.lower(): shape for shape in self._shapes.values()}
        found = [shapes.get(plan.target.name.lower()) for plan in self._plans.values()]
        facts = [(shape.name, shape.columns, shape.key, shape.uniques) for shape in found if shape is not None]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def look(self) -> None:
        """Read the file's catalogue again when its schema has moved."""
        (version,) = self.run(statement(_CATALOGUE, "schema_version")).fetchone()
        if version != self._schema_version:
            self._shapes = read_catalogue(self.connection).tables
            self._lanes.clear()
            self._schema_version = version

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Rolls back to here on error."""
        self._depth += 1
        name = {"savepoint": f"replicator_{self._depth}"}
        self.run(render(statement(_TRANSACTIONS, "savepoint"), identifiers=name))
        try:
            yield
        except BaseException as error:
            # A full disk or ON CONFLICT ROLLBACK ends the whole transaction, savepoints included.
            if not self.connection.in_transaction:
                raise self._rolled_back(error) from error
            self.run(render(statement(_TRANSACTIONS, "rollback_to"), identifiers=name))
            self.run(render(statement(_TRANSACTIONS, "release"), identifiers=name))
            raise
        else:
            self.run(render(statement(_TRANSACTIONS, "release"), identifiers=name))
        finally:
            self._depth -= 1

    def _rolled_back(self, error: BaseException) -> RetryableError:
        """That SQLite took the whole transaction back, with what made it do so."""
        if isinstance(error, RetryableError):
            return error  # said by a savepoint within
        known = translate(error, self.place) if isinstance(error, sqlite3.Error) else error
        cause = (
            known.message if isinstance(known, ReplicatorError) else f"{self.place}: {known or type(known).__name__}"
        )
        hint = known.hint if isinstance(known, ReplicatorError) else ""
        return RetryableError(f"{cause}; the transaction was rolled back", hint=hint)

    # --- lanes ----------------------------------------------------------------------------------------------------

    def lane(self, relation: Relation) -> Lane:
        """The statements of one relation. Raises BatchError when no plan knows it, SetupError when its table is gone."""
        found = self._lanes.get((relation.id, relation))
        if found is None:
            plan = self._plans.get(relation.table)
            if plan is None:
                raise BatchError(
                    f"link {self.link}: no plan for table {relation.table}", hint="run: replicator install"
                )
            shape = self._shape(plan.target)
            lost = {column.target for column in plan.columns} - {column.name for column in shape.columns}
            if lost and not plan.hold:
                raise SchemaError(
                    f"{self.place}: table {plan.target} has no column {', '.join(sorted(lost))} any more",
                    hint="run: replicator schema diff",
                )
            planned = {column.source for column in plan.columns}
            live = tuple(place for place, name in enumerate(relation.columns) if name in planned)
            alive = replace(relation, columns=tuple(relation.columns[place] for place in live))
            found = Lane(alive, plan, shape, self._shapes, live)
            self._lanes[(relation.id, relation)] = found
        return found

    def plan_for(self, target: str) -> TablePlan | None:
        """The plan that feeds a target table."""
        return next((plan for plan in self._plans.values() if str(plan.target) == target), None)

    def _shape(self, name: TableName) -> TableShape:
        for shape in self._shapes.values():
            if shape.name.name.lower() == name.name.lower():
                return shape
        raise SchemaError(
            f"{self.place}: table {quote(name.name)} does not exist",
            hint="rename it back, or run: replicator install, which makes it",
        )

    def close(self) -> None:
        """Give the lease back and close. Repeatable."""
        if self._opened is None:
            return
        with suppress(sqlite3.Error):
            if self.link_id:
                self.run(target_sql("release_lease"), self.link_id, self._holder)
        self._opened.close()
        self._opened, self._leased_until, self._schema_version = None, 0, None


def add_functions(connection: sqlite3.Connection) -> None:
    """Let a connection's statements make checksums, images and key texts as values.py does."""
    connection.create_function("replicator_checksum", -1, checksum, deterministic=True)
    connection.create_function("replicator_image", -1, lambda *values: encode_image(values), deterministic=True)
    connection.create_function("replicator_row_key", -1, lambda *values: encode_image(values), deterministic=True)
    connection.create_function("replicator_value", 3, image_value, deterministic=True)


def _clock() -> int:
    return time.time_ns() // 1000


def _is_gone(holder: str) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    host, _, rest = holder.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
