"""Parked changes and recorded conflicts of one link at a PostgreSQL target.

A parked change keeps its images as record literals over its source columns, so no value is touched while it waits. Per
row the changes form a queue in the order of their numbers: the first was refused, the others wait behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.session import Session, apply_sql
from replicator.errors import RejectedError, SetupError
from replicator.model import Decision, Op, ParkedChange, ParkedState, RecordedConflict
from replicator.records import encode_record, parse_record
from replicator.sqlfiles import statement

LAST_ORDINAL = 2**63 - 1
"""An ordinal behind every other."""


@dataclass(frozen=True, slots=True)
class Staged:
    """One change with its images as record literals over ``columns``; ``table`` as the bookkeeping names the target."""

    table: str
    op: str
    changed_at: int
    columns: tuple[str, ...]
    before: str | None
    after: str | None
    key: str = ""
    parked_id: int = 0
    attempts: int = 0


class ParkedChanges:
    """The parked changes of one link."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @staticmethod
    def sql(name: str) -> str:
        """A statement of the bookkeeping file."""
        return statement("sql/postgres/target.sql", name)

    @staticmethod
    def key_of(lane: Lane, change: Staged) -> str:
        """The row's key as a record literal, empty for a TRUNCATE (which has no row)."""
        image = change.before if change.before is not None else change.after
        if image is None:
            return ""
        values = parse_record(image)
        return encode_record([values[place] for place in lane.key])

    @staticmethod
    def sign_of(key: str) -> str:
        """What every image of a row has in it: the first value of its key as record literals spell it."""
        values = parse_record(key) if key else []
        return encode_record(values[:1])[1:-1] if values else ""

    # --- in ---

    def tables(self) -> set[str]:
        """Target tables with parked changes of this link."""
        return {row[0] for row in self._session.run(self.sql("parked_relations"), self._session.link_id, prepare=True)}

    def hold(
        self, lane: Lane, number: int, *, typed: bool, behind: int = -1, ahead: int = LAST_ORDINAL, sign: str = ""
    ) -> int:
        """Set aside staged changes, with ordinals above ``behind`` and below ``ahead``, of rows with parked ones; how many.

        ``sign`` is a text that every change concerned has in its images; it saves taking all others apart.

        A key update that waits makes the changes under its new key wait, so it is asked until nothing more is held.
        """
        columns = list(lane.relation.columns)
        link = self._session.link_id
        held = 0
        bounds = behind, ahead, sign
        while more := self._session.run(lane.hold_stage, number, link, lane.place, columns, None, *bounds).rowcount:
            held += more
        if typed:
            held += self._session.run(lane.hold_rows, link, lane.place, columns, None, behind).rowcount
        return held

    def add(self, change: Staged, key: str, error: RejectedError) -> None:
        """Park a change that was refused for the first time."""
        self._session.run(
            self.sql("add_parked"), self._session.link_id, change.table, key, change.op, change.changed_at,
            list(change.columns), change.before, change.after, error.sqlstate, _cause(error), None, 1,
        )  # fmt: skip

    def put_back(self, change: Staged, error: RejectedError) -> None:
        """Park a change again under its old number, so that it stays first of its row's queue."""
        self._session.run(
            self.sql("restore_parked"), change.parked_id, self._session.link_id, change.table, change.key, change.op,
            change.changed_at, list(change.columns), change.before, change.after, error.sqlstate, _cause(error), None,
            change.attempts + 1,
        )  # fmt: skip

    # --- out ---

    def take(self, parked_id: int) -> Staged:
        """Take a change off the list. Raises SetupError when there is none, or an earlier one of its row is parked."""
        row = self._session.run(self.sql("take_parked"), parked_id, self._session.link_id).fetchone()
        if row is None:
            raise SetupError(
                f"link {self._session.link}: there is no parked change {parked_id}", hint="run: replicator parked list"
            )
        table, key, op, changed_at, columns, before, after, attempts, first = row
        if first is not None and first < parked_id:
            raise SetupError(
                f"parked change {parked_id} waits behind change {first} of the same row",
                hint=f"run: replicator parked retry {first}",
            )
        return Staged(table, op, changed_at, tuple(columns), before, after, key, parked_id, attempts)

    def stage(self, number: int, change: Staged) -> None:
        """Put one change into the text lane."""
        self._session.run(
            self.sql("stage_parked"), number, change.op, change.changed_at, change.before, change.after
        )  # fmt: skip

    def skip(self, parked_id: int) -> None:
        """Drop a change for good; what was dropped stays on record among the conflicts."""
        taken = self.take(parked_id)
        self._session.run(
            self.sql("add_skipped"), self._session.link_id, taken.table, taken.key, _json(taken.columns, taken.before),
            _json(taken.columns, taken.after), taken.changed_at, "dropped by command: replicator parked skip", None,
        )  # fmt: skip

    def edit(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """Replace values of the after image. Raises SetupError for a column the change does not have."""
        taken = self.take(parked_id)
        if taken.after is None:
            raise SetupError(f"parked change {parked_id} is a {Op(taken.op).name}: there is no row to edit")
        image = dict(zip(taken.columns, parse_record(taken.after), strict=True))
        unknown = sorted(set(values) - set(image))
        if unknown:
            raise SetupError(
                f"parked change {parked_id} has no column {', '.join(unknown)}",
                hint=f"it has: {', '.join(taken.columns)}",
            )
        edited = replace(taken, after=encode_record(list({**image, **values}.values())), attempts=taken.attempts - 1)
        self.put_back(edited, RejectedError("edited by command, not tried since"))

    def list_changes(self, ids: Sequence[int], table: str) -> list[ParkedChange]:
        """Parked changes, oldest first; all when ``ids`` and ``table`` are empty."""
        self._session.read_link()
        found = []
        for row in self._session.run(self.sql("list_parked"), self._session.link_id, list(ids), table):
            number, site, place, key, op, state, columns, before, after, sqlstate, cause, parked_at, attempts, _ = row
            found.append(
                ParkedChange(
                    id=number,
                    link=site,
                    table=place,
                    key=key,
                    op=Op(op),
                    state=ParkedState(state),
                    before=_image(columns, before),
                    after=_image(columns, after),
                    sqlstate=sqlstate,
                    cause=cause,
                    parked_at=parked_at,
                    attempts=attempts,
                )
            )
        return found

    # --- conflicts ---

    def list_conflicts(self, ids: Sequence[int], table: str, limit: int) -> list[RecordedConflict]:
        """The newest recorded decisions of this link, oldest first."""
        self._session.read_link()
        found = self._session.run(self.sql("list_conflicts"), self._session.link_id, list(ids), table, limit)
        return [RecordedConflict(*row) for row in found]

    def record_decisions(self, decisions: Sequence[Decision]) -> None:
        """Write a chunk of decisions to the record, and beside the span for the applying statements."""
        conflicts = [decision.conflict for decision in decisions]
        self._session.run(
            apply_sql("add_conflicts"), self._session.link_id, None,
            [c.table for c in conflicts], [c.key for c in conflicts], [str(c.kind) for c in conflicts],
            [_dump(c.before) for c in conflicts], [_dump(c.after) for c in conflicts], [_dump(c.current) for c in conflicts],
            [c.changed_at for c in conflicts], [d.rule for d in decisions], [str(d.verdict) for d in decisions],
            [d.reason for d in decisions],
        )  # fmt: skip
        self._session.run(
            apply_sql("add_decisions"), [c.relation for c in conflicts], [c.ord for c in conflicts],
            [str(decision.verdict) for decision in decisions],
        )  # fmt: skip


def _cause(error: RejectedError) -> str:
    return f"{error.message}. {error.detail}" if error.detail else error.message


def _image(columns: Sequence[str], image: str | None) -> Mapping[str, object] | None:
    return None if image is None else dict(zip(columns, parse_record(image), strict=True))


def _json(columns: Sequence[str], image: str | None) -> str | None:
    return _dump(_image(columns, image))


def _dump(image: Mapping[str, object] | None) -> str | None:
    return None if image is None else json.dumps(image, ensure_ascii=False)
