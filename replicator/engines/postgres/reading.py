"""What every PostgreSQL source needs: its connections, a read-only transaction to stream from, identity and clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from datetime import time as time_of_day

import psycopg

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.chunks import KeyOrder, hold, key_order, require_as_seen
from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.engines.postgres.events import read_change, read_events
from replicator.engines.postgres.positions import snapshot_of
from replicator.engines.postgres.stamps import add_nonce, prove, require_site
from replicator.engines.postgres.windows import START
from replicator.errors import BatchError, RetryableError, SetupError, rejoin_hint
from replicator.model import CapturedChange, LinkName, Position, RowEvent, Standing, TableName, TablePlan


class Reading:
    """One outbox read for one link by one thread.

    Two connections: one whose transaction is open while a batch is streamed, one that waits and acknowledges.

    Args:
        url: libpq URL of the database.
        link: the link it is read for.
        plans: the tables it is read for.
    """

    def __init__(self, url: str, link: LinkName, plans: Sequence[TablePlan]) -> None:
        self._url = url
        self._place = describe(url)
        self._link = link
        self._plans = plans
        self._reader: PostgresConnection | None = None
        self._watcher: PostgresConnection | None = None
        self._marker: PostgresConnection | None = None
        self._passed: tuple[Position | None, Position] = (None, START)
        self._incarnation = ""

    def _start(self, after: Position | None) -> Position:
        """``after``, or what is known to lie behind it without a row of ours in between."""
        known_after, passed = self._passed
        return passed if known_after == after and passed != START else snapshot_of(after or START)

    def _from_the_future(self) -> BatchError:
        return BatchError(
            f"{self._place}: the position of {self._link} lies in this database's future",
            hint=f"it was restored from a backup, or is another one; {rejoin_hint(self._link.site)}",
        )

    # --- facts ---

    def read_identity(self) -> str:
        """The cluster, the database, and the identity install gave it; see ports.Source."""
        with translated(self._place):
            found = rows(self._watch_connection(), "source", "read_identity")
        if not found:
            raise BatchError(f"{self._place}: this database has no identity", hint="run: replicator install")
        return str(found[0][0])

    def prove_history(self, after: Position | None, stamp: str, target: str) -> bool:
        """See ports.Source."""
        with translated(self._place):
            require_site(self._watch_connection(), self._link, target)
            snapshot = None if after is None else snapshot_of(after)
            return prove(self._watch_connection(), self._place, self._link, snapshot, stamp)

    def _plan_of(self, table: TableName) -> TablePlan:
        """The plan of a source table. Raises SetupError when the link brings no such table."""
        plan = next((each for each in self._plans if each.source.name == table), None)
        if plan is None:
            raise SetupError(f"{self._place}: {self._link} does not bring table {table}", hint="run: replicator plan")
        return plan

    def _order_of(self, connection: PostgresConnection, plan: TablePlan) -> KeyOrder:
        """The order of a table's keys, which stays until the connection's transaction ends.

        Raises RetryableError where the table is not as the transaction's snapshot shows it.
        """
        hold(connection, plan)
        require_as_seen(connection, self._place)
        return key_order(self._watch_connection(), plan)

    def _add_nonce(self, after: Position | None, upto: Position) -> str:
        """The stamp of a batch that has no outbox rows, by a connection of its own, which is kept while such batches come."""
        with translated(self._place):
            if self._marker is None or self._marker.closed:
                self._marker = connect(self._url, application_name=f"replicator mark {self._link.topology}")
            return add_nonce(self._marker, self._link, after, upto)

    def _unmark(self) -> None:
        """Let that connection go: nothing is left to be brought."""
        if self._marker is not None:
            self._marker.close()
            self._marker = None

    def read_schema_mark(self) -> str:
        """See ports.Source."""
        with translated(self._place):
            return read_mark(self._watch_connection(), [plan.source.name for plan in self._plans])

    def read_clock(self) -> int:
        """Microseconds since 1970 by the source's wall clock."""
        with translated(self._place):
            return int(str(rows(self._watch_connection(), "source", "read_clock")[0][0]))

    def read_standing(self) -> Standing | None:
        """See ports.Source."""
        with translated(self._place):
            found = rows(self._watch_connection(), "source", "read_standing", self._link.text)
        return Standing(Position(str(found[0][0])), int(str(found[0][1])), bool(found[0][2])) if found else None

    def read_history(self, table: str, key: Sequence[str]) -> Sequence[RowEvent]:
        """See ports.Source."""
        names = {str(plan.source.name): plan.source.name for plan in self._plans}
        writer, wants = self._link.writer, self._wants
        with translated(self._place):
            return list(read_events(self._watch_connection(), self._link.topology, names[table], key, writer, wants))

    def _wants(self, route: str) -> bool:
        """Whether an outbox row of this route is one of the link's."""
        return True

    def read_change(self, number: int, position: Position | None) -> CapturedChange | None:
        """See ports.Source."""
        with translated(self._place):
            snapshot = None if position is None else snapshot_of(position)
            return read_change(self._watch_connection(), number, snapshot, self._link.writer)

    # --- connections ---

    @contextmanager
    def _reading(self) -> Iterator[PostgresConnection]:
        """The transaction a batch is streamed from; it ends with the context."""
        with translated(self._place):
            connection = self._read_connection()
            run(connection, "begin_reading")
        try:
            yield connection
        except BaseException:
            connection.close()  # a COPY may be half way: the connection's state is unknown
            self._reader = None
            raise
        with translated(self._place):
            connection.commit()

    @contextmanager
    def _snapshot(self) -> Iterator[PostgresConnection]:
        """One look at the database: a read-only transaction on the waiting connection."""
        connection = self._watch_connection()
        run(connection, "begin_reading")
        try:
            yield connection
        finally:
            if not connection.closed:
                connection.rollback()

    def _read_connection(self) -> PostgresConnection:
        if self._reader is None or self._reader.closed:
            self._reader = self._connect(f"replicator read {self._link.topology}")
            run(self._reader, "plan_by_index")
        return self._reader

    def _watch_connection(self) -> PostgresConnection:
        if self._watcher is None or self._watcher.closed:
            self._watcher = self._connect(f"replicator wait {self._link.topology}")
            run(self._watcher, "plan_by_index")
            run(self._watcher, "commit_lazily")
        return self._watcher

    def _connect(self, name: str) -> PostgresConnection:
        """Raises RetryableError when this is another server process than before: it may have another history."""
        connection = connect(self._url, application_name=name)
        found = str(rows(connection, "stamps", "incarnation")[0][0])
        if self._incarnation not in ("", found):
            connection.close()
            raise RetryableError(
                f"{self._place}: the server was started again, or the database made anew; it is looked at"
            )
        self._incarnation = found
        return connection

    def close(self) -> None:
        """Release all connections. Repeatable; the source opens them again when used again."""
        for connection in (self._reader, self._watcher):
            if connection is not None:
                connection.close()
        self._unmark()
        self._reader = self._watcher = None


def run(connection: PostgresConnection, name: str, *values: object, file: str = "source") -> int:
    """Run one named statement; how many rows it touched. An error leaves no transaction behind."""
    text = sqlfiles.statement(f"sql/postgres/{file}.sql", name)
    try:
        return connection.execute(text.encode(), values or None).rowcount
    except psycopg.Error:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.rollback()
        raise


def read_mark(connection: PostgresConnection, tables: Sequence[TableName]) -> str:
    """Another text whenever one of the tables has changed."""
    names = [table.schema for table in tables], [table.name for table in tables]
    return str(rows(connection, "schema", "schema_mark", *names)[0][0])


def spelled(value: object) -> str | None:
    """A key value as PostgreSQL prints it under our settings."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat(" ").replace("+00:00", "+00") if isinstance(value, datetime) else value.isoformat()
    return str(value)
