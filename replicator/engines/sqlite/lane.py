"""The statements that bring one relation's rows into one target table: templates of ``sql/sqlite/apply.sql``, filled.

In the statements t is the target table, n the net row, l and f the last and first staged change, g the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from replicator.engines.sqlite import references
from replicator.engines.sqlite.affinity import Affinity, affinity_of
from replicator.engines.sqlite.references import ForeignKeyCheck
from replicator.engines.sqlite.values import Converter, checksum_call, converter, image_call, key_maker
from replicator.model import Engine, PolicyName, Relation, TableName, TablePlan, TableShape
from replicator.sqlfiles import literal, quote, quoted, render, statement

_SQL = "sql/sqlite/apply.sql"
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


def rowid_of(shape: TableShape) -> str:
    """The name by which a table's rowid can be had; empty where it has none."""
    taken = {column.name.lower() for column in shape.columns}
    return next((name for name in _ROWID_NAMES if name not in taken), "") if shape.kind != "without_rowid" else ""


@dataclass(frozen=True)
class Lane:
    """One relation on its way into one table.

    Args:
        relation: what the source calls the rows, without columns that are not planned any more.
        plan: where they go.
        shape: the target table as it is.
        shapes: all tables of the target, for foreign keys.
        live: places of the relation's columns in an image as it comes.
    """

    relation: Relation
    plan: TablePlan
    shape: TableShape
    shapes: Mapping[TableName, TableShape]
    live: tuple[int, ...]

    def project(self, image: Sequence[object] | None) -> Sequence[object] | None:
        """An image as it comes, without the values of columns that are not planned any more."""
        if image is None or len(image) == len(self.live):
            return image
        return [image[place] for place in self.live]

    def whole(self, image: Sequence[object]) -> Sequence[object]:
        """A row of which only the key came, in a whole row's places; a whole row as ``project`` gives it."""
        if len(image) > max(self.live, default=0) or len(image) != len(self.key_places):
            return self.project(image) or ()
        values: list[object] = [None] * len(self.columns)
        for place, value in zip(self.key_places, image, strict=True):
            values[place] = value
        return values

    @property
    def place(self) -> str:
        """The target table as the bookkeeping names it."""
        return str(self.plan.target)

    @property
    def ledgered(self) -> bool:
        """Whether the source gives states instead of before images."""
        return self.plan.source_engine is Engine.SQLITE

    @property
    def columns(self) -> tuple[str, ...]:
        """Source columns in image order."""
        return self.relation.columns

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """Target columns in image order."""
        names = {column.source: column.target for column in self.plan.columns}
        return tuple(names[column] for column in self.relation.columns)

    @cached_property
    def key_places(self) -> tuple[int, ...]:
        """Places of the key in an image."""
        return tuple(self.relation.columns.index(name) for name in self.plan.key)

    @cached_property
    def key_of(self) -> Callable[[Sequence[object]], str]:
        """Makes the key text from an image."""
        return key_maker([value for _, value in self.plan.constants], self.key_places)

    @cached_property
    def key_of_row(self) -> Callable[[Sequence[object]], str]:
        """Makes the key text from a row of a RowBlock."""
        return key_maker([value for _, value in self.plan.constants], [place + 3 for place in self.key_places])

    @cached_property
    def converters(self) -> tuple[Converter | None, ...]:
        """Per image place: PostgreSQL's text → what the target stores."""
        types = {column.source: column.source_type for column in self.plan.columns}
        return tuple(
            converter(types[source], target_type)
            for source, target_type in zip(self.relation.columns, self.target_types, strict=True)
        )

    @cached_property
    def target_types(self) -> tuple[str, ...]:
        """Declared types of the target columns in image order."""
        return tuple(self.shape.column(name).type for name in self.targets)

    # --- stage ----------------------------------------------------------------------------------------------------

    @cached_property
    def stage_state(self) -> tuple[str, str]:
        """For a change, and for a row of a backfill. Parameters: ordinal, op, time, values, key text."""
        keys = [f"k{place}" for place in range(len(self.key_places))]
        columns = ["loaded", "ord", "relation", "op", "changed_at", *keys, *self.images("a", ""), quote("key")]
        values = ["0", "?1 * 2", str(self.relation.id), "?2", "?3", *(f"?{place + 4}" for place in self.key_places)]
        values += [f"?{place + 4}" for place in range(len(self.targets) + 1)]
        fragments = {"columns": ", ".join(columns), "values": ", ".join(values)}
        loaded = {**fragments, "values": ", ".join(["1", *values[1:]])}
        return self._render("stage_state", fragments), self._render("stage_state", loaded)

    @cached_property
    def stage_change(self) -> str:
        """Parameters: ordinal, relation, op, time, key text, fault, raw images, loaded, key, before and after values."""
        columns = ["ord", "relation", "op", "changed_at", quote("key"), "fault", "raw_before", "raw_after", "loaded"]
        columns += [f"k{place}" for place in range(len(self.key_places))]
        columns += self.images("b", "") + self.images("a", "")
        values = ", ".join("?" * len(columns))
        return self._render("stage_change", {"columns": ", ".join(columns), "values": values})

    @cached_property
    def staged_at(self) -> str:
        """Parameter: ordinal."""
        values = ", ".join(self.images("b", "") + self.images("a", ""))
        return self._render("staged_at", {"values": values})

    # --- net ------------------------------------------------------------------------------------------------------

    @cached_property
    def load_net(self) -> str:
        """Parameters: relation, first and last ordinal; ledgered also link and table."""
        keys = [f"k{place}" for place in range(len(self.key_places))]
        images = [("a", "l")] if self.ledgered else [("b", "f"), ("a", "l")]
        places = keys + [name for image, _ in images for name in self.images(image, "")]
        values = [f"l.{key}" for key in keys] + [name for image, of in images for name in self.images(image, f"{of}.")]
        if not self.ledgered:
            values[len(keys) : len(keys) + len(self.columns)] = self._first_images
        fragments = {
            "places": ", ".join(places),
            "values": ", ".join(values),
            "found": self._found,
            "place": self._rowid_of("t") or "null",
            "same_after": self._same("a", "l"),
            "same_key": self._same_key("t", "l"),
            "counts": str(int(self.plan.policy.adds)),
        }
        if self.ledgered:
            now = [f"t.{quote(name)}" for name in self.targets]
            fragments["current_checksum"] = checksum_call([now[place] for place in self.by_name])
            return self._render("load_states", fragments)
        same = {"same_before": self._same("b", "f"), "same_first": self._same("a", "f")}
        return self._render("load_images", fragments | same)

    @cached_property
    def load_loaded(self) -> str:
        """Parameters: relation, first and last ordinal."""
        keys = [f"k{place}" for place in range(len(self.key_places))]
        places = keys + ([] if self.ledgered else self.images("b", "")) + self.images("a", "")
        fragments = {
            "places": ", ".join(places),
            "values": ", ".join(f"l.{name}" for name in places),
            "found": self._found,
            "place": self._rowid_of("t") or "null",
            "same_after": self._same("a", "l"),
            "same_key": self._same_key("t", "l"),
        }
        return self._render("load_loaded", fragments)

    @property
    def _first_images(self) -> list[str]:
        """What a row was at first: before the first change; of one that came and went, behind it."""
        came_and_went = "l.op = 'd' and f.op not in ('u', 'd')"
        return [f"case when {came_and_went} then f.a{place} else f.b{place} end" for place in range(len(self.columns))]

    def _same(self, image: str, of: str) -> str:
        """Equal in every column, class included; PostgreSQL's 1 and 1.0 are two values here."""
        now = [f"(t.{quote(name)} collate binary)" for name in self.targets]
        staged = self.images(image, f"{of}.")
        classes = [[f"typeof({value})" for value in side] for side in (now, staged)]
        return f"({', '.join(now)}) is ({', '.join(staged)}) and ({', '.join(classes[0])}) is ({', '.join(classes[1])})"

    def _same_key(self, table: str, row: str) -> str:
        """By the target's own index, and the same byte for byte where its collation is loose."""
        parts = [f"{table}.{quote(name)} = {literal(value)}" for name, value in self.plan.constants]
        for place, name in enumerate(self._key_targets):
            column, now, noted = self.shape.column(name), f"{table}.{quote(name)}", f"{row}.k{place}"
            parts.append(f"{now} = {noted}")
            if column.collation or affinity_of(column.type) is Affinity.BLOB:
                parts.append(f"({now} collate binary) = {noted} and typeof({now}) = typeof({noted})")
        return " and ".join(parts)

    @property
    def _key_targets(self) -> tuple[str, ...]:
        return tuple(self.targets[place] for place in self.key_places)

    @cached_property
    def _found(self) -> str:
        return f"{self._rowid_of('t') or 't.' + quote(self._key_targets[0])} is not null"

    # --- apply ----------------------------------------------------------------------------------------------------

    @cached_property
    def deletes(self) -> str:
        """Parameters of this and the next: relation, verdict."""
        return self._render("apply_deletes", {"located": self._located})

    @cached_property
    def updates(self) -> str:
        """Empty when the table has nothing but its key."""
        sets = [
            f"{quote(name)} = n.a{place}" for place, name in enumerate(self.targets) if place not in self.key_places
        ]
        return self._render("apply_updates", {"sets": ", ".join(sets), "same_row": self._same_row}) if sets else ""

    @cached_property
    def inserts(self) -> str:
        """Constants first, then the values."""
        columns = [name for name, _ in self.plan.constants] + list(self.targets)
        values = [literal(value) for _, value in self.plan.constants] + self.images("a", "n.")
        key = ", ".join(f"n.k{place}" for place in range(len(self.key_places)))
        return self._render("apply_inserts", {"columns": quoted(columns), "values": ", ".join(values), "key": key})

    @cached_property
    def mark_vacated(self) -> str:
        """Parameters: relation, verdict, new verdict. Empty when the table has no unique columns besides its key."""
        places = {name: f"n.a{place}" for place, name in enumerate(self.targets)}
        unique = {name for index in self.shape.uniques if not index.primary for name in index.columns}
        partial = any(not index.exact for index in self.shape.uniques)
        names = [name for name in self.targets if (name in unique or partial) and name not in self._key_targets]
        moves = " or ".join(f"t.{quote(name)} is not {places[name]}" for name in names)
        return self._render("mark_vacated", {"same_row": self._same_row, "moves": moves}) if names else ""

    @cached_property
    def keep_vacated(self) -> str:
        """No parameters: SQLite takes none where a table is made."""
        return self._render("keep_vacated", {"same_row": self._same_row, "relation": str(self.relation.id)})

    @cached_property
    def return_vacated(self) -> str:
        """Parameters: relation, verdict."""
        replicated = {name: f"n.a{place}" for place, name in enumerate(self.targets)}
        columns = [column.name for column in self.shape.columns if not column.generated]
        values = [replicated.get(name, f"v.{quote(name)}") for name in columns]
        fragments = {"columns": quoted(columns), "values": ", ".join(values)}
        return self._render("return_vacated", fragments, vacated="replicator_vacated", ord="replicator_ord")

    @cached_property
    def truncate(self) -> str:
        """Removes this site's rows."""
        mine = " and ".join(f"{quote(name)} = {literal(value)}" for name, value in self.plan.constants)
        return self._render("truncate_site", {"mine": mine or "1"})

    @cached_property
    def write_ledger(self) -> str:
        """Parameters: link, table, relation, verdicts."""
        values = [f"n.a{place}" for place in self.by_name]
        image = image_call(values) if self.plan.policy.merges else "null"
        return self._render("write_ledger", {"checksum": checksum_call(values), "image": image})

    @cached_property
    def by_name(self) -> tuple[int, ...]:
        """Image places in the order of the target columns' names: what checksums and kept images are made in.

        It is the same on both links of a site, and for every version of the table with these columns.
        """
        return tuple(sorted(range(len(self.targets)), key=self.targets.__getitem__))

    def find_conflicts(self, version_key: str) -> str:
        """Parameters: relation, last ordinal, verdicts, page size, table."""
        values = self.images("b", "n.") + self.images("a", "n.") + [f"t.{quote(name)}" for name in self.targets]
        fragments = {"values": ", ".join(values), "same_row": self._same_row, "version_key": version_key}
        return self._render("find_conflicts", fragments | {"answer": self._answer, "untouched": self._untouched})

    @property
    def _untouched(self) -> str:
        if self.ledgered:
            after = self.images("a", "n.")
            return f"n.base_checksum = {checksum_call([after[place] for place in self.by_name])}"
        pairs = zip(self.images("b", "n."), self.images("a", "n."), strict=True)
        return " and ".join(f"{was} is {now} and typeof({was}) = typeof({now})" for was, now in pairs)

    @cached_property
    def _answer(self) -> str:
        """What the table's SQL rule says, as an expression."""
        policy = self.plan.policy
        if policy.rule is None or not policy.rule.sqlite or PolicyName.RULE not in policy.names:
            return "''"
        count = len(self.targets)
        kept = {place: f"replicator_value(n.base_image, {spot}, {count})" for spot, place in enumerate(self.by_name)}
        constants = [f"{literal(value)} as {quote(name)}" for name, value in self.plan.constants]
        rows: dict[str, list[str]] = {"site": constants[:], "centre": constants[:], "base": constants[:]}
        for place, name in enumerate(self.targets):
            base = kept[place] if self.ledgered else f"n.b{place}"
            rows["site"].append(f"case when n.present then n.a{place} end as {quote(name)}")
            rows["centre"].append(f"t.{quote(name)} as {quote(name)}")
            rows["base"].append(f"case when n.existed then {base} end as {quote(name)}")
        filled = {alias: ", ".join(columns) for alias, columns in rows.items()}
        return self._render("rule_answer", filled | {"rule": policy.rule.sqlite})

    @cached_property
    def merge(self) -> str:
        """Parameters: ordinal, after values."""
        sets = ", ".join(f"a{place} = ?{place + 2}" for place in range(len(self.targets)))
        return self._render("merge", {"sets": sets})

    @cached_property
    def current_row(self) -> str:
        """Parameter: ordinal."""
        values = ", ".join(f"t.{quote(name)}" for name in self.targets)
        return self._render("current_row", {"values": values, "same_row": self._same_row})

    @cached_property
    def net_change(self) -> str:
        """Parameter: ordinal."""
        return self._render("net_change", {"values": ", ".join(self.images("b", "n.") + self.images("a", "n."))})

    # --- foreign keys ---------------------------------------------------------------------------------------------

    @cached_property
    def orphaned(self) -> tuple[ForeignKeyCheck, ...]:
        """Parameters: relation, verdicts."""
        return tuple(references.orphaned(self.shape, self.shapes, self._same_key("t", "n")))

    @cached_property
    def bereaved(self) -> tuple[ForeignKeyCheck, ...]:
        """Parameters: relation, verdicts; none for ``whole``."""
        places = {name.lower(): f"n.k{place}" for place, name in enumerate(self._key_targets)}
        places |= {name.lower(): literal(value) for name, value in self.plan.constants}
        return tuple(references.bereaved(self.shape, self.shapes, places))

    @property
    def parents(self) -> Iterator[str]:
        """Names of the tables this one refers to."""
        return (key.parent.name.lower() for key in self.shape.foreign_keys)

    # --- pieces ---------------------------------------------------------------------------------------------------

    def images(self, image: str, prefix: str) -> list[str]:
        """The columns of an image (b, a) behind a prefix."""
        return [f"{prefix}{image}{place}" for place in range(len(self.relation.columns))]

    @cached_property
    def _rowid(self) -> str:
        return rowid_of(self.shape)

    def _rowid_of(self, table: str) -> str:
        return f"{table}.{self._rowid}" if self._rowid else ""

    @cached_property
    def _same_row(self) -> str:
        """Finds the target row of a net row that was found before."""
        return f"t.{self._rowid} = n.place" if self._rowid else self._same_key("t", "n")

    @cached_property
    def _located(self) -> str:
        if self._rowid:
            # "rowid" in quotes would be a text where a table has no rowid; this one has.
            return self._render("located_by_rowid", {}, rowid=self._rowid)
        key = [name for name, _ in self.plan.constants] + list(self._key_targets)
        values = [literal(value) for _, value in self.plan.constants]
        values += [f"n.k{place}" for place in range(len(self.key_places))]
        return self._render("located_by_key", {"key": quoted(key), "values": ", ".join(values)})

    def _render(self, name: str, fragments: Mapping[str, str], **identifiers: str) -> str:
        names = {"table": self.shape.name.name, **identifiers}
        return render(statement(_SQL, name), identifiers=names, fragments=fragments)
