"""What a SQLite centre has on record of a site's shares of its tables, against what its rules say now."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from replicator.model import LinkName, TablePlan
from replicator.sqlfiles import statement

_SQL = "sql/sqlite/routed.sql"


class Shares:
    """The shares of one link from the centre: which rows and columns of which table its site gets.

    A table whose share is another than on record has to be read whole; that is put on record once the site has it.

    Args:
        link: the link from the centre.
        plans: its tables.
    """

    def __init__(self, link: LinkName, plans: Sequence[TablePlan]) -> None:
        self._link = link
        self._marks = {str(plan.source.name): plan.share_mark for plan in plans}
        self._settled = self._read = self._due = False

    def changed(self, connection: sqlite3.Connection) -> tuple[frozenset[str], tuple[str, ...]]:
        """Tables with another share than the site was given; and the routes it was read by then."""
        if self._settled:
            return frozenset(), ()
        found = connection.execute(statement(_SQL, "read_shares"), (self._link.text,)).fetchone()
        known = json.loads(found[0]) if found and found[0] else {}
        changed = frozenset(table for table, mark in self._marks.items() if known.get(table) != mark)
        self._settled, self._read = not changed, bool(changed)
        return changed, tuple(json.loads(found[1])) if changed and found and found[1] else ()

    def record(self, connection: sqlite3.Connection) -> None:
        """Put the present shares on record, inside a transaction of the caller."""
        connection.execute(statement(_SQL, "record_shares"), (self._link.text, json.dumps(self._marks)))
        self._settled, self._due = True, False

    def delivered(self) -> None:
        """What was read is durable at the site."""
        self._due, self._settled, self._read = self._due or self._read, self._settled or self._read, False

    @property
    def due(self) -> bool:
        """Whether the present shares are to be put on record."""
        return self._due
