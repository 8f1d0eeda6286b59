"""What a source hands to a target: consecutive whole transactions, as blocks of changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from replicator.model import Chunk, Position, Relation


class PlainRows(Protocol):
    """A backfill's rows as PostgreSQL's COPY text of ``relation``'s columns: for a target that can take it as it is."""

    @property
    def relation(self) -> int:
        """The relation's number."""
        ...

    def read(self, *, numbered: bool) -> Iterator[bytes]:
        """All rows; ``numbered``: with ``ord, op, changed_at`` in front. Instead of the block's ``chunks``.

        Raises nothing of the target's: when that refuses them, the rest is read to no purpose, and then, from the start, the
        other form, or ``chunks``. What was read last counts.
        """
        ...


@dataclass(frozen=True, slots=True)
class OutboxBlock:
    """Outbox rows as the source PostgreSQL's COPY text, raw: nothing in Python looks at a value.

    Columns: ``ord bigint, relation integer, op "char", changed_at bigint, before text, after text``; images are
    record literals (``record_out``) over the relation's columns.

    From a centre: op is Op.STATE or Op.GONE (``after`` has the key's values only), and ``before`` is what a site keeps as the
    row's base: the checksum the centre's ledger would have for ``after``.

    ``loaded``: these are rows of a backfill's chunk, not changes. Nobody knows what the site believed before (no base,
    whatever a ledger says): they are inserted where the target has no such row, passed over where it has the same, and else
    meet what is there as ``ConflictKind.INSERT_EXISTS``; one the ledger knows to have been deleted there is
    ``ConflictKind.UPDATE_DELETED``, it does not come back by itself. Where the policy is to decide, a row here that somebody
    else wrote and the site was not known to have when the rows were asked for (its link had not acknowledged it) stands, off
    the record: the site had not seen it (``Conflict.untouched``). What was decided about them is always answered to a site that
    gets changes too: nothing it wrote keeps back what is on its way there. ``changed_at`` 0: nobody knows
    when. One whose key the batch's changes touch is passed over: the changes know better. From a site: op is Op.INSERT, or
    Op.DELETE with the key's values only (a row that was asked for by key and is not there). ``plain``: the same rows in a form
    that is quicker where the target is PostgreSQL, too.
    """

    chunks: Iterator[bytes]
    loaded: bool = False
    plain: PlainRows | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """What a site without before images believed a row to be, where the centre wrote it last. See RowBlock.

    ``checksum`` and ``image`` are as the centre handed them out with the row (None where the row was not there).
    """

    ord: int
    existed: bool
    checksum: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows of one relation as the source's driver gives them (SQLite storage classes: None, int, float, str, bytes).

    Each row: ``(ord, op, changed_at, *values)`` in the relation's column order; ``op`` is Op.STATE, or Op.GONE with all
    but the key values None. ``odd`` rows hold a value whose storage class or form does not fit the target column: they
    take the careful way (value by value, parked when they do not fit). ``bases``, for some of the rows of both: what the site
    knows better than the centre's ledger. ``checksums``, from a centre: one per row of ``rows`` and then of ``odd``, to be kept
    as the rows' bases. ``loaded``: rows of a backfill's chunk, as for OutboxBlock.
    """

    relation: int
    rows: Sequence[tuple[object, ...]]
    odd: Sequence[tuple[object, ...]] = ()
    bases: Sequence[Base] = ()
    checksums: Sequence[str | None] = ()
    loaded: bool = False


class ValueBlock(Protocol):
    """All changes a batch has of one relation, with whole rows before and after and their values apart.

    Lines are PostgreSQL's text COPY: fields parted by tabs, in the relation's column order. They may be asked for again.
    """

    relation: int
    count: int
    newest_changed_at: int

    @property
    def inserted(self) -> int:
        """How many of the changes are inserts."""
        ...

    def is_distinct(self, key: Sequence[int]) -> bool:
        """Whether no two of the changes are of one row, by the values at the ``key`` places. Raises as ``changes``."""
        ...

    def inserts(self, prefix: bytes) -> Iterator[bytes]:
        """Lines of the inserted rows; ``prefix`` stands before each."""
        ...

    def changes(self, key: Sequence[int], *, inserts: bool) -> Iterator[bytes]:
        """Lines of all changes (``inserts``: of these too): ``ord, existed, present, changed_at``, key, rows before and after.

        The key's values are those at the ``key`` places; where there is no row its values are NULL. Raises RejectedError
        where a change is not as simple as that (the key changes, the log does not have a value): then ``blocks`` has it.
        """
        ...


class Batch(Protocol):
    """Consecutive whole transactions of one source, streamed once in order. Memory used does not grow with its size."""

    after: Position | None
    relations: Mapping[int, Relation]

    def blocks(self) -> Iterator[OutboxBlock | RowBlock]:
        """The changes. Ordinals grow over the whole batch; per row, ordinal order is commit order. Call once."""
        ...

    @property
    def upto(self) -> Position:
        """The position after the batch; known once ``blocks`` is exhausted."""
        ...

    @property
    def more(self) -> bool:
        """Whether more can be read at once; known once ``blocks`` is exhausted."""
        ...

    @property
    def marker(self) -> Position | None:
        """From a centre: the place up to which it had processed the site's own changes by ``upto``; None: no news.

        Known once ``blocks`` is exhausted.
        """
        ...

    @property
    def stamp(self) -> str:
        """What the source finds in its history as long as that is the one ``upto`` is of; empty where ``upto`` says it itself.

        Known once ``blocks`` is exhausted; kept with the position, and handed to ``Source.prove_history`` later.
        """
        ...

    @property
    def chunk(self) -> Chunk | None:
        """What the last blocks (``loaded``) carry of the backfill that was asked for; ``None`` when they carry nothing.

        Known once ``blocks`` is exhausted.
        """
        ...


@runtime_checkable
class Readable(Protocol):
    """Met by a batch that is in memory: it can be read in a second form, and again (``blocks`` may be called again then)."""

    def values(self) -> Sequence[ValueBlock]:
        """The changes by relation, for a target that can take them so; empty when some of them cannot be had so.

        Ordinals are those of all blocks together, but not those that ``blocks`` gives.
        """
        ...
