"""The PostgreSQL target: applies batches set-based, in one transaction each, with the link's position.

Meets ports.Target. Session holds the connection and lease, Stage the batch, Apply (at a site: Follow) the steps,
ParkedChanges what waits, Settling what a person decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf

from replicator.engines.postgres.apply import Apply
from replicator.engines.postgres.backfills import Backfills
from replicator.engines.postgres.capture import channel, lock_number
from replicator.engines.postgres.connection import translated
from replicator.engines.postgres.decisions import Decisions, conflicts_sql, route_to
from replicator.engines.postgres.follow import Follow
from replicator.engines.postgres.netting import netted
from replicator.engines.postgres.own import OwnChanges
from replicator.engines.postgres.parked import ParkedChanges, Staged
from replicator.engines.postgres.quick import Luck, Quick
from replicator.engines.postgres.reading import read_mark
from replicator.engines.postgres.session import Session, target_sql
from replicator.engines.postgres.settle import Settling
from replicator.engines.postgres.stage import Stage
from replicator.engines.postgres.wal.pump import Pumps
from replicator.engines.postgres.wal.reach import Reach
from replicator.errors import RejectedError, StaleError, fed_by_another, fed_twice
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
    Relation,
    RowEvent,
    Span,
    TableName,
    TablePlan,
    database_id,
    lineage,
)
from replicator.ports import Batch
from replicator.sifting import Sifted, held_relations, require_keyed

_LOADING_SHARE = 0.5
"""By how much a table may have grown by a backfill before its statistics are refreshed."""


class PostgresTarget:
    """One link's hand at a PostgreSQL database; one thread.

    Args:
        url: libpq URL of the target.
        link: the link this instance applies for.
        plans: the site's table plans for this direction, parents before children.
        answers: at the centre, whether the site has a link from the centre too: then it is told what became of its changes.
        pumps: at a site, the process's hands at replication slots.
    """

    checks_whole = True

    def __init__(
        self, url: str, link: LinkName, plans: Sequence[TablePlan], *, answers: bool = False, pumps: Pumps | None = None
    ) -> None:
        self._session = Session(url, link, plans)
        self._reach = Reach(url, link.topology, pumps or Pumps())
        self._answers = answers and link.direction.rises
        self._luck = Luck()
        self._backfills = Backfills(self._session, plans)
        self._parked = ParkedChanges(self._session)
        self._settling = Settling(self._session, self._parked, answers=self._answers)
        self._begin()

    def _begin(self) -> None:
        self._stage = Stage(self._session, self._parked)
        self._retried: Sequence[Staged] = ()
        self._own = OwnChanges(self._session, self._reach)
        self._decisions = Decisions(self._session, self._backfills, answers=self._answers)
        self._quick = Quick(self._session, self._stage, self._decisions, self._parked, self._luck)
        self._apply = (
            Apply(self._session, self._stage, self._decisions)
            if self._session.link.direction.rises
            else Follow(self._session, self._stage, self._decisions, self._own)
        )

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
            return self._backfills.read_position()

    def read_schema_mark(self) -> str:
        """See ports.Target."""
        with translated(self._place):
            return read_mark(self._session.connection, self._session.targets)

    def read_clock(self) -> int:
        """The target's wall clock, microseconds since 1970."""
        with translated(self._place):
            return int(self._session.one(target_sql("read_clock"))[0])

    def record_contact(self, identity: str, skew_us: int, *, proven: bool = False) -> None:
        """See ports.Target."""
        session, link = self._session, self._session.link
        with translated(self._place):
            known = session.read_link()[2]
            twin = (
                session.run(target_sql("same_source"), session.link_id, database_id(identity))
                if known != identity
                else None
            )
            if twin is not None and (other := twin.fetchone()) is not None:
                raise fed_twice(str(link), link.site, other[0])
            same = known if proven and lineage(known) == lineage(identity) else identity
            if session.run(target_sql("record_contact"), identity, skew_us, session.link_id, same).rowcount != 1:
                raise fed_by_another(str(link), link.site, identity, known)

    def read_identity(self) -> str:
        """See ports.Target."""
        with translated(self._place):
            return str(self._session.one(target_sql("read_identity"))[0])

    def read_stamp(self) -> str:
        """See ports.Target."""
        with translated(self._place):
            self._session.read_link()
            return str(self._session.one(target_sql("read_stamp"), self._session.link_id)[0])

    # --- one batch ---

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ports.Target."""
        self._begin()
        with self._session.transaction():
            yield
            if self._retried:
                self._decisions.return_strays()
            self._apply.tidy()
            self._quick.tidy()
        with translated(self._place):
            # Each time costs as much as many rows; while those of a backfill are all new they are put to no join.
            loading = inf if self._stage.straight or self._apply.all_new else _LOADING_SHARE
            self._session.analyze_grown(self._apply.applied, *((loading,) if self._backfills.goes_on else ()))
            self._session.analyze_grown(self._quick.applied)

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
            self._backfills.hold()
            held = held_relations(batch.relations, self._session.plans)
            if held:
                self._stage_unheld(Sifted(batch, held))
                return
            if self._quick.take(batch):
                self._stage.changes, self._stage.newest_changed_at = self._quick.changes, self._quick.newest_changed_at
                self._apply.net = self._quick.net
                return
            self._fill_stage(batch)
            self._stage.hold_behind_parked()

    def _fill_stage(self, batch: Batch) -> None:
        self._stage.fill(batch)
        if batch.chunk is not None:
            self._apply.prefer = self._backfills.prefer(batch.chunk)
            self._apply.take_straight(self._stage.straight)
        if not self._session.link.direction.rises:
            self._own.read_marker(batch.marker)
            self._own.drop_superseded(self._session.lanes_of(self._parked.tables()))

    def _stage_unheld(self, sifted: Sifted) -> None:
        """Stage a batch without the changes of tables that are held; these are parked."""
        self._fill_stage(sifted.batch)
        self._stage.parked += self._parked.add_held(sifted)
        self._stage.hold_behind_parked()
        self._stage.changes += len(sifted.changes)

    def spans(self) -> Sequence[Span]:
        """See ports.Target."""
        with translated(self._place):
            return self._quick.spans or self._stage.spans()

    def halve(self, span: Span) -> tuple[Span, Span]:
        """See ports.Target."""
        with translated(self._place):
            return self._stage.halve(span)

    def apply_clean(self, span: Span) -> None:
        """See ports.Target."""
        with translated(self._place):
            if not self._quick.spans:
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
            if self._retried:
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
                outcome.newest_changed_at, self._session.link_id, batch.after, batch.stamp, prepare=True,
            ).rowcount  # fmt: skip
            if moved != 1:
                raise StaleError(
                    f"{self._place}: link {self._session.link} was moved by another replicator",
                    hint="run one replicator per link",
                )
            if batch.chunk is not None:
                outcome.chunk = self._backfills.record(batch.chunk, apply.differing)
            self._session.run(target_sql("record_clock"), outcome.newest_changed_at, prepare=True)
            if self._answers:
                self._mark(outcome)
            elif not self._session.link.direction.rises:
                self._own.record_marker()
        return outcome

    def _mark(self, outcome: Outcome) -> None:
        """Tell the site, in the place where its changes were processed, that they were."""
        topology = self._session.link.topology
        if outcome.parked:
            for lane in self._session.lanes_of(self._parked.tables()):
                self._decisions.correct_held(lane)
        self._decisions.return_strays()
        written = outcome.changes + self._stage.loaded + self._decisions.corrected + 1
        self._session.run(
            conflicts_sql("add_marker"), outcome.upto, route_to(self._session), written, lock_number(topology),
            channel(topology), self._session.link.reverse.text, topology, prepare=True,
        )  # fmt: skip

    # --- backfills ---

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
            return self._backfills.list(unfinished=unfinished)

    def steer_backfill(self, backfill: int, state: BackfillState) -> bool:
        """See ports.Target."""
        with translated(self._place):
            return self._backfills.steer(backfill, state)

    # --- parked changes ---

    def list_parked(self, *, ids: Sequence[int] = (), table: str = "", limit: int = 0) -> Sequence[ParkedChange]:
        """See ports.Target."""
        with translated(self._place):
            return self._parked.list_changes(ids, table, limit)

    def list_conflicts(
        self, *, ids: Sequence[int] = (), table: str = "", limit: int = 100
    ) -> Sequence[RecordedConflict]:
        """See ports.Target."""
        with translated(self._place):
            return self._settling.list_conflicts(ids, table, limit)

    def list_queues(self, limit: int) -> Sequence[Sequence[int]]:
        """See ports.Target."""
        with translated(self._place):
            self._session.read_link()
            return self._parked.list_queues(limit)

    def stage_parked(self, parked_ids: Sequence[int]) -> None:
        """See ports.Target."""
        with translated(self._place):
            taken = self._parked.take_queue(parked_ids)
            plan = self._settling.plan_of(taken[0].table)
            require_keyed(plan, taken[0].columns, taken[0].parked_id)
            self._retried, self._apply.retried, columns = taken, taken[0].parked_id, taken[0].columns
            relation = Relation(self._session.number_of(plan, columns), plan.source.name, columns, plan.key)
            if self._session.link.direction.rises:
                self._session.announce("")
            else:
                self._own.read_marker(None)
            states = plan.ledgered or not self._session.link.direction.rises
            net = netted(taken, plan.key, states=states)
            self._settling.correct_left(taken, net)
            self._stage.fill_parked(relation, net)

    def skip_parked(self, parked_id: int) -> None:
        """See ports.Target."""
        with translated(self._place), self._session.connection.transaction():
            self._settling.correct_dropped(self._parked.skip(parked_id))

    def edit_parked(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """See ports.Target."""
        with translated(self._place), self._session.connection.transaction():
            self._parked.edit(parked_id, values)

    def find_blocking(self, parked_id: int) -> Mapping[str, str | None] | None:
        """See ports.Target."""
        with translated(self._place):
            self._session.read_link()
            return self._settling.find_blocking(parked_id)

    # --- single rows and conflicts ---

    def read_row(self, table: str, key: str) -> Mapping[str, object] | None:
        """See ports.Target."""
        with translated(self._place):
            return self._settling.read_row(table, key)

    def settle_conflict(
        self, conflict_id: int, result: Mapping[str, str | None] | None, resolution: str, *, expected: bool = False
    ) -> bool:
        """See ports.Target."""
        with self.transaction(), translated(self._place):
            self._session.announce("")
            return self._settling.settle(self._apply, conflict_id, result, resolution, expected=expected)

    def read_history(self, table: str, key: Sequence[str]) -> Sequence[RowEvent]:
        """See ports.Target."""
        with translated(self._place):
            return self._settling.read_history(table, key)

    def close(self) -> None:
        """See ports.Target."""
        self._reach.close()
        self._session.close()
