"""Brings a batch beside the data of a PostgreSQL target and cuts it into spans.

Two ways in: record literals of a PostgreSQL source are copied as raw bytes (text lane); rows of a source without
literals are copied typed, one table per relation (typed lane). Rows that need care join the text lane value by value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import psycopg

from replicator.engines.postgres.connection import translate
from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.loading import Loading
from replicator.engines.postgres.parked import LAST_ORDINAL, ParkedChanges, Staged
from replicator.engines.postgres.session import Session, apply_sql
from replicator.engines.postgres.values import to_record
from replicator.errors import BatchError, RejectedError, RetryableError
from replicator.model import Op, Relation, Span, TableName, TruncatePolicy
from replicator.ports import Base, Batch, OutboxBlock, PlainRows, RowBlock
from replicator.sqlfiles import render, statement

_CHECKSUM = re.compile(r"-?\d{1,19}\Z")
"""A base's checksum as a PostgreSQL centre handed it out; others are from another engine and say nothing here."""


def bases_sql(name: str) -> str:
    """A statement of the bases file that needs no rendering."""
    return statement("sql/postgres/bases.sql", name)


WARY = 8
"""Chunks of a backfill that are not hoped to be all new, after one that was not."""


class _LeftOutError(Exception):
    """A row was left out without an error, or may have been: by a trigger or a rule, which the careful way has to find."""


class Stage:
    """The staged batch of one transaction."""

    def __init__(self, session: Session, parked: ParkedChanges) -> None:
        self._session = session
        self._parked = parked
        self._repeats: dict[int, bool] = {}
        self._inserts: dict[int, int] = {}
        self.row_lanes: set[int] = set()
        self.changes = 0
        self.parked = 0
        self.newest_changed_at = 0
        self._extent = self._brought = (0, 0, 0)
        self._begin = LAST_ORDINAL  # of the rows of a backfill
        self._loaded: dict[int, set[bool]] = {}
        self._changed_rows: set[int] = set()
        self.straight: dict[Lane, int] = {}
        """Rows of a backfill that went into their table at once."""
        self._barriers = False
        self._versions: dict[int, int] = {}

    @property
    def text_lanes(self) -> set[int]:
        """Relations that came in as record literals."""
        return set(self._repeats)

    @property
    def loaded(self) -> int:
        """Rows of a backfill."""
        return self._brought[2] + sum(self.straight.values())

    def is_loaded(self, span: Span) -> bool:
        """Whether the span holds rows of a backfill (then it holds nothing else)."""
        return span.low >= self._begin

    # --- in ---

    def fill(self, batch: Batch) -> None:
        """Copy all blocks in."""
        for block in batch.blocks():
            if block.loaded and self._begin == LAST_ORDINAL:
                self._measure(batch.relations)
                self._begin = self._extent[1] + 1 if self._extent[2] else -LAST_ORDINAL
            if isinstance(block, OutboxBlock):
                if block.plain is None or not self._copy_plain(batch.relations, block.plain):
                    self._copy_literals(block)
            else:
                self._copy_rows(batch.relations, block)
        self._measure(batch.relations)
        if self._loaded and self._pass_over():
            self._measure(batch.relations)

    def fill_parked(self, relation: Relation, changes: Sequence[Staged]) -> None:
        """Stage changes of one row that were parked, as all of the batch."""
        self._session.lane(relation.id, {relation.id: relation})
        for order, change in enumerate(changes, 1):
            self._parked.stage(order, relation.id, change)
        self._measure({})

    def _copy_literals(self, block: OutboxBlock) -> None:
        name = "copy_stage" if self._session.link.direction.rises else "copy_states"
        with self._session.connection.cursor() as cursor, cursor.copy(apply_sql(name).encode()) as copy:
            for chunk in block.chunks:
                copy.write(chunk)

    def _copy_plain(self, relations: Mapping[int, Relation], plain: PlainRows) -> bool:
        """Rows of a backfill, straight into the table if they may be all new, else beside it; whether they went in."""
        lane = self._session.lane(plain.relation, relations)
        if not self._session.link.direction.rises:
            return False
        touched = {self._session.lane(number).place for number in self.text_lanes | self._changed_rows}
        straight = not lane.wary and lane.place not in touched | self._parked.tables()
        lane.wary = max(lane.wary - 1, 0)
        loading = Loading(lane, plain.relation)
        if straight and loading.goes_straight and self._session.takes_copy(lane.plan.target):
            count = self._copy_whole(loading.copy_target, plain.read(numbered=False), lane.plan.target)
            if count is not None:
                self.straight[lane] = count
                return True
            lane.wary = WARY
        count = self._copy_whole(lane.copy_rows, plain.read(numbered=True))
        if count is not None:
            self.row_lanes.add(plain.relation)
            lane.passed_rows += count
        return count is not None

    def _copy_whole(self, statement: str, lines: Iterator[bytes], table: TableName | None = None) -> int | None:
        """Copy all rows, or none when the database refuses one, or leaves one out; how many. ``table``: of the application."""
        connection, count = self._session.connection, 0
        try:
            with connection.transaction():
                with connection.cursor() as cursor:
                    with cursor.copy(statement.encode()) as copy:
                        for piece in lines:
                            count += piece.count(b"\n")
                            copy.write(piece)
                    if cursor.rowcount != count:
                        raise _LeftOutError
                if table is not None:
                    if not self._session.takes_copy(table):  # a rule may have been made since it was asked before
                        raise _LeftOutError
                    self._session.run(apply_sql("check_constraints"), prepare=True)
                    self._session.run(apply_sql("defer_constraints"), prepare=True)
        except (psycopg.Error, _LeftOutError) as error:
            if connection.broken or (
                isinstance(error, psycopg.Error) and isinstance(translate(error, ""), RetryableError)
            ):
                raise
            for _ in lines:
                continue
            return None
        return count

    def _copy_rows(self, relations: Mapping[int, Relation], block: RowBlock) -> None:
        """Fitting rows go in typed; when the database refuses one after all, the whole block takes the careful way."""
        lane = self._session.lane(block.relation, relations)
        self.row_lanes.add(block.relation)
        careful = list(_as_states(block.odd) if block.loaded else block.odd)
        connection = self._session.connection
        if block.rows:
            try:
                with connection.transaction(), connection.cursor().copy(lane.copy_rows.encode()) as copy:
                    for row in _as_states(block.rows) if block.loaded else block.rows:
                        copy.write_row(row)
                lane.passed_rows += len(block.rows)
            except psycopg.Error as error:
                if not isinstance(translate(error, self._session.place), RejectedError):
                    raise
                careful.extend(_as_states(block.rows) if block.loaded else block.rows)
        refused = self._copy_carefully(lane, block.relation, careful) if careful else {}
        if block.bases and self._session.link.direction.rises:
            self._fold_bases(lane, block.relation, block.bases, refused)

    def _fold_bases(self, lane: Lane, number: int, bases: Sequence[Base], refused: Mapping[int, str]) -> None:
        """What the site knows better than the ledger goes into the ledger; ``refused``: rows already parked, and their keys."""
        own = [base for base in bases if not base.existed or _CHECKSUM.match(base.checksum or "")]
        connection = self._session.connection
        with connection.cursor() as cursor, cursor.copy(bases_sql("copy_bases").encode()) as copy:
            for base in own:
                copy.write_row((base.ord, base.existed, base.checksum, base.image, refused.get(base.ord)))
        self._session.run(lane.fold_bases, self._session.read_feed(lane.place)[0], number)
        self._session.run(bases_sql("forget_bases"))

    def _copy_carefully(self, lane: Lane, number: int, rows: Sequence[tuple[object, ...]]) -> dict[int, str]:
        """Each value is looked at; a row with one that cannot be the target's value is parked with its reason.

        The keys of those, by ordinal.
        """
        refused: dict[int, str] = {}
        fitting: list[tuple[object, ...]] = []
        for order, op, changed_at, *values in rows:
            image, reason = to_record(values, lane.columns)
            when = changed_at if isinstance(changed_at, int) else 0
            if reason:
                change = Staged(lane.place, str(op), when, lane.relation.columns, None, image)
                key = self._parked.key_of(lane, change)
                self._parked.add(change, key, RejectedError(reason, sqlstate="22000"))
                refused[int(str(order))] = key
                self.parked += 1
            else:
                fitting.append((order, number, op, when, None, image))
        with self._session.connection.cursor() as cursor, cursor.copy(apply_sql("copy_stage").encode()) as copy:
            for row in fitting:
                copy.write_row(row)
        return refused

    def _measure(self, relations: Mapping[int, Relation]) -> None:
        extents: dict[bool, list[list[int]]] = {False: [], True: []}
        self._repeats, self._inserts, self._barriers, self._loaded = {}, {}, False, {}
        self._changed_rows = set()
        found = self._session.run(apply_sql("stage_extent"), self._begin).fetchall()
        for loaded, number, *extent, inserts, deletes, barrier in found:
            self._session.lane(number, relations or None)
            extents[loaded].append(extent)
            if loaded:
                self._loaded.setdefault(number, set()).add(False)
                continue
            self._repeats[number] = not (inserts or deletes)
            if inserts:
                self._inserts[number] = extent[2]
            self._barriers |= barrier
        self._versions = self._find_versions()
        self._barriers |= bool(self._versions)
        for number in self.row_lanes:
            for loaded, *extent in self._session.run(self._session.lane(number).simple("rows_extent"), self._begin):
                extents[loaded].append(extent)
                if loaded:
                    self._loaded.setdefault(number, set()).add(True)
                else:
                    self._changed_rows.add(number)
        self._extent, self._brought = _whole(extents[False]), _whole(extents[True])
        newest = [extent[3] for extent in (*extents[False], *extents[True])]
        self.newest_changed_at = max(self.newest_changed_at, *newest, 0)
        self.changes = self._extent[2] + self.parked

    def _find_versions(self) -> dict[int, int]:
        """Relations of the text lane that are versions of one table, with a number for it: their order must be kept."""
        places: dict[str, list[int]] = {}
        for number in self.text_lanes:
            places.setdefault(self._session.lane(number).place, []).append(number)
        shared = [numbers for numbers in places.values() if len(numbers) > 1]
        return {number: place for place, numbers in enumerate(shared) for number in numbers}

    def _pass_over(self) -> int:
        """Take out rows of a backfill whose keys the changes touch; how many. Changes know better what became of a row."""
        passed = 0
        for number, ways in self._loaded.items():
            lane = self._session.lane(number)
            touched = [
                Loading(other, each).touched(typed=typed)
                for each, typed in [*((n, False) for n in self.text_lanes), *((n, True) for n in self._changed_rows)]
                if (other := self._session.lane(each)).place == lane.place
            ]
            for typed in ways if touched else ():
                sql = Loading(lane, number).pass_over(touched, typed=typed)
                passed += self._session.run(sql, self._begin).rowcount
        return passed

    def hold_behind_parked(self) -> None:
        """Set aside changes of rows that have parked ones; they wait behind."""
        waiting = self._parked.tables()
        self.parked += sum(self.hold_behind(table, "", -1) for table in sorted(waiting))
        if self.parked:
            self._measure({})

    # --- spans ---

    def spans(self) -> Sequence[Span]:
        """One span, unless barriers, or versions of one table, cut the text lane; rows of a backfill are one more."""
        brought = [Span(*self._brought)] if self._brought[2] else []
        if not self._extent[2]:
            return brought
        if self._barriers:
            cut = list(self._versions), list(self._versions.values()), self._begin
            return [*(Span(*row) for row in self._session.run(apply_sql("barrier_spans"), *cut)), *brought]
        return [Span(*self._extent), *brought]

    def halve(self, span: Span) -> tuple[Span, Span]:
        """Two spans with half of the changes each."""
        lanes = [apply_sql("stage_ords"), *(self._session.lane(n).simple("rows_ords") for n in sorted(self.row_lanes))]
        sql = render(apply_sql("halve"), fragments={"lanes": " union all ".join(lanes)})
        middle, count = self._session.one(sql, span.low, span.high, max(span.count // 2, 1))
        return Span(span.low, middle, count), Span(middle + 1, span.high, span.count - count)

    def relations_of(self, span: Span) -> set[int]:
        """Relations of the text lane with row changes in the span."""
        if self.is_loaded(span):
            return {number for number, ways in self._loaded.items() if False in ways}
        if (span.low, span.high) == self._extent[:2] and not self._barriers:
            return self.text_lanes
        return {row[0] for row in self._session.run(apply_sql("span_relations"), span.low, span.high)}

    def row_lanes_of(self, span: Span) -> set[int]:
        """Relations of the typed lane that may have rows in the span."""
        if self.is_loaded(span):
            return {number for number, ways in self._loaded.items() if True in ways}
        return self._changed_rows

    def truncates_of(self, span: Span) -> Mapping[int, int]:
        """Relations the span truncates (then it holds nothing else), and when."""
        if not self._barriers:
            return {}
        return {row[0]: row[1] for row in self._session.run(apply_sql("span_truncates"), span.low, span.high)}

    def inserts_of(self, span: Span) -> Mapping[int, int]:
        """Relations the batch does nothing but insert into, with their rows; none for a part of the batch."""
        whole = (span.low, span.high) == self._extent[:2]
        return self._inserts if whole and not self._barriers else {}

    def may_repeat(self, number: int) -> bool:
        """Whether a row of the relation can stand in the batch twice: none is inserted, or deleted, twice running."""
        return number in self.row_lanes or self._repeats.get(number, False)

    def moves(self, span: Span) -> bool:
        """Whether the span holds key updates (then it holds nothing else)."""
        return self._barriers and bool(self._session.one(apply_sql("span_moves"), span.low, span.high)[0])

    def change_in(self, span: Span) -> tuple[Lane, int, Staged]:
        """The one staged change of a single span, with its lane and ordinal. Raises BatchError when there is none."""
        row = self._session.run(self._parked.sql("staged_change"), span.low, span.high).fetchone()
        if row is not None:
            order, number, op, when, before, after = row
            lane = self._session.lane(number)
            return lane, order, Staged(lane.place, op, when, lane.relation.columns, before, after)
        for number in self.row_lanes:
            lane = self._session.lane(number)
            typed = self._session.run(lane.staged_row, span.low, span.high).fetchone()
            if typed is not None:
                order, op, when, after = typed
                return lane, order, Staged(lane.place, op, when, lane.relation.columns, None, after)
        raise BatchError(f"link {self._session.link}: staged change {span.low} vanished")

    def hold_behind(self, table: str, key: str, order: int) -> int:
        """Set aside the later changes of this batch whose rows (``key``: this one) have parked changes; how many."""
        numbers = [n for n in {*self._repeats, *self.row_lanes, *self._loaded} if self._session.lane(n).place == table]
        if key and len(numbers) == 1:
            numbers = [n for n in numbers if self.may_repeat(n) or self._barriers]
        ahead = self._next_truncate(numbers, order)
        sign = "" if self._barriers else self._parked.sign_of(key)
        return sum(
            self._parked.hold(
                self._session.lane(number), number, typed=number in self.row_lanes, behind=order, ahead=ahead, sign=sign
            )
            for number in numbers
        )

    def hold_later(self, table: str, span: Span) -> int:
        """Set aside what comes behind a span for rows of a table that have parked changes by then; how many."""
        return self.hold_behind(table, "", span.high) if span.high < self._extent[1] else 0

    def _next_truncate(self, numbers: list[int], order: int) -> int:
        """Where a TRUNCATE to come drops what is parked: behind it nothing has to wait."""
        emptied = [n for n in numbers if self._session.lane(n).plan.truncate is TruncatePolicy.REPLICATE]
        if not self._barriers or not emptied:
            return LAST_ORDINAL
        found = self._session.one(self._parked.sql("next_truncate"), emptied, order)[0]
        return LAST_ORDINAL if found is None else int(found)


def _whole(extents: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """First and last ordinal and the number of all rows."""
    if not extents:
        return 0, 0, 0
    lows, highs, counts, _ = zip(*extents, strict=True)
    return min(lows), max(highs), sum(counts)


def _as_states(rows: Iterable[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    """Rows of a backfill as what a source without images says of rows: they are so, or gone."""
    for order, op, *rest in rows:
        yield order, Op.GONE if op in (Op.DELETE, Op.GONE) else Op.STATE, *rest
