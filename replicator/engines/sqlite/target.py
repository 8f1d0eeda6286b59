"""Meets ports.Target for a SQLite file: the embedded centre.

Session holds connection and lease, Stage the batch, Apply the steps, ParkedChanges what waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from replicator.engines.sqlite.apply import Apply
from replicator.engines.sqlite.connection import transaction, translated
from replicator.engines.sqlite.parked import ParkedChanges, Taken, cause_of
from replicator.engines.sqlite.session import Session, target_sql
from replicator.engines.sqlite.stage import Stage
from replicator.engines.sqlite.values import decode_image
from replicator.errors import BatchError, RejectedError, SetupError, StaleError
from replicator.model import (
    Conflict,
    Decision,
    LinkName,
    Op,
    Outcome,
    ParkedChange,
    Position,
    RecordedConflict,
    Relation,
    Span,
    TablePlan,
)
from replicator.ports import Batch
from replicator.sqlfiles import statement

_TRANSACTIONS = "sql/sqlite/transactions.sql"


class SqliteTarget:
    """One link's hand at a SQLite file; one thread.

    Args:
        path: the target file.
        link: the link this instance applies for.
        plans: the site's table plans.
        erase_own_tail: take out again what capture triggers of this file note while we apply. False where other links
            are to send it on.
    """

    checks_whole = False

    def __init__(
        self, path: str | Path, link: LinkName, plans: Sequence[TablePlan], *, erase_own_tail: bool = True
    ) -> None:
        self._session = Session(Path(path), link, plans, erase_own_tail=erase_own_tail)
        self._begin()

    def _begin(self) -> None:
        self._stage = Stage(self._session)
        self._parked = ParkedChanges(self._session, self._stage)
        self._apply = Apply(self._session, self._stage, self._parked)
        self._held = 0
        self._retried: Taken | None = None

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

    def read_clock(self) -> int:
        """The target's wall clock, microseconds since 1970."""
        with translated(self._place):
            return self._session.now()

    def record_contact(self, identity: str, skew_us: int) -> None:
        """See ports.Target."""
        with translated(self._place):
            known = self._session.read_link()[1]
            parameters = (identity, self._session.now(), skew_us, self._session.link_id)
            if self._session.run(target_sql("record_contact"), *parameters).rowcount != 1:
                raise BatchError(
                    f"link {self._session.link}: the site's database is now {identity}, but this link was fed by {known}",
                    hint="correct the URL if it names the wrong database; a re-created site needs a resync",
                )

    # --- one batch ------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ports.Target. The file's write lock is taken when the batch is staged, not before."""
        self._begin()
        with translated(self._place):
            self._session.take_lease()
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
            self._stage.fill(batch)
            self._session.lock()
            self._held = self._parked.hold()

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
            if self._retried is not None:
                self._parked.put_back(self._retried, error)
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
                stage.newest_changed_at, self._session.link_id, batch.after, self._session.holder,
            )  # fmt: skip
            if moved.rowcount != 1:
                raise StaleError(
                    f"link {self._session.link}: another replicator has moved the position from {batch.after}"
                )
            run(target_sql("record_clock"), stage.newest_changed_at)
        return Outcome(
            upto=batch.upto,
            changes=stage.changes,
            net=apply.net,
            conflicts=apply.conflicts,
            parked=parked,
            more=batch.more,
            newest_changed_at=stage.newest_changed_at,
        )

    # --- parked changes -------------------------------------------------------------------------------------------

    def list_parked(self, *, ids: Sequence[int] = (), table: str = "") -> Sequence[ParkedChange]:
        """See ports.Target."""
        with translated(self._place):
            return self._parked.list_changes(ids, table)

    def list_conflicts(
        self, *, ids: Sequence[int] = (), table: str = "", limit: int = 100
    ) -> Sequence[RecordedConflict]:
        """See ports.Target."""
        with translated(self._place):
            return self._parked.list_conflicts(ids, table, limit)

    def stage_parked(self, parked_id: int) -> None:
        """See ports.Target."""
        with translated(self._place):
            self._session.lock()
            taken = self._parked.take(parked_id)
            plan = self._session.plan_for(taken.table)
            if plan is None:
                raise SetupError(f"parked change {parked_id}: table {taken.table} is not replicated any more")
            relation = Relation(0, plan.source.name, taken.columns, plan.key)
            lane = self._stage.adopt(relation)
            before, after = (None if image is None else decode_image(image) for image in (taken.before, taken.after))
            if taken.op in (Op.STATE, Op.GONE):
                self._stage.stage_native(lane, 2, taken.op, taken.changed_at, after or ())
            else:
                self._stage.stage_texts(0, 2, taken.op, taken.changed_at, before, after)
            self._retried = taken

    def skip_parked(self, parked_id: int) -> None:
        """See ports.Target."""
        with self._own_transaction():
            self._parked.skip(parked_id)

    def edit_parked(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """See ports.Target."""
        with self._own_transaction():
            self._parked.edit(parked_id, values)

    @contextmanager
    def _own_transaction(self) -> Iterator[None]:
        with translated(self._place):
            self._session.read_link()
            with transaction(self._session.connection, statement(_TRANSACTIONS, "begin_write")):
                yield

    def close(self) -> None:
        """See ports.Target."""
        self._session.close()
