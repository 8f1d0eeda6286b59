"""One row at a time at a SQLite centre: as it is, what is known of it, and what a person decides about it.

Everything here runs beside a replicator at work: the file's write lock is taken, the link's lease is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from replicator.engines.sqlite.apply import Apply
from replicator.engines.sqlite.decisions import CENTRE, image_of, typed_row
from replicator.engines.sqlite.lane import Lane
from replicator.engines.sqlite.parked import ParkedChanges, Taken
from replicator.engines.sqlite.session import Session, target_sql
from replicator.engines.sqlite.stage import Stage
from replicator.engines.sqlite.values import (
    SourceText,
    UnfitError,
    checksum_of,
    decode_image,
    encode_image,
    shown,
    typed,
)
from replicator.engines.sqlite.versions import route_to
from replicator.errors import SetupError
from replicator.model import Op, Relation, RowEvent, Span
from replicator.sqlfiles import literal, quote, render, statement

_ORDER = 2

Image = Mapping[str, object]


class Rows:
    """Single rows of one link's tables.

    Args:
        session: the connection.
        stage: where a row is put before it is written.
        parked: what waits.
        apply: writes rows.
        answers: whether the site gets this centre's rows too.
    """

    def __init__(self, session: Session, stage: Stage, parked: ParkedChanges, apply: Apply, *, answers: bool) -> None:
        self._session, self._stage, self._parked, self._apply = session, stage, parked, apply
        self._answers = answers

    # --- as it is -------------------------------------------------------------------------------------------------

    def lane(self, table: str) -> Lane:
        """The lane of a target table as its plan has it. Raises SetupError when no plan feeds the table."""
        plan = self._session.plan_for(table)
        if plan is None:
            raise SetupError(f"table {table} is not replicated to {self._session.place}", hint="run: replicator plan")
        columns = tuple(column.source for column in plan.columns)
        return self._stage.adopt(Relation(0, plan.source.name, columns, plan.key))

    def read(self, lane: Lane, key: Sequence[object]) -> list[object] | None:
        """A row's values in image order; None when it is not there."""
        fragments = {"values": _columns(lane), "same_key": _same_key(lane)}
        sql = render(target_sql("read_row"), identifiers={"table": lane.shape.name.name}, fragments=fragments)
        row = self._session.run(sql, *key).fetchone()
        return None if row is None else list(row)

    def read_row(self, table: str, key: str) -> Image | None:
        """See ports.Target."""
        lane = self.lane(table)
        values = self.read(lane, own_key(lane, key))
        return None if values is None else image_of(lane, values)

    def find_blocking(self, parked_id: int) -> Image | None:
        """The row that holds a unique value the parked change wants; None when no row does."""
        taken = self._parked.peek(parked_id)
        lane = self.lane(taken.table)
        return next((image_of(lane, row) for row in self.blocking(lane, taken)), None)

    def blocking(self, lane: Lane, taken: Taken) -> Iterator[Sequence[object]]:
        """The rows, in image order, that hold unique values a parked change wants."""
        values = self._wanted(lane, taken)
        if values is None:
            return
        places = {name: place for place, name in enumerate(lane.targets)}
        key = [values[place] for place in lane.key_places]
        for unique in lane.shape.uniques:
            if unique.primary or not unique.columns or not set(unique.columns) <= set(places):
                continue
            same = [f"t.{quote(name)} = ?{place + 1 + len(key)}" for place, name in enumerate(unique.columns)]
            same += [f"({unique.predicate})"] if unique.predicate else []
            fragments = {"values": _columns(lane), "same_unique": " and ".join(same), "same_key": _same_key(lane)}
            sql = render(target_sql("read_blocking"), identifiers={"table": lane.shape.name.name}, fragments=fragments)
            row = self._session.run(sql, *key, *(values[places[name]] for name in unique.columns)).fetchone()
            if row is not None:
                yield list(row)

    def _wanted(self, lane: Lane, taken: Taken) -> list[object] | None:
        """A parked change's after values as the table would store them; None when it removes the row or they do not fit."""
        if taken.after is None or taken.op in (Op.GONE, Op.DELETE):
            return None
        image = dict(zip(taken.columns, decode_image(taken.after), strict=True))
        if not set(lane.columns) <= set(image):
            return None
        try:
            return [
                convert(value) if convert is not None and isinstance(value, SourceText) else value
                for value, convert in zip((image[name] for name in lane.columns), lane.converters, strict=True)
            ]
        except (UnfitError, ValueError, KeyError):
            return None

    # --- decided by a person --------------------------------------------------------------------------------------

    def settle(
        self, conflict_id: int, result: Mapping[str, str | None] | None, resolution: str, *, expected: bool
    ) -> bool:
        """See ports.Target.settle_conflict; in a transaction of the caller, under the write lock."""
        run, link = self._session.run, self._session.link_id
        found = run(target_sql("read_conflict"), conflict_id, link).fetchone()
        if found is None:
            raise SetupError(
                f"link {self._session.link}: there is no conflict {conflict_id}", hint="run: replicator conflicts list"
            )
        table, key, state, parked, left, *_ = found
        lane = self.lane(str(table))
        current = self.read(lane, own_key(lane, key))
        if expected and (None if current is None else image_of(lane, current)) != (json.loads(left) if left else None):
            return False
        written = self._write(lane, own_key(lane, key), current, result)
        if state == "waiting" and parked:
            self._drop_queue(lane, str(key), f"conflict {conflict_id} was resolved: {resolution}", int(parked))
        now = self._session.now()
        image = None if written is None else json.dumps(image_of(lane, written), ensure_ascii=False)
        run(target_sql("settle_conflict"), conflict_id, link, resolution, now, image, table, key)
        self.correct(lane, str(key))
        return True

    def _write(
        self,
        lane: Lane,
        key: Sequence[object],
        current: Sequence[object] | None,
        result: Mapping[str, str | None] | None,
    ) -> Sequence[object] | None:
        """Make ``result`` the row (None: remove it), unless it is so; what the row is then."""
        if result is None:
            if current is not None:
                self._overwrite(lane, Op.GONE if lane.ledgered else Op.DELETE, current)
            return None
        values = typed_row(lane, result, [current or [None] * len(lane.targets)])
        for place, value in zip(lane.key_places, key, strict=True):
            values[place] = value
        if current is None or encode_image(values) != encode_image(current):
            self._overwrite(lane, Op.STATE if lane.ledgered else Op.INSERT, values)
        return values

    def _overwrite(self, lane: Lane, op: Op, values: Sequence[object]) -> None:
        self._stage.put(lane, _ORDER, op, self._session.now(), values)
        self._apply.overwrite(lane, Span(_ORDER, _ORDER, 1))

    def _drop_queue(self, lane: Lane, key: str, reason: str, first: int) -> None:
        """Drop a row's parked changes. What the site believes the row to be is what the last of them says."""
        changes = self._parked.queue(lane.place, key)
        for change in changes:
            if change.id != first:
                self._parked.record_dropped(change, reason)
            self._session.run(target_sql("remove_parked"), change.id)
        if changes:
            self.believe(lane, changes[-1])

    def believe(self, lane: Lane, change: Taken) -> None:
        """Put on record what a site believes a row to be, whose change was dropped."""
        if not lane.ledgered or not change.key:
            return
        image = dict(zip(change.columns, decode_image(change.after or "[]"), strict=False))
        if not set(lane.columns) <= set(image):
            return
        values = [image[lane.columns[place]] for place in lane.by_name]
        gone = change.op == Op.GONE
        kept = encode_image(values) if lane.plan.policy.merges and not gone else None
        digest = b"" if gone else checksum_of(values)
        self._session.run(
            statement("sql/sqlite/versions.sql", "believe"), self._session.link_id, lane.place, change.key,
            change.changed_at, digest, gone, kept,
        )  # fmt: skip

    def correct(self, lane: Lane, key: str) -> None:
        """Send the site, and it alone, the row as it is."""
        central = self._session.central_lane(lane)
        if self._answers and central.relation is not None and lane.plan.direction.falls and key:
            whole = central.whole_key(decode_image(key))
            self._session.run(central.correct_row, central.relation.id, route_to(self._session.link), *whole)

    def answer_waiting(self, held: Iterable[tuple[Lane, str]]) -> None:
        """Of rows whose changes were set aside, answer those that wait for a person: until then the centre's row stands."""
        for lane, key in {(lane.place, key): (lane, key) for lane, key in held}.values():
            if self.waits(lane, key):
                self.correct(lane, key)

    def waits(self, lane: Lane, key: str) -> bool:
        """Whether a row waits for a person's decision."""
        return bool(self._session.run(target_sql("waits"), self._session.link_id, lane.place, key).fetchone()[0])

    # --- what is known --------------------------------------------------------------------------------------------

    def history(self, table: str, key: Sequence[str]) -> list[RowEvent]:
        """See ports.Target."""
        lane = self.lane(table)
        plan = lane.plan
        given = list(key)[len(plan.constants) :] if len(key) == len(plan.target_key) else list(key)
        if len(given) != len(plan.key):
            raise SetupError(f"the key of {table} is {', '.join(plan.target_key)}", hint="give one value for each")
        values = [typed(text, lane.target_types[place]) for text, place in zip(given, lane.key_places, strict=True)]
        whole = [*(value for _, value in plan.constants), *values]
        events = [*self._versions(lane, whole), *self._own(lane, encode_image(whole))]
        return sorted(events, key=lambda event: event.at)

    def _versions(self, lane: Lane, whole: Sequence[object]) -> Iterator[RowEvent]:
        text = encode_image(self._session.central_lane(lane).whole_key(whole))
        for at, version, deleted, origin in self._session.run(target_sql("row_versions"), lane.place, text):
            who = str(origin).rpartition("/")[2] if origin else CENTRE
            yield RowEvent("ledger", int(at), who, "deleted" if deleted else "written", None, f"version {version}")

    def _own(self, lane: Lane, key: str) -> Iterator[RowEvent]:
        run, link, site = self._session.run, self._session.link_id, self._session.link.site
        for at, version, deleted, image in run(target_sql("row_beliefs"), link, lane.place, key):
            kept = decode_image(image) if image else []
            names = [lane.targets[place] for place in lane.by_name]
            known = dict(zip(names, map(shown, kept), strict=True)) if len(kept) == len(names) else None
            what = "gone when last sent" if deleted else "as last sent"
            yield RowEvent("ledger", int(at), site, what, known, f"version {version}")
        for at, kind, after, policy, verdict, reason, state, resolution, _ in run(
            target_sql("row_conflicts"), link, lane.place, key
        ):
            detail = f"{policy} → {verdict}: {reason}" + (f"; {state}: {resolution}" if resolution else f"; {state}")
            yield RowEvent("conflict", int(at), site, str(kind), json.loads(after) if after else None, detail)
        for at, op, columns, after, cause in run(target_sql("row_waiting"), link, lane.place, key):
            image = dict(zip(json.loads(columns), map(shown, decode_image(after)), strict=True)) if after else None
            yield RowEvent("parked", int(at), site, Op(op).name.lower(), image, str(cause))


def own_key(lane: Lane, key: str) -> list[object]:
    """The key values of a key text, without the constants."""
    return decode_image(key)[len(lane.plan.constants) :]


def _columns(lane: Lane) -> str:
    return ", ".join(f"t.{quote(name)}" for name in lane.targets)


def _same_key(lane: Lane) -> str:
    parts = [f"t.{quote(name)} = {literal(value)}" for name, value in lane.plan.constants]
    parts += [f"t.{quote(lane.targets[place])} = ?{spot + 1}" for spot, place in enumerate(lane.key_places)]
    return " and ".join(parts)
