"""Parked changes of one link at a PostgreSQL target.

A parked change keeps its images as record literals over its source columns, so no value is touched while it waits. Per
row the changes form a queue in the order of their numbers: the first was refused, the others wait behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from replicator.engines.postgres.decisions import dump
from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.session import Session
from replicator.engines.postgres.values import to_record
from replicator.errors import RejectedError, SetupError
from replicator.model import Op, ParkedChange, ParkedState
from replicator.records import encode_record, parse_record, unescape
from replicator.sifting import HELD, MOST_HELD, UNKEYED, Sifted, too_many
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
    state: str = "parked"
    sqlstate: str = ""
    cause: str = ""
    parked_at: datetime | None = None


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

    def add_held(self, sifted: Sifted) -> int:
        """Park changes of tables that are held; how many. Raises SetupError when there would be too many."""
        for change in sifted.changes:
            code, cause = sifted.cause(change)
            plan = self._session.plans[change.relation.table]
            columns, before, after = change.relation.columns, _literal(change.before), _literal(change.after)
            staged = Staged(str(plan.target), change.op, change.changed_at, columns, before, after)
            values = parse_record(after or before or "()")
            places = [columns.index(name) for name in change.relation.key if name in columns]
            key = encode_record([values[place] for place in places]) if before or after else ""
            self.add(staged, key, RejectedError(cause, sqlstate=code))
        for code, cause, number in self._session.run(
            self.sql("count_held"), self._session.link_id, MOST_HELD
        ).fetchall():
            if code in (HELD, UNKEYED):
                raise too_many(cause, number)
        return len(sifted.changes)

    def put_back(self, changes: Sequence[Staged], error: RejectedError) -> None:
        """Park changes of one row again under their old numbers; the first is the one that was tried."""
        for place, change in enumerate(changes):
            tried = replace(
                change, state="parked", sqlstate=error.sqlstate, cause=_cause(error), attempts=change.attempts + 1
            )
            self._restore(change if place else tried)
        self._session.run(self.sql("wait_again"), [change.parked_id for change in changes])

    def _restore(self, change: Staged) -> None:
        self._session.run(
            self.sql("restore_parked"), change.parked_id, self._session.link_id, change.table, change.key, change.op,
            change.changed_at, list(change.columns), change.before, change.after, change.sqlstate, change.cause, None,
            change.attempts, change.state, change.parked_at,
        )  # fmt: skip

    # --- out ---

    def take(self, parked_ids: Sequence[int]) -> list[Staged]:
        """Take changes of one row off the list, in their order.

        Raises SetupError when one is not there, or an earlier one of the row is parked.
        """
        rows = self._session.run(self.sql("take_parked"), list(parked_ids), self._session.link_id).fetchall()
        missing = sorted(set(parked_ids) - {row[0] for row in rows})
        if missing or not rows:
            which = ", ".join(map(str, missing)) or "with no number"
            raise SetupError(
                f"link {self._session.link}: there is no parked change {which}", hint="run: replicator parked list"
            )
        taken, first = [], None
        for row in sorted(rows):
            number, table, key, op, changed_at, columns, before, after, attempts, state, sqlstate, cause, at, first = (
                row
            )
            taken.append(
                Staged(
                    table,
                    op,
                    changed_at,
                    tuple(columns),
                    before,
                    after,
                    key,
                    number,
                    attempts,
                    state,
                    sqlstate,
                    cause,
                    at,
                )
            )
        if first is not None and first < taken[0].parked_id:
            raise SetupError(
                f"parked change {taken[0].parked_id} waits behind change {first} of the same row",
                hint=f"run: replicator parked retry {first}",
            )
        return taken

    def take_queue(self, parked_ids: Sequence[int]) -> list[Staged]:
        """Take as many of a row's changes as can be netted into one: those of the first one's version of the table."""
        taken = self.take(parked_ids)
        alike = next((n for n, change in enumerate(taken) if change.columns != taken[0].columns), len(taken))
        for change in taken[alike:]:
            self._restore(change)
        self._session.run(self.sql("wait_no_more"), [change.parked_id for change in taken[:alike]], "tried again")
        return taken[:alike]

    def stage(self, order: int, number: int, change: Staged) -> None:
        """Put one change into the text lane."""
        self._session.run(
            self.sql("stage_parked"), order, number, change.op, change.changed_at, change.before, change.after
        )  # fmt: skip

    def skip(self, parked_id: int) -> Staged:
        """Drop a change for good; what was dropped stays on record among the conflicts."""
        (taken,) = self.take([parked_id])
        self.record_dropped(taken, "dropped by command: replicator parked skip")
        self._session.run(self.sql("wait_no_more"), [parked_id], "dropped")
        return taken

    def record_dropped(self, change: Staged, reason: str) -> None:
        """Put a change that is dropped on record."""
        self._session.run(
            self.sql("add_skipped"), self._session.link_id, change.table, change.key,
            _json(change.columns, change.before), _json(change.columns, change.after), change.changed_at, reason, None,
        )  # fmt: skip

    def edit(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """Replace values of the after image. Raises SetupError for a column the change does not have."""
        (taken,) = self.take([parked_id])
        if taken.after is None:
            raise SetupError(f"parked change {parked_id} is a {Op(taken.op).name}: there is no row to edit")
        image = dict(zip(taken.columns, parse_record(taken.after), strict=True))
        unknown = sorted(set(values) - set(image))
        if unknown:
            raise SetupError(
                f"parked change {parked_id} has no column {', '.join(unknown)}",
                hint=f"it has: {', '.join(taken.columns)}",
            )
        after = encode_record(list({**image, **values}.values()))
        self._restore(replace(taken, after=after, state="parked", cause="edited by command, not tried since"))

    def list_changes(self, ids: Sequence[int], table: str, limit: int = 0) -> list[ParkedChange]:
        """Parked changes, oldest first; all when ``ids`` and ``table`` are empty."""
        self._session.read_link()
        found = []
        for row in self._session.run(self.sql("list_parked"), self._session.link_id, list(ids), table, limit):
            (
                number,
                site,
                place,
                key,
                op,
                state,
                columns,
                before,
                after,
                sqlstate,
                cause,
                parked_at,
                attempts,
                _,
                conflict,
            ) = row
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
                    conflict=conflict,
                )
            )
        return found

    def list_queues(self, limit: int) -> list[list[int]]:
        """Parked changes by row that may have become possible, oldest row first."""
        held = [str(plan.target) for plan in self._session.plans.values() if plan.hold]
        found = self._session.run(self.sql("list_queues"), self._session.link_id, limit, held, prepare=True)
        return [row[0] for row in found]


def _literal(image: bytes | tuple[object, ...] | None) -> str | None:
    """An image as a record literal: from COPY text, or from a row of values."""
    if isinstance(image, bytes):
        return unescape(image)
    return None if image is None else to_record(image, [None] * len(image))[0]


def _cause(error: RejectedError) -> str:
    return f"{error.message}. {error.detail}" if error.detail else error.message


def _image(columns: Sequence[str], image: str | None) -> Mapping[str, object] | None:
    return None if image is None else dict(zip(columns, parse_record(image), strict=True))


def _json(columns: Sequence[str], image: str | None) -> str | None:
    return dump(_image(columns, image))
