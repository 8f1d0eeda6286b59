"""Applies spans of a staged batch to users' tables: net per row, clean ones optimistically, the rest as decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import psycopg

from replicator.engines.postgres.decisions import Decisions
from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.loading import Loading
from replicator.engines.postgres.session import Session, apply_sql, target_sql
from replicator.engines.postgres.stage import WARY, Stage
from replicator.engines.postgres.versions import Versions
from replicator.errors import RejectedError
from replicator.model import Conflict, Decision, Prefer, Span, TablePlan, TruncatePolicy, Verdict

_CHUNK = 1000
"""Conflicts held in Python at once: bounds memory when every row conflicts."""

_FEW = 1000
_MANY = 200
_DECIDED = ("delete_decided", "update_decided", "insert_decided")
_ONE_BY_ONE = "key updates that build on each other are applied one by one"


class _NotFreshError(Exception):
    """A row that was to be inserted straight was there, or left out by a trigger: the careful way has to find which."""


@dataclass(frozen=True, slots=True)
class Step:
    """One applying statement: its name in the apply file, its lane, its parameters."""

    name: str
    lane: Lane
    values: tuple[int, ...] = ()


class Apply:
    """The apply steps of one transaction; counts what they did."""

    def __init__(self, session: Session, stage: Stage, decisions: Decisions) -> None:
        self._session = session
        self._stage = stage
        self._decisions = decisions
        self._span = Span(0, 0, 0)
        self.retried: int | None = None
        self.origin: str | None = session.link.origin
        self._loaded: list[tuple[Lane, int]] = []
        self._move = self._left = self._brought = False
        self.all_new = False  # whether rows of a backfill came, and none of them was here
        self._dirty: set[int] = set()
        self.applied: dict[Lane, int] = {}
        self.net = self.conflicts = self.parked = self.differing = 0
        self.prefer = Prefer.POLICY

    def counts(self) -> tuple[int, int, int, int]:
        """Counters to put back when a savepoint rolls back."""
        return self.net, self.conflicts, self.parked, self.differing

    def restore(self, counts: tuple[int, int, int, int]) -> None:
        """Undo counting of a savepoint that rolled back."""
        self.net, self.conflicts, self.parked, self.differing = counts

    # --- clean ---

    def clean(self, span: Span) -> None:
        """Apply every change whose base equals the current row. See ports.Target.apply_clean."""
        self._left = False
        self._loaded = []
        self._span = span
        self._brought = self._stage.is_loaded(span)
        if self._brought:
            self._bring(span)
            return
        if self._truncate(span):
            return
        self._move = self._stage.moves(span)
        straight = self._straight(span)
        self._load(span, self._stage.relations_of(span) - straight.keys(), self._stage.row_lanes_of(span))
        self._plan_anew(sum(straight.values()) + sum(count for _, count in self._loaded))
        applied = self._apply_fresh(straight)
        if applied is None:
            self._load(span, set(straight), set())
            applied = sum(self._run(step) for step in self._steps("insert_clean", {}))
        self._left = applied != sum(count for _, count in self._loaded)
        if self._left and self._move and not span.single:
            raise RejectedError(_ONE_BY_ONE, sqlstate="23000")
        self.net += applied

    def _bring(self, span: Span) -> None:
        """Insert a backfill's rows where there are none; those that stand here already are left alone, unlocked."""
        self._move = False
        text, typed = self._stage.relations_of(span), self._stage.row_lanes_of(span)
        direct = not text and all(self._session.lane(number).inserts_straight for number in typed)
        if direct and any(self._stand_already(self._session.lane(number), span) for number in typed):
            return
        applied = sum(self._insert_rows(self._session.lane(number), span) for number in typed) if direct else 0
        self.net += applied
        self.all_new = direct and applied == span.count
        if self.all_new:
            return
        self._load(span, text, typed)
        count = sum(rows for _, rows in self._loaded)
        if not direct:
            self._plan_anew(count)
            steps = [Step("insert_loaded" if lane.plan.versioned else "insert_clean", lane) for lane, _ in self._loaded]
            applied = sum(map(self._run, steps))
            self.net += applied
            self.all_new = applied == count
        if applied == count:
            return
        for lane, _ in self._loaded:
            if lane.plan.divided:  # its rows have to be looked at in any case
                self._left = True
                continue
            beliefs = (self._session.read_feed(lane.place)[0],) if lane.plan.ledgered else ()
            self._session.run(Loading(lane, 0).drop_same, *beliefs)
            self._left = self._left or bool(self._session.one(lane.simple("count_change"))[0])

    def _stand_already(self, lane: Lane, span: Span) -> bool:
        """Whether all rows of the span are here as they come; asked where the last ones met rows."""
        if not lane.wary or lane.plan.divided:
            return False
        return bool(self._session.one(Loading(lane, 0).count_same, span.low, span.high)[0] == span.count)

    def _insert_rows(self, lane: Lane, span: Span) -> int:
        """Insert rows of a backfill from the typed lane where there are none; how many."""
        if lane.plan.versioned:
            self._plan_anew(span.count)
            inserted = int(self._session.one(self._versions(lane).insert_rows, span.low, span.high)[0])
        else:
            inserted = self._session.run(lane.apply("insert_rows", alive="true"), span.low, span.high).rowcount
        self.applied[lane] = self.applied.get(lane, 0) + inserted
        lane.wary = lane.wary if inserted == span.count else WARY
        return inserted

    def take_straight(self, rows: Mapping[Lane, int]) -> None:
        """Count rows that went into their tables while they were read."""
        self.applied.update(rows)
        self.net += sum(rows.values())

    def _straight(self, span: Span) -> Mapping[int, int]:
        """Relations whose rows go from the stage into the table as they are, with the number of rows."""
        inserts = self._stage.inserts_of(span)
        return {number: rows for number, rows in inserts.items() if self._session.lane(number).inserts_straight}

    def _apply_fresh(self, straight: Mapping[int, int]) -> int | None:
        """Apply in the hope that no inserted row is there yet: quicker, and undone as a whole when one is.

        The number of loaded changes applied; None when nothing was.
        """
        try:
            with self._session.connection.transaction():
                applied = sum(self._run(step) for step in self._steps("insert_fresh", straight))
                if straight and applied != sum(straight.values()) + sum(count for _, count in self._loaded):
                    raise _NotFreshError
        except (psycopg.errors.UniqueViolation, _NotFreshError):
            return None
        for number, count in straight.items():
            self.applied[self._session.lane(number)] = count
            self.net += count
        return applied - sum(straight.values())

    def _truncate(self, span: Span) -> bool:
        truncated = self._stage.truncates_of(span)
        for number in reversed(self._session.in_order(set(truncated))):
            lane = self._session.lane(number)
            if lane.plan.truncate is TruncatePolicy.PARK:
                raise RejectedError(
                    f"TRUNCATE of {lane.plan.source.name} is parked: other sites' rows live in {lane.place} too",
                    sqlstate="0A000",
                    hint="delete the rows by hand and skip the change, or set truncate: for the table in the YAML",
                )
            if lane.plan.truncate is TruncatePolicy.REPLICATE:
                self._spare_others(lane.bereaved_by_truncate)
                self.net += self._truncate_site(lane, truncated[number])
                self._session.run(apply_sql("truncate_ledger"), self._session.read_feed(lane.place)[0])
                self._session.run(target_sql("truncate_parked"), self._session.link_id, lane.place)
        return bool(truncated)

    def _truncate_site(self, lane: Lane, changed_at: int) -> int:
        if not lane.plan.versioned:
            return self._session.run(lane.truncate_site()).rowcount
        return int(self._session.one(self._versions(lane).truncate, changed_at)[0])

    def _load(self, span: Span, text: set[int], typed: set[int]) -> None:
        """Fill and net the change tables of these relations, parents first."""
        for number in self._session.in_order(text | typed):
            lane = self._session.lane(number)
            if number in self._dirty:
                self._empty(lane)
            self._dirty.add(number)
            self._load_lane(lane, number, span, text=number in text)
            if not self._stage.is_loaded(span):
                self._net(lane, number)
            count = self._session.one(lane.simple("count_change"))[0]
            lane.passed_changes += count
            if count:
                self._check_fit(lane)
                self._loaded.append((lane, count))
                self.applied[lane] = self.applied.get(lane, 0) + count

    def _net(self, lane: Lane, number: int) -> None:
        if self._stage.may_repeat(number) and self._session.one(lane.has_repeats)[0]:
            if self._move:  # by then it was another row that bore the key
                raise RejectedError(_ONE_BY_ONE, sqlstate="23000")
            for step in lane.net:
                self._session.run(step)
        if lane.plan.ledgered:  # with images, the steps above have seen to it
            self._decisions.correct_nothing(lane)
            self._session.run(lane.simple("net_nothing"))

    def _empty(self, lane: Lane) -> None:
        """Few rows are deleted, which is quicker; TRUNCATE makes new files each time, but leaves nothing to step over."""
        few = lane.passed_changes < _FEW
        self._session.run(lane.simple("forget_change" if few else "empty_change"))
        if not few:
            lane.passed_changes = 0

    def tidy(self) -> None:
        """Empty the tables of the lanes that were used, at the end of a transaction.

        The database would do so by itself, but for all lanes of the session at every commit.
        """
        for number in sorted(self._dirty):
            self._empty(self._session.lane(number))
        for number in sorted(self._stage.row_lanes):
            lane = self._session.lane(number)
            few = lane.passed_rows < _FEW
            self._session.run(lane.simple("forget_rows" if few else "empty_rows"))
            if not few:
                lane.passed_rows = 0

    def _load_lane(self, lane: Lane, number: int, span: Span, *, text: bool) -> None:
        if self._stage.is_loaded(span):
            if text:
                self._session.run(Loading(lane, number).load, number, span.low, span.high)
            if number in self._stage.row_lanes_of(span):
                self._session.run(lane.load_new_rows, span.low, span.high)
            return
        feed, known = self._session.read_feed(lane.place) if lane.plan.ledgered else (0, False)
        if number in self._stage.row_lanes_of(span):
            if known:
                self._session.run(lane.load_rows, span.low, span.high, feed)
            else:
                self._session.run(lane.load_new_rows, span.low, span.high)
        if text and lane.plan.ledgered:
            self._session.run(lane.load_states, number, span.low, span.high, feed)
        elif text:
            self._session.run(lane.load_images, number, span.low, span.high)

    def _spare_others(self, statements: Iterable[str]) -> None:
        """Refuse a delete that would remove or change rows nobody asked to have removed or changed."""
        for statement in statements:
            row = self._session.run(statement).fetchone()
            if row is not None:
                raise RejectedError(
                    f"deleting the row would also remove or change rows of {row[0]}, by the cascade of a foreign key there",
                    sqlstate="23503",
                    hint="see to those rows, then retry",
                )

    def _check_fit(self, lane: Lane) -> None:
        row = self._session.run(lane.find_unfit).fetchone() if lane.find_unfit else None
        if row is not None:
            raise RejectedError(
                f"table {lane.place}: {row[1]} without losing something",
                sqlstate="22003",
                hint="widen the target column, or exclude it in the topology",
            )

    def _steps(
        self, insert: str, straight: Mapping[int, int], update: str = "update_clean", delete: str = "delete_clean"
    ) -> Iterator[Step]:
        """Upserts parents first, deletes children first.

        Deletes go ahead of the upserts for tables with other unique keys (a value freed may be taken again in the same
        batch), else behind them (a child that moves to another parent is not cascaded away with the old one).
        """
        relations = {self._session.lane(number): number for number in straight}
        lanes = sorted([*(lane for lane, _ in self._loaded), *relations], key=self._session.rank)
        early = [lane for lane in reversed(lanes) if deletes_early(lane.plan) and not lane.cascades]
        loaded = [lane for lane in lanes if lane not in relations]
        for lane in reversed(loaded):
            if lane in early:
                self._spare_others(lane.bereaved)
                yield Step(delete, lane)
        for lane in lanes:
            if lane in relations:
                yield Step("insert_staged", lane, (relations[lane],))
            else:
                yield Step(update, lane)
                yield Step(insert, lane)
        for lane in reversed(loaded):
            if lane not in early:
                self._spare_others(lane.bereaved)
                yield Step(delete, lane)

    def _run(self, step: Step) -> int:
        """Run one applying statement, with versions where the table has them; the number of rows written."""
        lane, values = step.lane, step.values
        if not lane.plan.versioned:
            return self._session.run(lane.apply(step.name, move=self._move), *values).rowcount
        versions = self._versions(lane)
        notes = {"insert_fresh": versions.note_fresh, "insert_staged": versions.note_staged}
        if self.retried is not None and step.name != "insert_staged":
            notes[step.name] = versions.note_retried
        if step.name not in notes:
            return int(self._session.one(versions.write(step.name, move=self._move), *values)[0])
        written = self._session.run(lane.apply(step.name, move=self._move), *values).rowcount
        if written:
            self._session.run(notes[step.name], *(values if step.name == "insert_staged" else ()))
        return written

    def _plan_anew(self, rows: int) -> None:
        """Let capture on this database plan for many rows, where it planned for the few that came first."""
        if rows > _MANY and self._session.link.direction.rises and any(lane.plan.versioned for lane in self.applied):
            self._session.run(apply_sql("plan_anew"))

    def _versions(self, lane: Lane) -> Versions:
        return Versions(lane, self._session.read_version_feed(lane.place), self.origin)

    # --- conflicts ---

    def find_conflicts(self) -> Iterator[Conflict]:
        """What ``clean`` left."""
        if not self._left:
            return
        for lane, _ in self._loaded:
            yield from self._decisions.find(lane, move=self._move, loaded=self.prefer if self._brought else None)

    def decided(self, decisions: Iterable[Decision]) -> None:
        """Record the decisions and do what they say."""
        verdicts: dict[int, Counter[Verdict]] = {}
        stream = iter(decisions)
        while chunk := list(islice(stream, _CHUNK)):
            for each in chunk:
                verdicts.setdefault(each.conflict.relation, Counter())[each.verdict] += 1
            self._decisions.note(chunk)
            self.conflicts += sum(each.on_record for each in chunk)
            self.differing += sum(each.conflict.loaded is not None for each in chunk)
        self._decisions.noted(sum(map(Counter.total, verdicts.values())))
        for lane, _ in self._loaded:
            if lane.number in verdicts:
                self._decisions.record(lane)
            self._carry_out(lane, verdicts.get(lane.number, Counter()))
            if self._left:
                self._decisions.correct_there(lane)

    def _carry_out(self, lane: Lane, verdicts: Counter[Verdict]) -> None:
        self._decisions.note_beliefs(lane, loaded=self._brought)
        if verdicts[Verdict.MERGE]:
            self._decisions.merge(lane)
            self._check_fit(lane)
        if wanted := verdicts[Verdict.APPLY] + verdicts[Verdict.MERGE]:
            self._impose(lane, wanted)
        if self._brought or verdicts.keys() != {Verdict.APPLY}:
            self._decisions.correct(lane, loaded=self._brought)
        if verdicts[Verdict.PARK]:
            self.parked += self._decisions.park(lane, self.retried)
            self.parked += self._stage.hold_later(lane.place, self._span)

    def _impose(self, lane: Lane, wanted: int) -> None:
        """Apply the changes that were decided for; each is to be found in the table then."""
        self._plan_anew(wanted)
        self._spare_others(lane.bereaved)
        imposed = sum(self._run(Step(name, lane, (lane.number,))) for name in _DECIDED)
        if imposed < wanted:
            raise RejectedError(
                f"table {lane.place}: {wanted - imposed} of {wanted} changes were left out without an error",
                sqlstate="09000",
                hint="look for a BEFORE trigger or a rule of the table that leaves rows out; or retry",
            )
        self.net += imposed

    def impose_one(self, lane: Lane, number: int, order: str) -> None:
        """Apply the one staged change of a relation whatever stands there, as this database's own. ``order`` says so."""
        self._dirty.add(number)
        self.origin = None
        self._session.run(lane.load_images, number, 1, 1)
        self._check_fit(lane)
        self._session.run(order, lane.number, 1)
        self._impose(lane, 1)
        self.check_constraints()

    def check_constraints(self) -> None:
        """Make deferred constraints speak now, while the span can still be halved."""
        self._session.run(apply_sql("check_constraints"), prepare=True)
        self._session.run(apply_sql("defer_constraints"), prepare=True)


def deletes_early(plan: TablePlan) -> bool:
    """Whether a value that a delete frees may be taken by another row at once."""
    return any(not unique.primary and not unique.deferrable for unique in plan.target_shape.uniques)
