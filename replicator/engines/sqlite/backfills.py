"""Backfills of one link at a SQLite target: orders, the next chunk, and how far each has got."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from replicator.canonical import Undecodable
from replicator.engines.sqlite.connection import transaction
from replicator.engines.sqlite.reading import Undecoded
from replicator.engines.sqlite.session import Session
from replicator.engines.sqlite.values import decode_image, encode_image
from replicator.errors import SetupError, StaleError
from replicator.model import (
    Backfill,
    BackfillState,
    Chunk,
    ChunkRequest,
    Key,
    Prefer,
    TableName,
    TablePlan,
    backfill_of,
)
from replicator.sqlfiles import statement

_TRANSACTIONS = "sql/sqlite/transactions.sql"


def backfill_sql(name: str) -> str:
    """A statement of the backfill file."""
    return statement("sql/sqlite/backfill.sql", name)


class Backfills:
    """What the link's backfills want, and what became of it.

    A file that was installed before there were backfills has none: everything but an order works there.

    Args:
        session: the link's.
        plans: the link's tables.
    """

    def __init__(self, session: Session, plans: Sequence[TablePlan]) -> None:
        self._session = session
        self._plans = {plan.source.name: plan for plan in plans}
        self._prefers: Mapping[int, Prefer] = {}
        self.wanted: ChunkRequest | None = None
        """The chunk that was asked for last."""

    # --- what is wanted ---

    def next_chunk(self) -> ChunkRequest | None:
        """See ports.Target."""
        self.wanted = None
        due = next((row for row in self._rows("list_due", self._link_id()) if self._loads(row)), None)
        if due is None:
            return None
        number, schema, name, prefer, keyed, behind, limit = due
        keys: list[Key] | None = None
        upto = None
        if keyed:
            found = self._rows("read_keys", number, int(str(behind or 0)), limit)
            keys, upto = [tuple(decode_image(str(key))) for _, key in found], str(found[-1][0]) if found else behind
        self._prefers = {int(str(number)): Prefer(str(prefer))}
        seen = self._rows("read_seen", self._session.link.reverse.text)
        self._session.seen = int(str(seen[0][0])) if seen else 0
        self.wanted = ChunkRequest(
            int(str(number)), TableName(str(schema), str(name)), None if behind is None else str(behind), int(str(limit)),
            keys, None if upto is None else str(upto),
        )  # fmt: skip
        return self.wanted

    def _loads(self, due: Sequence[object]) -> bool:
        """Whether the link can bring rows of the table at present."""
        plan = self._plans.get(TableName(str(due[1]), str(due[2])))
        return plan is not None and not plan.hold

    def _link_id(self) -> int:
        if not self._session.link_id:
            self._session.read_link()
        return self._session.link_id

    def _rows(self, name: str, *parameters: object) -> list[tuple[object, ...]]:
        """What a statement finds; nothing where the file has no tables for backfills."""
        try:
            return self._session.run(backfill_sql(name), *parameters).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table: replicator_backfill" not in str(error):
                raise
            return []

    # --- what came ---

    def hold(self, chunk: Chunk | None) -> None:
        """Look, under the write lock, whether the chunk's backfill still wants it, and which tables are loaded.

        Raises StaleError when it was moved, paused or ended meanwhile.
        """
        session = self._session
        rows = self._rows("loading_tables", session.link_id)
        plans = (self._plans.get(TableName(str(schema), str(name))) for schema, name in rows)
        session.loading = frozenset(str(plan.target) for plan in plans if plan is not None)
        session.prefer = self._prefers.get(chunk.backfill, Prefer.POLICY) if chunk is not None else Prefer.POLICY
        if chunk is not None:
            behind = self._asked(chunk).behind
            if not self._rows("hold", chunk.backfill, self._session.link_id, behind):
                raise self._stale()

    def _asked(self, chunk: Chunk) -> ChunkRequest:
        if self.wanted is None or self.wanted.backfill != chunk.backfill:
            raise self._stale()
        return self.wanted

    def record(self, chunk: Chunk, differing: int) -> Chunk:
        """Move the backfill to the end of a chunk; the chunk, ``last`` as it is for this backfill. Raises StaleError."""
        asked = self._asked(chunk)
        found = self._session.run(
            backfill_sql("record_chunk"), chunk.backfill, self._session.link_id, asked.behind, chunk.upto, chunk.rows,
            differing, chunk.last, self._session.now(),
        ).fetchall()  # fmt: skip
        if not found:
            raise self._stale()
        over = bool(found[0][0])
        if over and asked.keys is not None:
            self._session.run(backfill_sql("forget_keys"), chunk.backfill)
        self.wanted = None
        return Chunk(chunk.backfill, chunk.upto, chunk.rows, over)

    def _stale(self) -> StaleError:
        return StaleError(
            f"{self._session.place}: a backfill of link {self._session.link} was moved or ended meanwhile"
        )

    # --- orders ---

    def order(
        self, table: TableName, keys: Iterable[Key] | None, prefer: Prefer, chunk_rows: int, rate: int, estimate: int,
        reason: str, held: bool = False,
    ) -> Backfill:  # fmt: skip
        """See ports.Target."""
        self._check_order(table, prefer)
        run, link = self._session.run, self._link_id()
        names = table.schema, table.name
        if keys is not None:
            self._gather(keys)
        with transaction(self._session.connection, statement(_TRANSACTIONS, "begin_write")):
            found = run(backfill_sql("find_ordered"), link, *names).fetchone() if keys is None else None
            if found is None:
                state = str(BackfillState.PAUSED if held else BackfillState.WAITING)
                given = str(prefer), keys is not None, max(chunk_rows, 1), max(rate, 0), max(estimate, 0), reason, state
                made = run(backfill_sql("order_backfill"), link, *names, *given, self._session.now()).lastrowid
                if keys is not None:
                    run(backfill_sql("copy_keys"), made)
                    run(backfill_sql("count_keys"), made)
                found = (made,)
        return next(each for each in self.listed() if each.id == found[0])

    def _check_order(self, table: TableName, prefer: Prefer) -> None:
        link = self._session.link
        if table not in self._plans:
            raise SetupError(
                f"link {link} does not bring table {table}", hint="run: replicator plan, which names the tables"
            )
        if prefer is Prefer.TARGET and not link.direction.rises:
            raise SetupError(
                f"link {link}: a site's rows cannot be preferred to the centre's, which decides",
                hint=f"to keep what {link.site} has, bring it to the centre: order the backfill for the other direction",
            )

    def _gather(self, keys: Iterable[Key]) -> None:
        """Put the keys beside the file, each once."""
        connection = self._session.connection
        connection.execute(backfill_sql("create_ordered_keys"))
        with transaction(connection, statement(_TRANSACTIONS, "begin_read")):
            connection.execute(backfill_sql("empty_ordered_keys"))
            connection.executemany(backfill_sql("gather_key"), ((_encode(key),) for key in keys))

    def listed(self, *, unfinished: bool = False) -> Sequence[Backfill]:
        """See ports.Target."""
        link = self._session.link
        try:
            sql = statement("sql/sqlite/orders.sql", "list_orders")
            rows = self._session.run(sql, link.topology, unfinished).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table: replicator_" not in str(error):
                raise
            return []
        return [found for found in (backfill_of(link.topology, row) for row in rows) if found.link == link]

    def steer(self, backfill: int, state: BackfillState) -> bool:
        """See ports.Target."""
        if state not in (BackfillState.PAUSED, BackfillState.RUNNING, BackfillState.CANCELLED):
            raise SetupError(f"a backfill cannot be made {state}", hint="pause, resume or cancel it")
        if not any(each.id == backfill for each in self.listed(unfinished=True)):
            return False
        with transaction(self._session.connection, statement(_TRANSACTIONS, "begin_write")):
            given = backfill, self._link_id(), str(state), self._session.now()
            steered = self._session.run(backfill_sql("steer_backfill"), *given).rowcount
            if steered and state is BackfillState.CANCELLED:
                self._session.run(backfill_sql("forget_keys"), backfill)
        return bool(steered)


def _encode(key: Key) -> str:
    return encode_image(Undecoded(value) if isinstance(value, Undecodable) else value for value in key)
