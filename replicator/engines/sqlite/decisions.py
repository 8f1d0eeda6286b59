"""Conflicts of a span at a SQLite centre: found with all that is known of both rows, and what becomes of what was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from replicator.engines.sqlite.lane import Lane
from replicator.engines.sqlite.parked import ParkedChanges
from replicator.engines.sqlite.session import Session, apply_sql
from replicator.engines.sqlite.stage import Stage
from replicator.engines.sqlite.values import UnfitError, decode_image, shown, typed
from replicator.engines.sqlite.versions import route_to
from replicator.errors import RejectedError
from replicator.model import Conflict, ConflictKind, Decision, Op, Verdict

CENTRE = "centre"
"""Who wrote a row that no link of the topology brought."""

_CONFLICTS = json.dumps([str(kind) for kind in ConflictKind])
_MERGING = json.dumps(["merging"])
_PAGE = 200


class Decisions:
    """The conflicts of one transaction.

    Args:
        session: the connection.
        stage: what is applied.
        parked: where changes go that wait for a person.
        answers: whether the site gets this centre's rows too, so that it is told what became of its changes.
    """

    def __init__(self, session: Session, stage: Stage, parked: ParkedChanges, *, answers: bool) -> None:
        self._session, self._stage, self._parked, self._answers = session, stage, parked, answers
        self.retried: Mapping[str, int] = {}
        """By key, the parked changes that are being tried again: parked once more they keep their numbers."""

    # --- found ----------------------------------------------------------------------------------------------------

    def find(self, lanes: Sequence[Lane]) -> Iterator[Conflict]:
        """What is neither applied nor already there, in pages, so that rows may be decided while they are listed."""
        found = {int(n) for (n,) in self._session.run(apply_sql("relations_in_conflict"), _CONFLICTS)}
        for lane in lanes if found else ():
            if lane.relation.id not in found:
                continue
            sql = lane.find_conflicts(self._session.central_lane(lane).version_key)
            last = -1
            while page := self._session.run(sql, lane.relation.id, last, _CONFLICTS, _PAGE, lane.place).fetchall():
                for row in page:
                    last = int(row[0])
                    yield self._conflict(lane, row)

    def _conflict(self, lane: Lane, row: Sequence[object]) -> Conflict:
        order, key, kind, changed_at, existed, present, found, image, at, origin, answer, untouched, loaded, *values = (
            row
        )
        width = len(lane.columns)
        before, after, current = values[:width], values[width : 2 * width], values[2 * width :]
        based = True
        if existed and lane.ledgered:
            before, based = _kept(lane, image)
        based = based and not (loaded and existed)
        writer = "" if at is None else self._writer(origin)
        return Conflict(
            ord=int(str(order)),
            relation=lane.relation.id,
            table=lane.place,
            key=str(key),
            kind=ConflictKind(str(kind)),
            before=image_of(lane, before) if existed and based else None,
            after=image_of(lane, after) if present else None,
            current=image_of(lane, current) if found else None,
            changed_at=int(str(changed_at)),
            policy=lane.plan.policy,
            site=self._session.link.site,
            based=based,
            current_origin=writer,
            current_at=int(str(at or 0)),
            clock_error_us=self._session.clock_error(writer),
            answer=str(answer or ""),
            untouched=bool(untouched),
            loaded=self._session.prefer if loaded else None,
            loading=lane.place in self._session.loading,
        )

    def _writer(self, origin: object) -> str:
        topology, _, site = str(origin or "").rpartition("/")
        return site if topology == self._session.link.topology else CENTRE

    # --- decided --------------------------------------------------------------------------------------------------

    def carry_out(self, decision: Decision) -> int:
        """Put one decision on record, where it belongs there, and into the span; how many changes were parked by it."""
        conflict, run = decision.conflict, self._session.run
        parked, count = 0, 0
        if decision.verdict is Verdict.APPLY:
            run(apply_sql("win"), conflict.ord)
        elif decision.verdict is Verdict.KEEP:
            run(apply_sql("keep"), conflict.ord)
        elif decision.verdict is Verdict.MERGE:
            self._merge(decision)
        else:
            parked, count = self._park(decision)
        if decision.on_record:
            self._parked.record_decision(decision, parked)
        return count

    def _merge(self, decision: Decision) -> None:
        """Replace the site's values by the merged ones; the ledger first says what the site made of the row itself."""
        order = decision.conflict.ord
        lane = self._stage.lane(decision.conflict.relation)
        run, width = self._session.run, len(lane.targets)
        if lane.ledgered:
            run(apply_sql("decide"), "merging", order)
            run(lane.write_ledger, self._session.link_id, lane.place, lane.relation.id, _MERGING)
        _, _, _, _, _, *values = run(lane.net_change, order).fetchone()
        sides = [values[:width], values[width:], run(lane.current_row, order).fetchone() or [None] * width]
        merged = typed_row(lane, decision.result or {}, sides)
        run(lane.merge, order, *merged)

    def _park(self, decision: Decision) -> tuple[int, int]:
        conflict = decision.conflict
        lane = self._stage.lane(conflict.relation)
        row = self._session.run(lane.net_change, conflict.ord).fetchone()
        _, key, changed_at, existed, present, *values = row
        width = len(lane.columns)
        before = values[:width] if existed and not lane.ledgered else None
        after = values[width:] if present or lane.ledgered else None
        if lane.ledgered:
            self._parked.keep_base(lane, conflict.ord)
        number = self._parked.add(
            lane, _op(lane, existed, present), key, changed_at, before, after, decision.reason, "CONFLICT",
            self.retried.get(key),
        )  # fmt: skip
        self._session.run(apply_sql("wait"), conflict.ord)
        return number, 1 + self._parked.hold_behind(lane, key, conflict.ord)

    def mark_in_flight(self, lane: Lane) -> None:
        """Mark rows of a backfill that stand against what the site had not seen when they were read."""
        session, central = self._session, self._session.central_lane(lane)
        if self._answers and session.prefer.asks and central.relation and lane.plan.direction.falls:
            given = lane.relation.id, central.relation.id, session.seen, session.outbox_top
            session.run(central.mark_in_flight, *given, session.link.origin, route_to(session.link))

    def correct(self, lane: Lane, *, there: bool = False) -> None:
        """Tell the site, and it alone, what stands here in place of what it wrote, or (``there``) as it wrote it."""
        central = self._session.central_lane(lane)
        if self._answers and central.relation is not None and lane.plan.direction.falls:
            parameters = (central.relation.id, route_to(self._session.link), lane.relation.id)
            if there:
                self._session.run(central.correct_there, *parameters, central.relation.divided)
            else:
                self._session.run(central.correct, *parameters)


def image_of(lane: Lane, values: Sequence[object]) -> Mapping[str, object]:
    """Values in image order as column → text, the constants with them."""
    constants: dict[str, object] = dict(lane.plan.constants)
    return constants | {name: shown(value) for name, value in zip(lane.targets, values, strict=True)}


def typed_row(lane: Lane, result: Mapping[str, str | None], sides: Sequence[Sequence[object]]) -> list[object]:
    """A decided row's values as the table stores them; a value one of the ``sides`` has is taken as it is there.

    Raises RejectedError when a value does not fit its column.
    """
    values = []
    for place, (name, declared) in enumerate(zip(lane.targets, lane.target_types, strict=True)):
        known = [side[place] for side in reversed(sides)]
        try:
            values.append(typed(result[name], declared, known) if name in result else known[0])
        except (UnfitError, ValueError) as error:
            raise RejectedError(f"{lane.place}, column {name}: {error}", sqlstate="SQLITE_MISMATCH") from error
    return values


def _kept(lane: Lane, image: object) -> tuple[list[object], bool]:
    """The base's values in image order from the image the ledger keeps; false where there is none of these columns."""
    kept = decode_image(str(image)) if image is not None else []
    if len(kept) != len(lane.targets):
        return [], False
    values: list[object] = [None] * len(kept)
    for spot, place in enumerate(lane.by_name):
        values[place] = kept[spot]
    return values, True


def _op(lane: Lane, existed: object, present: object) -> Op:
    if lane.ledgered:
        return Op.STATE if present else Op.GONE
    return Op.DELETE if not present else Op.UPDATE if existed else Op.INSERT
