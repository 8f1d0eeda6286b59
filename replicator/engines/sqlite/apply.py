"""Applies spans of the stage to the tables of a SQLite target: compare, apply what is clean, then what was decided."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from replicator.engines.sqlite.decisions import Decisions
from replicator.engines.sqlite.lane import Lane
from replicator.engines.sqlite.parked import ParkedChanges
from replicator.engines.sqlite.references import ForeignKeyCheck
from replicator.engines.sqlite.session import Session, apply_sql
from replicator.engines.sqlite.stage import Stage
from replicator.errors import RejectedError
from replicator.model import Conflict, Decision, Span, TruncatePolicy
from replicator.sqlfiles import render

_CLEAN = ("delete", "update", "insert")
_WON = ("won_delete", "won_update", "won_insert")
_CLEAN_DONE = json.dumps(["there", *_CLEAN, "vacated"])
_DECIDED_DONE = json.dumps([*_WON, "won_vacated", "kept"])
_WRITTEN = json.dumps(["update", "insert", "vacated", "won_update", "won_insert", "won_vacated"])
_REMOVED = json.dumps(["delete", "won_delete"])
_CLEAN_WROTE = json.dumps([*_CLEAN, "vacated"])
_DECIDED_WROTE = json.dumps([*_WON, "won_vacated"])


class Apply:
    """The applying half of one transaction.

    Args:
        session: the connection.
        stage: what is to be applied.
        parked: where refused changes go.
        answers: whether the site gets this database's rows too.
    """

    def __init__(self, session: Session, stage: Stage, parked: ParkedChanges, *, answers: bool = False) -> None:
        self._session, self._stage, self._parked = session, stage, parked
        self.decisions = Decisions(session, stage, parked, answers=answers)
        self._lanes: list[Lane] = []
        self._truncated: list[Lane] = []
        self.net = self.conflicts = self.parked = self.differing = 0
        """``differing``: rows of a backfill that met another row."""

    def counts(self) -> tuple[int, int, int, int]:
        """The counters, for ``restore`` after a rollback."""
        return self.net, self.conflicts, self.parked, self.differing

    def restore(self, counts: tuple[int, int, int, int]) -> None:
        """Put the counters back."""
        self.net, self.conflicts, self.parked, self.differing = counts

    # --- clean ----------------------------------------------------------------------------------------------------

    def clean(self, span: Span) -> None:
        """Net the span per row, compare, and apply what meets the row it expects."""
        run = self._session.run
        fault = run(apply_sql("first_fault"), span.low, span.high).fetchone()
        if fault is not None:
            _, relation, key, reason = fault
            place = self._stage.lane(relation).place
            raise RejectedError(f"{place}, key {key}: {reason}", sqlstate="SQLITE_MISMATCH", detail=reason)
        run(apply_sql("empty_net"))
        self._truncate(span)
        numbers = [int(number) for (number,) in run(apply_sql("span_relations"), span.low, span.high)]
        self._lanes = _parents_first([self._stage.lane(number) for number in numbers])
        for lane in self._lanes:
            parameters: list[object] = [lane.relation.id, span.low, span.high]
            run(lane.load_net, *parameters, *([self._session.link_id, lane.place] if lane.ledgered else []))
            if self._stage.has_loaded:
                run(lane.load_loaded, *parameters)
                if lane.plan.versioned:
                    self._hold_deleted(lane)
                    self.decisions.mark_in_flight(lane)
        self._apply_verdicts(_CLEAN, "vacated")
        self._write_ledger(_CLEAN_DONE)
        self._write_versions(_CLEAN_WROTE)
        for lane in self._lanes:
            self.decisions.correct(lane, there=True)

    def _hold_deleted(self, lane: Lane) -> None:
        """A row of a backfill that is known to have been deleted here does not come back by itself."""
        version_key = self._session.central_lane(lane).version_key
        sql = render(apply_sql("hold_deleted"), fragments={"version_key": version_key})
        self._session.run(sql, lane.relation.id, lane.place)

    def _truncate(self, span: Span) -> None:
        self._truncated = []
        for _, number, _ in self._session.run(apply_sql("span_truncates"), span.low, span.high).fetchall():
            lane = self._stage.lane(number)
            if lane.plan.truncate is TruncatePolicy.PARK:
                raise RejectedError(f"{lane.place}: a TRUNCATE is parked by this table's policy", sqlstate="TRUNCATE")
            if lane.plan.truncate is TruncatePolicy.REPLICATE:
                self.net += self._session.run(lane.truncate).rowcount
                self._parked.overtake(lane.place)
                self._truncated.append(lane)

    def _apply_verdicts(self, verdicts: Sequence[str], vacated: str) -> None:
        """Children go before their parents, and come after them."""
        delete, update, insert = verdicts
        for lane in reversed(self._lanes):
            self.net += self._session.run(lane.deletes, lane.relation.id, delete).rowcount
        for lane in self._lanes:
            self._write_rows(lane, update, insert, vacated)

    def _write_rows(self, lane: Lane, update: str, insert: str, vacated: str) -> None:
        """Updates, then inserts; when rows of the span want one another's unique values, those step aside first."""
        try:
            with self._session.savepoint():
                self.net += self._update_and_insert(lane, update, insert)
        except sqlite3.IntegrityError as error:
            if "UNIQUE" not in str(error) or not lane.mark_vacated:
                raise
            if not self._session.run(lane.mark_vacated, lane.relation.id, update, vacated).rowcount:
                raise
            self.net += self._step_aside(lane, update, insert, vacated)

    def _update_and_insert(self, lane: Lane, update: str, insert: str) -> int:
        run, number = self._session.run, lane.relation.id
        updated = run(lane.updates, number, update).rowcount if lane.updates else 0
        return int(updated + run(lane.inserts, number, insert).rowcount)

    def _step_aside(self, lane: Lane, update: str, insert: str, vacated: str) -> int:
        run, number = self._session.run, lane.relation.id
        with self._session.savepoint():
            run(apply_sql("drop_vacated"))
            run(lane.keep_vacated)
            run(lane.deletes, number, vacated)
            net = run(lane.updates, number, update).rowcount if lane.updates else 0
            net += run(lane.return_vacated, number, vacated).rowcount
            net += run(lane.inserts, number, insert).rowcount
            run(apply_sql("drop_vacated"))
        return int(net)

    def _write_versions(self, verdicts: str) -> None:
        """Who wrote the rows last that this span wrote."""
        for lane in self._lanes:
            if lane.plan.versioned:
                sql = self._session.central_lane(lane).write_versions
                self._session.run(sql, lane.place, lane.relation.id, verdicts, self._session.link.origin)

    def _write_ledger(self, verdicts: str) -> None:
        """What the site made of its rows itself. What a merge replaced is there already."""
        for lane in self._lanes:
            if lane.ledgered:
                self._session.run(lane.write_ledger, self._session.link_id, lane.place, lane.relation.id, verdicts)

    def overwrite(self, lane: Lane, span: Span) -> None:
        """Write, or remove, one staged row whatever stands there now."""
        self._lanes, self._truncated = [lane], []
        parameters: list[object] = [lane.relation.id, span.low, span.high]
        self._session.run(apply_sql("empty_net"))
        self._session.run(lane.load_net, *parameters, *([self._session.link_id, lane.place] if lane.ledgered else []))
        self._session.run(apply_sql("win"), span.low)
        self._apply_verdicts(_WON, "won_vacated")
        self.check_constraints()

    # --- conflicts ------------------------------------------------------------------------------------------------

    def find_conflicts(self) -> Iterator[Conflict]:
        """What is neither applied nor already there; see Decisions."""
        return self.decisions.find(self._lanes)

    def decided(self, decisions: Iterable[Decision]) -> None:
        """Record each decision, then apply what is to stand and answer what does not stand as the site sent it."""
        decided = False
        for decision in decisions:
            self.parked += self.decisions.carry_out(decision)
            self.conflicts += decision.on_record
            self.differing += decision.conflict.loaded is not None
            decided = True
        if decided:
            self._apply_verdicts(_WON, "won_vacated")
            self._write_ledger(_DECIDED_DONE)
            self._write_versions(_DECIDED_WROTE)
            for lane in self._lanes:
                self.decisions.correct(lane)

    # --- constraints ----------------------------------------------------------------------------------------------

    def check_constraints(self) -> None:
        """Foreign keys of and to the rows the span wrote and removed."""
        run = self._session.run
        for lane in self._lanes:
            for check in lane.orphaned:
                self._refuse(check, run(check.sql, lane.relation.id, _WRITTEN).fetchone())
            for check in lane.bereaved:
                found = run(check.sql or check.whole, *((lane.relation.id, _REMOVED) if check.sql else ())).fetchone()
                self._refuse(check, found, "was removed")
        for lane in self._truncated:
            for check in lane.bereaved:
                found = run(check.whole).fetchone()
                self._refuse(check, found, "was removed")

    def _refuse(self, check: ForeignKeyCheck, found: tuple[object, ...] | None, removed: str = "") -> None:
        if found is not None:
            raise RejectedError(
                f"{self._session.place}: {check.broken(found, removed)}", sqlstate="SQLITE_CONSTRAINT_FOREIGNKEY"
            )


def _parents_first(lanes: Sequence[Lane]) -> list[Lane]:
    """Lanes so that a table comes behind those it refers to; circles in the given order."""
    by_table: dict[str, list[Lane]] = {}
    for lane in lanes:
        by_table.setdefault(lane.shape.name.name.lower(), []).append(lane)
    graph = {
        name: {parent for lane in group for parent in lane.parents if parent in by_table and parent != name}
        for name, group in by_table.items()
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError:
        order = list(by_table)
    return [lane for name in order for lane in by_table[name]]
