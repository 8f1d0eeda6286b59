"""Applies at a SQLite site what comes from the centre: the marker rule, at work.

The centre is always right about a row, save where the site has changed it beyond the marker: then the centre has yet to
process that change and will answer it. So there are no conflicts here. A state stands for all states before it: what a
site has refused of a row is forgotten as soon as a newer state comes, or the site changes the row itself.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from replicator.engines.sqlite.apply import Apply, _parents_first
from replicator.engines.sqlite.base import base_place
from replicator.engines.sqlite.followed import FollowLane, FollowStage
from replicator.engines.sqlite.parked import ParkedChanges, cause_of
from replicator.engines.sqlite.pending import NOWHERE, Pending, follow_sql, seq_of
from replicator.engines.sqlite.session import Session, apply_sql
from replicator.engines.sqlite.values import decode_image, encode_image
from replicator.errors import BatchError, RejectedError, SetupError, rejoin_hint
from replicator.model import Conflict, Decision, Direction, Relation, Span
from replicator.ports import Batch
from replicator.sqlfiles import render, statement

_VERDICTS = ("delete", "update", "insert")
_WROTE = json.dumps([*_VERDICTS, "vacated"])
_ALONE = 2
"""The ordinal of a parked row that is tried again."""
_COMPANIONS = 500
_KNOWN = json.dumps([*_VERDICTS, "vacated", "there", "own"])
"""Rows the site has as the centre sent them, its own triggers' doings apart."""


class Follow(Apply):
    """The applying half of one transaction at a site.

    Args:
        session: the connection.
        stage: what is to be applied.
        parked: what waits (its own way of queueing is not used here).
        pending: the site's own changes.
    """

    def __init__(self, session: Session, stage: FollowStage, parked: ParkedChanges, pending: Pending) -> None:
        super().__init__(session, stage, parked)
        self._followed, self._pending = stage, pending
        self._lanes_here: list[FollowLane] = []
        self._top = self._stored = self._marker = 0
        self._position: str | None = None
        self._again: tuple[int, int] | None = None
        """Number and attempts of the parked change that is being tried again."""
        self._companions: dict[int, int] = {}
        """Ordinal and number of other parked rows that are tried along with it."""

    # --- begin ----------------------------------------------------------------------------------------------------

    def begin(self, batch: Batch | None) -> None:
        """Right behind the write lock: from here on nobody changes a row but us. ``None``: a parked row is tried again."""
        self._top = self._pending.top()
        self._stored = self._marker = self._pending.stored()
        self._pending.finish(self._top)
        if batch is not None and batch.marker is not None and seq_of(batch.marker) > self._stored:
            self._check_marker(str(batch.marker))
            self._position, self._marker = str(batch.marker), seq_of(batch.marker)
        if batch is not None and self._session.run(follow_sql("has_parked"), self._session.link_id).fetchone()[0]:
            self._drop_parked()

    def _check_marker(self, marker: str) -> None:
        """A marker names an outbox row that is still there: nothing is pruned beyond the marker before."""
        _, seq, stamp = marker.split(":")
        found = self._session.run(statement("sql/sqlite/source.sql", "read_stamp"), int(seq)).fetchone()
        if found is None or str(found[0] or 0) != stamp:
            raise BatchError(
                f"{self._session.place}: the centre has processed changes of this site up to {marker}, which the file does not "
                "have: it was restored from a copy or replaced",
                hint=rejoin_hint(self._session.link.site),
            )

    def _drop_parked(self) -> None:
        """Forget what is parked of rows that a newer state has come for, or that the site has changed since."""
        run, link = self._session.run, self._session.link_id
        for number in self._stage.relations():
            lane = self._followed.lane(number)
            run(follow_sql("drop_superseded"), link, lane.place, number)
        for plan in self._pending.plans:
            noted = self._pending.noted(plan)
            if noted is None:
                continue
            run(follow_sql("drop_answered"), link, str(plan.target), noted.relation, self._stored)
            if self._pending.reads_all(noted.relation, self._stored):
                relation = Relation(0, plan.source.name, tuple(c.source for c in plan.columns), plan.key)
                lane = self._followed.lane_of(relation)
                for number, key in run(follow_sql("list_parked_keys"), link, lane.place).fetchall():
                    if run(lane.is_there, *decode_image(key)).fetchone()[0]:
                        run(statement("sql/sqlite/target.sql", "remove_parked"), number)

    # --- apply ----------------------------------------------------------------------------------------------------

    def clean(self, span: Span) -> None:
        """Write every row of the span that is not pending and not as it should be already."""
        if not self._companions:
            self._write(span)
            return
        try:
            with self._session.savepoint():
                self._write(span)
                for number in self._companions.values():
                    self._session.run(statement("sql/sqlite/target.sql", "remove_parked"), number)
                self._pending.gone_along.update(self._companions.values())
        except (sqlite3.IntegrityError, RejectedError):
            self._leave_companions()
            self._write(Span(_ALONE, _ALONE, 1))

    def _leave_companions(self) -> None:
        for order in self._companions:
            self._session.run(apply_sql("unstage"), order)

    def _write(self, span: Span) -> None:
        run = self._session.run
        fault = run(apply_sql("first_fault"), span.low, span.high).fetchone()
        if fault is not None:
            _, number, key, reason = fault
            place = self._followed.lane(number).place
            raise RejectedError(f"{place}, key {key}: {reason}", sqlstate="SQLITE_MISMATCH", detail=reason)
        run(apply_sql("empty_net"))
        self._truncated = []
        numbers = [int(number) for (number,) in run(apply_sql("span_relations"), span.low, span.high)]
        lanes = _parents_first([self._followed.lane(number) for number in numbers])
        self._lanes_here = [lane for lane in lanes if isinstance(lane, FollowLane)]
        self._lanes = list(lanes)
        for lane in self._lanes_here:
            noted = self._pending.noted(lane.plan)
            relation = noted.relation if noted else NOWHERE
            reads_all = noted is not None and self._pending.reads_all(relation, self._marker)
            run(lane.load_followed, lane.relation.id, span.low, span.high, relation, self._marker, reads_all)
        if self._stage.has_loaded:
            self.differing += run(follow_sql("count_differing"), span.low, span.high).fetchone()[0]
        self._apply_verdicts(_VERDICTS, "vacated")
        if self._pending.has_triggers:
            self._settle_triggers()
        else:
            run(follow_sql("erase_tail"), self._top, json.dumps(self._pending.relations))
        self._write_bases()

    def _settle_triggers(self) -> None:
        """The application's triggers run on what we write too.

        What they do to our rows is undone once; where they insist, and what they do to other rows, is the site's own change.
        """
        run, rewritten = self._session.run, 0
        for lane in self._lanes_here:
            rewritten += run(lane.mark_rewritten, lane.relation.id, "rewritten", _WROTE).rowcount
        for lane in self._lanes_here if rewritten else ():
            if lane.updates:
                run(lane.updates, lane.relation.id, "rewritten")
        for lane in self._lanes_here:
            if rewritten:
                run(lane.mark_rewritten, lane.relation.id, "own", json.dumps(["rewritten"]))
                run(follow_sql("rename_verdict"), lane.relation.id, "rewritten", "update")
            noted = self._pending.noted(lane.plan)
            if noted is not None:
                sql = render(follow_sql("erase_tail_of_rows"), fragments={"key": noted.key})
                run(sql, self._top, noted.relation, lane.relation.id, _WROTE)

    def _write_bases(self) -> None:
        for lane in self._lanes_here:
            if lane.plan.direction is Direction.BOTH:
                place = base_place(self._session.link.topology, lane.plan.target.name)
                self._session.run(follow_sql("write_bases"), lane.relation.id, place, self._top, _KNOWN)

    def find_conflicts(self) -> Iterator[Conflict]:
        """None: a site never decides."""
        return iter(())

    def decided(self, decisions: Iterable[Decision]) -> None:
        """Nothing was asked, so there is nothing to do."""
        for decision in decisions:
            raise BatchError(f"link {self._session.link}: a site does not decide ({decision.conflict.table})")

    # --- parked ---------------------------------------------------------------------------------------------------

    def park(self, span: Span, error: RejectedError) -> None:
        """Keep the state the file refuses, with its base; an older state than another staged one is forgotten."""
        run = self._session.run
        self._leave_companions()
        for order in self._stage.orders(span):
            (number,) = (int(n) for _, n in run(apply_sql("staged_ordinals"), order, order))
            lane = self._followed.lane(number)
            _, op, changed_at, key, fault, base, raw, _, *values = run(lane.staged_at, order).fetchone()
            run(apply_sql("unstage"), order)
            if run(follow_sql("staged_later"), number, key, order).fetchone()[0]:
                continue
            after = raw if fault is not None else encode_image(values[len(lane.columns) :])
            again, attempts = self._again or (None, 0)
            run(follow_sql("forget_parked"), self._session.link_id, lane.place, key)
            run(
                follow_sql("park_followed"), again, self._session.link_id, lane.place, key, op, changed_at,
                json.dumps(list(lane.columns), ensure_ascii=False), after, error.sqlstate, cause_of(error),
                self._session.now(), attempts + 1, base,
            )  # fmt: skip
            self.parked += self._again is None

    def stage_parked(self, ids: Sequence[int]) -> None:
        """Stage the newest of a row's parked states and take all of them off the list; the write lock is held."""
        self.begin(None)
        rows = self._session.run(
            follow_sql("read_parked_state"), self._session.link_id, json.dumps(list(ids))
        ).fetchall()
        if not rows and set(ids) <= self._pending.gone_along:
            self._followed.idle = True
            return
        if not rows:
            raise SetupError(
                f"link {self._session.link}: there is no parked change {', '.join(map(str, ids))} any more",
                hint="run: replicator parked list",
            )
        number, table, key, op, changed_at, columns, after, attempts, base = rows[0]
        plan = self._session.plan_for(str(table))
        if plan is None:
            raise SetupError(f"parked change {number}: table {table} is not replicated any more")
        self._session.run(follow_sql("forget_parked"), self._session.link_id, table, key)
        relation = Relation(0, plan.source.name, tuple(json.loads(columns)), plan.key)
        self._followed.add_state(relation, _ALONE, op, changed_at, decode_image(after), base)
        self._again = (number, attempts)
        self._add_companions(relation, str(table), str(key))

    def _add_companions(self, relation: Relation, table: str, key: str) -> None:
        """Parked rows that hold the unique values this one wants, and so on: two may want each other's."""
        lane, order = self._followed.lane_of(relation), _ALONE
        staged, last = {key: _ALONE}, _ALONE
        while order <= last and len(staged) < _COMPANIONS:
            found = (str(name) for sql in lane.holders for (name,) in self._session.run(sql, order).fetchall())
            for other in [name for name in found if name not in staged]:
                row = self._session.run(follow_sql("read_parked_row"), self._session.link_id, table, other).fetchone()
                if row is not None and tuple(json.loads(row[3])) == relation.columns:
                    last += _ALONE
                    number, op, changed_at, _, after, base = row
                    self._followed.add_state(relation, last, op, changed_at, decode_image(after), base)
                    self._companions[last] = int(number)
                    staged[other] = last
            order += _ALONE

    # --- record ---------------------------------------------------------------------------------------------------

    def record(self) -> None:
        """Put the marker on record, in the transaction of the rows: the outbox keeps all that is behind it."""
        run, link = self._session.run, self._session.link
        known = run(follow_sql("read_marker"), link.text).fetchone()
        if self._position is None and known is None:
            (self._position,) = run(follow_sql("first_marker")).fetchone()
        if self._position is not None:
            run(follow_sql("record_marker"), link.text, link.topology, self._position)
            run(follow_sql("forget_first_marker"), link.topology)
