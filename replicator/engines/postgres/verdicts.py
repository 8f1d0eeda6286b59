"""Renders the statements about one lane's conflicts: finding, merging, parking, answering. Pure text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.pieces import as_text, piece
from replicator.sqlfiles import literal, quote, render, statement

_FILE = "sql/postgres/conflicts.sql"


class Verdicts:
    """The conflicts of one lane."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.targets = [lane.plan_column(i).target for i in lane.live]

    @cached_property
    def lock_rows(self) -> str:
        """Locks the target's rows that the span is about."""
        return self._render("lock_rows", same_row=self._lane.same_row("c.k"))

    def find_conflicts(self, *, move: bool, origin: str) -> str:
        """Finds what is neither applied nor already there; ``move`` looks under the new key too.

        Parameters: feed of versions, relation number. ``origin``: the link's, by which counters are told from rows that this
        very change has written.
        """
        lane = self._lane
        present = piece("is_there", value=f"t.{quote(lane.plan_column(lane.key[0]).target)}")
        return self._render(
            "find_conflicts",
            key=lane.old_key,
            version=lane.old_key,
            t_present=present,
            has_before="false" if lane.plan.ledgered else "c.existed",
            before=lane.texts("c.b", lane.live),
            after=lane.texts("c.a", lane.live),
            current=", ".join(as_text(f"t.{quote(name)}") for name in self.targets),
            t_values=lane.target_values,
            c_after=lane.fitted("c.a"),
            same_row=lane.same_row("c.k"),
            arrived=self._arrived if move else "false",
            counted=self._counted(origin) if lane.plan.policy.adds and lane.plan.versioned else "false",
            untouched=self._untouched,
            answer=self._answer if lane.plan.policy.rule and lane.plan.policy.rule.postgres else literal(""),
        )

    def _counted(self, origin: str) -> str:
        return piece("counted", unchanged=self._lane.unchanged, origin=literal(origin))

    @property
    def _untouched(self) -> str:
        lane = self._lane
        if lane.plan.ledgered:
            same = piece("same_checksum", current=lane.fitted("c.a"))
        else:
            same = piece("same_image", current=lane.fitted("c.a"), base=lane.fitted("c.b"))
        return piece("untouched", same=same)

    @property
    def _arrived(self) -> str:
        lane = self._lane
        return render(
            statement("sql/postgres/pieces.sql", "arrived"),
            identifiers={"schema": lane.plan.target.schema, "table": lane.plan.target.name},
            fragments={
                "same_row": self._same_new_row,
                "current": lane.target_values,
                "after": lane.fitted("c.a"),
            },
        )

    @property
    def _same_new_row(self) -> str:
        lane = self._lane
        keys = [piece("equals", left=f"t.{quote(lane.plan_column(i).target)}", right=f"c.a{i}") for i in lane.key]
        return " and ".join(lane.own_rows("t") + keys)

    @property
    def _answer(self) -> str:
        """The user's rule over the three rows, each in the target's own types."""
        lane, rule = self._lane, self._lane.plan.policy.rule
        assert rule is not None
        base = self._fields("b", "c.existed") if not lane.plan.ledgered else self._stored
        return render(
            statement("sql/postgres/pieces.sql", "rule_answer"),
            identifiers={"base": lane.base},
            fragments={
                "rule": rule.postgres,
                "site": self._fields("a", "c.present"),
                "centre": ", ".join(
                    piece("named", value=f"t.{quote(name)}", name=quote(name)) for name in self.targets
                ),
                "base": base,
                "count": str(len(lane.live)),
            },
        )

    def _fields(self, side: str, there: str) -> str:
        return ", ".join(
            piece("named_if", there=there, value=self._typed(f"c.{side}{i}", i), name=quote(name))
            for i, name in zip(self._lane.live, self.targets, strict=True)
        )

    @property
    def _stored(self) -> str:
        pairs = zip(self._lane.live, self.targets, strict=True)
        return ", ".join(piece("named", value=self._typed(f"(s.image).v{i}", i), name=quote(name)) for i, name in pairs)

    def _typed(self, value: str, place: int) -> str:
        return piece("as_type", value=value, type=self._lane.plan_column(place).target_type)

    @cached_property
    def merge_decided(self) -> str:
        """Puts the rows that merges made into the span. Parameter: relation number."""
        lane = self._lane
        staged = [(i, f"m.{quote(name)}") for i, name in zip(lane.live, self.targets, strict=True)]
        return self._render(
            "merge_decided",
            set=", ".join(f"a{i} = {piece('as_type', value=value, type=lane.staging(i))}" for i, value in staged),
            columns=", ".join(f"{quote(name)} text" for name in self.targets),
        )

    @cached_property
    def park_decided(self) -> str:
        """Moves decided changes to the parked ones.

        Parameters: link, table, columns, cause, position, relation number, number to keep.
        """
        lane = self._lane
        ledgered = lane.plan.ledgered
        before = piece("record_if", there="false" if ledgered else "c.existed", values=lane.texts("c.b", lane.live))
        after = piece("record_if", there="true" if ledgered else "c.present", values=lane.texts("c.a", lane.live))
        op = piece("op_of_state" if ledgered else "op_of_images")
        return self._render("park_decided", key=lane.change_key_text, op=op, before=before, after=after)

    def record_ledger(self, *, loaded: bool = False) -> Sequence[str]:
        """Statements that write what the site now believes; of a backfill's rows whatever the ledger knows of them.

        Parameters: feed, relation number.
        """
        lane = self._lane
        after = lane.fitted("c.a")
        image = piece("record_if", there="c.present", values=after) if lane.plan.policy.merges else "null"
        known = "true" if loaded else piece("is_there", value="c.base")
        names = ("record_ledger_known",) if loaded else ("record_ledger_new", "record_ledger_known")
        return [self._render(name, key=lane.change_key_text, after=after, image=image, known=known) for name in names]

    def add_corrections(self, *, loaded: bool = False) -> str:
        """Parameters: relation here, route, relation number of the change."""
        which = "true" if loaded else piece("not_applied")
        return self._render("add_corrections", old_key=self._lane.old_key, new_key=self._lane.new_key, which=which)

    @cached_property
    def correct_nothing(self) -> str:
        """Parameters: relation here, route."""
        return self._render("correct_nothing", old_key=self._lane.old_key, same_row=self._lane.same_row("c.k"))

    @cached_property
    def correct_there(self) -> str:
        """Parameters: relation here, route."""
        lane = self._lane
        return self._render(
            "correct_there", new_key=lane.new_key, same_row=self._same_new_row, t_values=lane.target_values,
            c_after=lane.fitted("c.a"),
        )  # fmt: skip

    @cached_property
    def correct_held(self) -> str:
        """Parameters: relation here, route, link, table, columns."""
        return self._render("correct_held", key=self._lane.whole_key([f"(s.a).v{i}" for i in self._lane.key]))

    def _render(self, name: str, **fragments: str) -> str:
        target = self._lane.plan.target
        return render(
            statement(_FILE, name),
            identifiers={
                "change": self._lane.change, "text": self._lane.text, "schema": target.schema, "table": target.name,
            },
            fragments=fragments,
        )  # fmt: skip
