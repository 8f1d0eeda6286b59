"""Tells rows in flight from rows that differ, exactly, without stopping the link.

A candidate key is looked at in this order:

1. ``before`` = the link's position at the target;
2. the target's row T;
3. the source's row S;
4. whether the key has a change behind ``before`` at the source;
5. ``after`` = the link's position again.

No false "different". It is said only when S and T differ, 4 says no and ``before == after``. The position never goes back
and moves in the transaction that applies the rows, so with ``before == after`` the link applied nothing between 1 and 5: T is
the row as the link left it at ``before``, however many snapshots were used. Outbox rows are pruned only behind a position
that was recorded at the target first, so nothing behind ``before`` was pruned by the time of 4. Step 4 comes after step 3, so
a change that S shows is one that 4 sees, or one that ``before`` contains: with 4 saying no, S too is the row at ``before``.
Both sides therefore show one position of the stream, and whatever differs there was not caused by it.

No false "equal". It is said only of values that were read and are the same. What is read in steps 2 and 3 is the present
row, never a remembered one; a row that is equal at that moment and changed later belongs to the next audit.

In all other cases the answer is "not yet": the link moved or has something to bring. Such keys are looked at again, in smaller
lots so that a busy link has less time to move; those left at the end are in flight, and the table is not proven.

Where the centre's changes go to the site as well, all this is asked of both links: the position of neither may move, and the
key must have no change behind either.

A key that exists only at the centre may have been stored at the source in a spelling nobody knows (a date key in SQLite):
whether it is in flight cannot be asked by key then, so "different" waits for a source with nothing in flight at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from replicator.audit.sides import Sides
from replicator.canonical import Form, native_value, readable, split_image
from replicator.model import Engine, Key, Position, TablePlan
from replicator.ports import Auditable, AuditRow, InFlight

LOT = 500
"""Keys looked at together."""

_PLAIN = {
    Engine.POSTGRES: frozenset({Form.INTEGER, Form.TEXT, Form.UUID, Form.DATE}),
    Engine.SQLITE: frozenset({Form.INTEGER, Form.TEXT, Form.BYTES, Form.STORAGE}),
}
_PLAIN_TEXTS = ("text", "character varying", "name")
"""PostgreSQL types a cast to text spells as the output function does (an inet, for one, gets its ``/32``)."""

ParkedKeys = Callable[[TablePlan], Collection[tuple[str | None, ...]]]
"""Gives the keys of a plan's parked changes: its source's key values in key order, as text."""

_Places = tuple[Position | None, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """What tells in-flight from different on one link: the source's outbox, the position at the target, and parked keys."""

    in_flight: InFlight
    position: Callable[[], Position | None]
    parked: ParkedKeys


@dataclass(frozen=True, slots=True)
class Watches:
    """The links of one table: to the centre, and from it."""

    rising: Watch | None
    falling: Watch | None = None

    @property
    def both(self) -> list[tuple[bool, Watch]]:
        """Those there are, each with whether it goes to the centre."""
        return [(rises, watch) for rises, watch in ((True, self.rising), (False, self.falling)) if watch is not None]

    def positions(self) -> _Places:
        """Where they are."""
        return tuple(watch.position() for _, watch in self.both)

    def position_text(self) -> str | None:
        """As a report has it."""
        known = [str(position) for position in self.positions() if position is not None]
        return " and ".join(known) or None


@dataclass(frozen=True, slots=True)
class Judged:
    """A key whose rows differ for good."""

    key: str
    source: tuple[AuditRow, ...]
    target: tuple[AuditRow, ...]
    parked: bool


class Settler:
    """Looks at candidate keys of one table.

    Args:
        sides: the table.
        source: where the rows come from.
        target: where they go to.
        watches: what is in flight and parked.
        shared: other sites write the table too and nothing tells their rows apart: extra rows are not judged.
    """

    def __init__(
        self, sides: Sides, source: Auditable, target: Auditable, watches: Watches, *, shared: bool = False
    ) -> None:
        self._sides, self._source, self._target, self._shared = sides, source, target, shared
        self._watches = watches

    def look(self, keys: Sequence[str], *, lot: int = LOT) -> Iterator[Judged | str]:
        """Judged keys, and (as plain text) those that cannot be judged yet; keys whose rows are equal give nothing."""
        for start in range(0, len(keys), lot):
            yield from self._look(keys[start : start + lot])

    def _look(self, keys: Sequence[str]) -> Iterator[Judged | str]:
        before = self._watches.positions()
        target = _by_key(self._target.fetch_rows(self._sides.target, keys))
        source = _by_key(self._source.fetch_rows(self._sides.source, keys))
        unequal = [key for key in keys if _images(source[key]) != _images(target[key])]
        if self._shared:
            unequal = [key for key in unequal if source[key]]
        if not unequal:
            return
        flying: set[str] = set()
        for (rises, watch), place in zip(self._watches.both, before, strict=True):
            flying |= self._flying(watch, place, unequal, source if rises else target, rises=rises)
        if self._watches.positions() != before:
            yield from unequal
            return
        parked = self._parked()
        for key in unequal:
            if key in flying:
                yield key
            else:
                yield Judged(key, tuple(source[key]), tuple(target[key]), self._texts(key) in parked)

    def key_for(self, judged: Judged, *, rises: bool) -> Key:
        """A judged row's key as the source of the link to the centre, or from it, spells it, in that link's key order.

        Of a row the source does not have: as it would; where nobody can know that, as the key reads.
        """
        order = self._sides.key_order(rising=rises)
        rows = judged.source if rises else judged.target
        found = [row.native for row in rows] or self._natives(judged.key, rises=rises) or [self._texts(judged.key)]
        return tuple(found[0][place] for place in order)

    def _parked(self) -> set[tuple[str | None, ...]]:
        """Keys with a parked change at either end, in the audit's key order."""
        found: set[tuple[str | None, ...]] = set()
        for rises, watch in self._watches.both:
            order = self._sides.key_order(rising=rises)
            for values in watch.parked(self._sides.native_plan(rising=rises)):
                given = dict(zip(order, values, strict=True))
                found.add(tuple(given[place] for place in range(len(order))))
        return found

    def _flying(
        self,
        watch: Watch,
        before: Position | None,
        keys: Sequence[str],
        rows: dict[str, list[AuditRow]],
        *,
        rises: bool,
    ) -> set[str]:
        """Those of ``keys`` that may have a change behind ``before``; ``rows`` are those of the link's source."""
        order = self._sides.key_order(rising=rises)
        natives: dict[Key, list[str]] = defaultdict(list)
        unknown = set()
        for key in keys:
            found = [row.native for row in rows[key]] or self._natives(key, rises=rises)
            if not found:
                unknown.add(key)
            for native in found:
                natives[tuple(native[place] for place in order)].append(key)
        noted = watch.in_flight.keys_in_flight(self._sides.native_plan(rising=rises), before, list(natives))
        flying = {key for native in noted for key in natives[native]}
        if unknown and watch.in_flight.read_lag(before).changes:
            flying |= unknown
        return flying

    def _natives(self, key: str, *, rises: bool) -> list[Key]:
        """The key as the outbox holds it, for a row that is not there; nothing when that cannot be known."""
        plan, forms = self._sides.plan, self._sides.key_forms
        engine = plan.source_engine if rises else plan.target_engine
        cells = split_image(forms, key)
        columns = [plan.columns[place] for place in plan.key_indexes]
        types = [column.source_type if rises else column.target_type for column in columns]
        for form, cell, kind in zip(forms, cells, types, strict=True):
            other = engine is Engine.POSTGRES and form is Form.TEXT and not kind.startswith(_PLAIN_TEXTS)
            if cell.fits and (form not in _PLAIN[engine] or other):
                return []
        spell = native_value if engine is Engine.SQLITE else readable
        return [tuple(spell(form, cell) for form, cell in zip(forms, cells, strict=True))]

    def _texts(self, key: str) -> tuple[str | None, ...]:
        forms = self._sides.key_forms
        return tuple(readable(form, cell) for form, cell in zip(forms, split_image(forms, key), strict=True))


def _by_key(rows: Iterable[AuditRow]) -> dict[str, list[AuditRow]]:
    found: dict[str, list[AuditRow]] = defaultdict(list)
    for row in rows:
        found[row.key].append(row)
    return found


def _images(rows: Sequence[AuditRow]) -> list[str]:
    return sorted(row.image for row in rows)
