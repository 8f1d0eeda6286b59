"""Captured tables as the log shows them: which of its columns make an image, and a change as a row of the outbox.

Where a table's columns are no longer those on record its rows are captured by name, as triggers do, under the negative
relation number, until install has run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicator.engines.postgres.wal import protocol, spelling
from replicator.engines.postgres.wal.protocol import UNCHANGED, TableMessage, Values
from replicator.errors import SetupError
from replicator.model import Op, TableName

_OUTBOX_FIELDS, _STAGE_FIELDS = 7, 9
_OLD = ord("O")
_EXISTING = "e"
"""In the stage: an insert whose filter has been asked."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A relation captured from the log, as ``replicator.wal_relation`` has it. ``filter`` reads the row behind the alias r."""

    relation: int
    oid: int
    table: TableName
    columns: tuple[str, ...]
    key: tuple[str, ...]
    types: tuple[str, ...]
    filter: str
    filter_columns: tuple[str, ...]
    filter_types: tuple[str, ...]
    truncates: bool
    state: str
    attnums: tuple[int, ...] = ()
    """The columns' numbers (pg_attribute); none where they are not on record."""


class Lane:
    """How the changes of one captured table become rows of the outbox (or of the stage, where rows are filtered).

    Args:
        captured: what is captured.
        numbers: the numbers the table's columns have, by name.
        shown: the table as the log shows it.
        types: the names of its columns' types now; a type that is gone has a name no column on record has.
        staged: rows carry the values the row filter reads.
    """

    def __init__(
        self, captured: Captured, shown: TableMessage, types: Sequence[str], numbers: Mapping[str, int], *, staged: bool
    ) -> None:
        self.captured = captured
        self.shown = shown
        self._staged = staged
        place = {name: number for number, name in enumerate(shown.columns)}
        wanted = [*zip(captured.columns, captured.types, strict=True)]
        wanted += zip(captured.filter_columns, captured.filter_types, strict=True)
        self.by_name = any(name not in place or types[place[name]] != kind for name, kind in wanted)
        if captured.attnums and not self.by_name:
            on_record = sorted(zip(captured.attnums, captured.columns, strict=True))
            in_order = sorted(captured.columns, key=lambda name: place[name])  # the log shows columns by their numbers
            # A name that is gone by now was renamed or dropped since: the column is the one on record still.
            others = any(numbers.get(name, number) != number for number, name in on_record)
            self.by_name = others or in_order != [name for _, name in on_record]
        self._places = [] if self.by_name else [place[name] for name in captured.columns]
        self._in_order = self._places == list(range(len(shown.columns)))
        self._key = [place[name] for name in captured.key if name in place]
        self._filter = [] if self.by_name else [place[name] for name in captured.filter_columns]
        self._raw = self.by_name or staged
        self._plain = [kind in spelling.PLAIN_TYPES for kind in shown.types]
        fields = _STAGE_FIELDS if staged else _OUTBOX_FIELDS
        number = -captured.relation if self.by_name else captured.relation
        self._heads = {op: spelling.row_head(fields, number, op) for op in "iudk"}
        self._truncated = spelling.row_head(fields, captured.relation, Op.TRUNCATE)

    @property
    def simple(self) -> bool:
        """Whether rows are captured as the log shows them: neither by name nor filtered."""
        return not self._raw

    @property
    def places(self) -> Sequence[int]:
        """Where the log's rows have the columns of an image."""
        return self._places

    @property
    def in_order(self) -> bool:
        """Whether an image has the columns the log shows, in their order."""
        return self._in_order

    def insert(self, middle: bytes, data: bytes) -> bytes:
        """The row of an Insert message; ``middle`` is the transaction's time, origin and place."""
        if self._raw:
            return self._row("i", middle, None, protocol.read_values(data, 6)[0])
        image = self._literal(spelling.read_fields(data, 6, self._plain)[0])
        return b"%b%b\xff\xff\xff\xff%b%b" % (self._heads["i"], middle, len(image).to_bytes(4, "big"), image)

    def update(self, middle: bytes, data: bytes) -> bytes | None:
        """The row of an Update message; ``None`` when no captured value changed."""
        if self._raw or data[5] != _OLD:
            return self._change(middle, protocol.read_update(data))
        old, at = spelling.read_fields(data, 6, self._plain)
        new, _ = spelling.read_fields(data, at + 1, self._plain)
        if UNCHANGED in new:
            new = [was if value is UNCHANGED else value for was, value in zip(old, new, strict=True)]
        before, after = self._literal(old), self._literal(new)
        if before == after:
            return None
        op = "k" if any(old[number] != new[number] for number in self._key) else "u"
        return b"".join((self._heads[op], middle, spelling.text_field(before), spelling.text_field(after)))

    def delete(self, middle: bytes, data: bytes) -> bytes | None:
        """The row of a Delete message."""
        return self._change(middle, protocol.read_delete(data))

    def _literal(self, fields: list[bytes]) -> bytes:
        return b"(%b)" % b",".join(fields if self._in_order else [fields[number] for number in self._places])

    def _change(self, middle: bytes, change: protocol.RowChange) -> bytes | None:
        """Without the whole old row (the replica identity is not full, say of a new partition) its key is all that is known.

        The rest counts as NULL: the change is compared with the target's row, and decided as a conflict.
        """
        old, new = change.old, change.new
        if new is None:
            return self._row("d", middle, old, None)
        if UNCHANGED in new:
            if old is None or not change.whole:
                raise self._incomplete()
            new = [was if value is UNCHANGED else value for was, value in zip(old, new, strict=True)]
        if old is None:
            old = [value if number in self._key else None for number, value in enumerate(new)]
        op = "k" if any(old[number] != new[number] for number in self._key) and not self.by_name else "u"
        if not self._staged and change.whole and self._image(old) == self._image(new):
            return None
        return self._row(op, middle, old, new)

    def truncate(self, middle: bytes) -> bytes:
        """The row of a TRUNCATE."""
        return self._truncated + middle + spelling.text_field(None) * (4 if self._staged else 2)

    def _row(self, op: str, middle: bytes, old: Values | None, new: Values | None) -> bytes:
        pieces = [self._heads[op], middle]
        pieces += [spelling.text_field(None if row is None else self._image(row)) for row in (old, new)]
        if self._staged:
            pieces += [
                spelling.array_field(None if row is None else [row[n] for n in self._filter]) for row in (old, new)
            ]
        return b"".join(pieces)

    def _image(self, row: Values) -> bytes:
        if self.by_name:
            return spelling.by_name(self.shown.columns, row)
        return spelling.record(row if self._in_order else [row[number] for number in self._places])

    def _incomplete(self) -> SetupError:
        return SetupError(
            f"table {self.captured.table}: the log does not have a large value that an update left as it was, "
            "because the table's replica identity is not full",
            hint="run: replicator install; then resynchronise the table: replicator uninstall, replicator install",
        )


def existing_row(captured: Captured, middle: bytes, image: bytes, *, staged: bool) -> bytes:
    """The row of a record literal that install read from the table; its filter was asked there."""
    head = spelling.row_head(
        _STAGE_FIELDS if staged else _OUTBOX_FIELDS, captured.relation, _EXISTING if staged else "i"
    )
    tail = spelling.array_field(None) * 2 if staged else b""
    return head + middle + spelling.text_field(None) + spelling.text_field(image) + tail
