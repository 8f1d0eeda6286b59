"""Which rows of a site have changes of the site's own that the centre has yet to process: the outbox beyond the marker.

They are kept in a temporary table by the key's text, so that a batch looks only at what the outbox has got since the one
before, and does so before it takes the write lock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicator.engines.sqlite.base import add_key_function, key_call
from replicator.engines.sqlite.session import Session, target_sql
from replicator.errors import BatchError, SetupError, rejoin_hint
from replicator.model import Direction, Position, TablePlan
from replicator.sqlfiles import render, statement

_CATALOGUE = "sql/sqlite/catalogue.sql"
_STRETCH = 10_000
"""Outbox rows looked at in one short read."""
NOWHERE = -1
"""Stands for the relation of a table that the site does not send."""


def follow_sql(name: str) -> str:
    """A statement of the file this link's applying is made of."""
    return statement("sql/sqlite/follow.sql", name)


def seq_of(position: Position | str) -> int:
    """The outbox row a site's position names."""
    return int(position.split(":")[1])


@dataclass(frozen=True, slots=True)
class Noted:
    """A table the site captures: its relation, and its key in the outbox in the order of the link from the centre.

    ``key``: the expression that makes the key text.
    """

    relation: int
    key: str


class Pending:
    """The site's own changes beyond the marker; lives as long as its session.

    Args:
        session: the link's connection.
        plans: what the link brings.
    """

    def __init__(self, session: Session, plans: Sequence[TablePlan]) -> None:
        self._session, self.plans = session, plans
        self._keys = {plan.target.name.lower(): plan.target_key for plan in plans if plan.direction is Direction.BOTH}
        self._connection: sqlite3.Connection | None = None
        self._noted: Mapping[str, Noted] = {}
        self.relations: tuple[int, ...] = ()
        """All relations of this topology: what its triggers write."""
        self.has_triggers = False
        """Whether the application has triggers of its own in the file."""
        self._schema_version: int | None = None
        self.gone_along: set[int] = set()
        """Parked rows that went in along with another one."""

    def look(self) -> None:
        """Take in what the outbox has got since the last time. Outside of a transaction: holds no lock."""
        run, connection = self._session.run, self._session.connection
        if connection is not self._connection:
            add_key_function(connection)
            run(follow_sql("create_pending"))
            self._connection, self._schema_version = connection, None
        (version,) = run(statement(_CATALOGUE, "schema_version")).fetchone()
        if version != self._schema_version:
            triggers = run(statement(_CATALOGUE, "list_triggers")).fetchall()
            self.has_triggers = any(not str(name).startswith("replicator_") for name, *_ in triggers)
            self._schema_version = version
        noted = self._find_tables()
        if noted != self._noted:
            run(follow_sql("empty_pending"))
            self._noted = noted
        stored = self.stored()
        start, top = max(self._upto(), stored), self.top()
        for low in range(start, top, _STRETCH):
            self._load(low, min(low + _STRETCH, top))
        if top > start:
            run(follow_sql("note_pending_upto"), top)
        run(follow_sql("forget_pending"), stored)

    def finish(self, top: int) -> None:
        """Under the write lock: take in what was committed since ``look``."""
        self._load(max(self._upto(), self.stored()), top)

    def _load(self, low: int, high: int) -> None:
        if high > low:
            for table in self._noted.values():
                sql = render(follow_sql("load_pending"), fragments={"key": table.key})
                self._session.run(sql, low, high, table.relation)

    def _upto(self) -> int:
        return int(self._session.run(follow_sql("pending_upto")).fetchone()[0])

    def top(self) -> int:
        """The newest outbox row."""
        return int(self._session.run(target_sql("outbox_top")).fetchone()[0] or 0)

    def stored(self) -> int:
        """The marker on record. Raises BatchError when the site's outbox was pruned without waiting for it."""
        found = self._session.run(follow_sql("read_marker"), self._session.link.text).fetchone()
        if found is not None and found[1] is not None:
            raise BatchError(
                f"{self._session.place}: link {self._session.link.reverse} was away longer than the retention, since "
                f"{found[1]}; which rows the site has changed is not known any more",
                hint=rejoin_hint(self._session.link.site),
            )
        return seq_of(str(found[0])) if found is not None else 0

    def noted(self, plan: TablePlan) -> Noted | None:
        """How the site captures a table that both sides write; ``None`` for one only the centre writes."""
        return self._noted.get(plan.target.name.lower()) if plan.direction is Direction.BOTH else None

    def reads_all(self, relation: int, behind: int) -> bool:
        """Whether the site is yet to send every row of a table."""
        return bool(self._session.run(follow_sql("reads_all_behind"), relation, behind).fetchone()[0])

    def _find_tables(self) -> Mapping[str, Noted]:
        topology = self._session.link.topology
        rows = self._session.run(statement("sql/sqlite/source.sql", "list_relations"), topology).fetchall()
        self.relations = tuple(int(number) for number, *_ in rows)
        known = {str(table).lower(): (int(number), json.loads(key)) for number, table, key, *_ in rows}
        found: dict[str, Noted] = {}
        for table, key in self._keys.items():
            number, places = known.get(table, (NOWHERE, []))
            if sorted(places) != sorted(key):
                raise SetupError(
                    f"{self._session.place}: table {table} is written from both sides, but its changes are not captured here "
                    f"by key {', '.join(key)}",
                    hint="run: replicator install",
                )
            found[table] = Noted(number, key_call([f"k{places.index(name)}" for name in key]))
        return found
