"""Who wrote what after having seen what: the proof that no acknowledged write vanished without a recorded decision. Pure.

Rows carry a *stamp* in one plain column: every write of a history that changes it leaves one that nobody else leaves. A
write of a row counts as kept when, at the end,

* its stamp is the row's, at the centre; or
* a later write or delete of the row was made by somebody who had it before him (it was superseded in sight of it); or
* a conflict on record names it: as the change, as the row it met, or as the base; or
* it was parked for a time, and a later change of the same place took its turn, or a person decided about it.

A delete of a row that bore stamp u counts as kept unless the row stands at the end and its writers never saw it gone: unless,
that is, following the final stamp back by what each writer had before him leads to u. Then somebody who had the row before
must have written it anew when it was gone (it was superseded in sight of it; that write is looked at for itself), or somebody
else's insert got in where it was gone (a conflict on record has met it there), or a
conflict on record must have met a deleted row, or brought a delete, or a delete of the row was parked for a time, or a person
decided about the row.

A write is *undone* when the row ends as somebody had found it who then wrote it: what was older has come again, as by a
backfill that brings a row which had not seen the write. No conflict on record excuses that; only a person, a parked change, a
database that was replaced, or an order to prefer the site's rows does.

Rows that were given a stamp used before (A-B-A) are not judged, nor are writes of a site whose file was replaced: what a
restore takes away nobody can find.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

RowName = tuple[str, tuple[str, ...]]
"""A table and the row's key there, constants first, as text."""

Stamps = Mapping[RowName, str]
"""Rows that are there, and their stamps (empty: none)."""

Image = Mapping[str, object] | None

_FIRST = 1000


@dataclass(frozen=True, slots=True)
class Written:
    """One write: ``seen`` is the stamp the writer had before him, None where there was no row; ``stamp`` None: a delete."""

    row: RowName
    place: str
    step: int
    seen: str | None
    stamp: str | None

    def __str__(self) -> str:
        table, key = self.row
        what = "delete" if self.stamp is None else f"write {self.stamp}"
        return f"{what} of {table} ({', '.join(key)}) by {self.place} in step {self.step}"


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What the conflicts on record name: stamps, rows of which a deletion took part, and stamps that stood at the centre."""

    stamps: Collection[str]
    deleted: Collection[RowName]
    stood: Collection[str] = ()


def stamp(step: int, action: int) -> str:
    """A stamp nobody else uses; its digits alone are a number that no other value of a history is."""
    return f"w{_FIRST + 20 * step + action}"


def is_stamp(text: str) -> bool:
    """Whether a value was made by ``stamp``."""
    digits = text.removeprefix("w")
    return digits.isascii() and digits.isdigit() and int(digits) >= _FIRST


def digits_of(text: str) -> str:
    """A stamp's number, which is the same in columns of text and of numbers."""
    return text.removeprefix("w")


@dataclass(slots=True)
class Trace:
    """All writes of a history."""

    written: list[Written] = field(default_factory=list)
    unjudged: set[RowName] = field(default_factory=set)
    decided: set[str] = field(default_factory=set)
    """Stamps of changes that were parked, and of rows a person decided about."""
    settled: set[RowName] = field(default_factory=set)
    """Rows of which a delete was parked, or about which a person decided."""
    preferred: set[str] = field(default_factory=set)
    """Tables with an order by which a site's rows stand, whatever came later."""
    excused: dict[str, int] = field(default_factory=dict)
    """Place whose database was replaced → the step from which on its writes may be gone."""

    def note(self, place: str, step: int, before: Stamps, after: Stamps) -> None:
        """What a transaction did, told from the rows before and behind it."""
        for row in sorted(before.keys() | after.keys()):
            old, new = before.get(row), after.get(row)
            if old == new:
                continue
            if new is not None and not is_stamp(new):
                self.unjudged.add(row)
            self.written.append(Written(row, place, step, _number(old), _number(new)))

    def note_decided(self, images: Iterable[Mapping[str, object] | None]) -> None:
        """Changes that are parked, and rows a person decided about."""
        values = (str(value) for image in images if image is not None for value in image.values())
        self.decided.update(digits_of(value) for value in values if is_stamp(value))

    def vanished(self, final: Stamps, record: OnRecord) -> Iterator[str]:
        """A sentence per write that is neither final nor superseded nor on record."""
        superseded = {(each.row, each.seen) for each in self.written if each.seen is not None}
        makers = {each.stamp: each for each in self.written if each.stamp is not None}
        for each in self.written:
            if each.row in self.unjudged or each.step >= self.excused.get(each.place, 1 << 62):
                continue
            if each.stamp is None:
                back = each.seen and self._back(each, final, makers)
                told = each.row in record.deleted or each.row in self.settled
                if back and not told and not self._anew(each) and not self._taken(each, record, makers):
                    yield f"{each}: the row is back, and no conflict is on record"
            elif not (
                _number(final.get(each.row)) == each.stamp
                or (each.row, each.stamp) in superseded
                or each.stamp in record.stamps
                or each.stamp in self.decided
            ):
                yield f"{each}: vanished, and no conflict is on record"

    def undone(self, final: Stamps) -> Iterator[str]:
        """A sentence per row that ends as it was before a write that was made in sight of it."""
        makers = {each.stamp: each for each in self.written if each.stamp is not None}
        for each in self.written:
            excused = each.row in self.unjudged | self.settled or each.row[0] in self.preferred or self.excused
            last = _number(final.get(each.row))
            if excused or not last or each.stamp in (None, last) or each.stamp in self.decided:
                continue
            if last in set(_chain(each.seen, makers)) and makers[last].row == each.row:
                yield f"{each}: undone, the row is {last} again"

    def _anew(self, delete: Written) -> bool:
        """Whether a place that knew the row wrote it again after it was gone."""
        knew = {delete.place}
        for each in self.written:
            if each.row == delete.row:
                if each.step >= delete.step and each is not delete and each.seen is None and each.place in knew:
                    return True
                knew.add(each.place)
        return False

    def _taken(self, delete: Written, record: OnRecord, makers: Mapping[str, Written]) -> bool:
        """Whether an insert that does not lead to the deleted version stood at the centre, and a conflict has met it there.

        Or what had become of it by then.
        """
        stood = {stamp for met in record.stood for stamp in _chain(met, makers)} - set(_chain(delete.seen, makers))
        return any(each.row == delete.row and each.seen is None and each.stamp in stood for each in self.written)

    @staticmethod
    def _back(delete: Written, final: Stamps, makers: Mapping[str, Written]) -> bool:
        return delete.seen is not None and delete.seen in set(_chain(_number(final.get(delete.row)), makers))


def _chain(stamp: str | None, makers: Mapping[str, Written]) -> Iterator[str]:
    """A stamp, and what each writer back from it had before him."""
    met: set[str] = set()
    while stamp is not None and stamp not in met:
        yield stamp
        met.add(stamp)
        maker = makers.get(stamp)
        stamp = maker.seen if maker else None


def on_record(
    conflicts: Iterable[tuple[str, Sequence[Image]]], stamps: Mapping[str, str], keys: Mapping[str, tuple[str, ...]]
) -> OnRecord:
    """What conflicts name: (table, its base, the change's row, the row it met); ``stamps`` and ``keys``: a table's columns."""
    found: set[str] = set()
    stood: set[str] = set()
    deleted: set[RowName] = set()
    for table, (base, change, current) in conflicts:
        there = [image for image in (base, change, current) if image is not None]
        if table in stamps:
            found.update(_stamps_in(there, stamps[table]))
            stood.update(_stamps_in([current] if current is not None else [], stamps[table]))
        if table in keys and (change is None or current is None):
            deleted.update((table, tuple(str(image.get(name)) for name in keys[table])) for image in there)
    return OnRecord(found, deleted, stood)


def _stamps_in(images: Iterable[Mapping[str, object]], column: str) -> Iterator[str]:
    values = (image.get(column) for image in images)
    return (digits_of(str(value)) for value in values if value is not None)


def _number(text: str | None) -> str | None:
    return None if text is None else digits_of(text)
