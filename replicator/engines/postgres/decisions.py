"""Conflicts of the span in hand at a PostgreSQL target: found, recorded as decided, carried out and answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import psycopg

from replicator.engines.postgres.backfills import Backfills
from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.session import Session
from replicator.engines.postgres.verdicts import Verdicts
from replicator.model import Conflict, ConflictKind, Decision, Prefer, Verdict
from replicator.records import parse_record
from replicator.sqlfiles import statement

_CHUNK = 1000
"""Conflicts fetched at once: bounds memory when every row conflicts."""

_FEW = 100

CENTRE = "centre"
"""Who wrote a row that no link brought."""

Image = Mapping[str, object] | None


def conflicts_sql(name: str) -> str:
    """A statement of the conflicts file that needs no rendering."""
    return statement("sql/postgres/conflicts.sql", name)


class Decisions:
    """The conflicts and decisions of one transaction.

    Args:
        session: the link's.
        backfills: the link's.
        answers: whether the site gets this database's changes too, so that it is told what became of its own.
    """

    def __init__(self, session: Session, backfills: Backfills, *, answers: bool) -> None:
        self._session = session
        self._backfills = backfills
        self._answers = answers
        self._skews: dict[str, int] | None = None
        self._ledgered: set[int] = set()
        self.corrected = 0

    # --- found ---

    def find(self, lane: Lane, *, move: bool, loaded: Prefer | None = None) -> Iterator[Conflict]:
        """The lane's conflicts, streamed through a server-side cursor. ``loaded``: they are about rows of a backfill."""
        feed = self._session.read_version_feed(lane.place) if lane.plan.versioned else 0
        verdicts = Verdicts(lane)
        if lane.plan.ledgered:
            self._ledgered.add(lane.number)
        self._session.run(verdicts.lock_rows)
        self._session.run(conflicts_sql("forget_found"), lane.number)
        found = verdicts.find_conflicts(move=move, origin=self._session.link.origin)
        if not self._session.run(found, feed, lane.number).rowcount:
            return
        if loaded is not None and loaded.asks and self._answers and lane.plan.direction.falls:
            self._mark_in_flight(lane)
        with psycopg.RawServerCursor(self._session.connection, "replicator_conflicts") as cursor:
            cursor.itersize = _CHUNK
            cursor.execute(conflicts_sql("read_found").encode(), (lane.number,))
            for row in cursor:
                yield self._conflict(lane, verdicts.targets, row, loaded)

    def _mark_in_flight(self, lane: Lane) -> None:
        """Mark rows of a backfill that stand against what the site had not seen when they were read."""
        here, link = self._session.read_captured(lane.plan.target), self._session.link
        given = lane.number, here, self._backfills.seen, link.origin, route_to(self._session)
        self._session.run(conflicts_sql("mark_in_flight"), *given)

    def _conflict(self, lane: Lane, names: Sequence[str], row: tuple[object, ...], loaded: Prefer | None) -> Conflict:
        (
            order, existed, present, changed_at, key, found, before, stored, after, current, at, origin, gone, answer,
            untouched,
        ) = row  # fmt: skip
        base = _image(names, before) or _stored(lane, stored)
        writer = "" if at is None else self._place(cast("str | None", origin))
        kind = _kind(bool(existed), bool(present), bool(found), bool(gone))
        if loaded is not None and gone and not found:
            kind = ConflictKind.UPDATE_DELETED
        return Conflict(
            ord=cast("int", order),
            relation=lane.number,
            table=lane.place,
            key=str(key),
            kind=kind,
            before=base if existed else None,
            after=_image(names, after),
            current=_image(names, current),
            changed_at=cast("int", changed_at),
            policy=lane.plan.policy,
            site=self._session.link.site,
            based=not existed or base is not None,
            current_origin=writer,
            current_at=cast("int | None", at) or 0,
            clock_error_us=self._clock_error(writer),
            answer=str(answer or ""),
            untouched=bool(untouched),
            loaded=loaded,
            loading=kind is ConflictKind.UPDATE_MISSING and self._backfills.loading(lane.place),
        )

    def _place(self, origin: str | None) -> str:
        """A site of this topology by its name; anybody else wrote at the centre."""
        topology, _, site = (origin or "").rpartition("/")
        return site if topology == self._session.link.topology else CENTRE

    def _clock_error(self, writer: str) -> int:
        """How far the clock of the site and that of the row's last writer may be apart, as measured at their last contacts."""
        if self._skews is None:
            found = self._session.run(conflicts_sql("read_skews"), self._session.link.topology, prepare=True)
            self._skews = dict(cast("list[tuple[str, int]]", found.fetchall()))
        own = self._session.link.site
        return self._skews.get(own, 0) + (self._skews.get(writer, 0) if writer != own else 0)

    # --- recorded ---

    def note(self, decisions: Sequence[Decision]) -> None:
        """Write a chunk of decisions beside the span for the applying statements."""
        on_record = sum(decision.on_record for decision in decisions)
        numbers = iter(self._session.one(conflicts_sql("take_numbers"), on_record)[0] or ())
        with (
            self._session.connection.cursor() as cursor,
            cursor.copy(conflicts_sql("copy_decisions").encode()) as copy,
        ):
            for decision in decisions:
                known = decision.conflict.relation in self._ledgered
                copy.write_row(_noted(decision, next(numbers) if decision.on_record else None, known=known))

    def noted(self, count: int) -> None:
        """All decisions of a span are beside it; so many they are."""
        if count > _FEW:
            self._session.run(conflicts_sql("analyze_decisions"))

    def record(self, lane: Lane) -> None:
        """Put a lane's decisions on record."""
        given = self._session.link_id, lane.number, lane.place, Verdicts(lane).targets
        self._session.run(conflicts_sql("record_decided"), *given)

    # --- carried out ---

    def note_beliefs(self, lane: Lane, *, loaded: bool) -> None:
        """Write to the ledger what the site made of each row itself, whatever was decided: that is what it believes."""
        if lane.plan.ledgered:
            feed, _ = self._session.read_feed(lane.place)
            verdicts = Verdicts(lane)
            for step in verdicts.record_ledger(loaded=loaded):
                self._session.run(step, feed, lane.number)

    def merge(self, lane: Lane) -> None:
        """Put the rows that merges make into the span. Raises RejectedError when a value does not fit its column."""
        self._session.run(Verdicts(lane).merge_decided, lane.number)

    def park(self, lane: Lane, retried: int | None) -> int:
        """Set aside what waits for a person; how many. ``retried``: the parked change in hand, which keeps its number."""
        columns = [lane.relation.columns[place] for place in lane.live]
        return self._session.run(
            Verdicts(lane).park_decided, self._session.link_id, lane.place, columns, "waits for a decision", None,
            lane.number, retried,
        ).rowcount  # fmt: skip

    def correct(self, lane: Lane, *, loaded: bool) -> None:
        """Tell the site, and it alone, what stands here in place of what it wrote.

        Of a backfill's rows also those that it wrote again: what is on its way to the site may be older.
        """
        if self._answers and lane.plan.direction.falls:
            number = self._session.read_captured(lane.plan.target)
            step = Verdicts(lane).add_corrections(loaded=loaded)
            self.corrected += self._session.run(step, number, route_to(self._session), lane.number).rowcount

    def correct_there(self, lane: Lane) -> None:
        """Have the site look at rows that were here already as it wrote them: they may not be its own, or no more."""
        if self._answers and lane.plan.direction.falls and lane.plan.divided:
            number = self._session.read_captured(lane.plan.target)
            self.corrected += self._session.run(Verdicts(lane).correct_there, number, route_to(self._session)).rowcount

    def return_strays(self) -> None:
        """Have the site look at rows it wrote that are not its own: nothing else tells it what becomes of them."""
        if self._answers:
            given = route_to(self._session), self._session.link.reverse.text
            self.corrected += self._session.run(conflicts_sql("return_strays"), *given, prepare=True).rowcount

    def correct_nothing(self, lane: Lane) -> None:
        """Tell the site of rows that came and went there: it has passed over what came for them from here meanwhile."""
        if self._answers and lane.plan.direction.falls:
            number = self._session.read_captured(lane.plan.target)
            self.corrected += self._session.run(
                Verdicts(lane).correct_nothing, number, route_to(self._session)
            ).rowcount

    def correct_held(self, lane: Lane) -> None:
        """The same for rows whose changes were put behind one that waits for a person."""
        if self._answers and lane.plan.direction.falls:
            number = self._session.read_captured(lane.plan.target)
            given = self._session.link_id, lane.place, list(lane.relation.columns)
            step = Verdicts(lane).correct_held
            self.corrected += self._session.run(step, number, route_to(self._session), *given).rowcount


def route_to(session: Session) -> str:
    """The route of outbox rows for the link's site alone."""
    return f"@{session.link.origin}"


def dump(image: Image) -> str | None:
    """An image as a ``conflict`` row has it."""
    return None if image is None else json.dumps(image, ensure_ascii=False)


def _noted(decision: Decision, number: int | None, *, known: bool) -> tuple[object, ...]:
    """One decision as the statements about it need it, with its number on record. ``known``: the base is the ledger's."""
    conflict = decision.conflict
    result = decision.result if decision.verdict is Verdict.MERGE else None
    return (
        conflict.relation, conflict.ord, str(decision.verdict), number, str(conflict.kind), decision.rule, decision.reason,
        dump(conflict.before) if known else None, dump(result), conflict.based, conflict.current_origin, conflict.current_at,
        conflict.clock_error_us, decision.unsure,
    )  # fmt: skip


def _image(names: Sequence[str], values: object) -> Image:
    """A row's values as they were found, by column."""
    return None if values is None else dict(zip(names, cast("Sequence[str | None]", values), strict=True))


def _stored(lane: Lane, stored: object) -> Image:
    """A base on record in the ledger; none when it was written for other columns."""
    values = parse_record(stored) if isinstance(stored, str) else []
    if len(values) != len(lane.live):
        return None
    return dict(zip((lane.plan_column(i).target for i in lane.live), values, strict=True))


def _kind(existed: bool, present: bool, found: bool, gone: bool) -> ConflictKind:
    if not present:
        return ConflictKind.DELETE_DIFFERS
    if not existed:
        return ConflictKind.INSERT_EXISTS
    if found:
        return ConflictKind.UPDATE_DIFFERS
    return ConflictKind.UPDATE_DELETED if gone else ConflictKind.UPDATE_MISSING
