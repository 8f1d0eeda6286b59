"""Meets ports.Installable for a PostgreSQL site that is captured from the log: publication, slot, and what they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replicator.engines.postgres import planned as common
from replicator.engines.postgres.capture import Capture, trigger_names
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import translated
from replicator.engines.postgres.inspect import Installed
from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.wal import planned
from replicator.engines.postgres.wal.checks import check_log, check_slots, check_tables
from replicator.engines.postgres.wal.installed import Facts, read_facts, read_identities
from replicator.errors import SetupError
from replicator.model import Finding, PlannedStatement, TablePlan
from replicator.sqlfiles import statement


class PostgresWalInstaller(PostgresInstaller):
    """One PostgreSQL site whose changes come from the log instead of triggers."""

    def check(self, plans: Sequence[TablePlan], *, as_source: bool) -> Sequence[Finding]:
        """As ``PostgresInstaller.check``, and everything that keeps the log from being read."""
        findings = list(super().check(plans, as_source=as_source))
        if as_source:
            with translated(self._place):
                findings += check_log(self._place, self._connection)
                findings += check_tables(self._place, self._connection, plans)
                if read_facts(self._connection, "").tables:
                    findings += check_slots(self._place, self._connection)
        return findings

    def _site_steps(
        self, topology: str, plans: Sequence[TablePlan], installed: Installed
    ) -> Iterator[PlannedStatement]:
        """Replica identities first, then publication and slot: what is captured must be in the log in full."""
        self._refuse(plans)
        yield from self._our_steps(installed)
        captures = installed.captures(topology, plans)
        oids = [installed.inventory.oids[capture.name] for capture in captures]
        with translated(self._place):
            facts = read_facts(self._connection, topology)
            identities = read_identities(self._connection, oids)
        for identity in identities:
            yield planned.set_full(identity)
        if facts.usable:
            missing = [capture for capture in captures if capture.name not in facts.published]
            if missing:
                yield planned.publish(facts.name, missing, exists=True)
        else:
            gap = any(_was_captured(capture, installed, facts) for capture in captures)
            yield from _slot_steps(topology, facts, captures, gap=gap)
        for capture, oid in zip(captures, oids, strict=True):
            yield from _table_steps(capture, oid, facts, installed)

    def reads_on(self, topology: str) -> bool:
        """Whether there is a slot that goes on where the outbox ends, and a publication that has everything."""
        with translated(self._place):
            return read_facts(self._connection, topology).usable

    def has_gap(self, topology: str) -> bool:
        """Whether changes are missing between a lost slot and the present one, and nothing is on record to bring them."""
        with translated(self._place):
            return bool(rows(self._connection, "wal", "has_gap", topology)[0][0])

    def close_gap(self, topology: str, owed: str = "") -> None:
        """Backfills that bring what is missing are on record: the log may be read on.

        ``owed``: what they do not bring; it stays on record until a resync has found all tables equal.
        """
        with translated(self._place), self._connection.transaction():
            if owed:
                self._connection.execute(statement("sql/postgres/purge.sql", "record_gap").encode(), (topology, owed))
            self._connection.execute(statement("sql/postgres/wal.sql", "close_gap").encode(), (topology,))

    def _refuse(self, plans: Sequence[TablePlan]) -> None:
        """What cannot be captured from the log: another cause each time, and the way round it."""
        with translated(self._place):
            found = [*check_log(self._place, self._connection), *check_tables(self._place, self._connection, plans)]
        problems = [finding for finding in found if not finding.ok and not finding.warning]
        if problems:
            first = problems[0]
            raise SetupError(
                f"{self._place}: {first.subject}: {first.message}", hint=first.fix or "run: replicator check"
            )


def _slot_steps(topology: str, facts: Facts, captures: Sequence[Capture], *, gap: bool) -> Iterator[PlannedStatement]:
    """Publication and slot, both new: a slot cannot be read on from where its publication was away or lacked something."""
    if facts.publication:
        yield planned.drop_publication(facts.name)
    yield planned.publish(facts.name, captures, exists=False)
    if facts.strays or (facts.slot and facts.slot.exists):
        yield planned.drop_slot(facts.slot.name if facts.slot else facts.name)
    if facts.slot is not None:
        if facts.slot.publication != facts.name:
            yield planned.drop_publication(facts.slot.publication)
        yield planned.forget_slot(topology)
    yield planned.create_slot(topology, facts.name, gap=gap)


def _was_captured(capture: Capture, installed: Installed, facts: Facts) -> bool:
    """Whether a table's changes went through a slot that is lost; while triggers capture it, none are missing."""
    record = installed.record(capture)
    return (
        facts.slot is not None
        and bool(record and record.loaded and not record.retired)
        and not _triggers(capture, installed)
    )


def _triggers(capture: Capture, installed: Installed) -> list[str]:
    ours = set(trigger_names(capture.topology).values())
    return [trigger.name for trigger in installed.own_triggers(capture) if trigger.name in ours]


def _table_steps(capture: Capture, oid: int, facts: Facts, installed: Installed) -> Iterator[PlannedStatement]:
    record = installed.record(capture)
    if record is None or record.retired:
        yield common.add_relation(capture)
    wanted = planned.definition(capture, oid)
    known, state = facts.relations.get(capture.relation, (None, ""))
    running = facts.usable and known == wanted and state in ("waiting", "active")
    triggers = _triggers(capture, installed)
    if not running or triggers:
        yield planned.start(capture, wanted, triggers)
    if capture.function in installed.functions:
        yield common.drop_function(capture.function)
    loaded = record is not None and record.loaded and not record.retired
    if not (loaded and (triggers or facts.usable or facts.slot is not None)):
        yield planned.read_existing(capture, installed.operators(capture.plan))
