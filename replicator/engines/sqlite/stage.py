"""Brings a batch beside the tables of a SQLite target and cuts it into spans.

Values are converted on the way in, so that the stage holds exactly what the target will store. A change with a value
the target cannot hold is staged as a *fault*: its span is refused, halved, and the change parked in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from replicator.engines.sqlite.lane import Lane
from replicator.engines.sqlite.session import Session, apply_sql
from replicator.engines.sqlite.values import SourceText, UnfitError, encode_image, unfit
from replicator.errors import BatchError
from replicator.model import Op, Relation, Span
from replicator.ports import Batch, OutboxBlock, RowBlock
from replicator.records import parse_record, unescape
from replicator.sqlfiles import render

_LINES = 2_000

Row = tuple[object, ...]
Image = Sequence[object]


class Stage:
    """The staged batch of one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._relations: dict[int, Relation] = {}
        self._based = False
        self._loaded = False
        """Whether what is staged now are rows of a backfill's chunk."""
        self.has_loaded = False
        self._last_loaded = 0
        self.changes = 0
        self.newest_changed_at = 0
        self.idle = False
        """A parked row that is to be tried has gone in already: the span it would be is empty."""

    def lane(self, relation: int) -> Lane:
        """The lane of a staged relation number. Raises BatchError for one the batch did not name."""
        try:
            return self._session.lane(self._relations[relation])
        except KeyError:
            raise BatchError(f"link {self._session.link}: the batch names an unknown relation {relation}") from None

    def relations(self) -> Sequence[int]:
        """Numbers of the relations the batch may hold."""
        return tuple(self._relations)

    def adopt(self, relation: Relation) -> Lane:
        """Make a relation known that no batch named."""
        self._relations[relation.id] = relation
        return self._session.lane(relation)

    def orders(self, span: Span) -> Sequence[int]:
        """The ordinals staged in a span."""
        return [int(order) for order, _ in self._session.run(apply_sql("staged_ordinals"), span.low, span.high)]

    # --- in -------------------------------------------------------------------------------------------------------

    def fill(self, batch: Batch) -> None:
        """Stage all blocks."""
        self._based = changed = False
        for block in batch.blocks():
            self._relations.update(batch.relations)
            self._loaded = block.loaded
            self.has_loaded, changed = self.has_loaded or block.loaded, changed or not block.loaded
            if isinstance(block, OutboxBlock):
                self._stage_literals(block)
            else:
                self._stage_rows(block)
        self._loaded = False
        if self._based:
            self._session.run(apply_sql("keep_first_bases"))
        if self.has_loaded and changed:
            self._pass_over()
        self.measure()

    def _pass_over(self) -> None:
        """Leave out rows of the chunk that the batch's changes touch."""
        for numbers in self._by_place().values():
            listed = ", ".join(str(number) for number in numbers)
            self._session.run(render(apply_sql("pass_over"), fragments={"numbers": listed}))

    def measure(self) -> None:
        """Count what is staged."""
        _, _, self.changes, self.newest_changed_at = self._session.run(apply_sql("stage_extent")).fetchone()
        if self.has_loaded:
            (self.changes,) = self._session.run(apply_sql("count_changes")).fetchone()

    def _stage_rows(self, block: RowBlock) -> None:
        lane = self.lane(block.relation)
        key_of = lane.key_of_row
        sql = lane.stage_state[block.loaded]
        self._session.connection.executemany(sql, ((*row, key_of(row)) for row in block.rows))
        for order, op, changed_at, *values in block.odd:
            self.stage_native(lane, int(str(order)) * 2, str(op), int(str(changed_at)), values)
        if block.bases:
            self._based = True
            rows = (
                (base.ord * 2, base.existed, bytes.fromhex(base.checksum or ""), base.image) for base in block.bases
            )
            self._session.connection.executemany(apply_sql("stage_base"), rows)

    def stage_native(self, lane: Lane, order: int, op: str, changed_at: int, values: Image) -> None:
        """Stage one row of a key-mode source value by value."""
        values = lane.project(values) or ()
        reasons = (
            f"column {name}: {reason}"
            for name, value, declared in zip(lane.columns, values, lane.target_types, strict=True)
            if (reason := unfit(value, declared))
        )
        self._insert(lane, order, op, changed_at, None, values, next(reasons, ""))

    def _stage_literals(self, block: OutboxBlock) -> None:
        lines = _lines(block.chunks)
        while some := list(islice(lines, _LINES)):
            for line in some:
                order, relation, op, changed_at, before, after = _fields(line)
                images = [None if image is None else _texts(image) for image in (before, after)]
                if self._loaded and op == Op.DELETE:
                    images = [self.lane(int(str(relation))).whole(next(image for image in images if image)), None]
                self.stage_texts(int(str(relation)), self._ordinal(order), str(op), int(str(changed_at)), *images)

    def _ordinal(self, order: object) -> int:
        """Where a change is staged; a chunk's rows have numbers of a source's own and are numbered anew, behind all changes."""
        if not self._loaded:
            return int(str(order)) * 2
        if not self._last_loaded:
            self._last_loaded = int(self._session.run(apply_sql("stage_extent")).fetchone()[1] or 0) // 2 * 2
        self._last_loaded += 2
        return self._last_loaded

    def stage_texts(
        self, relation: int, order: int, op: str, changed_at: int, before: Image | None, after: Image | None
    ) -> None:
        """Stage one change of a PostgreSQL source; a key update becomes two parts: the old row gone, the new one there."""
        lane = self.lane(relation)
        before, after = lane.project(before), lane.project(after)
        if op == Op.TRUNCATE:
            self._insert(lane, order, op, changed_at, None, None, "")
        elif op == Op.KEY_UPDATE:
            self._convert(lane, order, Op.DELETE, changed_at, before, None)
            self._convert(lane, order + 1, Op.INSERT, changed_at, None, after)
        else:
            self._convert(lane, order, op, changed_at, before, after)

    def _convert(
        self, lane: Lane, order: int, op: str, changed_at: int, before: Image | None, after: Image | None
    ) -> None:
        fault, was, now = "", before, after
        try:
            was = None if before is None else _converted(lane, before)
            now = None if after is None else _converted(lane, after)
        except UnfitError as error:
            fault, was, now = str(error), before, after
        self._insert(lane, order, op, changed_at, was, now, fault)

    def _insert(
        self, lane: Lane, order: int, op: str, changed_at: int, before: Image | None, after: Image | None, fault: str
    ) -> None:
        image = after if after is not None else before
        key = lane.key_of(image) if image is not None else ""
        head = (order, lane.relation.id, str(op), changed_at, key, fault or None)
        nothing = [None] * len(lane.columns)
        if fault or image is None:
            raw = [None if each is None else encode_image(each) for each in (before, after)]
            values: Iterable[object] = [None] * len(lane.key_places) + nothing + nothing
        else:
            raw = [None, None]
            values = [image[place] for place in lane.key_places] + list(before or nothing) + list(after or nothing)
        self._session.connection.execute(lane.stage_change, (*head, *raw, self._loaded, *values))

    def put(self, lane: Lane, order: int, op: str, changed_at: int, values: Image) -> None:
        """Stage one row that is to be written, or removed, as it stands here, whatever anybody believed it to be."""
        before = values if op == Op.DELETE else None
        self._insert(lane, order, op, changed_at, before, None if op == Op.DELETE else values, "")
        if op == Op.GONE:
            self._session.run(apply_sql("stage_base"), order, 1, b"", None)

    # --- spans ----------------------------------------------------------------------------------------------------

    def spans(self) -> Sequence[Span]:
        """The stage as one span, cut where TRUNCATEs begin and end, and between versions of one table."""
        if self.idle:
            return (Span(0, 0, 1),)
        run = self._session.run
        low, high, count, _ = run(apply_sql("stage_extent")).fetchone()
        if not count:
            return ()
        (cut,) = run(apply_sql("has_truncates")).fetchone()
        versions = self._versions()
        if not cut and not versions:
            return (Span(low, high, count),)
        return tuple(Span(*row) for row in run(apply_sql("list_spans"), json.dumps(versions)))

    def _versions(self) -> list[tuple[int, int]]:
        """Relations that are versions of one table, with a number for it: their order must be kept."""
        shared = [numbers for numbers in self._by_place().values() if len(numbers) > 1]
        return [(number, place) for place, numbers in enumerate(shared) for number in numbers]

    def _by_place(self) -> dict[str, list[int]]:
        """The relations of each table."""
        places: dict[str, list[int]] = {}
        for number in self._relations:
            places.setdefault(self.lane(number).place, []).append(number)
        return places

    def halve(self, span: Span) -> tuple[Span, Span]:
        """Two halves by number of changes."""
        count = span.count // 2
        (last,) = self._session.run(apply_sql("halve"), span.low, span.high, count).fetchone()
        return Span(span.low, last, count), Span(last + 1, span.high, span.count - count)


def _converted(lane: Lane, image: Image) -> list[object]:
    """What the target will store. Raises UnfitError naming the column."""
    try:
        return [
            value if type(value) is not SourceText else str(value) if convert is None else convert(value)
            for value, convert in zip(image, lane.converters, strict=True)
        ]
    except (UnfitError, ValueError, KeyError):
        return _converted_one_by_one(lane, image)


def _converted_one_by_one(lane: Lane, image: Image) -> list[object]:
    """The same, to learn which column it is."""
    values: list[object] = []
    for place, (value, convert) in enumerate(zip(image, lane.converters, strict=True)):
        if convert is None or not isinstance(value, SourceText):
            values.append(str(value) if isinstance(value, SourceText) else value)
            continue
        try:
            values.append(convert(value))
        except (UnfitError, ValueError, KeyError) as error:
            raise UnfitError(f"column {lane.columns[place]}: {error}") from error
    return values


def _texts(image: str) -> Image:
    return [None if value is None else SourceText(value) for value in parse_record(image)]


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """COPY's lines from chunks cut anywhere."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + bytes(chunk)).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _fields(line: bytes) -> Sequence[str | None]:
    """A line of COPY text."""
    return [
        raw if "\\" not in raw else None if raw == "\\N" else unescape(raw.encode())
        for raw in line.decode().split("\t")
    ]
