"""Meets ports.Source and ports.InFlight for a SQLite file captured in key mode.

A batch is the whole way from one state of the file to a later one: it is read in chunks, each in a short read
transaction of its own that ends before its rows are handed on, and goes on until the outbox is caught up. Every key was
then read after its last change, so the batch as a whole is exactly the file at the last snapshot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from replicator.engines.sqlite.base import BaseReader, forget_bases
from replicator.engines.sqlite.batch import KeyBatch, Place
from replicator.engines.sqlite.capture import capture_of
from replicator.engines.sqlite.chunks import estimate_rows
from replicator.engines.sqlite.connection import transaction, translated
from replicator.engines.sqlite.events import read_change, read_events
from replicator.engines.sqlite.outbox import require_captured
from replicator.engines.sqlite.reading import TableReader
from replicator.engines.sqlite.watch import Watcher
from replicator.engines.sqlite.watched import WatchedFile
from replicator.errors import BatchError, RetryableError, SchemaError, SetupError, rejoin_hint
from replicator.model import (
    CapturedChange,
    ChunkRequest,
    Direction,
    Key,
    Lag,
    LinkName,
    Position,
    Relation,
    RowEvent,
    Standing,
    TableName,
    TablePlan,
)
from replicator.ports import Batch
from replicator.sqlfiles import render, statement

_SQL = "sql/sqlite/source.sql"
_CATALOGUE = "sql/sqlite/catalogue.sql"
_TRANSACTIONS = "sql/sqlite/transactions.sql"
_TIDY_SECONDS, _TIDY_GAP_SECONDS = 10.0, 0.002
_PRUNE_ROWS = 2_000


class SqliteSource(WatchedFile):
    """One captured SQLite file, read for one link.

    Args:
        path: the database file.
        link: the link it is read for.
        plans: the site's captured tables.
        watcher: wakes waiting sources; give all sources of a process the same one. Made here when absent.
        acknowledge_seconds: an acknowledgement is a write, and a commit of ours can hit an application that reads
            before it writes: they are done at most this often, and otherwise in quiet moments.
        retention_days: for how long the outbox waits for other links that let their changes lie.
    """

    def __init__(
        self,
        path: str | Path,
        link: LinkName,
        plans: Sequence[TablePlan],
        *,
        watcher: Watcher | None = None,
        acknowledge_seconds: float = 2.0,
        retention_days: float = 30.0,
    ) -> None:
        super().__init__(path, watcher, acknowledge_seconds)
        self._link, self._plans = link, plans
        self._readers: dict[int, TableReader] = {}
        self._recorded: dict[str, str] = {}
        """The columns of each table as install wrote them down, when this source first looked."""
        self._retention_days = retention_days
        self._bases: Mapping[int, BaseReader] = {}
        self._used_up: list[tuple[object, ...]] = []
        """Bases of rows that a backfill has brought."""

    # --- reading --------------------------------------------------------------------------------------------------

    def read_identity(self) -> str:
        """The file's own name and epoch. Raises SetupError before install."""
        with translated(self._place):
            row = self._connection.execute(statement("sql/sqlite/install.sql", "identity")).fetchone()
        if row is None:
            raise SetupError(f"{self._place}: not installed", hint="run: replicator install")
        return str(row[0])

    def prove_history(self, after: Position | None, stamp: str, target: str) -> bool:
        """See ports.Source: positions tell it by themselves, the file by its own name and epoch."""
        del stamp, target
        if after is not None:
            with translated(self._place):
                self._start(after)
        return False

    def read_schema_mark(self) -> str:
        """See ports.Source; every read looks at it too."""
        with translated(self._place):
            (version,) = self._connection.execute(statement(_CATALOGUE, "schema_version")).fetchone()
        return str(version)

    @contextmanager
    def read_batch(
        self, after: Position | None, limit: int, wanted: ChunkRequest | None = None
    ) -> Iterator[Batch | None]:
        """Everything behind ``after``, in chunks of at most ``limit`` outbox rows; see ports.Source.

        Raises SetupError when a captured table has lost its triggers: what happened since is not in the outbox.
        """
        with translated(self._place):
            # Read before the outbox: what is committed from here on makes the next ``wait`` return at once.
            self._data_version = self._probe()
            start = self._start(after, anyway=wanted is not None)
        if start is None:
            yield None
            return
        batch = KeyBatch(after, start, self._connection, self._place, self._look, limit, lambda: self._bases, wanted)
        yield batch
        self._used_up += batch.known_bases

    def _start(self, after: Position | None, *, anyway: bool = False) -> Place | None:
        """Where to begin reading; ``None`` when there is nothing, unless it is wanted ``anyway``."""
        with self._reading():
            position, nonce, epoch, top, expired_at = self._connection.execute(
                statement(_SQL, "read_place"), (self._link.text,)
            ).fetchone()
            if epoch is None or top is None:
                raise SetupError(f"{self._place}: capture is not installed", hint="run: replicator install")
            self._look()
            valid = str(nonce if nonce is not None else epoch)
            if after is None:
                # A target that knows nothing, while the outbox may have been pruned: read every row.
                some = anyway or position is not None or top > 1
                return Place(valid, 0, read_all=position is not None) if some else None
            if expired_at is not None:
                raise self._not_known(
                    f"was away longer than the retention: since {expired_at} the outbox is pruned without it"
                )
            seq = self._seq_of(after)
            nonces = {valid, str(position or epoch).split(":")[0]}
            if position is not None and seq < self._seq_of(position):
                raise self._not_known("asks for what was delivered already: its other end is a restored copy")
            if after != position and not self._is_of_this_history(after, nonces, position):
                raise self._not_known(f"is at {after}, which is not of this file's history: it is a restored copy")
        return Place(valid, seq, acknowledged=self._seq_of(position)) if anyway or top > seq else None

    def _not_known(self, why: str) -> BatchError:
        return BatchError(f"{self._place}: link {self._link} {why}", hint=rejoin_hint(self._link.site))

    def _is_of_this_history(self, after: Position, nonces: set[str], acknowledged: Position | None) -> bool:
        """Whether the outbox row the position names is the one it was made from.

        One that was acknowledged may be pruned: a batch that brought nothing but a backfill's rows went no further than it.
        """
        nonce, seq, stamp = after.split(":")
        if nonce in nonces and acknowledged is not None and acknowledged.split(":")[1:] == [seq, stamp]:
            return True
        found = self._connection.execute(statement(_SQL, "read_stamp"), (int(seq),)).fetchone()
        return nonce in nonces and found is not None and str(found[0] or 0) == stamp

    def _seq_of(self, position: Position | None) -> int:
        if position is None:
            return 0
        try:
            _, seq, _ = position.split(":")
            return int(seq)
        except ValueError as error:
            raise BatchError(f"{self._place}: {position} is not a position of a SQLite source") from error

    def _look(self) -> Mapping[int, TableReader]:
        """The readers by relation number; looks at the triggers again when the file's schema has moved.

        Called at the start of every read transaction.
        """
        (version,) = self._connection.execute(statement(_CATALOGUE, "schema_version")).fetchone()
        if version != self._schema_version:
            self._readers = {reader.relation.id: reader for reader in self._find_readers()}
            self._bases = {
                number: BaseReader(self._link.topology, reader.relation, reader.plan.key_indexes)
                for number, reader in self._readers.items()
                if reader.plan.direction is Direction.BOTH
            }
            self._schema_version = version
        return self._readers

    def _find_readers(self) -> Iterator[TableReader]:
        rows = self._connection.execute(statement(_CATALOGUE, "list_triggers")).fetchall()
        present = {(str(name), str(table).lower()) for name, table, _, _ in rows}
        called = {str(name): str(table) for name, table, _, _ in rows}
        there = {str(name).lower() for (name,) in self._connection.execute(statement(_CATALOGUE, "list_table_names"))}
        found = self._connection.execute(statement(_SQL, "list_relations"), (self._link.topology,)).fetchall()
        known = {str(table): (int(number), str(key), str(fingerprint)) for number, table, key, fingerprint, _ in found}
        recorded = {str(table): str(columns) for _, table, _, _, columns in found}
        if recorded != (self._recorded or recorded):
            raise RetryableError(f"{self._place}: install has recorded other columns; the link is planned anew")
        self._recorded = recorded
        for plan in self._plans:
            table = plan.source.name.name
            number, key, fingerprint = known.get(table, (0, "[]", ""))
            wanted = capture_of(self._link.topology, number, plan).triggers()
            now = table if table.lower() in there else called.get(next(iter(wanted)), table)
            if now != table:  # renamed: it goes on under the name it was captured by
                plan = replace(plan, source=replace(plan.source, name=TableName("", now)))
            self._require_shape(plan)
            missing = [name for name in wanted if (name, now.lower()) not in present]
            if not number or missing or json.loads(key) != list(plan.key):
                require_captured(self._connection, self._place, self._link)
                raise SchemaError(
                    f"{self._place}: table {table} is not captured any more: it was rebuilt or our triggers were dropped",
                    hint="run: replicator install (capture starts again with all its rows), then replicator audit",
                )
            columns = tuple(column.source for column in plan.columns)
            relation = Relation(number, TableName("", table), columns, plan.key, fingerprint)
            yield TableReader(plan, relation)

    def _require_shape(self, plan: TablePlan) -> None:
        """The table must have the columns it was planned with. Raises SchemaError."""
        table = plan.source.name.name
        found = self._connection.execute(statement(_CATALOGUE, "list_columns"), (table,)).fetchall()
        now = [(str(name), str(kind)) for name, kind, *_ in found]
        if now != [(column.name, column.type) for column in plan.source.columns]:
            what = f"the columns of table {table} have changed" if now else f"there is no table {table} any more"
            raise SchemaError(f"{self._place}: {what} since the link was planned", hint="run: replicator schema diff")

    # --- acknowledging --------------------------------------------------------------------------------------------

    def acknowledge_batch(self, upto: Position) -> None:
        """Store the position and prune a little; put off to a quiet moment when the last time was just now."""
        self._unsaid = upto
        if time.monotonic() - self._acknowledged_at >= self._acknowledge_seconds:
            self._say()

    def _say(self) -> None:
        """Write the acknowledgement; when the application holds the lock it stays unsaid until the next time."""
        if self._unsaid is None and not self._prunable:
            return
        with translated(self._place):
            self._connection.execute(statement(_TRANSACTIONS, "busy_briefly"))
        try:
            self._forget_bases()
            with translated(self._place), transaction(self._connection, statement(_TRANSACTIONS, "begin_write")):
                if self._unsaid is not None:
                    parameters = (self._link.text, self._link.topology, self._unsaid)
                    self._connection.execute(statement(_SQL, "acknowledge"), parameters)
                    self._connection.execute(statement(_SQL, "unexpire"), (self._link.topology,))
                self._connection.execute(statement(_SQL, "expire"), (self._retention_days,))
                pruned = self._connection.execute(statement(_SQL, "prune"), (_PRUNE_ROWS,)).rowcount
        except RetryableError:
            return
        finally:
            with translated(self._place):
                self._connection.execute(statement(_TRANSACTIONS, "busy_as_ever"))
        self._unsaid = None
        self._prunable = pruned >= _PRUNE_ROWS - 1
        self._read_passed()
        self._acknowledged_at = time.monotonic()

    def _forget_bases(self) -> None:
        """Delete, before the acknowledgement is written, the bases of what it acknowledges: they are used up.

        In transactions of their own, so that none holds the write lock for long; repeated whole when it was cut short.
        """
        if self._unsaid is None or all(plan.direction is not Direction.BOTH for plan in self._plans):
            return
        with translated(self._place):
            with self._reading():
                if not self._bases:
                    self._look()
                (position, *_) = self._connection.execute(statement(_SQL, "read_place"), (self._link.text,)).fetchone()
            low, high = self._seq_of(position), self._seq_of(self._unsaid)
            for bases in self._bases.values():
                for settled in bases.list_settled(self._connection, low, high):
                    forget_bases(self._connection, "forget_base", settled)
            forget_bases(self._connection, "forget_known_base", self._used_up)
            self._used_up = []

    def tidy(self) -> None:
        """See ports.Source. In slices with gaps between them, so that the application gets its turns at the lock."""
        self._notice_passed()
        deadline = time.monotonic() + _TIDY_SECONDS
        while (self._unsaid is not None or self._prunable) and time.monotonic() < deadline:
            self._say()
            time.sleep(_TIDY_GAP_SECONDS)

    # --- lag, clock, what is in flight ----------------------------------------------------------------------------

    def read_lag(self, after: Position | None) -> Lag:
        """Outbox rows behind ``after`` (an order to read all rows counts as one) and the time of the first."""
        seq = max(self._seq_of(after), 1)
        with translated(self._place):
            changes, oldest = self._connection.execute(statement(_SQL, "read_lag"), (seq,)).fetchone()
        return Lag(max(int(changes or 0), 0), int(oldest or 0))

    def read_standing(self) -> Standing | None:
        """See ports.Source."""
        with translated(self._place):
            found = self._connection.execute(statement(_SQL, "read_standing"), (self._link.text,)).fetchone()
        return Standing(Position(found[0]), int(found[1]), bool(found[2])) if found else None

    def read_history(self, table: str, key: Sequence[str]) -> Sequence[RowEvent]:
        """See ports.Source."""
        with translated(self._place):
            return list(read_events(self._connection, self._link.topology, table, key, self._link.writer, self._wants))

    def _wants(self, route: str) -> bool:
        return True

    def read_change(self, number: int, position: Position | None) -> CapturedChange | None:
        """See ports.Source."""
        with translated(self._place):
            return read_change(self._connection, number, self._seq_of(position), self._link.writer)

    def read_clock(self) -> int:
        """This machine's wall clock in microseconds, with SQLite's millisecond precision."""
        with translated(self._place):
            (now,) = self._connection.execute(statement(_SQL, "read_clock")).fetchone()
        return int(now)

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """Those of ``keys`` noted behind ``after``; all of them when the whole table is about to be read."""
        wanted = set(keys)
        places = ", ".join(f"k{place}" for place in range(len(table.key)))
        sql = render(statement(_SQL, "list_keys_behind"), fragments={"places": places})
        found: set[Key] = set()
        with translated(self._place), self._reading():
            relation = self._relation_of(table)
            for op, *key in self._connection.execute(sql, (self._seq_of(after), relation)):
                if op == "a":
                    return wanted
                if tuple(key) in wanted:
                    found.add(tuple(key))
        return found

    def estimate_rows(self, table: TableName) -> int:
        """See ports.Source. Raises SetupError when the table is not captured."""
        with translated(self._place), self._reading():
            found = [reader for reader in self._look().values() if reader.plan.source.name == table]
            if not found:
                raise SetupError(f"{self._place}: table {table} is not captured", hint="run: replicator install")
            return estimate_rows(self._connection, found[0])

    def _relation_of(self, table: TablePlan) -> int:
        for number, reader in self._look().items():
            if reader.plan.source.name == table.source.name:
                return number
        raise SetupError(f"{self._place}: table {table.source.name} is not captured", hint="run: replicator install")
