"""A person's decision: which row a recorded conflict is to end with, and putting it there as a change of the centre."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from replicator.conflicts.record import DROPPED, RESOLVED, WAITING, Row, equals, left_row, texts
from replicator.errors import SetupError
from replicator.model import ParkedChange, RecordedConflict, TablePlan
from replicator.ports import Target

SITE, CENTRE, BASE = "site", "centre", "base"
SIDES = (SITE, CENTRE, BASE)
_UNKNOWN = "is not on record: the site gave only its checksum"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person chose: a side to take, sides for single columns, values (None: NULL), or no row at all."""

    take: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str | None] = field(default_factory=dict)
    delete: bool = False

    def check(self) -> None:
        """Raises SetupError when nothing is chosen, or two things for one column."""
        mixed = bool(self.take or self.columns or self.values)
        hint = "choose with --take site|centre|base, --column NAME=SIDE, --set NAME=VALUE, --null NAME, or --delete"
        if self.delete and mixed:
            raise SetupError("--delete leaves no row: it goes with no other choice", hint=hint)
        if not (self.delete or mixed):
            raise SetupError("nothing is chosen", hint=hint)
        if twice := sorted(set(self.columns) & set(self.values)):
            raise SetupError(f"column {', '.join(twice)} is chosen twice", hint="give each column one value")

    @property
    def words(self) -> str:
        """The choice on one line, for the record."""
        if self.delete:
            return "deleted"
        told = [f"took the {self.take}'s row"] if self.take else []
        told += [f"{name} from the {side}" for name, side in self.columns.items()]
        told += [f"{name} set to {'NULL' if value is None else repr(value)}" for name, value in self.values.items()]
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Scene:
    """A recorded conflict beside the row as it is now.

    ``site``: what the site has (behind a waiting change, the last one of its queue); ``centre``: what the centre had when it
    was decided, or has now while it waits. ``as_left``: whether the row still is as the decision left it.
    """

    recorded: RecordedConflict
    now: Row | None
    site: Row | None
    centre: Row | None
    base: Row | None
    as_left: bool
    queued: int = 0

    @property
    def waiting(self) -> bool:
        """Whether a person has still to decide."""
        return self.recorded.state == WAITING

    def row(self, side: str) -> Row | None:
        """A side's row. Raises SetupError where it is not on record."""
        if side == BASE and not self.recorded.based:
            raise SetupError(
                f"the base of conflict {self.recorded.id} {_UNKNOWN}", hint="take the site's or the centre's"
            )
        if side == BASE and self.base is None:
            raise SetupError(
                f"conflict {self.recorded.id} has no base to take: the site started from no row",
                hint="to delete the row use --delete",
            )
        return {SITE: self.site, CENTRE: self.centre, BASE: self.base}[side]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns both sides share."""
        rows = (self.recorded.after, self.recorded.current, self.recorded.before)
        return tuple(next((row for row in rows if row is not None), ()))


def look(target: Target, recorded: RecordedConflict, plan: TablePlan | None) -> Scene:
    """Read what there is now. ``plan``: the table's, to name the columns of changes that wait behind. Read only.

    Raises SetupError for the record of a dropped change.
    """
    if recorded.kind == DROPPED:
        raise SetupError(
            f"conflict {recorded.id} is the record of a change dropped by command: there is nothing to resolve",
            hint="write the row at the centre or at a site, as an ordinary change",
        )
    now = texts(target.read_row(recorded.table, recorded.key))
    waiting = recorded.state == WAITING
    site, queued = texts(recorded.after), 0
    if waiting and recorded.parked:
        queue = row_queue(target.list_parked(table=recorded.table), recorded)
        queued = len(queue)
        site = last_of(queue, site, plan)
    return Scene(
        recorded=recorded,
        now=now,
        site=site,
        centre=now if waiting else texts(recorded.current),
        base=texts(recorded.before),
        as_left=equals(left_row(recorded), now),
        queued=queued,
    )


def row_queue(changes: Sequence[ParkedChange], recorded: RecordedConflict) -> list[ParkedChange]:
    """The changes that wait behind a conflict's own parked change, oldest first."""
    own = [change for change in changes if change.id == recorded.parked]
    return [change for change in changes if own and change.key == own[0].key and change.id > own[0].id]


def last_of(queue: Sequence[ParkedChange], site: Row | None, plan: TablePlan | None) -> Row | None:
    """What the site has after the changes that wait, in the target's columns. Raises SetupError without a plan."""
    if not queue:
        return site
    if plan is None:
        raise SetupError(
            f"changes of {queue[-1].table} wait behind the conflict, but the topology does not name that table now",
            hint="put the table back into the YAML",
        )
    last = texts(queue[-1].after)
    if last is None:
        return None
    names = {column.source: column.target for column in plan.columns}
    return {**(site or {}), **{names[name]: value for name, value in last.items() if name in names}}


def chosen_row(scene: Scene, choice: Choice, key: Collection[str] = ()) -> Row | None:
    """The row a choice means; None: no row. ``key`` names the target's key columns, which no choice changes.

    Raises SetupError for a column the table does not have, a side without a row, and values for a row that is not there.
    """
    choice.check()
    if choice.delete:
        return None
    start = scene.row(choice.take) if choice.take else scene.now if scene.now is not None else scene.site
    edits: dict[str, str | None] = dict(choice.values)
    for name, side in choice.columns.items():
        row = scene.row(side)
        if row is None:
            raise SetupError(f"the {side} has no row to take {name} from", hint=f"give a value: --set {name}=VALUE")
        _require(scene, [name])
        edits[name] = row.get(name)
    if start is None:
        if edits:
            raise SetupError("there is no row to put values into", hint="take the side that has one, with --take")
        return None
    _require(scene, edits)
    changed = [name for name in key if name in edits and name in start and edits[name] != start[name]]
    if changed:
        raise SetupError(
            f"{', '.join(changed)} is of the row's key: it would be another row",
            hint="resolve this row, and write the other one as an ordinary change",
        )
    row = {name: start.get(name) for name in scene.names if name in start}
    return {**row, **edits}


def _require(scene: Scene, names: Collection[str]) -> None:
    unknown = sorted(set(names) - set(scene.names))
    if unknown:
        raise SetupError(f"the row has no column {', '.join(unknown)}", hint=f"it has: {', '.join(scene.names)}")


def settle(target: Target, scene: Scene, row: Row | None, choice: Choice, *, force: bool = False) -> None:
    """Make the chosen row the row, as an ordinary change of the centre; parked changes of the conflict are dropped.

    Raises SetupError when the row has changed since it was decided, unless it was still waiting or ``force`` is set.
    Raises RejectedError when the database refuses the row.
    """
    number = scene.recorded.id
    if scene.recorded.state == RESOLVED and not force:
        raise SetupError(
            f"conflict {number} is resolved already: {scene.recorded.resolution}", hint="resolve it anew with --force"
        )
    expected = scene.as_left and not force
    stale = not scene.as_left and not scene.waiting and not force
    if stale or not target.settle_conflict(number, row, choice.words, expected=expected):
        raise SetupError(
            f"the row of conflict {number} has changed since it was decided; nothing is done",
            hint=f"look at it with: replicator conflicts show {number}; overwrite it with --force",
        )
