"""Meets ports.Installable for a PostgreSQL site that is captured from the log: publication, slot, and what they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replicator.engines.postgres import planned as common
from replicator.engines.postgres.capture import Capture, trigger_names
from replicator.engines.postgres.connection import translated
from replicator.engines.postgres.inspect import Installed
from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.wal import planned
from replicator.engines.postgres.wal.checks import check_log, check_slots, check_tables
from replicator.engines.postgres.wal.installed import Facts, read_facts, read_identities
from replicator.errors import SetupError
from replicator.model import Direction, Finding, PlannedStatement, TablePlan


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
        missing = [capture for capture in captures if capture.name not in facts.published]
        if missing or not facts.publication:
            yield planned.publish(facts.name, missing, exists=facts.publication)
        if not facts.usable:
            if facts.strays or (facts.slot and facts.slot.exists):
                yield planned.drop_slot(facts.slot.name if facts.slot else facts.name)
            if facts.slot is not None:
                if facts.slot.publication != facts.name:
                    yield planned.drop_publication(facts.slot.publication)
                yield planned.forget_slot(topology)
            yield planned.create_slot(topology, facts.name)
        for capture, oid in zip(captures, oids, strict=True):
            yield from _table_steps(capture, oid, facts, installed)

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
        for plan in plans:
            if plan.direction is Direction.BOTH:
                raise SetupError(
                    f"{self._place}: table {plan.source.name} goes both ways, which takes capture by triggers: what the "
                    "centre sends must not overwrite a change that is still in the log only",
                    hint="use capture: triggers for this site",
                )


def _table_steps(capture: Capture, oid: int, facts: Facts, installed: Installed) -> Iterator[PlannedStatement]:
    record = installed.record(capture)
    if record is None or record.retired:
        yield common.add_relation(capture)
    wanted = planned.definition(capture, oid)
    known, state = facts.relations.get(capture.relation, (None, ""))
    running = facts.usable and known == wanted and state in ("waiting", "active")
    ours = set(trigger_names(capture.topology).values())
    triggers = [t.name for t in installed.own_triggers(capture) if t.name in ours]
    if not running or triggers:
        yield planned.start(capture, wanted, triggers)
    if capture.function in installed.functions:
        yield common.drop_function(capture.function)
    loaded = record is not None and record.loaded and not record.retired
    if not (loaded and (triggers or facts.usable)):
        yield planned.read_existing(capture)
