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
        self.wary = 0  # chunks of a backfill that are not hoped to be all new
        self.image = f"replicator_image_{number}"
        self.text = f"replicator_text_{number}"
        self.rows = f"replicator_rows_{number}"
        self.change = f"replicator_change_{number}"
        self.base = f"replicator_base_{number}"

    @property
    def place(self) -> str:
        """The target table as the bookkeeping names it."""
        return str(self.plan.target)

    # --- tables ---

    def create(self) -> Sequence[str]:
        """Statements that make the lane's temporary tables, once per session."""
        base = ", ".join(f"v{i} {self.staging(i)}" for i in self.live)
        return [
            self.render("create_image", columns=", ".join(f"v{i} {self.declared(i)}" for i in self._places)),
            self.render("create_text", columns=", ".join(f"v{i} text" for i in self._places)),
            self.render("create_rows", columns=", ".join(f"v{i} {self.declared(i)}" for i in self._places)),
            self.render("create_change", columns=self._change_columns),
            *([self.render("create_base", columns=base)] if self.plan.policy.rule else []),
        ]

    @cached_property
    def copy_rows(self) -> str:
        """COPY of a row block."""
        return self.render("copy_rows", columns=self.listed("v", self._places))

    # --- stage → change ---

    @cached_property
    def load_images(self) -> str:
        """Text lane with before images. Parameters: relation, low, high."""
        key = ", ".join(piece("first_of", values=f"(s.b).v{i}, (s.a).v{i}") for i in self.key)
        before, after = self.listed("(s.b).v", self.live), self.listed("(s.a).v", self.live)
        return self.render("load_images", columns=self._loaded, values=f"{key}, {before}, {after}")

    @cached_property
    def load_states(self) -> str:
        """Text lane without before images. Parameters: relation, low, high, feed."""
        key, values = self.listed("(s.a).v", self.key), self.listed("(s.a).v", self.live)
        return self.render(
            "load_states",
            columns=self._loaded,
            values=f"{key}, {values}, {values}",
            key=self.texts("(s.a).v", self.key),
        )

    @cached_property
    def load_rows(self) -> str:
        """Typed lane. Parameters: low, high, feed."""
        key, values = self.listed("s.v", self.key), self.listed("s.v", self.live)
        return self.render(
            "load_rows", columns=self._loaded, values=f"{key}, {values}, {values}", key=self.texts("s.v", self.key)
        )

    @cached_property
    def load_new_states(self) -> str:
        """Text lane of a link from the centre. Parameters: relation, low, high."""
        key, values = self.listed("(s.a).v", self.key), self.listed("(s.a).v", self.live)
        return self.render("load_new_states", columns=self._loaded, values=f"{key}, {values}, {values}")

    @cached_property
    def load_new_rows(self) -> str:
        """Typed lane of a table whose ledger is empty. Parameters: low, high."""
        key, values = self.listed("s.v", self.key), self.listed("s.v", self.live)
        return self.render("load_new_rows", columns=self._loaded, values=f"{key}, {values}, {values}")

    @cached_property
    def has_repeats(self) -> str:
        """Whether a row changed more than once in the span."""
        return self.render("has_repeats", key=self.keys())

    @cached_property
    def net(self) -> Sequence[str]:
        """Statements that leave one net change per row."""
        if not self.plan.ledgered:
            came = [piece("before_or_came", before=f"b{i}", came=f"a{i}") for i in self.live]
            return [
                self.render(
                    "net_images",
                    key=self.keys(),
                    before=self.listed("c.b", self.live),
                    after=self.listed("c.a", self.live),
                    set_before_or_came=", ".join(came),
                ),
                self.render("net_gone", same_row=self.same_row("c.k")),
            ]
        before = ", ".join(f"b{i} = f.b{i}" for i in self.live)
        return [
            self.render("net_first", set_before=before, key=self.keys(), key_again=self.keys()),
            self.net_last,
        ]

    @cached_property
    def net_last(self) -> str:
        """Leaves each row's last change."""
        same = " and ".join(f"c.k{n} = d.k{n}" for n in range(len(self.key)))
        return self.render("net_last", key=self.keys(), key_again=self.keys(), same_key=same)

    @cached_property
    def find_unfit(self) -> str:
        """A row whose value the target column would round or cut; empty when no column can."""
        tests, cases = [], []
        for i in self.live:
            column = self.plan_column(i)
            if self.is_staged_wider(column):
                test = piece("unfit", value=f"c.a{i}", type=column.target_type, staging=column.staging_type)
                words = literal(f"column {column.target} ({column.target_type}) cannot hold ")
                tests.append(f"({test})")
                cases.append(piece("unfit_words", unfit=test, words=words, value=f"c.a{i}"))
        if not tests:
            return ""
        which = piece("first_of", values=", ".join(cases))
        return self.render("find_unfit", unfit=" or ".join(tests), which=which)

    # --- change → table ---

    def apply(self, name: str, *, move: bool = False, returning: str = "", **more: str) -> str:
        """A statement that writes the target; ``move`` sets key columns too, ``returning``: what it gives back."""
        pairs = [*self.plan.constants, *((self.plan_column(i).target, f"c.a{i}") for i in self.live)]
        columns = quoted([column for column, _ in pairs])
        constants = [literal(value) for _, value in self.plan.constants]
        return self.render(
            name,
            same_row=self.same_row("c.k"),
            unchanged=self.unchanged,
            set=self._set(move),
            columns=columns,
            arbiter=quoted(self.plan.target_key),
            values=", ".join([*constants, *(f"c.a{i}" for i in self.live)]),
            staged=", ".join([*constants, *(f"(s.a).v{i}" for i in self.live)]),
            typed=", ".join([*constants, *(f"s.v{i}" for i in self.live)]),
            returning=returning,
            current=self.target_values,
            fitted=self.fitted("c.a"),
            **more,
        )

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
                "same_row": self.same_row("c.k"),
                "goes_too": self.same_row("c.k", "r") if itself else "false",
                "own_rows": " and ".join(self.own_rows("t")) or "true",
                "own_child": " and ".join(self.own_rows("r")) or "true" if itself else "false",
            },
        )  # fmt: skip

    def truncate_site(self, returning: str = "") -> str:
        """Removes this site's rows."""
        return self.render("truncate_site", own_rows=" and ".join(self.own_rows("t")) or "true", returning=returning)

    def simple(self, name: str) -> str:
        """A statement that needs no column list."""
        return self.render(name)

    # --- parked ---

    @cached_property
    def hold_stage(self) -> str:
        """Parameters: relation number, link, table, columns, position, ordinal."""
        return render(
            statement("sql/postgres/target.sql", "hold_stage"),
            identifiers={"text": self.text},
            fragments={
                "parked_key": self.listed("(p.a).v", self.key),
                "key": self.listed("(k).v", self.key),
                "after_key": self.listed("(a).v", self.key),
            },
        )

    @cached_property
    def hold_rows(self) -> str:
        """Parameters: link, table, columns, position, ordinal."""
        return render(
            statement("sql/postgres/target.sql", "hold_rows"),
            identifiers={"rows": self.rows},
            fragments={
                "key": self.texts("s.v", self.key),
                "held_key": self.texts("v", self.key),
                "values": self.texts("v", self._places),
            },
        )

    @cached_property
    def fold_bases(self) -> str:
        """What the site knows better than the ledger. Parameters: feed, relation number."""
        return render(
            statement("sql/postgres/bases.sql", "fold_bases"),
            identifiers={"rows": self.rows, "text": self.text},
            fragments={"key": self.texts("s.v", self.key), "staged_key": self.listed("(s.a).v", self.key)},
        )

    @cached_property
    def staged_row(self) -> str:
        """One typed row as a record literal. Parameter: ordinal."""
        return render(
            statement("sql/postgres/target.sql", "staged_row"),
            identifiers={"rows": self.rows},
            fragments={"values": self.texts("s.v", self._places)},
        )

    # --- pieces ---

    @property
    def _places(self) -> range:
        return range(len(self.columns))

    def plan_column(self, place: int) -> ColumnPlan:
        """What the plan says of a column it names."""
        column = self.columns[place]
        assert column is not None
        return column

    def staging(self, place: int) -> str:
        """The type a column is staged in."""
        column = self.columns[place]
        return "text" if column is None else column.staging_type or column.target_type

    def declared(self, place: int) -> str:
        """The staging type; a key's values are as equal to each other as the target's collation has it."""
        staging, column = self.staging(place), self.columns[place]
        collation = self.plan.target_shape.column(column.target).collation if column and place in self.key else ""
        return f"{staging} collate {collation}" if collation else staging

    @property
    def respelled(self) -> bool:
        """Whether a key may be written anew as an equal value: 1.0 as 1.00, or in other letters where case is nothing."""
        shape = self.plan.target_shape
        key = [shape.column(self.plan_column(i).target) for i in self.key]
        return not all(map(has_one_spelling, key))

    @property
    def _change_columns(self) -> str:
        keys = [f"k{n} {self.declared(i)}" for n, i in enumerate(self.key)]
        images = [f"{side}{i} {self.staging(i)}" for side in "ba" for i in self.live]
        return ", ".join(keys + images)

    @property
    def _loaded(self) -> str:
        return f"{self.keys()}, {self.listed('b', self.live)}, {self.listed('a', self.live)}"

    def keys(self) -> str:
        """The key columns of a change."""
        return ", ".join(f"k{n}" for n in range(len(self.key)))

    @staticmethod
    def listed(prefix: str, places: Sequence[int]) -> str:
        """Columns by their places."""
        return ", ".join(f"{prefix}{i}" for i in places)

    @staticmethod
    def texts(prefix: str, places: Sequence[int]) -> str:
        """The same as texts."""
        return ", ".join(as_text(f"{prefix}{i}") for i in places)

    def whole_key(self, values: Sequence[str]) -> str:
        """The target's whole key, as its own types spell it, from expressions for its columns behind the constants."""
        fields = [*(literal(value) for _, value in self.plan.constants), *values]
        types = [self.plan.target_shape.column(name).type for name in self.plan.target_key]
        typed = [piece("as_type", value=value, type=kind) for value, kind in zip(fields, types, strict=True)]
        return piece("as_record", values=", ".join(typed))

    @property
    def old_key(self) -> str:
        """The whole key a change found its row under."""
        return self.whole_key([f"c.k{n}" for n in range(len(self.key))])

    @property
    def new_key(self) -> str:
        """The whole key a change left its row under; of a row that is gone, nothing."""
        return self.whole_key([f"c.a{i}" for i in self.key])

    def table_key(self, alias: str = "") -> str:
        """The whole key of a target row."""
        return piece("as_record", values=quoted(self.plan.target_key, alias))

    @property
    def change_key_text(self) -> str:
        """Fields of a bookkeeping key; constants are the same for the whole link and left out."""
        return self.texts("c.k", range(len(self.key)))

    def own_rows(self, alias: str) -> list[str]:
        """Conditions that a row is this site's."""
        return [
            piece("equals", left=f"{alias}.{quote(name)}", right=literal(value)) for name, value in self.plan.constants
        ]

    def same_row(self, prefix: str, alias: str = "t") -> str:
        """The condition that a row has a change's key."""
        columns = [f"{alias}.{quote(self.plan_column(i).target)}" for i in self.key]
        keys = [piece("equals", left=column, right=f"{prefix}{n}") for n, column in enumerate(columns)]
        return " and ".join(self.own_rows(alias) + keys)

    @property
    def target_values(self) -> str:
        """The replicated columns of a target row."""
        return ", ".join(f"t.{quote(self.plan_column(i).target)}" for i in self.live)

    def fitted(self, prefix: str) -> str:
        """Staged values as the target's own types spell them: 1.5 is 1.50 in a numeric(6,2)."""
        values = []
        for i in self.live:
            column = self.plan_column(i)
            wider = self.is_staged_wider(column)
            values.append(piece("as_type", value=f"{prefix}{i}", type=column.target_type) if wider else f"{prefix}{i}")
        return ", ".join(values)

    @staticmethod
    def is_staged_wider(column: ColumnPlan) -> bool:
        """Whether the column's own type would round or cut what is staged."""
        return bool(column.staging_type) and column.staging_type != column.target_type

    @property
    def unchanged(self) -> str:
        """Whether the row is what the source started from."""
        if self.plan.ledgered:
            return piece("same_checksum", current=self.target_values)
        return piece("same_image", current=self.target_values, base=self.fitted("c.b"))

    def _set(self, move: bool) -> str:
        plain = [i for i in self.live if move or self.respelled or i not in self.key]
        return ", ".join(f"{quote(self.plan_column(i).target)} = c.a{i}" for i in plain or self.key)

    def render(self, name: str, **fragments: str) -> str:
        """A statement of the apply file about this lane."""
        target = self.plan.target
        return render(
            statement(_FILE, name),
            identifiers={
                "image": self.image, "text": self.text, "rows": self.rows, "change": self.change, "base": self.base,
                "schema": target.schema, "table": target.name,
            },
            fragments=fragments,
        )  # fmt: skip
