"""Applies a batch whose values came apart without staging it first, in the hope that every change is clean.

Rows of a table that is only inserted into are copied straight into it; the changes of others into their change table, where
they are netted and compared like all others. When any of them is not clean, nothing has happened: the batch is staged then, and
the careful way finds out which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from replicator.engines.postgres.apply import Apply, Step, deletes_early
from replicator.engines.postgres.decisions import Decisions
from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.parked import ParkedChanges
from replicator.engines.postgres.session import Session
from replicator.engines.postgres.stage import Stage
from replicator.errors import RejectedError
from replicator.model import Relation, Span
from replicator.ports import Batch, Readable, ValueBlock
from replicator.sqlfiles import quoted

_LONGEST_REST = 64
_WHOLE = Span(0, 0, 0)


class _NotCleanError(Exception):
    """A change was neither applied nor without effect."""


@dataclass(slots=True)
class Luck:
    """What one link's hope was worth: after a batch that was not clean, some go the careful way at once, each time more."""

    rest: int = 0
    pause: int = 1
    takes_copy: dict[Lane, bool] = field(default_factory=dict)

    def hopeful(self) -> bool:
        """Whether the next batch is worth a try."""
        self.rest = max(self.rest - 1, 0)
        return not self.rest

    def had(self, good: bool) -> None:
        """How it went."""
        self.pause = 1 if good else min(2 * self.pause, _LONGEST_REST)
        self.rest = 0 if good else self.pause


class Quick(Apply):
    """The quick way of one transaction."""

    def __init__(
        self, session: Session, stage: Stage, decisions: Decisions, parked: ParkedChanges, luck: Luck
    ) -> None:  # fmt: skip
        super().__init__(session, stage, decisions)
        self._parked = parked
        self._luck = luck
        self._blocks: dict[int, ValueBlock] = {}
        self._distinct: set[int] = set()
        self._straight_lanes: dict[Lane, int] = {}
        self.changes = 0
        self.newest_changed_at = 0

    @property
    def spans(self) -> Sequence[Span]:
        """What it has applied, as one span that the steps of the pipeline find nothing to do for."""
        return [Span(1, self.changes, self.changes)] if self.changes else []

    def take(self, batch: Batch) -> bool:
        """Apply a batch, if it is one whose changes all turn out clean; false: nothing was done."""
        if not isinstance(batch, Readable) or not self._session.link.direction.rises or not self._luck.hopeful():
            return False
        self._blocks = self._usable(batch.values(), batch.relations)
        if not self._blocks:
            return False
        try:
            with self._session.savepoint():
                self._apply_all()
                self.check_constraints()
        except (RejectedError, _NotCleanError):
            self._luck.had(False)
            self.net = 0
            self.applied.clear()
            return False
        self._luck.had(True)
        self.changes = sum(block.count for block in self._blocks.values())
        self.newest_changed_at = max(block.newest_changed_at for block in self._blocks.values())
        return True

    def _usable(self, values: Iterable[ValueBlock], relations: Mapping[int, Relation]) -> dict[int, ValueBlock]:
        blocks = {block.relation: block for block in values}
        lanes = [self._session.lane(number, relations) for number in blocks]
        fitting = all(self._fits(lane) for lane in lanes) and len({lane.place for lane in lanes}) == len(lanes)
        return blocks if fitting and not self._parked.tables() else {}

    @staticmethod
    def _fits(lane: Lane) -> bool:
        plan = lane.plan
        return not plan.ledgered and not plan.versioned and len(lane.live) == len(lane.columns)

    def _apply_all(self) -> None:
        self._distinct = {number for number in self._blocks if self._is_distinct(number)}
        straight = {number: self._blocks[number].inserted for number in self._blocks if self._goes_straight(number)}
        straight = {number: count for number, count in straight.items() if count}
        self._straight_lanes = {self._session.lane(number): number for number in straight}
        changed = {number for number, block in self._blocks.items() if block.count > straight.get(number, 0)}
        self._load(_WHOLE, changed, set())
        wanted = sum(straight.values()) + sum(count for _, count in self._loaded)
        if sum(self._run(step) for step in self._quick_steps()) != wanted:
            raise _NotCleanError
        for lane, number in self._straight_lanes.items():
            self.applied[lane] = self.applied.get(lane, 0) + straight[number]
        self.net = wanted

    def _quick_steps(self) -> Iterator[Step]:
        """As ``_steps``, where inserts come straight and the table's other changes are loaded."""
        loaded = {lane for lane, _ in self._loaded}
        lanes = sorted({*loaded, *self._straight_lanes}, key=self._session.rank)
        early = {lane for lane in loaded if deletes_early(lane.plan) and not lane.cascades}
        for lane in reversed(lanes):
            if lane in early:
                self._spare_others(lane.bereaved)
                yield Step("delete_clean", lane)
        for lane in lanes:
            if lane in loaded:
                yield Step("update_clean", lane)
            if lane in self._straight_lanes:
                yield Step("insert_staged", lane, (self._straight_lanes[lane],))
            else:
                yield Step("insert_fresh", lane)
        for lane in reversed(lanes):
            if lane in loaded - early:
                self._spare_others(lane.bereaved)
                yield Step("delete_clean", lane)

    def _is_distinct(self, number: int) -> bool:
        """Whether no row changes twice, so that nothing is to be netted."""
        block, lane = self._blocks[number], self._session.lane(number)
        return block.inserted == block.count or (not lane.respelled and block.is_distinct(lane.key))

    def _goes_straight(self, number: int) -> bool:
        """Whether the inserted rows go into the table as they are."""
        lane = self._session.lane(number)
        if not lane.inserts_straight or number not in self._distinct:
            return False
        if lane not in self._luck.takes_copy:
            self._luck.takes_copy[lane] = self._session.takes_copy(lane.plan.target)
        return self._luck.takes_copy[lane]

    def _load_lane(self, lane: Lane, number: int, span: Span, *, text: bool) -> None:
        columns = f"{lane.keys()}, {lane.listed('b', lane.live)}, {lane.listed('a', lane.live)}"
        lines = self._blocks[number].changes(lane.key, inserts=lane not in self._straight_lanes)
        self._copy(lane.render("copy_change", columns=columns), lines)

    def _net(self, lane: Lane, number: int) -> None:
        if number not in self._distinct and self._session.one(lane.has_repeats)[0]:
            for step in lane.net:
                self._session.run(step)

    def _run(self, step: Step) -> int:
        if step.name != "insert_staged":
            return super()._run(step)
        lane, (number,) = step.lane, step.values
        columns = quoted([*(name for name, _ in lane.plan.constants), *(lane.plan_column(i).target for i in lane.live)])
        prefix = b"".join(_field(value) + b"\t" for _, value in lane.plan.constants)
        copied = self._copy(lane.render("copy_straight", columns=columns), self._blocks[number].inserts(prefix))
        if not self._session.takes_copy(lane.plan.target):  # a rule may have been made since; now nobody can make one
            self._luck.takes_copy[lane] = False
            raise _NotCleanError
        return copied

    def _copy(self, statement: str, lines: Iterable[bytes]) -> int:
        with self._session.connection.cursor() as cursor:
            with cursor.copy(statement.encode()) as copy:
                for piece in lines:
                    copy.write(piece)
            return cursor.rowcount


def _field(value: str) -> bytes:
    for plain, escaped in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        value = value.replace(plain, escaped)
    return value.encode()
