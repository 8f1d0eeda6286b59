"""What must hold at the end of a history: equal replicas, nothing parked without a cause, no write vanished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from replicator.audit.sides import Audited, Sides, key_of, sides_of
from replicator.canonical import readable, split_image
from replicator.errors import RejectedError
from replicator.model import Op, ParkedChange, RecordedConflict
from replicator.ports import Auditable, AuditRow, Target
from replicator.settings import CENTRE
from replicator.simulate.application import Application
from replicator.simulate.schema import ROWS, Schema, Table
from replicator.simulate.steps import Action, Write
from replicator.simulate.trace import Trace, on_record
from replicator.simulate.world import World

_ALL = 1_000_000
_SHOWN = 20
_MENDING = 7_000
"""Step numbers of the writes that take causes away; above those of histories."""

Link = tuple[str, bool]
RowKey = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, in a sentence; ``detail``: more lines."""

    text: str
    detail: str = ""


class Checks:
    """Looks at a history's end.

    Args:
        world: where it was played.
        sites: those whose links are up.
        targets: the links' targets.
        trace: the writes.
        application: writes when causes are taken away.
    """

    mending_rounds = 4

    def __init__(
        self, world: World, sites: Sequence[str], targets: Mapping[Link, Target], trace: Trace, application: Application
    ) -> None:
        self._world, self._sites, self._targets = world, sites, targets
        self._trace, self._application = trace, application
        self.refused = 0

    # --- replicas ---

    def differences(self, *, allow_parked: bool) -> list[Finding]:
        """Rows that a site and the centre do not have alike; those with a parked change of the site's may differ."""
        found: list[Finding] = []
        parked = self._parked_rows() if allow_parked else {}
        with ExitStack() as opened:
            audits = {p: opened.enter_context(closing(self._world.app.auditable(p))) for p in (CENTRE, *self._sites)}
            for site in self._sites:
                for table in self._world.schema.tables.values():
                    if site in table.up or site in table.down:
                        found += self._compare(table, site, audits[site], audits[CENTRE], parked.get(site, set()))
        return found[:_SHOWN]

    def _compare(
        self, table: Table, site: str, here: Auditable, there: Auditable, parked: set[tuple[str, RowKey]]
    ) -> Iterator[Finding]:
        sides = sides_of(Audited(table.up.get(site), table.down.get(site)))
        rows = Counter(here.digest_rows(sides.source, 1, [0]))
        rows.subtract(Counter(there.digest_rows(sides.target, 1, [0])))
        shared = table.shared_alone(site)
        for key in sorted({key for (key, _), count in rows.items() if count > 0 or (count < 0 and not shared)}):
            if (table.name, _key_text(sides, key)) not in parked:
                ours, theirs = here.fetch_rows(sides.source, [key]), there.fetch_rows(sides.target, [key])
                if self._is_left_over(table, site, bool(ours), bool(theirs)):
                    continue
                detail = f"at {site}: {_told_rows(sides, ours)}\nat the centre: {_told_rows(sides, theirs)}"
                yield Finding(f"{table.name} {_told_key(sides, key)}: {site} and the centre differ", detail)

    def _is_left_over(self, table: Table, site: str, ours: bool, theirs: bool) -> bool:
        """Whether a row is the target's alone that its source has forgotten in a restore: in one direction it stays."""
        if site not in self._trace.excused or (site in table.up and site in table.down):
            return False
        return theirs and not ours if site in table.up else ours and not theirs

    def _parked_rows(self) -> dict[str, set[tuple[str, RowKey]]]:
        found: dict[str, set[tuple[str, RowKey]]] = {}
        for (site, rises), change in self._parked():
            table = table_of(self._world.schema, site, rises, change)
            found.setdefault(site, set()).update((table.name, key) for key in _keys(table, site, rises, change))
        return found

    def _parked(self) -> Iterator[tuple[Link, ParkedChange]]:
        for link, target in self._targets.items():
            for change in target.list_parked():
                yield link, change

    # --- parked ---

    def still_parked(self) -> list[Finding]:
        """Parked changes that are left although their causes are gone, and conflicts that still wait for a person."""
        found = [
            Finding(f"{change.table} {change.key}: still parked on {_link(link)} ({change.state}): {change.cause}")
            for link, change in self._parked()
        ]
        found += [
            Finding(f"{conflict.table} {conflict.key}: conflict {conflict.id} still waits")
            for _, conflict in self._waiting()
        ]
        return found[:_SHOWN]

    def _waiting(self) -> Iterator[tuple[Target, RecordedConflict]]:
        for (_, rises), target in self._targets.items():
            if rises:
                for conflict in target.list_conflicts(limit=_ALL):
                    if conflict.state == "waiting":
                        yield target, conflict

    def mend(self, round_: int, time: int) -> bool:
        """Take causes away: decide what waits for a person, then let applications change what cannot go in.

        First the sites take their own parked rows back (a row that was refused is deleted where it was written, a delete
        that was refused is followed by the row again); then every application deletes all it may. Whether anything was
        to be done.
        """
        waiting = list(self._waiting())
        for target, conflict in waiting:
            self._settle(target, conflict, site_wins=(conflict.id + round_) % 2 == 0)
        parked = list(self._parked())
        if parked and round_ < self.mending_rounds - 2:
            self._take_back(parked, round_, time)
        elif parked:
            self._delete_all(round_, time)
        return bool(waiting or parked)

    def _settle(self, target: Target, conflict: RecordedConflict, *, site_wins: bool) -> None:
        """Decide as a person would: for the site, or for the row as it is now; what is refused is left for the next round."""
        current = target.read_row(conflict.table, conflict.key)
        result = conflict.after if site_wins else current
        texts = None if result is None else {name: _text(value) for name, value in result.items()}
        try:
            target.settle_conflict(conflict.id, texts, "decided by the simulation")
        except RejectedError:
            self.refused += 1
            return
        self._trace.note_decided([current, conflict.after])
        there = [image for image in (current, conflict.after, conflict.current) if image is not None]
        names = self._key_names().get(conflict.table, ())
        self._trace.settled.update((conflict.table, tuple(str(image.get(name)) for name in names)) for image in there)

    def _take_back(self, parked: Sequence[tuple[Link, ParkedChange]], round_: int, time: int) -> None:
        wanted: dict[tuple[str, str, int], str] = {}
        for (site, rises), change in parked:
            table = table_of(self._world.schema, site, rises, change)
            rows = {
                row for key in _keys(table, site, rises, change) if (row := self._row_of(table, site, key)) is not None
            }
            if site in table.writers:
                gone = change.op in (Op.DELETE, Op.GONE) and round_ == 0
                wanted |= {(site, table.name, row): "put" if gone else "delete" for row in rows}
        for number, ((site, name, row), what) in enumerate(sorted(wanted.items())):
            step = _MENDING + 1_000 * round_ + number
            self._application.write(Write(step, site, (Action(what, name, row, step),)), time)

    def _delete_all(self, round_: int, time: int) -> None:
        children_first = list(reversed([*self._world.schema.tables.values()]))
        for place in (CENTRE, *self._sites):
            for number, table in enumerate(children_first):
                if place in table.writers:
                    rows = table.pool(place) if place != CENTRE else range(ROWS * max(len(self._sites), 1))
                    actions = tuple(Action("delete", table.name, row, 0) for row in rows)
                    self._application.write(Write(_MENDING + 1_000 * round_ + 500 + number, place, actions), time)

    def _row_of(self, table: Table, site: str, key: RowKey) -> int | None:
        """The number of a row in the table's pool."""
        return next((row for row in table.pool(site) if self._application.key_text(table, site, row) == key), None)

    # --- writes ---

    def vanished(self) -> list[Finding]:
        """See ``trace``."""
        schema = self._world.schema
        final = self._application.stamps(CENTRE, schema.tables)
        images = [
            (conflict.table, (conflict.before, conflict.after, conflict.current))
            for site in self._world.sites  # those too whose links are stopped
            for conflict in self._conflicts(site)
        ]
        stamps = {table.name: table.stamp for table in schema.tables.values() if table.traced}
        keys = self._key_names()
        return [Finding(text) for text in self._trace.vanished(final, on_record(images, stamps, keys))][:_SHOWN]

    def undone(self) -> list[Finding]:
        """See ``trace``."""
        final = self._application.stamps(CENTRE, self._world.schema.tables)
        return [Finding(text) for text in self._trace.undone(final)][:_SHOWN]

    def _key_names(self) -> dict[str, tuple[str, ...]]:
        """Each table's whole key at the centre."""
        return {
            table.name: (*(name for name, _ in next(iter(table.constants.values()), ())), *table.key)
            for table in self._world.schema.tables.values()
        }

    def _conflicts(self, site: str) -> Sequence[RecordedConflict]:
        if (site, True) in self._targets:
            return self._targets[site, True].list_conflicts(limit=_ALL)
        link = self._world.app.link(site)
        with closing(self._world.app.target(link, self._world.app.link_plans(site))) as target:
            return target.list_conflicts(limit=_ALL)


def note_parked(trace: Trace, schema: Schema, site: str, rises: bool, changes: Iterable[ParkedChange]) -> None:
    """Have the trace know what was parked."""
    for change in changes:
        trace.note_decided([change.after])
        if change.op in (Op.DELETE, Op.GONE):
            table = table_of(schema, site, rises, change)
            own = tuple(text for _, text in table.constants.get(site, ()))
            trace.settled.update((table.name, (*own, *key)) for key in _keys(table, site, rises, change))


def table_of(schema: Schema, site: str, rises: bool, change: ParkedChange) -> Table:
    """The table a parked change is of."""
    for table in schema.tables.values():
        plan = (table.up if rises else table.down).get(site)
        if plan is not None and change.table in (str(plan.target), str(plan.source.name)):
            return table
    raise LookupError(f"a parked change of a table no plan knows: {change.table}")


def _keys(table: Table, site: str, rises: bool, change: ParkedChange) -> set[RowKey]:
    """The keys of a parked change, as text, in the site's own columns."""
    plan = (table.up if rises else table.down)[site]
    names = plan.key
    images = [image for image in (change.before, change.after) if image is not None]
    found = set()
    for image in images:
        values = tuple(_text(image.get(name)) or "" for name in names)
        found.add(values)
    return found


def _key_text(sides: Sides, key: str) -> RowKey:
    return tuple(value or "" for value in key_of(sides, key).values())


def _told_key(sides: Sides, key: str) -> str:
    return "(" + ", ".join(f"{name} = {value}" for name, value in key_of(sides, key).items()) + ")"


def _told_rows(sides: Sides, rows: Sequence[AuditRow]) -> str:
    if not rows:
        return "no such row (of this site's)"
    cells = [split_image(sides.forms, row.image) for row in rows]
    told = [[readable(form, cell) for form, cell in zip(sides.forms, row, strict=True)] for row in cells]
    names = [column.source for column in sides.plan.columns]
    return "; ".join(", ".join(f"{n} = {v!r}" for n, v in zip(names, row, strict=True)) for row in told)


def _link(link: Link) -> str:
    site, rises = link
    return f"{site}→centre" if rises else f"centre→{site}"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
