"""Renders the statements that write rows of a lane's target together with their versions. Pure text."""

from __future__ import annotations

from replicator.engines.postgres.lane import Lane
from replicator.sqlfiles import literal, render, statement

_FILE = "sql/postgres/versions.sql"

_INSERTS = frozenset({"insert_clean", "insert_decided", "insert_loaded"})


class Versions:
    """The versions of one lane's rows.

    Args:
        lane: whose target's rows they are.
        feed: the target table's own feed.
        origin: who writes, as the ledger spells it; None: this database.
    """

    def __init__(self, lane: Lane, feed: int, origin: str | None) -> None:
        self._lane = lane
        self._feed = feed
        self._origin = origin

    def write(self, name: str, *, move: bool) -> str:
        """An applying statement of the lane that writes versions too; its only value is the count of rows written."""
        if name in _INSERTS:
            returned = self._part("done_to_new_row", key=self._lane.table_key())
            return self._part("add_rows", step=self._step(name, returned, move=move), new_key=self._lane.new_key)
        returned = self._part("done_to_row", key=self._lane.table_key("t."), old_key=self._lane.old_key)
        return self._part("move_rows" if move else "write_rows", step=self._step(name, returned, move=move))

    @property
    def insert_rows(self) -> str:
        """As ``write`` for rows of a backfill straight from the typed lane. Parameters: low, high."""
        lane = self._lane
        key = lane.whole_key([f"s.v{i}" for i in lane.key])
        alive = render(
            statement("sql/postgres/apply.sql", "alive"), fragments={"feed": str(self._feed), "new_key": key}
        )
        returned = self._part("done_to_new_row", key=lane.table_key())
        return self._part("add_loaded", step=lane.apply("insert_rows", returning=f"returning {returned}", alive=alive))

    @property
    def truncate(self) -> str:
        """The same for a TRUNCATE. Parameter: when it was."""
        returned = self._part("done_to_old_row", key=self._lane.table_key("t."))
        return self._part("write_rows", step=self._lane.truncate_site(f"returning {returned}"))

    @property
    def note_fresh(self) -> str:
        """Versions of rows inserted all at once."""
        return self._part("note_fresh", new_key=self._lane.new_key)

    @property
    def note_staged(self) -> str:
        """Versions of rows inserted straight from the stage. Parameter: relation."""
        staged = self._lane.whole_key([f"(s.a).v{i}" for i in self._lane.key])
        return self._part("note_staged", staged_key=staged)

    @property
    def note_retried(self) -> str:
        """Versions of a parked change that was tried again."""
        return self._part("note_retried", new_key=self._lane.new_key, old_key=self._lane.old_key)

    def _step(self, name: str, returned: str, *, move: bool) -> str:
        more = {"feed": str(self._feed), "new_key": self._lane.new_key} if name == "insert_loaded" else {}
        return self._lane.apply(name, move=move, returning=f"returning {returned}", **more)

    def _part(self, name: str, **fragments: str) -> str:
        lane = self._lane
        return render(
            statement(_FILE, name),
            identifiers={"change": lane.change, "image": lane.image},
            fragments={
                "feed": str(self._feed),
                "origin": "null" if self._origin is None else literal(self._origin),
                **fragments,
            },
        )
