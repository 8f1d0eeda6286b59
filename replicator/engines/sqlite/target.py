"""Meets ports.Target for a SQLite file: the embedded centre.

Session holds connection and lease, Stage the batch, Apply the steps, ParkedChanges what waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from replicator.engines.sqlite.again import Again
from replicator.engines.sqlite.apply import Apply
from replicator.engines.sqlite.backfills import Backfills
from replicator.engines.sqlite.connection import transaction, translated
from replicator.engines.sqlite.follow import Follow
from replicator.engines.sqlite.followed import FollowStage
from replicator.engines.sqlite.parked import ParkedChanges, cause_of
from replicator.engines.sqlite.pending import Pending
from replicator.engines.sqlite.session import Session, target_sql
from replicator.engines.sqlite.settled import Rows
from replicator.engines.sqlite.stage import Stage
from replicator.engines.sqlite.versions import mark, read_relations
from replicator.errors import RejectedError, SetupError, StaleError, fed_by_another, fed_twice
from replicator.model import (
    Backfill,
    BackfillState,
    ChunkRequest,
    Conflict,
    Decision,
    Key,
    LinkName,
    Outcome,
    ParkedChange,
    Position,
    Prefer,
    RecordedConflict,
    RowEvent,
    Span,
    TableName,
    TablePlan,
    database_id,
    lineage,
)
from replicator.ports import Batch
from replicator.sifting import Sifted, held_relations
from replicator.sqlfiles import statement

_TRANSACTIONS = "sql/sqlite/transactions.sql"


class SqliteTarget:
    """One link's hand at a SQLite file; one thread.

    Args:
        path: the target file.
        link: the link this instance applies for.
        plans: the site's table plans.
        answers: at a centre: whether the site gets this file's rows too, so that it is told what became of its changes.
    """

    checks_whole = False

    def __init__(self, path: str | Path, link: LinkName, plans: Sequence[TablePlan], *, answers: bool = False) -> None:
        rises = link.direction.rises
        self._answers = answers and rises
        self._session = Session(Path(path), link, plans)
        self._session.answers = self._answers
        self._pending = None if rises else Pending(self._session, plans)
        self._backfills = Backfills(self._session, plans)
        self._gone_along: set[int] = set()
        self._begin()

    def _begin(self) -> None:
        self._stage = Stage(self._session)
        self._parked = ParkedChanges(self._session, self._stage)
        self._apply = Apply(self._session, self._stage, self._parked, answers=self._answers)
        self._follow: Follow | None = None
        if self._pending is not None:
            self._stage = states = FollowStage(self._session)
            self._apply = self._follow = Follow(self._session, states, self._parked, self._pending)
        self._rows = Rows(self._session, self._stage, self._parked, self._apply, answers=self._answers)
        self._held = 0
        self._again = Again(self._session, self._stage, self._parked, self._rows, self._gone_along)

    @property
    def _place(self) -> str:
        return self._session.place

    # --- lease, position, contact ---------------------------------------------------------------------------------

    def take_lease(self) -> None:
        """See ports.Target."""
        with translated(self._place):
            self._session.take_lease()

    def read_position(self) -> Position | None:
        """See ports.Target."""
        with translated(self._place):
            self._session.take_lease()
            return self._session.read_link()[0]

    def read_schema_mark(self) -> str:
        """See ports.Target."""
        with translated(self._place):
            return self._session.read_schema_mark()

    def read_clock(self) -> int:
        """The target's wall clock, microseconds since 1970."""
        with translated(self._place):
            return self._session.now()

    def record_contact(self, identity: str, skew_us: int, *, proven: bool = False) -> None:
        """See ports.Target."""
        run, link = self._session.run, self._session.link
        with translated(self._place):
            known = self._session.read_link()[1]
            number = self._session.link_id
            other = (
                run(target_sql("same_source"), number, database_id(identity)).fetchone() if known != identity else None
            )
            if other is not None:
                raise fed_twice(str(link), link.site, str(other[0]))
            same = known if proven and lineage(known) == lineage(identity) else identity
            if run(target_sql("record_contact"), identity, self._session.now(), skew_us, number, same).rowcount != 1:
                raise fed_by_another(str(link), link.site, identity, known)

    def read_identity(self) -> str:
        """See ports.Target."""
        with translated(self._place):
            found = self._session.run(statement("sql/sqlite/install.sql", "identity")).fetchone()
        return str(found[0]) if found else ""

    def read_stamp(self) -> str:
        """See ports.Target."""
        with translated(self._place):
            self._session.read_link()
            return str(self._session.run(target_sql("read_stamp"), self._session.link_id).fetchone()[0])

    # --- one batch ------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ports.Target. The file's write lock is taken when the batch is staged, not before."""
        self._begin()
        with translated(self._place):
            self._session.take_lease()
            if self._pending is not None:
                self._pending.look()
        with self._session.transaction():
            yield

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """See ports.Target."""
        counts = self._apply.counts()
        try:
            with translated(self._place), self._session.savepoint():
                yield
        except BaseException:
            self._apply.restore(counts)
            raise

    def stage_batch(self, batch: Batch) -> None:
        """See ports.Target."""
        with translated(self._place):
            held = held_relations(batch.relations, self._session.plans)
            sifted = Sifted(batch, held) if held else None
            self._stage.fill(sifted.batch if sifted else batch)
            self._session.lock()
            set_aside = self._parked.add_held(sifted) if sifted else 0
            self._backfills.hold(batch.chunk)
            if self._follow is not None:
                self._follow.begin(batch)
                self._held = set_aside
                return
            waiting = self._parked.hold()
            self._held = len(waiting) + set_aside
            self._rows.answer_waiting(waiting)

    def spans(self) -> Sequence[Span]:
        """See ports.Target."""
        with translated(self._place):
            return self._stage.spans()

    def halve(self, span: Span) -> tuple[Span, Span]:
        """See ports.Target."""
        with translated(self._place):
            return self._stage.halve(span)

    def apply_clean(self, span: Span) -> None:
        """See ports.Target."""
        with translated(self._place):
            self._apply.clean(span)

    def find_conflicts(self, span: Span) -> Iterator[Conflict]:
        """See ports.Target."""
        del span  # the conflicts are those of the span applied last
        with translated(self._place):
            yield from self._apply.find_conflicts()

    def apply_decisions(self, decisions: Iterable[Decision]) -> None:
        """See ports.Target."""
        with translated(self._place):
            self._apply.decided(decisions)

    def check_constraints(self) -> None:
        """See ports.Target."""
        with translated(self._place):
            self._apply.check_constraints()

    def park(self, span: Span, error: RejectedError) -> None:
        """See ports.Target. The two parts of a key update are parked each under its own key."""
        with translated(self._place):
            if self._follow is not None:
                self._follow.park(span, error)
                return
            if self._again:
                self._again.put_back(error)
                return
            for order in self._stage.orders(span):
                lane, key = self._parked.add_staged(order, cause_of(error), error.sqlstate)
                self._apply.parked += 1
                self._held += self._parked.hold_behind(lane, key, order)

    def record_batch(self, batch: Batch) -> Outcome:
        """See ports.Target."""
        stage, apply, run = self._stage, self._apply, self._session.run
        parked = apply.parked + self._held
        with translated(self._place):
            now = self._session.now()
            moved = run(
                target_sql("record_batch"), batch.upto, now, stage.changes, apply.conflicts, parked,
                stage.newest_changed_at, self._session.link_id, batch.after, self._session.holder, batch.stamp,
            )  # fmt: skip
            if moved.rowcount != 1:
                raise StaleError(
                    f"link {self._session.link}: another replicator has moved the position from {batch.after}"
                )
            run(target_sql("record_clock"), stage.newest_changed_at)
            if self._follow is not None:
                self._follow.record()
            chunk = self._backfills.record(batch.chunk, apply.differing) if batch.chunk is not None else None
            if self._answers:
                mark(self._session.connection, batch.upto, self._session.link)
        return Outcome(
            upto=batch.upto,
            changes=stage.changes,
            net=apply.net,
            conflicts=apply.conflicts,
            parked=parked,
            more=batch.more,
            newest_changed_at=stage.newest_changed_at,
            chunk=chunk,
        )

    # --- backfills ------------------------------------------------------------------------------------------------

    def next_chunk(self) -> ChunkRequest | None:
        """See ports.Target."""
        with translated(self._place):
            return self._backfills.next_chunk()

    def order_backfill(
        self,
        table: TableName,
        *,
        keys: Iterable[Key] | None = None,
        prefer: Prefer = Prefer.POLICY,
        chunk_rows: int = 10_000,
        rate: int = 0,
        estimate: int = 0,
        reason: str = "",
        held: bool = False,
    ) -> Backfill:
        """See ports.Target. Raises SetupError for a table the link does not bring."""
        with translated(self._place):
            return self._backfills.order(table, keys, prefer, chunk_rows, rate, estimate, reason, held)

    def list_backfills(self, *, unfinished: bool = False) -> Sequence[Backfill]:
        """See ports.Target."""
        with translated(self._place):
            return self._backfills.listed(unfinished=unfinished)

    def steer_backfill(self, backfill: int, state: BackfillState) -> bool:
        """See ports.Target."""
        with translated(self._place):
            return self._backfills.steer(backfill, state)

    # --- parked changes -------------------------------------------------------------------------------------------

    def list_parked(self, *, ids: Sequence[int] = (), table: str = "", limit: int = 0) -> Sequence[ParkedChange]:
        """See ports.Target."""
        with translated(self._place):
            return self._parked.list_changes(ids, table, limit)

    def list_conflicts(
        self, *, ids: Sequence[int] = (), table: str = "", limit: int = 100
    ) -> Sequence[RecordedConflict]:
        """See ports.Target."""
        with translated(self._place):
            return self._parked.list_conflicts(ids, table, limit)

    def stage_parked(self, parked_ids: Sequence[int]) -> None:
        """See ports.Target."""
        with translated(self._place):
            self._session.lock()
            if self._follow is not None:
                self._follow.stage_parked(parked_ids)
                return
            self._apply.decisions.retried = self._again.take(parked_ids)
            self._session.tail_origin = None

    def list_queues(self, limit: int) -> Sequence[Sequence[int]]:
        """See ports.Target."""
        with translated(self._place):
            return self._parked.list_queues(limit)

    def find_blocking(self, parked_id: int) -> Mapping[str, object] | None:
        """The row that holds a unique value a parked change wants; None when that is not what stands in its way."""
        with translated(self._place):
            self._session.read_link()
            self._session.look()
            return self._rows.find_blocking(parked_id)

    def skip_parked(self, parked_id: int) -> None:
        """See ports.Target. The site, which has what is dropped, is sent the row as it is here."""
        with self._own_transaction():
            taken = self._parked.skip(parked_id)
            if self._follow is None and self._session.plan_for(taken.table) is not None:
                lane = self._rows.lane(taken.table)
                self._rows.believe(lane, taken)
                self._rows.correct(lane, taken.key)

    def edit_parked(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """See ports.Target."""
        if self._follow is not None:
            raise SetupError(
                f"parked change {parked_id} is a row as the centre has it",
                hint="change the row at the centre; the site gets what it becomes",
            )
        with self._own_transaction():
            self._parked.edit(parked_id, values)

    # --- single rows ----------------------------------------------------------------------------------------------

    def read_row(self, table: str, key: str) -> Mapping[str, object] | None:
        """See ports.Target."""
        with translated(self._place):
            self._session.read_link()
            self._session.look()
            return self._rows.read_row(table, key)

    def settle_conflict(
        self, conflict_id: int, result: Mapping[str, str | None] | None, resolution: str, *, expected: bool = False
    ) -> bool:
        """See ports.Target."""
        with self._own_transaction():
            return self._rows.settle(conflict_id, result, resolution, expected=expected)

    def read_history(self, table: str, key: Sequence[str]) -> Sequence[RowEvent]:
        """See ports.Target."""
        with translated(self._place):
            self._session.read_link()
            self._session.look()
            self._session.central = read_relations(self._session.connection, self._session.link.topology)
            return self._rows.history(table, key)

    @contextmanager
    def _own_transaction(self) -> Iterator[None]:
        """A transaction beside a replicator at work: it takes the file's write lock and not the lease."""
        self._begin()
        with translated(self._place):
            self._session.read_link()
            self._session.look()
            with transaction(self._session.connection, statement(_TRANSACTIONS, "begin_write")):
                self._session.begin_by_hand()
                yield

    def close(self) -> None:
        """See ports.Target."""
        self._session.close()
