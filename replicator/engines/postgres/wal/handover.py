"""How a table goes over from the log to triggers: in one transaction, so that no change is lost, doubled or out of order.

What was committed before that transaction has come from the log into the outbox when it ends, what comes later is captured
by triggers. When every table has gone over, whoever fills drops the slot.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace

from replicator.engines.postgres.capture import Capture
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.inspect import Installed
from replicator.engines.postgres.wal import planned
from replicator.engines.postgres.wal.filler import Filler
from replicator.engines.postgres.wal.installed import Facts, read_facts, restoring_steps
from replicator.errors import ReplicatorError
from replicator.model import DatabasePlan, PlannedStatement

_EVERYTHING = 1 << 60
_LOOK_SECONDS = 0.2
_STOPS = re.compile(r"'replicator\.stop'")
_log = logging.getLogger(__name__)


class HandOver:
    """What install has to mind where a topology captures from the log, or did."""

    def __init__(self, connection: PostgresConnection, topology: str) -> None:
        self._connection = connection
        self._topology = topology
        self._facts: Facts = read_facts(connection, topology)
        running = self._facts.relations.items() if self._facts.slot else ()
        self._running: Mapping[int, int] = {
            known.oid: number for number, (known, state) in running if state in ("waiting", "active")
        }

    def steps(
        self, capture: Capture, installed: Installed, trigger_steps: Iterable[PlannedStatement]
    ) -> Iterator[PlannedStatement]:
        """What puts triggers on a table, changed so that they take over where the log ends."""
        number = self._running.get(installed.inventory.oids.get(capture.name, 0))
        record = installed.record(capture)
        loaded = record is not None and record.loaded and not record.retired
        for step in trigger_steps:
            if number is not None and step.object == f"triggers on {capture.name}":
                yield replace(step, sql=planned.take_over(step.sql, capture, number))
            elif number is None or not loaded or step.object != f"rows of {capture.name}":
                yield step

    def last_steps(self) -> Iterator[PlannedStatement]:
        """What is left when the slot is gone."""
        if self._facts.slot is None and self._facts.publication:
            yield planned.drop_publication(self._facts.name)
            yield from restoring_steps(self._connection, self._topology)


@contextmanager
def filling(url: str, connection: PostgresConnection, plan: DatabasePlan) -> Iterator[None]:
    """While tables go over to triggers, the log must be read: by the service, or by this, when the slot is free."""
    if not any(_STOPS.search(step.sql) for step in plan.statements):
        yield
        return
    stopped = threading.Event()
    topologies = [str(row[0]) for row in rows(connection, "wal", "topologies")]
    threads = [threading.Thread(target=_fill, args=(url, topology, stopped)) for topology in topologies]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _fill(url: str, topology: str, stopped: threading.Event) -> None:
    with closing(Filler(url, topology, expected=False)) as filler:
        while not stopped.is_set() and not filler.over:
            try:
                filler.fill(_EVERYTHING)
                filler.wait(_LOOK_SECONDS)
            except ReplicatorError as error:  # the service holds the slot; else install says what it waits for
                _log.info("%s", error)
                stopped.wait(_LOOK_SECONDS)
