"""What a site needs of one relation of the centre to follow it, and how the states that come are staged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, repeat

from replicator.engines.sqlite.base import key_call
from replicator.engines.sqlite.lane import Lane
from replicator.engines.sqlite.session import Session
from replicator.engines.sqlite.stage import Image, Stage, _converted, _fields, _lines, _texts
from replicator.engines.sqlite.values import SourceText, UnfitError, encode_image, unfit
from replicator.model import Op, Relation
from replicator.ports import OutboxBlock, RowBlock
from replicator.sqlfiles import quote, render, statement

_SQL = "sql/sqlite/follow.sql"
_LINES = 2_000

Row = tuple[object, ...]


@dataclass(frozen=True)
class FollowLane(Lane):
    """A lane from the centre: states, whatever stands there."""

    @cached_property
    def stage_followed(self) -> tuple[str, str]:
        """For a state, and for a row of a backfill.

        Parameters: ordinal, relation, op, time, key text, fault, base, raw state, key values, values.
        """
        columns = ["loaded", "ord", "relation", "op", "changed_at", quote("key"), "fault", "raw_before", "raw_after"]
        columns += [f"k{place}" for place in range(len(self.key_places))] + self._states("")
        values = ", ".join("?" * (len(columns) - 1))
        fragments = {"columns": ", ".join(columns)}
        change = self._follow("stage_followed", **fragments, values=f"0, {values}")
        return change, self._follow("stage_followed", **fragments, values=f"1, {values}")

    @cached_property
    def load_followed(self) -> str:
        """Parameters: relation, first and last ordinal, captured relation, marker, whether all rows are to be read."""
        keys = [f"k{place}" for place in range(len(self.key_places))]
        return self._follow(
            "load_followed",
            places=", ".join(keys + self._states("")),
            values=", ".join([f"l.{key}" for key in keys] + self._states("l.")),
            found=self._found,
            place=self._rowid_of("t") or "null",
            same_after=self._same("a", "l"),
            same_key=self._same_key("t", "l"),
        )

    @cached_property
    def mark_rewritten(self) -> str:
        """Parameters: relation, new verdict, verdicts."""
        return self._follow(
            "mark_rewritten",
            place=self._rowid_of("t") or "null",
            same_after=self._same("a", "n"),
            same_key=self._same_key("t", "n"),
        )

    @cached_property
    def is_there(self) -> str:
        """Parameters: key values."""
        values = ", ".join(f"?{place + 1} as k{place}" for place in range(len(self.key_places)))
        return self._follow("is_there", values=values, same_key=self._same_key("t", "n"))

    @cached_property
    def holders(self) -> tuple[str, ...]:
        """Parameter: ordinal. One statement per unique index besides the key."""
        places = {name: f"s.a{place}" for place, name in enumerate(self.targets)}
        key = key_call([f"t.{quote(self.targets[place])}" for place in self.key_places])
        return tuple(
            self._follow(
                "holders",
                key=key,
                same_unique=" and ".join(f"t.{quote(name)} = {places[name]}" for name in unique.columns),
            )
            for unique in self.shape.uniques
            if not unique.primary and unique.columns and set(unique.columns) <= set(places)
        )

    def row(self, order: object, op: object, changed_at: object, base: object, image: Image) -> Row:
        """A state as ``stage_followed`` takes it, its values as the table will store them."""
        head = (order, self.relation.id, op, changed_at, self.key_of(image), None, base, None)
        return (*head, *(image[place] for place in self.key_places), *image)

    def careful_row(self, order: object, op: object, changed_at: object, base: object, image: Image) -> Row:
        """A state whose values are PostgreSQL's text, or may not fit; one the table cannot hold becomes a fault."""
        fault = ""
        try:
            values: Image = _converted(self, image)
            fault = "" if SourceText in map(type, image) else self._unfit(image)
        except UnfitError as error:
            fault = str(error)
        if not fault:
            return self.row(order, op, changed_at, base, values)
        head = (order, self.relation.id, op, changed_at, self._key_text(image), fault, base, encode_image(image))
        return (*head, *repeat(None, len(self.key_places) + len(self.columns)))

    def _unfit(self, values: Image) -> str:
        reasons = (
            f"column {name}: {reason}"
            for name, value, declared in zip(self.columns, values, self.target_types, strict=True)
            if (reason := unfit(value, declared))
        )
        return next(reasons, "")

    def _key_text(self, values: Image) -> str:
        """The same for every state of a row, whether the table can hold it or not."""
        known = list(values)
        for place in self.key_places:
            value, convert = values[place], self.converters[place]
            if isinstance(value, SourceText):
                try:
                    known[place] = str(value) if convert is None else convert(value)
                except (UnfitError, ValueError, KeyError):
                    return self.key_of(values)
        return self.key_of(known)

    def _states(self, prefix: str) -> list[str]:
        return [f"{prefix}a{place}" for place in range(len(self.relation.columns))]

    def _follow(self, name: str, **fragments: str) -> str:
        return render(statement(_SQL, name), identifiers={"table": self.shape.name.name}, fragments=fragments)


class FollowStage(Stage):
    """The staged states of one transaction."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._follow_lanes: dict[int, FollowLane] = {}

    def lane(self, relation: int) -> FollowLane:
        """See Stage."""
        super().lane(relation)
        return self.lane_of(self._relations[relation])

    def lane_of(self, relation: Relation) -> FollowLane:
        """The lane of a relation, whether the batch has named it or not."""
        plain = self._session.lane(relation)
        found = self._follow_lanes.get(relation.id)
        if found is None or found.relation != plain.relation:
            found = FollowLane(plain.relation, plain.plan, plain.shape, plain.shapes, plain.live)
            self._follow_lanes[relation.id] = found
        return found

    def add_state(
        self, relation: Relation, order: int, op: str, changed_at: int, image: Image, base: str | None
    ) -> None:
        """Stage one state by itself."""
        self._relations[relation.id] = relation
        lane = self.lane(relation.id)
        self._insert_rows(lane, [lane.careful_row(order, op, changed_at, base, lane.project(image) or ())])

    def _stage_rows(self, block: RowBlock) -> None:
        lane = self.lane(block.relation)
        bases = chain(block.checksums, repeat(None))
        for rows, make in ((block.rows, lane.row), (block.odd, lane.careful_row)):
            staged = (
                make(int(str(order)) * 2, op, changed_at, base, lane.project(values) or ())
                for (order, op, changed_at, *values), base in zip(rows, bases, strict=False)
            )
            self._insert_rows(lane, staged)

    def _stage_literals(self, block: OutboxBlock) -> None:
        lines = _lines(block.chunks)
        lanes: dict[str | None, FollowLane] = {}
        while some := list(islice(lines, _LINES)):
            by_lane: dict[int, list[Row]] = {}
            for line in some:
                order, number, op, changed_at, base, after = _fields(line)
                lane = lanes.get(number) or lanes.setdefault(number, self.lane(int(str(number))))
                image = _texts(str(after))
                image = (lane.whole(image) if op == Op.GONE else lane.project(image)) or ()
                row = lane.careful_row(self._ordinal(order), op, int(str(changed_at)), base, image)
                by_lane.setdefault(lane.relation.id, []).append(row)
            for relation, rows in by_lane.items():
                self._insert_rows(self.lane(relation), rows)

    def _insert_rows(self, lane: FollowLane, rows: Iterable[Row]) -> None:
        self._session.connection.executemany(lane.stage_followed[self._loaded], rows)
