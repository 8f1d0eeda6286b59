"""Single rows and conflicts at a PostgreSQL target: what is known of them, and a person's word on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replicator.engines.postgres.apply import Apply
from replicator.engines.postgres.decisions import CENTRE, conflicts_sql, dump, route_to
from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.parked import ParkedChanges, Staged
from replicator.engines.postgres.pieces import as_text, piece
from replicator.engines.postgres.session import Session
from replicator.errors import SetupError
from replicator.model import Op, RecordedConflict, Relation, RowEvent, TablePlan
from replicator.records import encode_record, parse_record
from replicator.sqlfiles import literal, quote, quoted, render, statement

Texts = Mapping[str, str | None]


def settle_sql(name: str) -> str:
    """A statement of the settle file."""
    return statement("sql/postgres/settle.sql", name)


class Settling:
    """The rows and conflicts of one link.

    Args:
        session: the link's.
        parked: its parked changes.
        answers: whether the site gets this database's changes too.
    """

    def __init__(self, session: Session, parked: ParkedChanges, *, answers: bool) -> None:
        self._session = session
        self._parked = parked
        self._answers = answers

    # --- what is known ---

    def list_conflicts(self, ids: Sequence[int], table: str, limit: int) -> list[RecordedConflict]:
        """The newest recorded decisions of this link, oldest first."""
        self._session.read_link()
        found = self._session.run(settle_sql("list_conflicts"), self._session.link_id, list(ids), table, limit)
        return [RecordedConflict(*row) for row in found]

    def read_row(self, table: str, key: str) -> dict[str, str | None] | None:
        """A target row, column → text, by its whole key as a record literal."""
        plan = self.plan_of(table)
        values = parse_record(key)
        if len(values) != len(plan.target_key):
            values = [*(value for _, value in plan.constants), *values]
        found = self._session.run(_row_query(plan, _same_row(plan)), *values).fetchone()
        return None if found is None else dict(found[0])

    def read_history(self, table: str, key: Sequence[str]) -> list[RowEvent]:
        """What the ledger, conflicts and parked changes know of one row, by time."""
        plan = self.plan_of(table)
        self._session.read_link()
        own = list(key) if len(key) == len(plan.key) else list(key)[len(plan.constants) :]
        if len(own) != len(plan.key):
            raise SetupError(
                f"the key of {table} has {len(plan.key)} values, not {len(key)}",
                hint=f"give them in this order: {', '.join(plan.key)}",
            )
        whole, short = self.spell_key(plan, own), self._short_key(plan, own)
        found = self._session.run(settle_sql("read_history"), self._session.link_id, table, whole, short)
        return [self._event(*row) for row in found]

    def _event(
        self, source: str, at: int, origin: str, what: str, columns: Sequence[str] | None, literal_image: str | None,
        image: Mapping[str, object] | None, detail: str,
    ) -> RowEvent:  # fmt: skip
        if columns is not None and literal_image is not None:
            image = dict(zip(columns, parse_record(literal_image), strict=True))
        topology, _, site = origin.rpartition("/")
        return RowEvent(source, at, site if topology == self._session.link.topology else CENTRE, what, image, detail)

    def find_blocking(self, parked_id: int) -> dict[str, str | None] | None:
        """The row that holds a unique value a parked change wants; none when that is not what stands in its way."""
        found = self._session.run(settle_sql("parked_change"), parked_id, self._session.link_id).fetchone()
        if found is None or found[2] is None or found[3] != "23505":
            return None
        plan = self.plan_of(found[0])
        given = dict(zip(found[1], parse_record(found[2]), strict=True))
        values = dict(plan.constants) | {column.target: given.get(column.source) for column in plan.columns}
        for unique in plan.target_shape.uniques:
            wanted = {name: values.get(name) for name in unique.columns}
            if unique.primary or not unique.exact or None in wanted.values():
                continue
            texts = [value for value in wanted.values() if value is not None]
            row = self._session.run(_row_query(plan, _equals(plan, unique.columns)), *texts).fetchone()
            if row is not None:
                return dict(row[0])
        return None

    def plan_of(self, table: str) -> TablePlan:
        """The plan that feeds a target table. Raises SetupError when the topology does not name it."""
        plan = self._session.plan_of(table)
        if plan is None:
            raise SetupError(
                f"link {self._session.link}: the topology does not name table {table}",
                hint="name the table in the YAML again, or look at: replicator check",
            )
        return plan

    def spell_key(self, plan: TablePlan, values: Sequence[str | None]) -> str:
        """The whole key as the target spells it, from the texts of what follows the constants."""
        return self._spell(plan, [*(value for _, value in plan.constants), *values], plan.target_key)

    def _short_key(self, plan: TablePlan, values: Sequence[str | None]) -> str:
        return self._spell(plan, values, plan.target_key[len(plan.constants) :])

    def _spell(self, plan: TablePlan, values: Sequence[str | None], columns: Sequence[str]) -> str:
        typed = [
            piece("as_type", value=f"${n}", type=plan.target_shape.column(name).type)
            for n, name in enumerate(columns, 1)
        ]
        sql = render(settle_sql("spell_key"), fragments={"key": piece("as_record", values=", ".join(typed))})
        return str(self._session.one(sql, *values)[0])

    # --- a person's word ---

    def correct(self, plan: TablePlan, key: str) -> None:
        """Send one row to the link's site alone, as it is here."""
        if self._answers and plan.direction.falls:
            number = self._session.read_captured(plan.target)
            self._session.run(conflicts_sql("add_correction"), number, key, route_to(self._session))

    def correct_dropped(self, change: Staged) -> None:
        """Send the rows that a dropped change was about."""
        plan = self.plan_of(change.table)
        if not (self._answers and plan.direction.falls):
            return
        if change.op == Op.TRUNCATE:
            self._correct_all(plan)
        for key in sorted(self._keys_of(plan, [change])):
            self.correct(plan, key)

    def correct_left(self, changes: Sequence[Staged], net: Sequence[Staged]) -> None:
        """Send the rows that the net of a row's changes is not about any more: it left their keys again while it waited.

        What came for them from here meanwhile the site has passed over, as it had changes of its own there.
        """
        plan = self.plan_of(changes[0].table)
        if self._answers and plan.direction.falls:
            for key in sorted(self._keys_of(plan, changes) - self._keys_of(plan, net)):
                self.correct(plan, key)

    def _keys_of(self, plan: TablePlan, changes: Sequence[Staged]) -> set[str]:
        """The whole keys of all images of changes."""
        found = set()
        for change in changes:
            places = [change.columns.index(name) for name in plan.key]
            images = [parse_record(image) for image in (change.before, change.after) if image is not None]
            found |= {self.spell_key(plan, [values[place] for place in places]) for values in images}
        return found

    def _correct_all(self, plan: TablePlan) -> None:
        own = [piece("equals", left=f"t.{quote(name)}", right=literal(value)) for name, value in plan.constants]
        sql = render(
            conflicts_sql("correct_all"),
            identifiers={"schema": plan.target.schema, "table": plan.target.name},
            fragments={
                "key": piece("as_record", values=quoted(plan.target_key, "t.")),
                "own_rows": " and ".join(own) or "true",
            },
        )
        self._session.run(sql, self._session.read_captured(plan.target), route_to(self._session))

    def settle(self, apply: Apply, conflict_id: int, result: Texts | None, resolution: str, *, expected: bool) -> bool:
        """See ports.Target.settle_conflict; inside a transaction that is announced as nobody's."""
        found = self._session.run(settle_sql("take_conflict"), conflict_id, self._session.link_id).fetchone()
        if found is None:
            raise SetupError(
                f"link {self._session.link}: there is no conflict {conflict_id}", hint="run: replicator conflicts list"
            )
        table, key, after, left, parked_id = found
        plan = self.plan_of(table)
        present = self.read_row(table, key)
        if expected and present != left:
            return False
        wanted = None if result is None else self._complete(plan, present or after or {}, result, key)
        if wanted != present:
            self._impose(apply, plan, present, wanted)
        self.correct(plan, key)
        if parked_id:
            self._drop_queue(conflict_id, parked_id)
        self._session.run(settle_sql("settle_conflict"), conflict_id, resolution, dump(wanted))
        return True

    @staticmethod
    def _complete(plan: TablePlan, row: Mapping[str, object], result: Texts, key: str) -> Texts:
        unknown = sorted(set(result) - {column.target for column in plan.columns})
        if unknown:
            raise SetupError(
                f"table {plan.target} has no replicated column {', '.join(unknown)}",
                hint=f"it has: {', '.join(column.target for column in plan.columns)}",
            )
        texts = {column.target: row.get(column.target) for column in plan.columns}
        wanted = {name: None if value is None else str(value) for name, value in {**texts, **result}.items()}
        values = parse_record(key)[-len(plan.key) :]
        if [wanted[name] for name in plan.target_key[-len(plan.key) :]] != values:
            raise SetupError(
                f"conflict over {plan.target} {key}: its key cannot be changed", hint="change other columns"
            )
        return wanted

    def _impose(self, apply: Apply, plan: TablePlan, present: Texts | None, wanted: Texts | None) -> None:
        columns = tuple(column.source for column in plan.columns)
        number = self._session.number_of(plan, columns)
        lane = self._session.lane(number, {number: Relation(number, plan.source.name, columns, plan.key)})
        op = Op.DELETE if wanted is None else Op.INSERT if present is None else Op.UPDATE
        stamp = int(self._session.one(settle_sql("read_stamp"))[0])
        change = Staged(lane.place, str(op), stamp, columns, _literal(lane, present), _literal(lane, wanted))
        self._parked.stage(1, number, change)
        apply.impose_one(lane, number, settle_sql("impose_one"))

    def _drop_queue(self, conflict_id: int, parked_id: int) -> None:
        queue = [row[0] for row in self._session.run(settle_sql("read_queue"), parked_id, self._session.link_id)]
        if not queue:
            return
        for change in self._parked.take(queue):
            if change.parked_id != parked_id:
                self._parked.record_dropped(change, f"dropped: conflict {conflict_id} over this row was resolved")
        reason = f"dropped with conflict {conflict_id}"
        self._session.run(self._parked.sql("wait_no_more"), queue, reason)


def _literal(lane: Lane, row: Texts | None) -> str | None:
    return None if row is None else encode_record([row[lane.plan_column(place).target] for place in lane.live])


def _equals(plan: TablePlan, columns: Sequence[str]) -> str:
    """The row with these values: parameters, in order."""
    typed = (
        piece("as_type", value=f"${n}", type=plan.target_shape.column(name).type) for n, name in enumerate(columns, 1)
    )
    pairs = zip(columns, typed, strict=True)
    return " and ".join(piece("equals", left=f"t.{quote(name)}", right=value) for name, value in pairs)


def _same_row(plan: TablePlan) -> str:
    return _equals(plan, plan.target_key)


def _row_query(plan: TablePlan, condition: str) -> str:
    names = [column.target for column in plan.columns]
    return render(
        settle_sql("read_row"),
        identifiers={"schema": plan.target.schema, "table": plan.target.name},
        fragments={
            "names": piece("texts", values=", ".join(map(literal, names))),
            "values": ", ".join(as_text(f"t.{quote(name)}") for name in names),
            "same_row": condition,
        },
    )
