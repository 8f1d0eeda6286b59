"""The statements that read one site's rows of one table of a centre. Pure text: templates of ``sql/postgres/routed.sql``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replicator import sqlfiles
from replicator.engines.postgres.chunks import KeyRange, copy_chunk
from replicator.engines.postgres.windows import Relations
from replicator.errors import SetupError
from replicator.model import Direction, LinkName, Relation, TablePlan
from replicator.records import encode_record
from replicator.sqlfiles import literal, quote, quoted

_SQL = "sql/postgres/routed.sql"


def route_of(plan: TablePlan) -> str:
    """The route of the site's rows of a table, as a centre's capture writes it; empty: every site's."""
    return "=" + encode_record(plan.params) if plan.route.columns else ""


def routes_of(link: LinkName, plans: Sequence[TablePlan]) -> tuple[str, ...]:
    """Every route whose rows may concern the site."""
    return tuple(dict.fromkeys(["", own_route(link), *map(route_of, plans)]))


def own_route(link: LinkName) -> str:
    """The route of rows for this site alone."""
    return f"@{link.topology}/{link.site}"


class Slice:
    """One site's part of one captured table.

    Args:
        link: the link from the centre.
        plan: the table's plan on that link.
        current: its relation at the centre, whose columns are the key.
        older: the table's other relations: what was captured before the last install stands under those.
    """

    def __init__(self, link: LinkName, plan: TablePlan, current: Relation, older: Sequence[Relation]) -> None:
        self._link = link
        self._plan = plan
        self._whole_key = current.key
        same = [current.id, *(each.id for each in older if each.key == current.key)]
        self._numbers = [*same, -current.id, *(-each.id for each in older)]  # below zero: by name, whatever the key was
        self.outdated = [each.id for each in older if each.key != current.key]
        self.relation = Relation(current.id, plan.source.name, tuple(c.source for c in plan.columns), plan.key)

    @property
    def conditional(self) -> bool:
        """Whether a row that is there may not be the site's."""
        return self._plan.where is not None

    def changes(
        self,
        ranges: tuple[Sequence[int], Sequence[int]],
        routes: Sequence[str],
        *,
        everything: bool = False,
        only_gone: bool = False,
        changed_at: int = 0,
    ) -> str:
        """The table's part of a window. ``everything``: of every row of the table besides; ``only_gone``: of no row it has."""
        touched = _render(
            "touched",
            count=str(len(self._whole_key)),
            named=", ".join(_render("named_field", name=literal(name)) for name in self._whole_key),
            origin=literal(self._link.reverse.origin),
            ranges=", ".join(f"({low}, {high})" for low, high in zip(*ranges, strict=True)),
            routes=", ".join(f"({literal(route)})" for route in routes),
            relations=", ".join(map(str, self._numbers)),
            everything=self._every_key(changed_at) if everything else "",
        )
        return self._part(
            "change_part",
            touched=touched,
            base=self._base,
            values=self._values,
            gone=self._gone,
            same_row=" and ".join(self._same_row()),
            own_key=" and ".join(self._own_key()) or "true",
            there=_render("present", value=f"t.{quote(self._whole_key[0])}"),
            wanted=_render("only_gone") if only_gone else "true",
        )

    def state(self, changed_at: int) -> str:
        """The table's part of all there is."""
        return self._part("state_part", base=self._base, values=self._values, changed_at=str(changed_at))

    def chunk(self, span: KeyRange, changed_at: int) -> str:
        """The COPY of a chunk of the table's rows that are the site's; empty where no key was asked for."""
        known = {"base": self._base, "values": self._values, "changed_at": str(changed_at)}
        if span.wanted.keys is None:
            limit = str(span.wanted.limit)
            return copy_chunk(self._part("chunk_part", **known, behind=span.behind, order=span.order, limit=limit))
        if not span.wanted.keys:
            return ""
        part = self._part(
            "chunk_keys", **known, keys=span.keys, names=span.names, same_row=span.same_row,
            own_row=" and ".join(self._own_row()) or "true", gone=span.gone(self.relation.columns),
        )  # fmt: skip
        return copy_chunk(part)

    def rows(self) -> str:
        """A query whose rows are the site's."""
        return self._part("part_rows")

    def count(self) -> str:
        """How many rows are the site's."""
        return self._part("count_part")

    # --- pieces ---

    def _part(self, name: str, **fragments: str) -> str:
        numbered = {} if name in ("count_part", "part_rows") else {"relation": str(self.relation.id)}
        return _render(
            name,
            self._table,
            only=self._only,
            parents="\n".join(self._parents()),
            inside=self._inside,
            **numbered,
            **fragments,
        )

    @property
    def _table(self) -> Mapping[str, str]:
        return {"schema": self._plan.source.name.schema, "table": self._plan.source.name.name}

    @property
    def _only(self) -> str:
        return "only" if self._plan.source.kind == "inherited" else ""

    @property
    def _values(self) -> str:
        return quoted(self.relation.columns, "t.")

    @property
    def _gone(self) -> str:
        """Nothing but the key, out of what the outbox says of it."""
        return ", ".join(
            self._key_field(name) if name in self._plan.key else _render("missing") for name in self.relation.columns
        )

    def _key_field(self, name: str) -> str:
        return _render("key_field", name=f"k{self._whole_key.index(name)}")

    def _same_row(self) -> list[str]:
        return [
            f"t.{quote(name)} = {self._key_field(name)}::{self._plan.source.column(name).type}"
            for name in self._whole_key
        ]

    def _own_key(self) -> list[str]:
        """Another site's key constants are another row, which must not be told as gone."""
        tests = []
        for name, value in self._plan.source_constants:
            if name in self._whole_key:
                kind = self._plan.source.column(name).type
                field = f"{self._key_field(name)}::{kind}"
                tests.append(_render("key_constant", field=field, value=literal(value), type=kind))
        return tests

    def _every_key(self, changed_at: int) -> str:
        return _render(
            "every_key", self._table, key=quoted(self._whole_key, "t."), only=self._only, changed_at=str(changed_at)
        )

    def _parents(self) -> list[str]:
        joins, below = [], "t"
        for place, step in enumerate(self._plan.route.path):
            alias = f"p{place}"
            pairs = zip(step.columns, step.parent_columns, strict=True)
            ties = " and ".join(f"{alias}.{quote(there)} = {below}.{quote(here)}" for here, there in pairs)
            names = {"schema": step.parent.schema, "table": step.parent.name}
            joins.append(_render("parent", names, alias=alias, ties=ties).split(" from x ", 1)[1])
            below = alias
        return joins

    def _own_row(self) -> list[str]:
        """Whether a row has the site's own key constants."""
        constants = self._plan.source_constants
        return [_render("constant", column=f"t.{quote(name)}", value=literal(value)) for name, value in constants]

    @property
    def _inside(self) -> str:
        """Whether the row behind ``t`` is there and the site's."""
        tests = [_render("present", value=f"t.{quote(self._whole_key[0])}"), *self._own_row()]
        if self._plan.where:
            path = self._plan.route.path
            alias = quote(f"p{len(path) - 1}" if path else "t")
            tests.append(f"({alias.join(self._plan.where.postgres)})")
        return " and ".join(tests)

    @property
    def _base(self) -> str:
        """What the centre's ledger would have for the row, had the site sent it: over the site's columns in its own order."""
        if self._plan.direction is not Direction.BOTH:
            return _render("no_base")
        order = {column.name: place for place, column in enumerate(self._plan.target_shape.columns)}
        columns = sorted(self._plan.columns, key=lambda column: order[column.target])
        values = ", ".join(f"t.{quote(column.source)}" for column in columns)
        return _render("checksum_and_image" if self._plan.policy.merges else "checksum", values=values)


def make_slices(place: str, link: LinkName, plans: Sequence[TablePlan], relations: Relations) -> list[Slice]:
    """The slices of all plans. Raises SetupError for a table whose changes the centre does not capture (as planned)."""
    made = []
    for plan in plans:
        current = relations.current.get(plan.source.name)
        whole = {*plan.key, *(name for name, _ in plan.source_constants)}
        if current is None or not set(plan.key) <= set(current.key) <= whole:
            raise SetupError(
                f"{place}: changes of table {plan.source.name} are not captured as planned",
                hint="run: replicator install",
            )
        older = [each for each in relations.known.values() if each.table == current.table and each.id != current.id]
        made.append(Slice(link, plan, current, older))
    return made


def _render(name: str, identifiers: Mapping[str, str] | None = None, /, **fragments: str) -> str:
    lines = sqlfiles.statement(_SQL, name).splitlines()
    template = "\n".join(line for line in lines if not line.startswith("--"))
    return sqlfiles.render(template, identifiers=identifiers, fragments=fragments)


def copy_statement(parts: Sequence[str]) -> str:
    """The COPY of all parts, numbered through."""
    return _render("read_rows", parts="\nunion all\n".join(parts))
