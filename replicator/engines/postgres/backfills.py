"""Backfills of one link at a PostgreSQL target: orders, the next chunk, and how far each has got."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from replicator.canonical import Undecodable
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.session import Session
from replicator.errors import SetupError, StaleError
from replicator.model import (
    Backfill,
    BackfillState,
    Chunk,
    ChunkRequest,
    Key,
    Position,
    Prefer,
    TableName,
    TablePlan,
    backfill_of,
)
from replicator.sqlfiles import statement

_KINDS = {"bytes": bytes, "text": Undecodable}
"""Values that JSON has no form for, by their mark in a stored key; the latter is text of a SQLite source that is not UTF-8."""


def backfill_sql(name: str) -> str:
    """A statement of the backfill file."""
    return statement("sql/postgres/backfill.sql", name)


class Backfills:
    """What the link's backfills want, and what became of it.

    A database whose tables were installed before there were backfills has none: everything but an order works there.

    Args:
        session: the link's.
        plans: the link's tables.
    """

    def __init__(self, session: Session, plans: Sequence[TablePlan]) -> None:
        self._session = session
        self._plans = {plan.source.name: plan for plan in plans}
        self._known_on: PostgresConnection | None = None
        self._ahead: Sequence[object] | None = None
        self._prefers: Mapping[int, Prefer] = {}
        self._loading: frozenset[str] | None = None
        self.wanted: ChunkRequest | None = None
        """The chunk that was asked for last, until the position is read again."""
        self.seen: str | None = None
        """What the site is known to have had of this database's changes before the chunk was read (a pg_snapshot)."""
        self.goes_on = False
        """Whether the batch in hand brought a chunk, and more are to come."""

    @property
    def known(self) -> bool:
        """Whether the database has tables for backfills."""
        connection = self._session.connection
        if self._known_on is not connection:
            known = self._session.one(backfill_sql("has_backfills"), prepare=True)[0]
            self._known_on = connection if known else None
        return self._known_on is connection

    # --- what is wanted ---

    def read_position(self) -> Position | None:
        """The link's position; what the oldest backfill wants is learnt in the same look."""
        self.wanted = self._ahead = None
        if not self.known:
            return self._session.read_link()[1]
        link = self._session.link
        found = self._session.run(
            backfill_sql("read_position"), link.topology, link.site, link.direction, prepare=True
        ).fetchone()
        if found is None:
            return self._session.read_link()[1]  # says that the link is gone
        self._ahead = found[1:]
        return None if found[0] is None else Position(found[0])

    def next_chunk(self) -> ChunkRequest | None:
        """See ports.Target."""
        if self._ahead is None:
            self.read_position()
        ahead, self._ahead = self._ahead, None
        self.wanted = None
        if ahead is None or ahead[0] is None:
            return None
        due = ahead if self._loads(ahead) else self._another_due()
        if due is None:
            return None
        number, schema, table, prefer, keyed, behind, limit = cast(
            "tuple[int, str, str, str, bool, str | None, int]", due
        )
        keys, upto = self._read_keys(number, behind, limit) if keyed else (None, None)
        seen = self._session.run(backfill_sql("read_seen"), self._session.link.reverse.text).fetchone()
        self.seen = None if seen is None else str(seen[0])
        self._prefers = {number: Prefer(prefer)}
        self.wanted = ChunkRequest(number, TableName(schema, table), behind, limit, keys, upto)
        return self.wanted

    def _loads(self, due: Sequence[object]) -> bool:
        """Whether the link can bring rows of the table at present."""
        plan = self._plans.get(TableName(str(due[1]), str(due[2])))
        return plan is not None and not plan.hold

    def _another_due(self) -> Sequence[object] | None:
        found = self._session.run(backfill_sql("list_due"), self._session.link_id).fetchall()
        return next((row for row in found if self._loads(row)), None)

    def _read_keys(self, backfill: int, behind: str | None, limit: int) -> tuple[list[Key], str | None]:
        found = self._session.run(backfill_sql("read_keys"), backfill, int(behind or 0), limit).fetchall()
        return [_decode(key) for _, key in found], str(found[-1][0]) if found else behind

    # --- what came ---

    def hold(self) -> None:
        """Keep the backfill whose chunk was asked for as it is until the transaction ends; called at its start.

        Raises StaleError when it was moved, paused or ended meanwhile.
        """
        self._loading, self.goes_on = None, False
        if self.wanted is not None:
            given = self.wanted.backfill, self._session.link_id, self.wanted.behind
            if self._session.run(backfill_sql("hold"), *given, prepare=True).fetchone() is None:
                raise self._stale()

    def prefer(self, chunk: Chunk) -> Prefer:
        """Whose rows stand where a chunk's rows meet others."""
        return self._prefers[chunk.backfill]

    def record(self, chunk: Chunk, differing: int) -> Chunk:
        """Move the backfill to the end of a chunk; the chunk, ``last`` as it is for this backfill. Raises StaleError."""
        if self.wanted is None or self.wanted.backfill != chunk.backfill:
            raise self._stale()
        found = self._session.run(
            backfill_sql("record_chunk"), chunk.backfill, self._session.link_id, self.wanted.behind, chunk.upto, chunk.rows,
            differing, chunk.last, prepare=True,
        ).fetchone()  # fmt: skip
        if found is None:
            raise self._stale()
        over = bool(found[0])
        self.goes_on = not over
        if over and self.wanted.keys is not None:
            self._session.run(backfill_sql("forget_keys"), chunk.backfill)
        self.wanted = None
        return Chunk(chunk.backfill, chunk.upto, chunk.rows, over)

    def _stale(self) -> StaleError:
        return StaleError(
            f"{self._session.place}: a backfill of link {self._session.link} was moved or ended meanwhile"
        )

    def loading(self, table: str) -> bool:
        """Whether a row that this target table lacks may not have been brought yet."""
        if self._loading is None:
            found = self._session.run(backfill_sql("loading_tables"), self._session.link_id) if self.known else ()
            plans = (self._plans.get(TableName(*row)) for row in found)
            self._loading = frozenset(str(plan.target) for plan in plans if plan is not None)
        return table in self._loading

    # --- orders ---

    def order(
        self, table: TableName, keys: Iterable[Key] | None, prefer: Prefer, chunk_rows: int, rate: int, estimate: int,
        reason: str, held: bool = False,
    ) -> Backfill:  # fmt: skip
        """See ports.Target."""
        self._check_order(table, prefer)
        run, link = self._session.run, self._session.link_id
        names = table.schema, table.name
        with self._session.connection.transaction():
            state = BackfillState.PAUSED if held else BackfillState.WAITING
            given = link, *names, prefer, keys is not None, max(chunk_rows, 1), max(rate, 0), max(estimate, 0), reason
            made = run(backfill_sql("order_backfill"), *given, state).fetchone()
            if made is not None and keys is not None:
                self._copy_keys(int(made[0]), keys)
            found = made or run(backfill_sql("find_ordered"), link, *names).fetchone()
        if found is None:
            raise self._stale()  # it ended just now; ordered again, it is made
        return next(each for each in self.list() if each.id == found[0])

    def _check_order(self, table: TableName, prefer: Prefer) -> None:
        link = self._session.link
        if not self.known:
            raise SetupError(
                f"{self._session.place}: our tables here are from before there were backfills",
                hint="run: replicator install",
            )
        if table not in self._plans:
            raise SetupError(
                f"link {link} does not bring table {table}", hint="run: replicator plan, which names the tables"
            )
        if prefer is Prefer.TARGET and not link.direction.rises:
            raise SetupError(
                f"link {link}: a site's rows cannot be preferred to the centre's, which decides",
                hint=f"to keep what {link.site} has, bring it to the centre: order the backfill there, for the other direction",
            )

    def _copy_keys(self, backfill: int, keys: Iterable[Key]) -> None:
        count = 0
        with self._session.connection.cursor() as cursor, cursor.copy(backfill_sql("copy_keys").encode()) as copy:
            for count, key in enumerate(keys, 1):
                copy.write_row((backfill, count, _encode(key)))
        self._session.run(backfill_sql("count_keys"), backfill, count)

    def list(self, *, unfinished: bool = False) -> Sequence[Backfill]:
        """See ports.Target."""
        if not self.known:
            return []
        link = self._session.link
        listed = self._session.run(statement("sql/postgres/orders.sql", "list_orders"), link.topology, unfinished)
        return [found for found in (backfill_of(link.topology, row) for row in listed.fetchall()) if found.link == link]

    def steer(self, backfill: int, state: BackfillState) -> bool:
        """See ports.Target."""
        if state not in (BackfillState.PAUSED, BackfillState.RUNNING, BackfillState.CANCELLED):
            raise SetupError(f"a backfill cannot be made {state}", hint="pause, resume or cancel it")
        if not self.known:
            return False
        with self._session.connection.transaction():
            steered = self._session.run(backfill_sql("steer_backfill"), backfill, self._session.link_id, state).rowcount
            if steered and state is BackfillState.CANCELLED:
                self._session.run(backfill_sql("forget_keys"), backfill)
        return bool(steered)


def _encode(key: Key) -> str:
    """A key as JSON. What JSON has no form for is marked."""
    return json.dumps([_marked(value) if isinstance(value, bytes) else value for value in key])


def _marked(value: bytes) -> dict[str, str]:
    return {"text" if isinstance(value, Undecodable) else "bytes": value.hex()}


def _decode(text: str) -> Key:
    values: list[object] = json.loads(text)
    return tuple(_unmarked(value) if isinstance(value, dict) else value for value in values)


def _unmarked(value: dict[str, str]) -> bytes:
    ((mark, digits),) = value.items()
    return _KINDS[mark](bytes.fromhex(digits))
