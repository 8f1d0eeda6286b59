"""Parked changes and recorded conflicts of one link at a SQLite target.

Images are JSON over the source columns, exact in class and bit (values.encode_image). Per row the changes form a queue
in the order of their numbers: the first was refused, the others wait behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from replicator.engines.sqlite.lane import Lane
from replicator.engines.sqlite.listed import parked_change, recorded_conflict, shown_image
from replicator.engines.sqlite.session import Session, apply_sql, target_sql
from replicator.engines.sqlite.stage import Stage
from replicator.engines.sqlite.values import (
    SourceText,
    UnfitError,
    converter,
    decode_image,
    encode_image,
    key_maker,
)
from replicator.errors import RejectedError, SetupError
from replicator.model import Decision, Engine, Op, ParkedChange, ParkedState, RecordedConflict, TablePlan, Verdict
from replicator.records import parse_record, unescape
from replicator.sifting import HELD, MOST_HELD, UNKEYED, Sifted, too_many

_WAITS = "waits behind an earlier parked change of this row"

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode

Image = Sequence[object]


@dataclass(frozen=True, slots=True)
class Taken:
    """A change taken off the list."""

    id: int
    table: str
    key: str
    op: str
    changed_at: int
    columns: tuple[str, ...]
    before: str | None
    after: str | None
    attempts: int
    sqlstate: str
    cause: str


class ParkedChanges:
    """The parked changes of one link."""

    def __init__(self, session: Session, stage: Stage) -> None:
        self._session, self._stage = session, stage
        self._decided_at = 0

    # --- in -------------------------------------------------------------------------------------------------------

    def add(
        self,
        lane: Lane,
        op: str,
        key: str,
        changed_at: int,
        before: Image | None,
        after: Image | None,
        cause: str,
        code: str,
        number: int | None = None,
    ) -> int:
        """Park a change with its images, under its old number where it has one; its number."""
        images = [None if image is None else encode_image(image) for image in (before, after)]
        columns = json.dumps(list(lane.columns), ensure_ascii=False)
        made = self._insert(
            number, lane.place, key, op, ParkedState.PARKED, changed_at, columns, *images, code, cause, 1
        )
        self._session.run(target_sql("demote_others"), self._session.link_id, lane.place, key, made)
        return made

    def add_held(self, sifted: Sifted) -> int:
        """Park changes of tables that are held; how many. Raises SetupError when there would be too many."""
        for change in sifted.changes:
            code, cause = sifted.cause(change)
            plan = self._session.plans[change.relation.table]
            images = [_image(image) for image in (change.before, change.after)]
            names = change.relation.columns
            places = [names.index(name) for name in change.relation.key if name in names]
            row = next((image for image in reversed(images) if image is not None), None)
            key = "" if row is None else _held_key(plan, names, places, row)
            columns = json.dumps(list(names), ensure_ascii=False)
            kept = [None if image is None else encode_image(image) for image in images]
            self._insert(
                None,
                str(plan.target),
                key,
                change.op,
                ParkedState.PARKED,
                change.changed_at,
                columns,
                *kept,
                code,
                cause,
                1,
            )
        for code, cause, number in self._session.run(
            target_sql("count_held"), self._session.link_id, MOST_HELD
        ).fetchall():
            if code in (HELD, UNKEYED):
                raise too_many(cause, number)
        return len(sifted.changes)

    def keep_base(self, lane: Lane, order: int) -> None:
        """What the site knew better of a staged row than the ledger would be lost with the batch: now the ledger knows it."""
        now, link = self._session.now(), self._session.link_id
        self._session.run(apply_sql("keep_base"), link, lane.place, now, order)

    def add_staged(
        self, order: int, cause: str, code: str, state: ParkedState = ParkedState.PARKED
    ) -> tuple[Lane, str]:
        """Move a staged change to the parked ones; its lane and key."""
        (relation,) = (number for _, number in self._session.run(apply_sql("staged_ordinals"), order, order))
        lane = self._stage.lane(relation)
        row = self._session.run(lane.staged_at, order).fetchone()
        _, op, changed_at, key, fault, raw_before, raw_after, _, *values = row
        if fault is None and op != Op.TRUNCATE:
            width = len(lane.columns)
            raw_before = encode_image(values[:width]) if op in (Op.UPDATE, Op.DELETE) else None
            raw_after = None if op == Op.DELETE else encode_image(values[width:])
        if lane.ledgered:
            self.keep_base(lane, order)
        columns = json.dumps(list(lane.columns), ensure_ascii=False)
        attempts = 1 if state is ParkedState.PARKED else 0
        self._insert(
            None, lane.place, key, op, state, changed_at, columns, raw_before, raw_after, code, cause, attempts
        )
        self._session.run(apply_sql("unstage"), order)
        return lane, str(key)

    def hold(self, behind: int = -1) -> list[tuple[Lane, str]]:
        """Set aside staged changes of rows that have parked ones; lane and key of each."""
        link, held = self._session.link_id, list[tuple[Lane, str]]()
        waiting = [str(table) for (table,) in self._session.run(target_sql("parked_relations"), link)]
        for place in waiting:
            versions = json.dumps([n for n in self._stage.relations() if self._stage.lane(n).place == place])
            while page := self._session.run(apply_sql("staged_waiting"), versions, link, place, behind).fetchall():
                held += [self.add_staged(order, _WAITS, "", ParkedState.WAITING) for (order,) in page]
        return held

    def hold_behind(self, lane: Lane, key: str, order: int) -> int:
        """Set aside the later staged changes of a row that was just parked; how many."""
        if not key:
            return 0
        versions = json.dumps([n for n in self._stage.relations() if self._stage.lane(n).place == lane.place])
        self._session.run(apply_sql("create_stage_index"))
        rows = self._session.run(apply_sql("staged_behind"), versions, key, order).fetchall()
        for (later,) in rows:
            self.add_staged(later, _WAITS, "", ParkedState.WAITING)
        return len(rows)

    def put_back(self, taken: Sequence[Taken], error: RejectedError | None) -> None:
        """Park changes of a row again under their old numbers, so that their order stays; the first has the cause.

        Without an error they were not tried for themselves, and are put back as they were.
        """
        for place, change in enumerate(taken):
            self._session.run(target_sql("reopen_conflict"), self._session.link_id, change.id)
            columns = json.dumps(list(change.columns), ensure_ascii=False)
            state, code, cause, more = ParkedState.WAITING if place else ParkedState.PARKED, "", _WAITS, 0
            if error is None:
                code, cause = change.sqlstate, change.cause
            elif not place:
                code, cause, more = error.sqlstate, cause_of(error), 1
            self._insert(
                change.id, change.table, change.key, change.op, state, change.changed_at, columns, change.before,
                change.after, code, cause, change.attempts + more,
            )  # fmt: skip
        first = taken[0]
        self._session.run(target_sql("demote_others"), self._session.link_id, first.table, first.key, first.id)

    def _insert(self, number: int | None, *rest: object) -> int:
        table, key, op, state, changed_at, columns, before, after, code, cause, attempts = rest
        made = self._session.run(
            target_sql("add_parked"), number, self._session.link_id, table, key, str(op), str(state), changed_at, columns,
            before, after, code, cause, self._session.now(), attempts,
        )  # fmt: skip
        return int(made.lastrowid or 0)

    def overtake(self, table: str) -> None:
        """A TRUNCATE was applied: what is parked of the table is over, and on record."""
        self._session.run(target_sql("overtake_parked"), self._session.link_id, table, self._session.now())
        self._session.run(target_sql("drop_overtaken"), self._session.link_id, table)

    # --- out ------------------------------------------------------------------------------------------------------

    def read(self, parked_id: int) -> Taken:
        """One parked change. Raises SetupError when there is none, or an earlier one of its row is parked."""
        taken = self.peek(parked_id)
        (*_, first) = self._session.run(target_sql("read_parked"), parked_id, self._session.link_id).fetchone()
        if first is not None and first < parked_id:
            raise SetupError(
                f"parked change {parked_id} waits behind change {first} of the same row",
                hint=f"run: replicator parked retry {first}",
            )
        return taken

    def peek(self, parked_id: int) -> Taken:
        """One parked change, wherever it stands in its row's queue. Raises SetupError when there is none."""
        row = self._session.run(target_sql("read_parked"), parked_id, self._session.link_id).fetchone()
        if row is None:
            raise SetupError(
                f"link {self._session.link}: there is no parked change {parked_id}", hint="run: replicator parked list"
            )
        table, key, op, changed_at, columns, *rest, _ = row
        return Taken(parked_id, table, key, op, changed_at, tuple(json.loads(columns)), *rest)

    def has(self, parked_id: int) -> bool:
        """Whether a change is parked."""
        return self._session.run(target_sql("read_parked"), parked_id, self._session.link_id).fetchone() is not None

    def queue(self, table: str, key: str) -> list[Taken]:
        """A row's parked changes, in order."""
        rows = self._session.run(target_sql("row_parked"), self._session.link_id, table, key).fetchall()
        return [self.peek(int(row[0])) for row in rows]

    def take(self, parked_id: int) -> Taken:
        """Take a change off the list; the next of its row becomes the first."""
        taken = self.read(parked_id)
        self._session.run(target_sql("remove_parked"), parked_id)
        self._session.run(target_sql("promote_next"), self._session.link_id, taken.table, taken.key)
        return taken

    def take_queue(self, parked_ids: Sequence[int]) -> list[Taken]:
        """Take as many of a row's changes as can be netted into one: those of the first one's version of the table."""
        taken: list[Taken] = []
        for number in sorted(parked_ids):
            if taken and self.read(number).columns != taken[0].columns:
                break
            taken.append(self.take(number))
        self.wait_no_more("tried again")
        return taken

    def wait_no_more(self, resolution: str) -> None:
        """Conflicts whose parked change is gone wait for nobody."""
        self._session.run(target_sql("end_waiting"), self._session.link_id, resolution, self._session.now())

    def skip(self, parked_id: int) -> Taken:
        """Drop a change for good; what was dropped stays on record among the conflicts."""
        taken = self.take(parked_id)
        self.record_dropped(taken, "dropped by command: replicator parked skip")
        self.wait_no_more("dropped")
        return taken

    def record_dropped(self, taken: Taken, reason: str) -> None:
        """Put a change that is dropped on record."""
        images = [_json(shown_image(taken.columns, image)) for image in (taken.before, taken.after)]
        self._session.run(
            target_sql("add_conflict"), self._session.link_id, taken.table, taken.key, "parked", *images, None,
            taken.changed_at, "manual", "keep", reason, self._session.now(), 1, None, "", 0, 0, 0, "decided", 0,
        )  # fmt: skip

    def list_queues(self, limit: int) -> list[list[int]]:
        """Parked changes by row that may have become possible, oldest row first."""
        self._session.read_link()
        held = json.dumps([str(plan.target) for plan in self._session.plans.values() if plan.hold])
        rows = self._session.run(target_sql("list_queues"), self._session.link_id, limit, held)
        return [json.loads(numbers) for (numbers,) in rows]

    def edit(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """Replace values of the after image. Raises SetupError for a column the change does not have."""
        taken = self.read(parked_id)
        if taken.after is None:
            raise SetupError(f"parked change {parked_id} is a {Op(taken.op).name}: there is no row to edit")
        image = dict(zip(taken.columns, decode_image(taken.after), strict=True))
        unknown = sorted(set(values) - set(image))
        if unknown:
            raise SetupError(
                f"parked change {parked_id} has no column {', '.join(unknown)}",
                hint=f"it has: {', '.join(taken.columns)}",
            )
        edited = image | {name: self._typed(taken.table, name, text) for name, text in values.items()}
        after = encode_image(edited.values())
        self._session.run(target_sql("edit_parked"), after, "edited by command, not tried since", parked_id)

    def _typed(self, table: str, column: str, text: str | None) -> object:
        """A value typed by a person, as the source would have given it."""
        plan = self._session.plan_for(table)
        if text is None or plan is None:
            return text
        if plan.source_engine is Engine.POSTGRES:
            return SourceText(text)
        (found,) = (each for each in plan.columns if each.source == column)
        convert = converter("bytea" if text.startswith("\\x") else "text", found.target_type)
        try:
            return convert(text) if convert is not None else text
        except (UnfitError, ValueError) as error:
            raise SetupError(f"{column}: {error}", hint="give a value the column can hold") from error

    def list_changes(self, ids: Sequence[int], table: str, limit: int = 0) -> list[ParkedChange]:
        """Parked changes, oldest first; all when ``ids`` and ``table`` are empty."""
        self._session.read_link()
        about = (self._session.link_id, json.dumps(list(ids)), table, limit or -1)
        rows = self._session.run(target_sql("list_parked"), *about)
        return [parked_change(row) for row in rows]

    # --- conflicts ------------------------------------------------------------------------------------------------

    def list_conflicts(self, ids: Sequence[int], table: str, limit: int) -> list[RecordedConflict]:
        """The newest recorded decisions, oldest first."""
        self._session.read_link()
        found = self._session.run(
            target_sql("list_conflicts"), self._session.link_id, json.dumps(list(ids)), table, limit
        )
        return [recorded_conflict(row) for row in found]

    def record_decision(self, decision: Decision, parked: int) -> None:
        """Write a decision to the record with all it was decided on, and the parked change that waits with it (0: none)."""
        conflict = decision.conflict
        self._decided_at = self._decided_at or self._session.now()
        left: Mapping[str, object] | None = conflict.current
        if decision.verdict is Verdict.APPLY:
            left = conflict.after
        elif decision.verdict is Verdict.MERGE:
            left = {**(conflict.current or {}), **(decision.result or {})}
        before, after, current, result = (
            _json(each) for each in (conflict.before, conflict.after, conflict.current, left)
        )
        self._session.run(
            target_sql("add_conflict"), self._session.link_id, conflict.table, conflict.key, str(conflict.kind), before,
            after, current, conflict.changed_at, decision.rule, str(decision.verdict), decision.reason,
            self._decided_at, conflict.based, result, conflict.current_origin, conflict.current_at,
            conflict.clock_error_us, decision.unsure, "waiting" if parked else "decided", parked,
        )  # fmt: skip


def netted(changes: Sequence[Taken]) -> list[Taken]:
    """Changes of one row as the fewest that make the same of it: one, or two where it came and went."""
    first, last = changes[0], changes[-1]
    if len(changes) == 1 or last.op in (Op.STATE, Op.GONE):
        return [last]
    if first.op != Op.INSERT:
        return [replace(last, op=str(Op.DELETE if last.op == Op.DELETE else Op.UPDATE), before=first.before)]
    if last.op != Op.DELETE:
        return [replace(last, op=str(Op.INSERT), before=None)]
    return [replace(last, op=str(Op.INSERT), before=None, after=last.before), last]


def cause_of(error: RejectedError) -> str:
    """The refusal in one line."""
    return error.message if not error.detail or error.detail in error.message else f"{error.message}. {error.detail}"


def _json(image: Mapping[str, object] | None) -> str | None:
    return None if image is None else _ENCODE(image)


def _held_key(plan: TablePlan, names: Sequence[str], places: Sequence[int], row: Image) -> str:
    """A row's key as it will be written once its table is held no more."""
    kinds = {column.source: (column.source_type, column.target_type) for column in plan.columns}
    values = list(row)
    for place in places:
        value, convert = values[place], converter(*kinds.get(names[place], ("", "")))
        if isinstance(value, SourceText):
            values[place] = convert(value) if convert else str(value)
    return key_maker([value for _, value in plan.constants], places)(values)


def _image(image: bytes | tuple[object, ...] | None) -> Image | None:
    """An image of a change that is held: PostgreSQL's values as text, others as they are."""
    if isinstance(image, bytes):
        return [None if value is None else SourceText(value) for value in parse_record(unescape(image))]
    return image
