"""Meets ports.Source and ports.InFlight for a SQLite file captured in key mode.

A batch is the whole way from one state of the file to a later one: it is read in chunks, each in a short read
transaction of its own that ends before its rows are handed on, and goes on until the outbox is caught up. Every key was
then read after its last change, so the batch as a whole is exactly the file at the last snapshot.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from replicator.engines.sqlite.base import BaseReader, add_key_function
from replicator.engines.sqlite.batch import KeyBatch, Place
from replicator.engines.sqlite.capture import capture_of
from replicator.engines.sqlite.connection import connect, spare_the_disk, transaction, translate, translated
from replicator.engines.sqlite.events import read_change, read_events
from replicator.engines.sqlite.reading import TableReader
from replicator.engines.sqlite.watch import FileWatch, Watcher
from replicator.errors import RESTORED, BatchError, RetryableError, SetupError
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
_QUIET_SECONDS = 0.05


class SqliteSource:
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
        self._path, self._place = Path(path), str(path)
        self._link, self._plans = link, plans
        self._watcher = watcher
        self._own_watcher: Watcher | None = None
        self._watch = FileWatch(self._path, self._probe)
        self._opened: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._readers: dict[int, TableReader] = {}
        self._recorded: dict[str, str] = {}
        """The columns of each table as install wrote them down, when this source first looked."""
        self._schema_version: int | None = None
        self._data_version: int | None = None
        self._acknowledge_seconds = acknowledge_seconds
        self._acknowledged_at = -float("inf")
        self._unsaid: Position | None = None
        self._prunable = False
        self._retention_days = retention_days
        self._bases: Mapping[int, BaseReader] = {}

    # --- reading --------------------------------------------------------------------------------------------------

    def read_identity(self) -> str:
        """The file's own name and epoch. Raises SetupError before install."""
        with translated(self._place):
            row = self._connection.execute(statement("sql/sqlite/install.sql", "identity")).fetchone()
        if row is None:
            raise SetupError(f"{self._place}: not installed", hint="run: replicator install")
        return str(row[0])

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
            start = self._start(after)
        if start is None:
            yield None
            return
        yield KeyBatch(after, start, self._connection, self._place, self._look, limit, lambda: self._bases)

    def _start(self, after: Position | None) -> Place | None:
        """Where to begin reading, ``None`` when there is nothing."""
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
                return Place(valid, 0, read_all=position is not None) if position is not None or top > 1 else None
            if expired_at is not None:
                raise self._not_known(
                    f"was away longer than the retention: since {expired_at} the outbox is pruned without it"
                )
            seq = self._seq_of(after)
            nonces = {valid, str(position or epoch).split(":")[0]}
            if position is not None and seq < self._seq_of(position):
                raise self._not_known("asks for what was delivered already: its other end is a restored copy")
            if after != position and not self._is_of_this_history(after, nonces):
                raise self._not_known(f"is at {after}, which is not of this file's history: it is a restored copy")
        return Place(valid, seq, acknowledged=self._seq_of(position)) if top > seq else None

    def _not_known(self, why: str) -> BatchError:
        return BatchError(f"{self._place}: link {self._link} {why}", hint=RESTORED)

    def _is_of_this_history(self, after: Position, nonces: set[str]) -> bool:
        """Whether the outbox row the position names is the one it was made from."""
        nonce, seq, stamp = after.split(":")
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
            missing = [name for name in wanted if (name, table.lower()) not in present]
            if not number or missing or json.loads(key) != list(plan.key):
                raise SetupError(
                    f"{self._place}: table {table} is not captured any more: it was rebuilt or our triggers were dropped",
                    hint="run: replicator install (capture starts again with all its rows), then replicator audit",
                )
            columns = tuple(column.source for column in plan.columns)
            relation = Relation(number, TableName("", table), columns, plan.key, fingerprint)
            yield TableReader(plan, relation)

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
                    for start in range(0, len(settled), _PRUNE_ROWS):
                        with transaction(self._connection, statement(_TRANSACTIONS, "begin_write")):
                            some = settled[start : start + _PRUNE_ROWS]
                            self._connection.executemany(statement(_SQL, "forget_base"), some)

    def tidy(self) -> None:
        """See ports.Source. In slices with gaps between them, so that the application gets its turns at the lock."""
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

    def _relation_of(self, table: TablePlan) -> int:
        for number, reader in self._look().items():
            if reader.plan.source.name == table.source.name:
                return number
        raise SetupError(f"{self._place}: table {table.source.name} is not captured", hint="run: replicator install")

    # --- waiting --------------------------------------------------------------------------------------------------

    def wait(self, timeout: float) -> bool:
        """See ports.Source. In quiet moments acknowledgements put off are written, and the outbox is pruned."""
        self._watching().add(self._watch)
        deadline = time.monotonic() + timeout
        while self._unsaid is not None or self._prunable:
            if self._sleep(min(_QUIET_SECONDS, timeout)):
                return True
            if time.monotonic() > deadline:
                return False
            due = self._acknowledged_at + (0.0 if self._prunable else self._acknowledge_seconds)
            if time.monotonic() >= due:
                self._say()
        return self._sleep(max(deadline - time.monotonic(), 0.0))

    def _sleep(self, seconds: float) -> bool:
        with translated(self._place):
            # The watcher's thread, which asks for all files, must never wait for one that is locked.
            self._connection.execute(statement(_TRANSACTIONS, "busy_never"))
            try:
                return self._watch.wait(seconds, self._data_version)
            finally:
                self._connection.execute(statement(_TRANSACTIONS, "busy_as_ever"))

    def wake(self) -> None:
        """See ports.Source."""
        self._watch.wake()

    def close(self) -> None:
        """Write what is unsaid, release the connection and the watch. Repeatable."""
        if self._watcher is not None:
            self._watcher.forget(self._watch)
        if self._opened is not None:
            with suppress(RetryableError, SetupError):
                self._check_file()
                self._say()
            self._opened.close()
            self._opened = None
            self._schema_version = self._data_version = None
        if self._own_watcher is not None:
            self._own_watcher.close()
            self._watcher = self._own_watcher = None

    # --- connection -----------------------------------------------------------------------------------------------

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            # The watcher's thread asks for data_version while this source's own thread waits; never both at once.
            self._file = self._find_file()  # before it is opened: what replaces it from here on is noticed
            self._opened = connect(self._path, any_thread=True)
            spare_the_disk(self._opened)
            add_key_function(self._opened)
        return self._opened

    def _find_file(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_dev, found.st_ino
        return None

    def _check_file(self) -> None:
        """Raises RetryableError when another file, or none, has the open file's name: nobody writes to ours any more."""
        if self._find_file() != self._file:
            raise RetryableError(f"{self._place}: the file was moved or replaced while it was open; it is opened anew")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with transaction(self._connection, statement(_TRANSACTIONS, "begin_read")):
            yield

    def _probe(self) -> int | None:
        """The file's data_version; the last known one while a writer keeps readers out (it has not committed yet)."""
        connection = self._connection
        self._check_file()
        try:
            (version,) = connection.execute(statement(_CATALOGUE, "data_version")).fetchone()
        except sqlite3.OperationalError as error:
            if isinstance(translate(error, self._place), RetryableError):
                return self._data_version
            raise
        return int(version)

    def _watching(self) -> Watcher:
        if self._watcher is None:
            self._watcher = self._own_watcher = Watcher()
        return self._watcher
