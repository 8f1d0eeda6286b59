"""A batch in key mode: the way from one state of a SQLite file to a later one, in chunks of bounded size."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from replicator.engines.sqlite.base import BaseReader
from replicator.engines.sqlite.chunks import ChunkReading
from replicator.engines.sqlite.connection import transaction, translated
from replicator.engines.sqlite.reading import Row, TableReader, TooLargeError, blocks_of
from replicator.errors import RetryableError
from replicator.model import Chunk, ChunkRequest, Position, Relation
from replicator.ports import RowBlock
from replicator.sqlfiles import statement

_SQL = "sql/sqlite/source.sql"
_CATALOGUE = "sql/sqlite/catalogue.sql"
_TRANSACTIONS = "sql/sqlite/transactions.sql"
_CHUNK_WAL, _CHUNK_JOURNAL = 10_000, 1_000
"""Outbox rows per chunk: about 40 ms of reading; without WAL a reader holds writers up, so a tenth of that."""
_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch begins: the nonce its positions carry, the outbox row behind which it starts.

    ``read_all``: every row of every table comes first, because earlier outbox rows are gone. ``acknowledged``: the outbox
    row up to which the file knows that the centre has its changes.
    """

    nonce: str
    seq: int
    read_all: bool = False
    acknowledged: int = 0


class KeyBatch:
    """Meets ports.Batch.

    Args:
        after: the position it follows.
        start: where that is.
        connection: the source's connection, used only between the hand-overs of two blocks.
        place: the file, for error messages.
        look: gives the readers by relation number, inside a read transaction.
        limit: at most this many outbox rows per chunk.
        bases: gives the readers of bases by relation number, for the tables that the centre writes too.
        wanted: the chunk of a backfill that the batch is to end with.
    """

    def __init__(
        self,
        after: Position | None,
        start: Place,
        connection: sqlite3.Connection,
        place: str,
        look: Callable[[], Mapping[int, TableReader]],
        limit: int,
        bases: Callable[[], Mapping[int, BaseReader]],
        wanted: ChunkRequest | None = None,
    ) -> None:
        self.after = after
        self._bases = bases
        self.relations: Mapping[int, Relation] = {}
        self._start, self._connection, self._where, self._look = start, connection, place, look
        self._seq = start.seq
        self._shift = 0
        self._stamp = 0
        (mode,) = connection.execute(statement(_CATALOGUE, "journal_mode")).fetchone()
        rows = _CHUNK_WAL if mode == "wal" else _CHUNK_JOURNAL
        self._largest = max(min(limit, rows), 1)
        self._loading = ChunkReading(wanted, rows) if wanted is not None else None
        self.known_bases: list[tuple[object, ...]] = []
        """Bases of the chunk's rows, which are used up once the target has them."""
        self._chunk = self._largest
        with translated(place), self._reading():
            self.relations = {number: reader.relation for number, reader in look().items()}

    def blocks(self) -> Iterator[RowBlock]:
        """The changed rows as they are now; a later block's row replaces an earlier one's."""
        if self._start.read_all:
            for number in self.relations:
                yield from self._read_all(number, 0)
        caught_up = False
        while not caught_up:
            with translated(self._where):
                found, order, caught_up = self._read_chunk()
            yield from blocks_of(found)
            if order is not None:
                yield from self._read_all(*order)
        while self._loading is not None and self._loading.chunk is None:
            with translated(self._where), self._reading():
                block = self._load(self._loading)
            yield from blocks_of([block])

    @property
    def upto(self) -> Position:
        """The last outbox row read, and its time: a restored file would have another."""
        return Position(f"{self._start.nonce}:{self._seq}:{self._stamp}")

    @property
    def stamp(self) -> str:
        """Empty: the position tells by itself of which history it is."""
        return ""

    @property
    def more(self) -> bool:
        """Never: a batch goes on until it has caught up."""
        return False

    @property
    def marker(self) -> Position | None:
        """None: only the centre says how far it has processed changes."""
        return None

    @property
    def chunk(self) -> Chunk | None:
        """What was read of the chunk that was wanted."""
        return None if self._loading is None else self._loading.chunk

    def _read_chunk(self) -> tuple[list[RowBlock], tuple[int, int] | None, bool]:
        """The next chunk; then the relation to read all of, if the chunk ends with such an order; whether caught up."""
        while True:
            try:
                with self._reading():
                    blocks, order, caught_up = self._read_stretch()
                    if caught_up and self._loading is not None:
                        blocks.append(self._load(self._loading))
                    return blocks, order, caught_up
            except TooLargeError:
                self._chunk = max(self._chunk // 4, 1)

    def _load(self, loading: ChunkReading) -> RowBlock:
        """The next part of a backfill's chunk: the first in the transaction that ends the changes."""
        readers = self._look().values()
        block = loading.read(self._connection, readers, self._seq + self._shift)
        self._shift += len(block.rows) + len(block.odd)
        bases = self._bases().get(block.relation)
        if bases is not None:
            self.known_bases += bases.list_known(block, self._connection)
        return block

    def _read_stretch(self) -> tuple[list[RowBlock], tuple[int, int] | None, bool]:
        execute = self._connection.execute
        readers = self._look()
        (top,) = execute(statement(_SQL, "read_top")).fetchone()
        low, high = self._seq, min(self._seq + self._chunk, top)
        order = None
        found = execute(statement(_SQL, "first_read_all"), (low, high)).fetchone()
        if found is not None:
            high, number, stamp = found
            order = (int(number), int(stamp or 0)) if number in readers else None
        blocks, size = [], 0
        for (number,) in execute(statement(_SQL, "relations_between"), (low, high)).fetchall():
            if number in readers:
                budget = _CHUNK_BYTES - size if self._chunk > 1 else 1 << 62
                block, more = readers[number].changed_rows(self._connection, low, high, self._shift, budget)
                blocks.append(self._with_bases(block))
                size += more
        if size < _CHUNK_BYTES // 4:
            self._chunk = min(self._chunk * 2, self._largest)
        last = execute(statement(_SQL, "read_stamp"), (high,)).fetchone()
        self._seq, self._stamp = high, int(last[0] or 0) if last else 0
        return blocks, order, high == top and order is None

    def _read_all(self, number: int, stamp: int) -> Iterator[RowBlock]:
        """Every row of a table, page by page. What changes meanwhile is behind us in the outbox and comes again."""
        behind: Row | None = None
        count = self._largest
        version: int | None = None
        while True:
            with translated(self._where), self._reading():
                reader = self._look()[number]
                (now,) = self._connection.execute(statement(_CATALOGUE, "schema_version")).fetchone()
                if version not in (None, now):
                    raise RetryableError(f"{self._where}: the schema moved while {reader.relation.table} was read")
                version = now
                end = reader.page_end(self._connection, behind, count)
                ordinal = self._seq + self._shift
                budget = _CHUNK_BYTES if count > 1 else 1 << 62
                try:
                    block, size = reader.page_rows(self._connection, behind, end, ordinal, stamp, budget)
                except TooLargeError:
                    count = max(count // 4, 1)
                    continue
                block = self._with_bases(block)
            self._shift += len(block.rows) + len(block.odd)
            if size < _CHUNK_BYTES // 4:
                count = min(count * 2, self._largest)
            yield from blocks_of([block])
            if end is None:
                return
            behind = end

    def _with_bases(self, block: RowBlock) -> RowBlock:
        bases = self._bases().get(block.relation)
        if bases is None:
            return block
        return bases.add_to(block, self._connection, self._start.acknowledged, self._start.seq)

    def _reading(self) -> AbstractContextManager[None]:
        return transaction(self._connection, statement(_TRANSACTIONS, "begin_read"))
