"""Makes a PostgreSQL site's rows what the centre's are, but for rows the site has changed since (the marker rule)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from replicator.engines.postgres.apply import Apply, Step
from replicator.engines.postgres.decisions import Decisions
from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.own import OwnChanges, follow_sql
from replicator.engines.postgres.session import Session
from replicator.engines.postgres.stage import Stage
from replicator.errors import RejectedError, RetryableError
from replicator.model import Conflict, Decision, Span
from replicator.sqlfiles import quoted, render

_TRIALS = 5


class _MovedError(Exception):
    """A row was changed by the site between our look at its changes and our insert."""


class Follow(Apply):
    """The apply steps of one transaction of a link from the centre: there are no conflicts, the centre has decided.

    Rows that are there are locked first, and the site's own changes are read in later statements: whoever changed a row
    before has committed by then, and is seen; whoever comes later waits for us, and is sent to the centre.
    """

    def __init__(self, session: Session, stage: Stage, decisions: Decisions, own: OwnChanges) -> None:
        super().__init__(session, stage, decisions)
        self._own = own
        self.passed = 0

    def clean(self, span: Span) -> None:
        """Write all rows of the span but those that have changes of the site's own beyond the marker."""
        for _ in range(_TRIALS):
            try:
                with self._session.connection.transaction():
                    self._follow(span)
                return
            except _MovedError:
                continue
        raise RetryableError(
            f"{self._session.place}: rows are inserted here faster than the centre's can be compared with them",
            hint="the batch is tried again",
        )

    def find_conflicts(self) -> Iterator[Conflict]:
        """None: a site never decides."""
        return iter(())

    def decided(self, decisions: Iterable[Decision]) -> None:
        """Nothing was to be decided."""
        assert not list(decisions)

    def _follow(self, span: Span) -> None:
        self._loaded = []
        self._move = False
        self._load(span, self._stage.relations_of(span), self._stage.row_lanes_of(span))
        for lane, _ in self._loaded:
            self._session.run(self._lock_rows(lane))
        passed = self._pass_over()
        new = {lane: self._count(lane, "count_new") for lane, _ in self._loaded}
        written = 0
        for step in self._steps("insert_followed", {}, "update_followed", "delete_followed"):
            count = self._run(step)
            written += count
            if step.name != "insert_followed" and self._stage.is_loaded(span):
                self.differing += count
            if step.name == "insert_followed" and count < new[step.lane]:
                self._explain_left_out(step)
        if any(new.values()) and self._pass_over():
            raise _MovedError
        self.passed += passed
        self.net += written

    def _pass_over(self) -> int:
        touched = self._own.touched()
        return sum(self._own.drop_pending(lane, touched) for lane, _ in self._loaded) if touched else 0

    def _explain_left_out(self, step: Step) -> None:
        left_out = self._count(step.lane, "find_left_out")
        if left_out:
            raise RejectedError(
                f"table {step.lane.place}: {left_out} rows were left out without an error",
                sqlstate="09000",
                hint="look for a BEFORE trigger or a rule of the table that leaves rows out; or retry",
            )

    def _run(self, step: Step) -> int:
        return self._session.run(step.lane.apply(step.name), *step.values).rowcount

    def _load_lane(self, lane: Lane, number: int, span: Span, *, text: bool) -> None:
        if number in self._stage.row_lanes:
            self._session.run(lane.load_new_rows, span.low, span.high)
        if text:
            self._session.run(lane.load_new_states, number, span.low, span.high)

    def _net(self, lane: Lane, number: int) -> None:
        """Only what a row is counts, so the last state of it is all."""
        if self._session.one(lane.has_repeats)[0]:
            self._session.run(lane.net_last)

    def _lock_rows(self, lane: Lane) -> str:
        return self._render("lock_rows", lane, key=quoted(lane.plan.target_key, "t."), same_row=lane.same_row("c.k"))

    def _count(self, lane: Lane, name: str) -> int:
        return int(self._session.one(self._render(name, lane, same_row=lane.same_row("c.k")))[0])

    @staticmethod
    def _render(name: str, lane: Lane, **fragments: str) -> str:
        target = lane.plan.target
        return render(
            follow_sql(name),
            identifiers={"change": lane.change, "schema": target.schema, "table": target.name},
            fragments=fragments,
        )
