"""What is captured in a SQLite file now, and the transaction that makes one table's capture right. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from replicator.engines.sqlite import planned
from replicator.engines.sqlite.capture import Capture
from replicator.engines.sqlite.central import captures_of
from replicator.engines.sqlite.names import trigger_prefix
from replicator.model import CentralTable, PlannedStatement


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger as the file has it; ``place`` grows with the order of creation."""

    name: str
    table: str
    body: str
    place: int

    def same_text(self, wanted: str) -> bool:
        """Whether it was made from this CREATE TRIGGER statement (SQLite keeps the text from the name on)."""
        return _from_name(self.body, self.name) == _from_name(wanted, self.name)


@dataclass(frozen=True)
class State:
    """What is in the file now."""

    tables: frozenset[str]
    triggers: dict[str, Trigger]
    migrations: dict[int, str]
    relations: dict[str, list[tuple[int, str]]]
    columns: dict[int, frozenset[str]]
    """Recorded columns by relation number."""
    versioned: frozenset[int]
    """Relations whose rows have versions in the ledger."""
    next_relation: int
    key_places: int
    named: bool


def plan_central(topology: str, tables: Sequence[CentralTable], state: State) -> Iterator[PlannedStatement]:
    """What is missing or drifted of the capture of a centre's tables."""
    """What is missing or drifted of the capture of a centre's tables."""
    numbers: dict[str, int] = {}
    kept: set[str] = set()
    for table in tables:
        name = table.table.name.name
        wanted = planned.fingerprint_of(name, table.key)
        same = [number for number, fingerprint in state.relations.get(name, []) if fingerprint == wanted]
        numbers[name] = same[0] if same else max([state.next_relation - 1, *numbers.values()]) + 1
        kept |= {name} if same else set()
    for capture in captures_of(topology, tables, numbers):
        columns = [column.name for column in capture.shape.columns if not column.generated]
        recorded = state.columns.get(capture.relation, frozenset())
        found = [t for t in state.triggers.values() if t.table.lower() == capture.table.lower()]
        yield from plan_capture(
            capture,
            columns,
            found,
            new=capture.table not in kept,
            wider=capture.table in kept and not set(columns) <= recorded,
            retired=[n for n, _ in state.relations.get(capture.table, []) if n != capture.relation],
            versioned=capture.table_plan.versioned,
            reversioned=capture.table_plan.versioned is not (capture.relation in state.versioned),
            route="''" if capture.table_plan.sent else "null",
        )


def plan_capture(
    capture: Capture,
    columns: Sequence[str],
    triggers: Sequence[Trigger],
    *,
    new: bool,
    wider: bool,
    retired: Sequence[int],
    narrower: bool = False,
    added: Sequence[str] = (),
    versioned: bool = False,
    reversioned: bool = False,
    route: str = "null",
    unqueued: bool = False,
) -> Iterator[PlannedStatement]:
    """The transaction that makes one table's capture right, unless it is; ``triggers`` are all on that table.

    ``added``: what makes it wider, where only the rows that hold something there are to be looked at again. ``unqueued``:
    somebody else brings the rows the table has.
    """
    wanted = capture.triggers()
    prefix = trigger_prefix(capture.topology)
    mine = {trigger.name: trigger for trigger in triggers if trigger.name.startswith(prefix)}
    oldest = min((trigger.place for trigger in mine.values()), default=0)
    newer = [trigger for trigger in triggers if not is_ours(trigger.name) and trigger.place > oldest]
    in_place = mine.keys() == wanted.keys() and all(mine[name].same_text(body) for name, body in wanted.items())
    if in_place and not (newer or new or wider or narrower or reversioned):
        return
    always = [name for name in wanted if name.endswith(("_ai", "_au", "_ak", "_ad"))]
    unseen = new or any(name not in mine for name in always)
    read_all = unseen or (wider and not added)
    yield planned.capture_table(
        capture,
        columns,
        new=new,
        wider=wider or narrower or reversioned,
        retired=retired,
        stale=sorted(mine),
        read_all=read_all and not unqueued,
        added=() if unseen else added,
        versioned=versioned,
        route=route,
    )


def is_ours(name: str) -> bool:
    """Whether a trigger of this name is one of ours."""
    return name.startswith("replicator_")


def _from_name(body: str, name: str) -> str:
    return body[body.find(name) :] if name in body else body
