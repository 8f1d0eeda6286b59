"""The applications of a history: they write rows at their places, and are told what the database refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from replicator.model import Engine, Key
from replicator.settings import CENTRE
from replicator.simulate.places import Place, RefusedError, assigned, marks, named, sql
from replicator.simulate.schema import Column, Schema, Table, View
from replicator.simulate.steps import Action, Write
from replicator.simulate.trace import RowName, Trace, stamp
from replicator.simulate.values import Value, key_value, stamp_value, truth, value

_REPEATED = ("A", "B")
"""Stamps that come again (A-B-A); rows with an odd number get these."""

Cells = list[tuple[Column, Value]]


class Application:
    """Writes what histories say.

    Args:
        schema: the tables.
        places: the databases.
        trace: where writes are noted.
    """

    def __init__(self, schema: Schema, places: Mapping[str, Place], trace: Trace) -> None:
        self._schema, self._places, self._trace = schema, places, trace
        self.refused = 0

    def write(self, step: Write, time: int) -> None:
        """One transaction; actions the database refuses are left out, and all of it when the commit is refused."""
        place = self._places[step.place]
        touched = {name for action in step.actions for name in self._schema.descendants(action.table)}
        try:
            with place.transaction(time):
                before = self.stamps(step.place, touched)
                for number, action in enumerate(step.actions):
                    self._act(step, number, action)
                if step.given_up:
                    raise RefusedError("the application changed its mind")
                after = self.stamps(step.place, touched)
        except RefusedError:
            self.refused += 1
            return
        self._trace.note(step.place, step.number, before, after)

    def _act(self, step: Write, number: int, action: Action) -> None:
        try:
            Statement(self._schema, self._places[step.place], step.place, action, stamp(step.number, number)).run()
        except RefusedError:
            self.refused += 1

    def stamps(self, place: str, tables: Iterable[str]) -> dict[RowName, str]:
        """Rows of the traced tables at a place, and their stamps."""
        found: dict[RowName, str] = {}
        for name in sorted(tables):
            table = self._schema.tables[name]
            view = table.views.get(place)
            if view is None or not table.traced:
                continue
            columns = [view.columns[column] for column in (*table.key, table.stamp)]
            constants = constant_columns(table, place)
            own = tuple(text for _, text in table.constants.get(place, ())) if place != CENTRE else ()
            query = sql(view, "read_all", columns=named([*constants, *columns]))
            for *key, mark in self._places[place].rows(query):
                found[name, (*own, *map(str, key))] = "" if mark is None else str(mark)
        return found

    def source_key(self, table: Table, place: str, row: int) -> Key:
        """The key of a row of the pool as a backfill's order names it."""
        numbers, view = self._schema.numbers(table, row), table.views[place]
        values = tuple(key_value(view.columns[name], numbers[name]) for name in table.key)
        return values if view.engine is Engine.SQLITE else tuple(map(str, values))

    def key_text(self, table: Table, place: str, row: int) -> tuple[str, ...]:
        """The key of a row of the pool at a place, as text, without constants."""
        numbers, view = self._schema.numbers(table, row), table.views[place]
        return tuple(str(key_value(view.columns[name], numbers[name])) for name in table.key)


class Statement:
    """One action as a statement with values.

    ``put`` writes all columns, with a stamp of its own; ``set`` some of them, the stamp among them where rows are traced.
    """

    def __init__(self, schema: Schema, place: Place, name: str, action: Action, mark: str) -> None:
        self._schema, self._place, self._name, self._action = schema, place, name, action
        self._table = schema.tables[action.table]
        self._view: View = self._table.views[name]
        self._random = Random(action.chance)
        self._engine = self._view.engine
        repeated = action.row % 2 == 1
        self._mark = self._random.choice(_REPEATED) if repeated else mark
        self._repeated = repeated

    def run(self) -> None:
        """Raises RefusedError."""
        row = self._key(self._action.row)
        match self._action.what:
            case "delete":
                self._execute("delete", row, [])
            case "rekey":
                marked = self._marked(self._action.to % 2 == 1)
                self._execute("update", row, [*self._key(self._action.to, own=True), *marked])
            case "set":
                self._execute("update", row, self._some())
            case _:
                values = self._all()
                if not self._execute("update", row, values):
                    self._insert([*row, *values])

    # --- what ---

    def _key(self, number: int, *, own: bool = False) -> Cells:
        """The key of a row at this place; its constants first, unless ``own``."""
        numbers = self._schema.numbers(self._table, number)
        key: Cells = [
            (self._view.columns[name], key_value(self._view.columns[name], numbers[name])) for name in self._table.key
        ]
        return key if own else [*self._constants(number), *key]

    def _constants(self, number: int) -> Cells:
        columns = constant_columns(self._table, self._name)
        if not columns:
            return []
        sites = sorted(self._table.constants)
        texts = self._table.constants[sites[number % len(sites)]]
        return [(column, text) for column, (_, text) in zip(columns, texts, strict=True)]

    def _all(self) -> Cells:
        values = self._references() | self._uniques() | self._routes()
        for name, column in self._view.columns.items():
            if name not in values and name not in self._table.key:
                values[name] = value(column, self._random)
        return self._with_mark(values)

    def _some(self) -> Cells:
        values = self._references() | self._uniques() | self._routes()
        plain = [name for name in self._view.columns if name not in values and name not in self._table.key]
        values |= {name: value(self._view.columns[name], self._random) for name in plain}
        values.pop(self._table.stamp, None)
        chosen = self._random.sample(sorted(values), min(len(values), self._random.choice((1, 1, 2))))
        kept = {name: values[name] for name in chosen}
        return self._with_mark(kept) if not self._repeated or not kept else _cells(self._view, kept)

    def _with_mark(self, values: dict[str, Value]) -> Cells:
        return [cell for cell in _cells(self._view, values) if cell[0].name != self._stamp_name] + self._marked(False)

    @property
    def _stamp_name(self) -> str:
        return self._view.columns[self._table.stamp].name if self._table.stamp else ""

    def _marked(self, repeated: bool) -> Cells:
        if not self._table.stamp:
            return []
        column = self._view.columns[self._table.stamp]
        mark = _REPEATED[0] if repeated else self._mark
        return [(column, stamp_value(column, mark) if mark not in _REPEATED else _repeated(column, mark))]

    def _references(self) -> dict[str, Value]:
        """Foreign keys outside of the key: one of the parent's rows, sometimes none."""
        found: dict[str, Value] = {}
        for key in self._table.foreign:
            ours = [name for name in key.columns if name not in self._table.key]
            parent = self._schema.tables[key.parent]
            numbers = self._schema.numbers(parent, self._random.choice(parent.pool(self._name)))
            nothing = self._random.random() < 0.2 and all(self._view.columns[name].nullable for name in ours)
            for here, there in zip(key.columns, key.parent_columns, strict=True):
                column = self._view.columns[here]
                if here in ours:
                    number = numbers.get(there, self._random.randrange(3))
                    found[here] = None if nothing else key_value(column, number)
        return found

    def _uniques(self) -> dict[str, Value]:
        """Few values, so that two rows want the same one."""
        found: dict[str, Value] = {}
        for name in self._table.unique:
            column = self._view.columns[name]
            nothing = column.nullable and self._random.random() < 0.3
            few = self._random.randrange(4 if self._random.random() < 0.5 else 40)
            found[name] = None if nothing else key_value(column, few)
        return found

    def _routes(self) -> dict[str, Value]:
        """Mostly the place's own rows, sometimes another site's."""
        found: dict[str, Value] = {}
        if not self._table.params:
            return found
        sites = sorted(self._table.params)
        own = self._name in sites and self._random.random() < 0.75
        values = self._table.params[self._name if own else self._random.choice(sites)]
        for name, text in zip(self._table.route, values, strict=True):
            if name in self._view.columns and name not in self._table.key:
                found[name] = _parameter(self._view.columns[name], text)
        return found

    # --- how ---

    def _execute(self, name: str, row: Cells, changes: Cells) -> int:
        if name == "update" and not changes:
            return 0
        parts = {"row": assigned([column for column, _ in row], self._engine, " and ", len(changes) + 1)}
        if changes:
            parts["changes"] = assigned([column for column, _ in changes], self._engine, ", ")
        return self._place.run(sql(self._view, name, **parts), [cell for _, cell in (*changes, *row)])

    def _insert(self, cells: Cells) -> None:
        filled = [*cells, *((column, key_value(column, self._random.randrange(100))) for column in self._view.extra)]
        columns, values = named([column for column, _ in filled]), ", ".join(marks(self._engine, len(filled)))
        self._place.run(sql(self._view, "insert", columns=columns, values=values), [cell for _, cell in filled])


def constant_columns(table: Table, place: str) -> Sequence[Column]:
    """The columns in front of the key at the centre that tell the sites' rows apart."""
    if place != CENTRE or not table.constants:
        return ()
    view = table.views[place]
    constants = next(iter(table.constants.values()))
    return tuple(Column(name, view.engine, "text", "text", nullable=False) for name, _ in constants)


def _cells(view: View, values: Mapping[str, Value]) -> Cells:
    return [(view.columns[name], cell) for name, cell in values.items()]


def _repeated(column: Column, mark: str) -> Value:
    return _REPEATED.index(mark) if column.family == "int" else mark


def _parameter(column: Column, text: str) -> Value:
    match column.family:
        case "int":
            return int(text)
        case "bool":
            return truth(column, text in ("1", "t", "true"))
        case _:
            return text
