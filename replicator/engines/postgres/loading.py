"""Renders the statements about one lane's rows of a backfill: loading, passing over, leaving alone. Pure text."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from replicator.engines.postgres.lane import Lane
from replicator.engines.postgres.pieces import piece
from replicator.sqlfiles import quote, quoted, render, statement


class Loading:
    """The rows that a backfill brings into one lane.

    Args:
        lane: the lane.
        number: its relation.
    """

    def __init__(self, lane: Lane, number: int) -> None:
        self._lane = lane
        self._number = str(number)

    @cached_property
    def load(self) -> str:
        """Text lane → change. Parameters: relation, low, high."""
        lane = self._lane
        key, values = lane.listed("(s.a).v", lane.key), lane.listed("(s.a).v", lane.live)
        columns = f"{lane.keys()}, {lane.listed('b', lane.live)}, {lane.listed('a', lane.live)}"
        return self._render("load_loaded", columns=columns, values=f"{key}, {values}, {values}")

    @property
    def goes_straight(self) -> bool:
        """Whether rows may go from the source into the table as they are: all of every row, and nothing is kept of them."""
        lane = self._lane
        whole = len(lane.live) == len(lane.columns)
        return whole and lane.inserts_straight and not (lane.plan.constants or lane.plan.versioned)

    @cached_property
    def copy_target(self) -> str:
        """COPY into the table."""
        return self._render("copy_target", columns=quoted([self._lane.plan_column(i).target for i in self._lane.live]))

    @cached_property
    def count_same(self) -> str:
        """How many rows of the typed lane stand already. Parameters: low, high."""
        lane = self._lane
        keys = [piece("equals", left=f"t.{quote(lane.plan_column(i).target)}", right=f"s.v{i}") for i in lane.key]
        same_row = " and ".join([*lane.own_rows("t"), *keys])
        return self._render("count_same", same_row=same_row, current=lane.target_values, fitted=lane.fitted("s.v"))

    def touched(self, *, typed: bool) -> str:
        """The keys that changes of the lane touch."""
        if typed:
            return self._render("touched_rows", keys=self._lane.texts("v", self._lane.key))
        return self._render("touched_text", keys=self._lane.listed("(k.v).v", self._lane.key))

    def pass_over(self, touched: Iterable[str], *, typed: bool) -> str:
        """Takes rows out whose keys are among the touched. Parameter: where they begin."""
        keys = self._lane.texts("s.v", self._lane.key) if typed else self._lane.listed("(k.v).v", self._lane.key)
        name = "pass_over_rows" if typed else "pass_over_text"
        return self._render(name, keys=keys, touched=" union all ".join(touched))

    @cached_property
    def drop_same(self) -> str:
        """Takes rows out of the span that stand already. Parameter where the ledger keeps beliefs: feed."""
        lane = self._lane
        after = lane.fitted("c.a")
        image = piece("record_if", there="c.present", values=after) if lane.plan.policy.merges else "null"
        return self._render(
            "drop_same_believed" if lane.plan.ledgered else "drop_same",
            same_row=lane.same_row("c.k"),
            current=lane.target_values,
            fitted=after,
            there=piece("is_there", value=f"t.{quote(lane.plan_column(lane.key[0]).target)}"),
            key=lane.change_key_text,
            after=after,
            image=image,
        )

    def _render(self, name: str, **fragments: str) -> str:
        lane, target = self._lane, self._lane.plan.target
        lines = statement("sql/postgres/apply.sql", name).splitlines()
        return render(
            "\n".join(line for line in lines if not line.startswith("--")),
            identifiers={
                "image": lane.image, "text": lane.text, "rows": lane.rows, "change": lane.change, "schema": target.schema,
                "table": target.name,
            },
            fragments={"relation": self._number, **fragments},
        )  # fmt: skip
