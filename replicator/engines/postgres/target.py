"""The PostgreSQL target: applies batches set-based, in one transaction each, with the link's position.

Meets ports.Target. Session holds the connection and lease, Stage the batch, Apply the steps, ParkedChanges what waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from replicator.engines.postgres.apply import Apply
from replicator.engines.postgres.connection import translated
from replicator.engines.postgres.parked import ParkedChanges, Staged
from replicator.engines.postgres.session import Session, target_sql
from replicator.engines.postgres.stage import Stage
from replicator.errors import BatchError, RejectedError, SetupError, StaleError
from replicator.model import (
    Conflict,
    Decision,
    LinkName,
    Outcome,
    ParkedChange,
    Position,
    RecordedConflict,
    Relation,
    Span,
    TablePlan,
)
from replicator.ports import Batch


class PostgresTarget:
    """One link's hand at a PostgreSQL database; one thread.

    Args:
        url: libpq URL of the target.
        link: the link this instance applies for.
        plans: the site's table plans, parents before children.
    """

    checks_whole = True

    def __init__(self, url: str, link: LinkName, plans: Sequence[TablePlan]) -> None:
        self._session = Session(url, link, plans)
        self._begin()

    def _begin(self) -> None:
        self._parked = ParkedChanges(self._session)
        self._stage = Stage(self._session, self._parked)
        self._apply = Apply(self._session, self._stage, self._parked)
        self._retried: Staged | None = None

    @property
    def _place(self) -> str:
        return self._session.place

    # --- lease, position, contact ---

    def take_lease(self) -> None:
        """See ports.Target."""
        self._session.take_lease()

    def read_position(self) -> Position | None:
        """See ports.Target."""
        self._session.take_lease()
        with translated(self._place):
            return self._session.read_link()[1]

    def read_clock(self) -> int:
        """The target's wall clock, microseconds since 1970."""
        with translated(self._place):
            return int(self._session.one(target_sql("read_clock"))[0])

    def record_contact(self, identity: str, skew_us: int) -> None:
        """See ports.Target."""
        with translated(self._place):
            known = self._session.read_link()[2]
            contact = self._session.run(target_sql("record_contact"), identity, skew_us, self._session.link_id)
            if contact.rowcount != 1:
                raise BatchError(
                    f"link {self._session.link}: the site's database is now {identity}, but this link was fed by {known}",
                    hint="correct the URL if it names the wrong database; a restored or re-created site needs a resync",
                )

    # --- one batch ---

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ports.Target."""
        self._begin()
        with self._session.transaction():
            yield
            self._apply.tidy()
        with translated(self._place):
            self._session.analyze_grown(self._apply.applied)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """See ports.Target."""
        counts = self._apply.counts()
        try:
            with self._session.savepoint():
                yield
        except BaseException:
            self._apply.restore(counts)
            raise

    def stage_batch(self, batch: Batch) -> None:
        """See ports.Target."""
        with translated(self._place):
            self._stage.fill(batch)

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
        """See ports.Target."""
        with translated(self._place):
            if self._retried is not None:
                self._parked.put_back(self._retried, error)
                self._apply.parked += 1
                return
            lane, order, change = self._stage.change_in(span)
            key = self._parked.key_of(lane, change)
            self._parked.add(change, key, error)
            self._apply.parked += 1 + self._stage.hold_behind(lane.place, key, order)

    def record_batch(self, batch: Batch) -> Outcome:
        """See ports.Target."""
        stage, apply = self._stage, self._apply
        outcome = Outcome(
            upto=batch.upto, changes=stage.changes, net=apply.net, conflicts=apply.conflicts,
            parked=stage.parked + apply.parked, more=batch.more, newest_changed_at=stage.newest_changed_at,
        )  # fmt: skip
        with translated(self._place):
            moved = self._session.run(
                target_sql("record_batch"), outcome.upto, outcome.changes, outcome.conflicts, outcome.parked,
                outcome.newest_changed_at, self._session.link_id, batch.after, prepare=True,
            ).rowcount  # fmt: skip
            if moved != 1:
                raise StaleError(
                    f"{self._place}: link {self._session.link} was moved by another replicator",
                    hint="run one replicator per link",
                )
            self._session.run(target_sql("record_clock"), outcome.newest_changed_at, prepare=True)
        return outcome

    # --- parked changes ---

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
            taken = self._parked.take(parked_id)
            plan = self._session.plan_of(taken.table)
            if plan is None:
                raise SetupError(
                    f"parked change {parked_id} belongs to {taken.table}, which the topology does not name",
                    hint="name the table in the YAML again, or drop the change: replicator parked skip",
                )
            self._retried = taken
            relation = Relation(self._session.number_of(plan, taken.columns), plan.source.name, taken.columns, plan.key)
            self._stage.fill_parked(relation, taken)

    def skip_parked(self, parked_id: int) -> None:
        """See ports.Target."""
        with translated(self._place), self._session.connection.transaction():
            self._parked.skip(parked_id)

    def edit_parked(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """See ports.Target."""
        with translated(self._place), self._session.connection.transaction():
            self._parked.edit(parked_id, values)

    def close(self) -> None:
        """See ports.Target."""
        self._session.close()
