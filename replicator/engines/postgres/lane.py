"""One relation's way through a PostgreSQL target: its temporary tables and its rendered statements.

A lane belongs to one relation version and one table plan; statements are templates of ``sql/postgres/apply.sql``.
Values are numbered by their place in the relation: ``v2`` staged, ``b2`` before, ``a2`` after, ``k0`` key.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from replicator.engines.postgres.pieces import Cascade, as_text, has_one_spelling, piece
from replicator.model import ColumnPlan, Relation, TablePlan
from replicator.sqlfiles import literal, quote, quoted, render, statement

_FILE = "sql/postgres/apply.sql"


class Lane:
    """Renders the statements of one relation against one plan. Pure text: it never talks to the database.

    Args:
        number: unique within the session; names the lane's temporary tables.
        relation: what the places of the images mean.
        plan: where the values go. Columns of the relation that the plan does not name are parsed as text and left.
    """

    def __init__(self, number: int, relation: Relation, plan: TablePlan) -> None:
        self.number = number
        self.relation = relation
        self.plan = plan
        by_source = {column.source: column for column in plan.columns}
        self.columns: tuple[ColumnPlan | None, ...] = tuple(by_source.get(name) for name in relation.columns)
        self.live = tuple(place for place, column in enumerate(self.columns) if column is not None)
        self.key = tuple(relation.columns.index(name) for name in plan.key)
        self.cascades: tuple[Cascade, ...] = ()
        self.passed_changes = self.passed_rows = 0  # since the change table and the rows table were last truncated
        self.image = f"replicator_image_{number}"
        self.text = f"replicator_text_{number}"
        self.rows = f"replicator_rows_{number}"
        self.change = f"replicator_change_{number}"

    @property
    def place(self) -> str:
        """The target table as the bookkeeping names it."""
        return str(self.plan.target)

    # --- tables ---

    def create(self) -> Sequence[str]:
        """Statements that make the lane's temporary tables, once per session."""
        return [
            self._render("create_image", columns=", ".join(f"v{i} {self._declared(i)}" for i in self._places)),
            self._render("create_text", columns=", ".join(f"v{i} text" for i in self._places)),
            self._render("create_rows", columns=", ".join(f"v{i} {self._declared(i)}" for i in self._places)),
            self._render("create_change", columns=self._change_columns),
        ]

    @cached_property
    def copy_rows(self) -> str:
        """COPY of a row block."""
        return self._render("copy_rows", columns=self._list("v", self._places))

    # --- stage → change ---

    @cached_property
    def load_images(self) -> str:
        """Text lane with before images. Parameters: relation, low, high."""
        key = ", ".join(piece("first_of", values=f"(s.b).v{i}, (s.a).v{i}") for i in self.key)
        before, after = self._list("(s.b).v", self.live), self._list("(s.a).v", self.live)
        return self._render("load_images", columns=self._loaded, values=f"{key}, {before}, {after}")

    @cached_property
    def load_states(self) -> str:
        """Text lane without before images. Parameters: relation, low, high, feed."""
        values = self._list("(s.a).v", self.live)
        key = self._list("(s.a).v", self.key)
        return self._render(
            "load_states",
            columns=self._loaded,
            values=f"{key}, {values}, {values}",
            key=self._texts("(s.a).v", self.key),
        )

    @cached_property
    def load_rows(self) -> str:
        """Typed lane. Parameters: low, high, feed."""
        values = self._list("s.v", self.live)
        key = self._list("s.v", self.key)
        return self._render(
            "load_rows", columns=self._loaded, values=f"{key}, {values}, {values}", key=self._texts("s.v", self.key)
        )

    @cached_property
    def load_new_rows(self) -> str:
        """Typed lane of a table whose ledger is empty. Parameters: low, high."""
        values = self._list("s.v", self.live)
        key = self._list("s.v", self.key)
        return self._render("load_new_rows", columns=self._loaded, values=f"{key}, {values}, {values}")

    @cached_property
    def has_repeats(self) -> str:
        """Whether a row changed more than once in the span."""
        return self._render("has_repeats", key=self._keys())

    @cached_property
    def net(self) -> Sequence[str]:
        """Statements that leave one net change per row."""
        if not self.plan.ledgered:
            return [
                self._render(
                    "net_images",
                    key=self._keys(),
                    before=self._list("c.b", self.live),
                    after=self._list("c.a", self.live),
                    set_before=", ".join(f"b{i} = f.b{i}" for i in self.live),
                )
            ]
        same = " and ".join(f"c.k{n} = d.k{n}" for n in range(len(self.key)))
        before = ", ".join(f"b{i} = f.b{i}" for i in self.live)
        return [
            self._render("net_first", set_before=before, key=self._keys(), key_again=self._keys()),
            self._render("net_last", key=self._keys(), key_again=self._keys(), same_key=same),
        ]

    @cached_property
    def find_unfit(self) -> str:
        """A row whose value the target column would round or cut; empty when no column can."""
        tests, cases = [], []
        for i in self.live:
            column = self._plan_column(i)
            if self._is_staged_wider(column):
                test = piece("unfit", value=f"c.a{i}", type=column.target_type, staging=column.staging_type)
                words = literal(f"column {column.target} ({column.target_type}) cannot hold ")
                tests.append(f"({test})")
                cases.append(piece("unfit_words", unfit=test, words=words, value=f"c.a{i}"))
        if not tests:
            return ""
        which = piece("first_of", values=", ".join(cases))
        return self._render("find_unfit", unfit=" or ".join(tests), which=which)

    # --- change → table ---

    def apply(self, name: str, *, move: bool = False) -> str:
        """A ``*_clean`` or ``*_decided`` statement; ``move`` sets key columns too and ``arrive`` looks at the new key."""
        pairs = [*self.plan.constants, *((self._plan_column(i).target, f"c.a{i}") for i in self.live)]
        columns = quoted([column for column, _ in pairs])
        constants = [literal(value) for _, value in self.plan.constants]
        return self._render(
            name,
            same_row=self._same_row("c.k"),
            unchanged=self._unchanged,
            set=self._set(move),
            columns=columns,
            arbiter=quoted(self.plan.target_key),
            values=", ".join([*constants, *(f"c.a{i}" for i in self.live)]),
            staged=", ".join([*constants, *(f"(s.a).v{i}" for i in self.live)]),
        )

    def find_conflicts(self, move: bool) -> str:
        """What is neither applied nor already there; ``move`` looks under the new key too."""
        targets = [self._plan_column(i).target for i in self.live]
        return self._render(
            "find_conflicts",
            key=self._key_value("c.k"),
            t_present=piece("is_there", value=f"t.{quote(self._plan_column(self.key[0]).target)}"),
            has_before="false" if self.plan.ledgered else "c.existed",
            names=piece("texts", values=", ".join(literal(name) for name in targets)),
            before=self._texts("c.b", self.live),
            after=self._texts("c.a", self.live),
            current=", ".join(as_text(f"t.{quote(name)}") for name in targets),
            t_values=self._target_values,
            c_after=self._fitted("c.a"),
            same_row=self._same_row("c.k"),
            arrived=self._arrived if move else "false",
        )

    @property
    def _arrived(self) -> str:
        keys = [piece("equals", left=f"t.{quote(self._plan_column(i).target)}", right=f"c.a{i}") for i in self.key]
        return render(
            statement("sql/postgres/pieces.sql", "arrived"),
            identifiers={"schema": self.plan.target.schema, "table": self.plan.target.name},
            fragments={
                "same_row": " and ".join(self._own_rows("t") + keys),
                "current": self._target_values,
                "after": self._fitted("c.a"),
            },
        )

    @cached_property
    def park_decided(self) -> str:
        """Moves decided changes to the parked ones. Parameters: link, table, columns, cause, position, relation number."""
        before, after = self._texts("c.b", self.live), self._texts("c.a", self.live)
        return self._render("park_decided", key=self._change_key_text, before=before, after=after)

    @cached_property
    def record_ledger(self) -> Sequence[str]:
        """Statements that write what the site now believes. Parameters: feed, relation number."""
        key, after = self._change_key_text, self._fitted("c.a")
        return [self._render(name, key=key, after=after) for name in ("record_ledger_new", "record_ledger_known")]

    @property
    def inserts_straight(self) -> bool:
        """Whether nothing about the values has to be looked at before they are inserted."""
        return not self.plan.ledgered and not self.find_unfit

    @cached_property
    def bereaved(self) -> Sequence[str]:
        """Statements that find rows of other tables which deletes of the span would remove or change."""
        return [self._bereaved("find_bereaved", each) for each in self.cascades]

    @cached_property
    def bereaved_by_truncate(self) -> Sequence[str]:
        """The same for a TRUNCATE."""
        return [self._bereaved("find_bereaved_by_truncate", each) for each in self.cascades]

    def _bereaved(self, name: str, cascade: Cascade) -> str:
        pairs = zip(cascade.columns, cascade.referred, strict=True)
        refers = [piece("equals", left=f"r.{quote(here)}", right=f"t.{quote(there)}") for here, there in pairs]
        itself = cascade.child == self.plan.target
        return render(
            statement(_FILE, name),
            identifiers={
                "schema": self.plan.target.schema, "table": self.plan.target.name, "change": self.change,
                "child_schema": cascade.child.schema, "child": cascade.child.name,
            },
            fragments={
                "child_name": literal(str(cascade.child)),
                "refers": " and ".join(refers),
                "same_row": self._same_row("c.k"),
                "goes_too": self._same_row("c.k", "r") if itself else "false",
                "own_rows": " and ".join(self._own_rows("t")) or "true",
                "own_child": " and ".join(self._own_rows("r")) or "true" if itself else "false",
            },
        )  # fmt: skip

    @cached_property
    def truncate_site(self) -> str:
        """Removes this site's rows."""
        return self._render("truncate_site", own_rows=" and ".join(self._own_rows("t")) or "true")

    def simple(self, name: str) -> str:
        """A statement that needs no column list."""
        return self._render(name)

    # --- parked ---

    @cached_property
    def hold_stage(self) -> str:
        """Parameters: relation number, link, table, columns, position, ordinal."""
        return render(
            statement("sql/postgres/target.sql", "hold_stage"),
            identifiers={"text": self.text},
            fragments={
                "parked_key": self._list("(p.a).v", self.key),
                "key": self._list("(k).v", self.key),
                "after_key": self._list("(a).v", self.key),
            },
        )

    @cached_property
    def hold_rows(self) -> str:
        """Parameters: link, table, columns, position, ordinal."""
        return render(
            statement("sql/postgres/target.sql", "hold_rows"),
            identifiers={"rows": self.rows},
            fragments={
                "key": self._texts("s.v", self.key),
                "held_key": self._texts("v", self.key),
                "values": self._texts("v", self._places),
            },
        )

    @cached_property
    def staged_row(self) -> str:
        """One typed row as a record literal. Parameter: ordinal."""
        return render(
            statement("sql/postgres/target.sql", "staged_row"),
            identifiers={"rows": self.rows},
            fragments={"values": self._texts("s.v", self._places)},
        )

    # --- pieces ---

    @property
    def _places(self) -> range:
        return range(len(self.columns))

    def _plan_column(self, place: int) -> ColumnPlan:
        column = self.columns[place]
        assert column is not None
        return column

    def _staging(self, place: int) -> str:
        column = self.columns[place]
        return "text" if column is None else column.staging_type or column.target_type

    def _declared(self, place: int) -> str:
        """The staging type; a key's values are as equal to each other as the target's collation has it."""
        staging, column = self._staging(place), self.columns[place]
        collation = self.plan.target_shape.column(column.target).collation if column and place in self.key else ""
        return f"{staging} collate {collation}" if collation else staging

    @property
    def _respelled(self) -> bool:
        """Whether a key may be written anew as an equal value: 1.0 as 1.00, or in other letters where case is nothing."""
        shape = self.plan.target_shape
        key = [shape.column(self._plan_column(i).target) for i in self.key]
        return not all(map(has_one_spelling, key))

    @property
    def _change_columns(self) -> str:
        keys = [f"k{n} {self._declared(i)}" for n, i in enumerate(self.key)]
        images = [f"{side}{i} {self._staging(i)}" for side in "ba" for i in self.live]
        return ", ".join(keys + images)

    @property
    def _loaded(self) -> str:
        return f"{self._keys()}, {self._list('b', self.live)}, {self._list('a', self.live)}"

    def _keys(self) -> str:
        return ", ".join(f"k{n}" for n in range(len(self.key)))

    @staticmethod
    def _list(prefix: str, places: Sequence[int]) -> str:
        return ", ".join(f"{prefix}{i}" for i in places)

    @staticmethod
    def _texts(prefix: str, places: Sequence[int]) -> str:
        return ", ".join(as_text(f"{prefix}{i}") for i in places)

    def _key_value(self, prefix: str) -> str:
        constants = [as_text(literal(value)) for _, value in self.plan.constants]
        return ", ".join([*constants, *(f"{prefix}{n}" for n in range(len(self.key)))])

    @property
    def _change_key_text(self) -> str:
        """Fields of a bookkeeping key; constants are the same for the whole link and left out."""
        return self._texts("c.k", range(len(self.key)))

    def _own_rows(self, alias: str) -> list[str]:
        return [
            piece("equals", left=f"{alias}.{quote(name)}", right=literal(value)) for name, value in self.plan.constants
        ]

    def _same_row(self, prefix: str, alias: str = "t") -> str:
        columns = [f"{alias}.{quote(self._plan_column(i).target)}" for i in self.key]
        keys = [piece("equals", left=column, right=f"{prefix}{n}") for n, column in enumerate(columns)]
        return " and ".join(self._own_rows(alias) + keys)

    @property
    def _target_values(self) -> str:
        return ", ".join(f"t.{quote(self._plan_column(i).target)}" for i in self.live)

    def _fitted(self, prefix: str) -> str:
        """Staged values as the target's own types spell them: 1.5 is 1.50 in a numeric(6,2)."""
        values = []
        for i in self.live:
            column = self._plan_column(i)
            wider = self._is_staged_wider(column)
            values.append(piece("as_type", value=f"{prefix}{i}", type=column.target_type) if wider else f"{prefix}{i}")
        return ", ".join(values)

    @staticmethod
    def _is_staged_wider(column: ColumnPlan) -> bool:
        return bool(column.staging_type) and column.staging_type != column.target_type

    @property
    def _unchanged(self) -> str:
        if self.plan.ledgered:
            return piece("same_checksum", current=self._target_values)
        return piece("same_image", current=self._target_values, base=self._fitted("c.b"))

    def _set(self, move: bool) -> str:
        plain = [i for i in self.live if move or self._respelled or i not in self.key]
        return ", ".join(f"{quote(self._plan_column(i).target)} = c.a{i}" for i in plain or self.key)

    def _render(self, name: str, **fragments: str) -> str:
        target = self.plan.target
        return render(
            statement(_FILE, name),
            identifiers={
                "image": self.image, "text": self.text, "rows": self.rows, "change": self.change,
                "schema": target.schema, "table": target.name,
            },
            fragments=fragments,
        )  # fmt: skip
