"""Takes the changes of tables that are held out of a batch, so that they are parked and the other tables go on. Pure.

A table is held where its plan says so, or where a change was captured under a key that the table has no more (such a change
cannot find its row). What is taken out is kept in memory until it is parked, so it is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from replicator.errors import SetupError
from replicator.model import Relation, TableName, TablePlan
from replicator.ports import Batch, OutboxBlock, RowBlock

HELD, UNKEYED = "held", "unkeyed"
"""What parked changes have for a code: of tables that are held, and of rows that nobody can find any more."""
MOST_HELD = 10_000
"""Changes of one table that are parked because it is held; then the link waits."""


@dataclass(frozen=True, slots=True)
class HeldChange:
    """One change to be parked. Images: the raw fields of COPY text (PostgreSQL's), or a row of values."""

    relation: Relation
    op: str
    changed_at: int
    before: bytes | tuple[object, ...] | None
    after: bytes | tuple[object, ...] | None


def held_relations(
    relations: Mapping[int, Relation], plans: Mapping[TableName, TablePlan]
) -> dict[int, tuple[str, str]]:
    """Relations whose changes cannot be applied: number → code and cause."""
    found = {}
    for number, relation in relations.items():
        plan = plans.get(relation.table)
        if plan is not None and plan.hold:
            found[number] = (HELD, plan.hold)
        elif plan is not None and not set(plan.key) <= set(relation.columns):
            lost = ", ".join(name for name in plan.key if name not in relation.columns)
            found[number] = (UNKEYED, f"was captured before {relation.table} had the key column {lost}")
    return found


class Sifted:
    """A batch without the changes of some relations; these are in ``changes`` once its blocks have been read."""

    def __init__(self, batch: Batch, held: Mapping[int, tuple[str, str]]) -> None:
        self._batch, self._held = batch, held
        self._known = dict(batch.relations)
        self.changes: list[HeldChange] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._batch, name)

    @property
    def batch(self) -> Batch:
        """Itself: all that is not taken out is the batch's own."""
        return cast(Batch, self)

    @property
    def relations(self) -> Mapping[int, Relation]:
        """Those that stay."""
        return {number: relation for number, relation in self._batch.relations.items() if number not in self._held}

    def blocks(self) -> Iterator[OutboxBlock | RowBlock]:
        """The changes that stay."""
        for block in self._batch.blocks():
            if isinstance(block, OutboxBlock):
                yield OutboxBlock(self._lines(block.chunks), loaded=block.loaded)
            elif block.relation in self._held:
                for row in (*block.rows, *block.odd):
                    _, op, changed_at, *values = row
                    self._take(block.relation, str(op), int(str(changed_at or 0)), None, tuple(values))
            else:
                yield block

    def _lines(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + bytes(chunk)).split(b"\n")
            stay = [line for line in lines if line and not self._sift(line)]
            if stay:
                yield b"\n".join(stay) + b"\n"
        if rest and not self._sift(rest):
            yield rest

    def _sift(self, line: bytes) -> bool:
        _, number, op, changed_at, before, after = line.split(b"\t")
        if int(number) not in self._held:
            return False
        images = [None if image == b"\\N" else image for image in (before, after)]
        self._take(int(number), op.decode(), int(changed_at), images[0], images[1])
        return True

    def _take(
        self, number: int, op: str, changed_at: int,
        before: bytes | tuple[object, ...] | None, after: bytes | tuple[object, ...] | None,
    ) -> None:  # fmt: skip
        self.changes.append(HeldChange(self._known[number], op, changed_at, before, after))
        if len(self.changes) > MOST_HELD:
            raise too_many(self._held[number][1], len(self.changes))

    def cause(self, change: HeldChange) -> tuple[str, str]:
        """Code and cause of a change that was taken out."""
        return self._held[change.relation.id]


def too_many(cause: str, number: int) -> SetupError:
    """That no more is parked: what mends it has to be done first. Nothing is lost, the changes wait at their source."""
    words, _, fix = cause.partition(": ")
    return SetupError(f"{number:,} changes or more would be parked: {words}", hint=fix or "run: replicator schema diff")


def require_keyed(plan: TablePlan, columns: Sequence[str], parked_id: int) -> None:
    """A parked change can be tried only where its table is not held and its row can be found. Raises SetupError."""
    if plan.hold:
        raise SetupError(f"parked change {parked_id} waits because its table is held: {plan.hold}")
    if not set(plan.key) <= set(columns):
        raise SetupError(
            f"parked change {parked_id} has no {', '.join(plan.key)}: it was captured before the table had this key",
            hint=f"compare with: replicator audit, then: replicator parked skip {parked_id}",
        )
