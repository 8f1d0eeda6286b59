"""Tries parked changes of a row again at a SQLite centre, along with those of rows that hold the unique values it wants.

Two rows may each want the other's value: alone neither goes in, ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.engines.sqlite.lane import Lane
from replicator.engines.sqlite.parked import ParkedChanges, Taken, netted
from replicator.engines.sqlite.session import Session
from replicator.engines.sqlite.settled import Rows
from replicator.engines.sqlite.stage import Stage
from replicator.engines.sqlite.values import decode_image
from replicator.errors import RejectedError, SetupError
from replicator.model import Op, Relation
from replicator.sifting import require_keyed

_COMPANIONS = 500


class Again:
    """The queues that are tried again in one transaction.

    Args:
        session: the connection.
        stage: where they are put.
        parked: where they are taken from.
        rows: the rows in their way.
        gone_along: numbers of changes that went in along with another row's; outlives the transaction.
    """

    def __init__(self, session: Session, stage: Stage, parked: ParkedChanges, rows: Rows, gone_along: set[int]) -> None:
        self._session, self._stage, self._parked, self._rows = session, stage, parked, rows
        self._gone_along = gone_along
        self._queues: list[list[Taken]] = []
        self._order = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def take(self, parked_ids: Sequence[int]) -> dict[str, int]:
        """Stage a row's queue with what has to go along; the first number of each row's queue, by key.

        Raises SetupError when there is no such change, or its table is not replicated any more.
        """
        ids = [number for number in parked_ids if number not in self._gone_along or self._parked.has(number)]
        if not ids:
            self._stage.idle = True
            return {}
        self._queues = [self._parked.take_queue(ids)]
        first = self._queues[0][0]
        plan = self._session.plan_for(first.table)
        if plan is None:
            raise SetupError(f"parked change {first.id}: table {first.table} is not replicated any more")
        require_keyed(plan, first.columns, first.id)
        lane = self._stage.adopt(Relation(0, plan.source.name, first.columns, plan.key))
        for queue in self._queues:  # grows
            self._put(lane, queue)
            self._add_companions(lane, queue[-1])
        return {queue[0].key: queue[0].id for queue in self._queues}

    def _put(self, lane: Lane, queue: Sequence[Taken]) -> None:
        for change in netted(queue):
            self._order += 2
            before, after = (None if image is None else decode_image(image) for image in (change.before, change.after))
            if change.op in (Op.STATE, Op.GONE):
                self._stage.stage_native(lane, self._order, change.op, change.changed_at, after or ())
            else:
                self._stage.stage_texts(0, self._order, change.op, change.changed_at, before, after)

    def _add_companions(self, lane: Lane, change: Taken) -> None:
        """The queues of the rows that stand in a change's way, unless a person is asked about them."""
        known = {queue[0].key for queue in self._queues}
        for row in self._rows.blocking(lane, change):
            key = lane.key_of(row)
            queue = self._parked.queue(lane.place, key)
            same = queue and queue[0].columns == change.columns
            if same and key not in known and len(known) < _COMPANIONS and not self._rows.waits(lane, key):
                known.add(key)
                numbers = [each.id for each in queue]
                self._queues.append(self._parked.take_queue(numbers))
                self._gone_along.update(numbers)

    def put_back(self, error: RejectedError) -> None:
        """Nothing went in: park all of it again, what only went along as it was."""
        for place, queue in enumerate(self._queues):
            self._parked.put_back(queue, error if place == 0 else None)
