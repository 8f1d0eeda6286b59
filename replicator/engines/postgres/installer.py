"""Meets ports.Installable for PostgreSQL: our schema, functions and triggers, planned as text, put in and taken out."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import psycopg

from replicator import sqlfiles
from replicator.engines.postgres import central, gone, planned
from replicator.engines.postgres.capture import Capture, function_name, trigger_names
from replicator.engines.postgres.catalogue import read_inventory, rows
from replicator.engines.postgres.central import CentralCapture
from replicator.engines.postgres.checks import (
    check_capture,
    check_central,
    check_database,
    check_followers,
    check_target,
    may_not_read,
)
from replicator.engines.postgres.connection import PostgresConnection, connect, describe, translated
from replicator.engines.postgres.inspect import Installed, read_installed
from replicator.engines.postgres.level import newest_level, read_level
from replicator.engines.postgres.recorded import Recorded
from replicator.engines.postgres.wal.handover import HandOver, filling
from replicator.engines.postgres.wal.installed import uninstall_steps
from replicator.errors import RetryableError, SetupError
from replicator.model import (
    Catalogue,
    CentralTable,
    DatabasePlan,
    Finding,
    PlannedStatement,
    TableName,
    TablePlan,
    level_findings,
)

_OWN_TRANSACTIONS = re.compile(r"(--[^\n]*\n|\s)*(begin;|do )")
_CAPTURES = ("capture_", "central_")
"""How the names of capture functions begin."""


class PostgresInstaller(Recorded):
    """One PostgreSQL database that our tables and triggers go into.

    Args:
        url: libpq URL of the database.
        patience: seconds a statement is tried again while others hold its table. Every try waits two seconds at most,
            so that the application's statements never queue behind ours for longer.
    """

    def __init__(self, url: str, *, patience: float = 120.0) -> None:
        self._url = url
        self._place = describe(url)
        self._patience = patience
        self._opened: PostgresConnection | None = None

    @property
    def _connection(self) -> PostgresConnection:
        if self._opened is None or self._opened.closed:
            self._opened = connect(self._url, application_name="replicator install", upgrading=True)
        return self._opened

    def list_captured(self, topology: str) -> Mapping[TableName, Sequence[str]]:
        """See ports.Installable."""
        with translated(self._place):
            if not rows(self._connection, "install", "our_schema")[0][0]:
                return {}
            found = rows(self._connection, "install", "captured", topology)
        return {TableName(str(schema), str(name)): _texts(columns) for schema, name, columns in found}

    def list_renamed(self, topology: str) -> Mapping[TableName, TableName]:
        """See ports.Installable."""
        with translated(self._place):
            if not rows(self._connection, "install", "our_schema")[0][0]:
                return {}
            found = rows(self._connection, "install", "renamed", topology)
        return {TableName(str(was), str(old)): TableName(str(now), str(new)) for was, old, now, new in found}

    def set_aside(self, topology: str, table: TableName) -> None:
        """See ports.Installable: what waits here is whole, and goes on."""

    def read_catalogue(self) -> Catalogue:
        """All user tables with columns, keys, unique and foreign keys; five queries whatever the number of tables."""
        with translated(self._place):
            return read_inventory(self._connection).catalogue

    def read_rows(self, table: TableName) -> Sequence[Mapping[str, object]]:
        """See ports.Installable."""
        names = {"schema": table.schema, "table": table.name}
        sql = sqlfiles.render(sqlfiles.statement("sql/postgres/catalogue.sql", "all_rows"), identifiers=names)
        with translated(self._place):
            try:
                found = self._connection.execute(sql.encode())
            except psycopg.errors.InsufficientPrivilege as error:
                raise may_not_read(self._place, self._connection, table) from error
            columns = [column.name for column in found.description or ()]
            return [dict(zip(columns, row, strict=True)) for row in found]

    def check(self, plans: Sequence[TablePlan], *, as_source: bool) -> Sequence[Finding]:
        """Everything that keeps this database from being a source (or target), each with the fix."""
        with translated(self._place):
            findings = list(check_database(self._place, self._connection, as_source=as_source))
            readable = all(each.ok or each.warning or each.subject != "rights" for each in findings)
            if not as_source:
                findings += check_target(self._place, self._connection, plans)
                findings += level_findings(self._place, read_level(self._connection), newest_level())
                return [*findings, *self._central_findings()] if readable else findings
            findings += check_capture(self._place, self._connection, plans)
            findings += level_findings(self._place, read_level(self._connection), newest_level())
            if not readable:
                return findings
            shared = read_installed(self._connection, "")
        for topology in shared.topologies:
            with translated(self._place):
                installed = read_installed(self._connection, topology)
            if installed.relations:
                findings += self._drift(topology, plans, installed)
        return findings

    def check_captured(self, captured: Sequence[CentralTable]) -> Sequence[Finding]:
        """See ports.Installable."""
        with translated(self._place):
            return [found for table in captured for found in check_followers(self._place, self._connection, table)]

    def _central_findings(self) -> Iterator[Finding]:
        """Tables the centre captures whose triggers are gone or switched off."""
        for topology in read_installed(self._connection, "").topologies:
            installed = read_installed(self._connection, topology)
            for table in installed.central_tables(topology):
                function = central.function_name(topology, table)
                fire = [t for t in installed.triggers.get(table, ()) if t.function == function and t.enabled in "AO"]
                whole = len(fire) == (2 if any(trigger.type & 1 for trigger in fire) else 4)
                message = f"changes are {'' if whole else 'not all '}captured for topology {topology}"
                yield Finding(self._place, str(table), whole, message, "" if whole else "run: replicator install")

    def check_central(
        self, topology: str, plans: Sequence[TablePlan], captured: Sequence[CentralTable]
    ) -> Sequence[Finding]:
        """See ports.Installable."""
        with translated(self._place):
            findings = list(check_central(self._place, self._connection, captured))
            installed = read_installed(self._connection, topology)
        if not installed.relations:
            return findings
        fix = "run: replicator install"
        for step in self._central_steps(topology, captured, installed):
            lost = step.object.startswith("triggers ")  # what is written meanwhile does not reach the sites
            message = f"not as planned for topology {topology}: {step.purpose}"
            findings.append(Finding(self._place, step.object, False, message, fix, warning=not lost))
        return findings

    def _drift(self, topology: str, plans: Sequence[TablePlan], installed: Installed) -> Iterator[Finding]:
        for step in self._site_steps(topology, [plan for plan in plans if _capturable(plan)], installed):
            message = f"not as planned for topology {topology}: {step.purpose}"
            yield Finding(self._place, step.object, False, message, "run: replicator install", warning=True)

    def plan_site(
        self, topology: str, plans: Sequence[TablePlan], *, unqueued: Collection[TableName] = ()
    ) -> DatabasePlan:
        """What is missing or drifted for capturing these tables. See ports.Installable.

        Raises SetupError for a table that cannot be captured, or when a migration that ran here was edited.
        """
        for plan in plans:
            if not _capturable(plan):
                raise SetupError(
                    f"{self._place}: table {plan.source.name} cannot be captured", hint="run: replicator check"
                )
        with translated(self._place):
            installed = read_installed(self._connection, topology, outbox=True)
        wanted = {plan.source.name for plan in plans}
        present, carried = gone.carry(topology, wanted, installed)
        there = present.inventory.catalogue.tables.keys() - wanted
        left = sorted({record.table for record in present.relations if not record.retired} & there)
        steps = [*carried, *gone.give_up(topology, wanted, present), *self._site_steps(topology, plans, present)]
        steps += gone.drop_functions(topology, carried, installed)
        spared = [step.queues for step in steps if step.queues is not None and step.queues in unqueued]
        renamed = {record.table for record in present.relations} - {record.table for record in installed.relations}
        # Its rows, queued again as if new, would stand against what the other side has written meanwhile.
        unread = renamed & {plan.source.name for plan in plans if plan.direction.falls} | set(spared)
        loaded = {each.name: planned.mark_loaded(each) for each in present.captures(topology, plans) if unread}
        steps = [loaded[step.queues] if step.queues is not None and step.queues in unread else step for step in steps]
        return planned.database_plan(self._place, steps, [f"triggers on {table}" for table in left], spared)

    def _site_steps(
        self, topology: str, plans: Sequence[TablePlan], installed: Installed
    ) -> Iterator[PlannedStatement]:
        yield from self._our_steps(installed)
        yield from _shared_steps(installed, planned.SITE_FUNCTIONS)
        if installed.may_trigger and not installed.event_triggers >= planned.EVENT_TRIGGERS:
            yield planned.create_event_triggers()
        with translated(self._place):
            log = HandOver(self._connection, topology)
        for capture in installed.captures(topology, plans):
            yield from log.steps(capture, installed, _capture_steps(capture, installed))
        with translated(self._place):
            yield from log.last_steps()
        if installed.migrations and self.is_stopped(topology):
            yield planned.resume(topology)

    def _our_steps(self, installed: Installed) -> Iterator[PlannedStatement]:
        for number, name, mark in planned.migrations():
            ran = installed.migrations.get(number)
            if ran is None:
                yield planned.migrate(number, name, mark)
            elif ran != mark:
                raise SetupError(
                    f"{self._place}: migration {name} is not the one that ran here",
                    hint="install the version of replicator this database was installed with, or uninstall first",
                )
        if not installed.has_identity:
            yield planned.create_identity()

    def plan_centre(
        self, topology: str, plans: Sequence[TablePlan], captured: Sequence[CentralTable] = ()
    ) -> DatabasePlan:
        """Our tables, the target tables that are not there yet (parents first, foreign keys last), and central capture.

        Raises SetupError for a table that cannot be captured, or when a migration that ran here was edited.
        """
        with translated(self._place):
            installed = read_installed(self._connection, topology)
        existing = frozenset(installed.inventory.catalogue.tables)
        shapes = {plan.target: plan.target_shape for plan in plans}
        shapes |= {each.table.name: each.table for each in captured}
        steps = [*self._our_steps(installed), *planned.create_tables(list(shapes.values()), existing)]
        if captured:
            steps += self._central_steps(topology, captured, installed)
        named = {each.table.name for each in captured}
        left = [f"triggers on {table}" for table in installed.central_tables(topology) if table not in named]
        return planned.database_plan(self._place, steps, left)

    def _central_steps(
        self, topology: str, captured: Sequence[CentralTable], installed: Installed
    ) -> Iterator[PlannedStatement]:
        for each in captured:
            if not each.key or each.table.kind == "foreign":
                raise SetupError(
                    f"{self._place}: table {each.table.name} cannot be captured", hint="run: replicator check"
                )
        yield from _shared_steps(installed, planned.CENTRAL_FUNCTIONS)
        for capture in installed.central(topology, captured):
            yield from _central_steps(capture, installed)

    def install(self, plan: DatabasePlan) -> None:
        """Run a plan. Each object is one short transaction; what stands already stays when a later one fails.

        Raises RetryableError when a table stays locked by others, or another install is at work.
        """
        if not plan.statements:
            return
        with translated(self._place):
            ((mine,),) = rows(self._connection, "install", "install_lock")
        if not mine:
            raise RetryableError(f"{self._place}: another install is at work", hint="wait for it to end")
        try:
            with filling(self._url, self._connection, plan):
                for step in plan.statements:
                    self._run(step)
        finally:
            self._end_install()

    def _end_install(self) -> None:
        """Free the lock now: a session ends some time after we hung up, and the next part of a plan follows at once."""
        with contextlib.suppress(psycopg.Error):  # a broken session has freed it
            if self._opened is not None and not self._opened.closed:
                rows(self._opened, "install", "install_unlock")
        self.close()

    def _run(self, step: PlannedStatement) -> None:
        """One statement; locks held by others are waited for in short tries, with pauses that let their queue through."""
        deadline = time.monotonic() + self._patience
        pause = 0.1
        while True:
            try:
                with translated(f"{self._place}: {step.purpose}"):
                    self._execute(step.sql)
                return
            except RetryableError as error:
                busy = isinstance(error.__cause__, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
                if not busy or time.monotonic() > deadline:
                    raise
            time.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 2, 5.0)

    def _execute(self, sql: str) -> None:
        connection = self._connection
        if not _OWN_TRANSACTIONS.match(sql):
            timeout = sqlfiles.statement("sql/postgres/session.sql", "set_lock_timeout")
            with connection.transaction():
                connection.execute(timeout.encode(), ("2000",))
                connection.execute(sql.encode(), prepare=False)
            return
        try:
            connection.execute(sql.encode(), prepare=False)
        except psycopg.Error:
            if not connection.closed:
                connection.rollback()
            raise

    def plan_uninstall(self, topology: str) -> DatabasePlan:
        """What removes all of a topology's objects, triggers first; our schema too when no other topology uses it."""
        with translated(self._place):
            installed = read_installed(self._connection, topology)
            from_log = uninstall_steps(self._connection, topology)
        tables = sorted({record.table for record in installed.relations})
        names = [name(topology, table) for table in tables for name in (function_name, central.function_name)]
        last = not set(installed.topologies) - {topology}
        if last:
            names += [name for name in installed.functions if name.startswith(_CAPTURES) and name not in names]
        shared = {name for name, *_ in planned.shared_functions()}
        steps = [*from_log]
        steps += [planned.drop_function(name) for name in names if name in installed.functions.keys() - shared]
        if last and installed.has_schema:
            steps.append(planned.drop_schema())
        elif topology in installed.topologies:
            steps.append(planned.forget_topology(topology))
        return planned.database_plan(self._place, steps)

    def list_objects(self) -> Sequence[str]:
        """Every object of ours in the database: empty proves that nothing is left."""
        with translated(self._place):
            return [str(row[0]) for row in rows(self._connection, "install", "list_objects")]

    def close(self) -> None:
        """Release the connection. Repeatable."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _capturable(plan: TablePlan) -> bool:
    return bool(plan.key) and plan.source.kind != "foreign"


def _shared_steps(installed: Installed, wanted: frozenset[str]) -> Iterator[PlannedStatement]:
    for name, arguments, body, mark in planned.shared_functions():
        if name in wanted and installed.functions.get(name) != mark:
            yield planned.create_function(name, arguments, body, mark, f"write function {name}")


def _central_steps(capture: CentralCapture, installed: Installed) -> Iterator[PlannedStatement]:
    if str(capture.name) not in installed.feeds and capture.table.versioned:
        yield planned.add_feed(capture.name)
    yield from _trigger_steps(capture, installed)
    if installed.record(capture) is not None and not _has_triggers(capture, installed):
        yield planned.look_again(capture)


def _capture_steps(capture: Capture, installed: Installed) -> Iterator[PlannedStatement]:
    yield from _trigger_steps(capture, installed)
    record = installed.record(capture)
    if record is None or record.retired or not record.loaded or not installed.own_triggers(capture):
        before = installed.predecessor(capture)
        added = [c.source for c in capture.plan.columns if before is not None and c.source not in before.columns]
        if before is None or added:
            yield planned.capture_existing(capture, installed.operators(capture.plan), added)
        else:
            yield planned.mark_loaded(capture)


def _trigger_steps(capture: Capture | CentralCapture, installed: Installed) -> Iterator[PlannedStatement]:
    """The relation, the function and the triggers of one table, where they are not as they should be."""
    record = installed.record(capture)
    if record is None or record.retired:
        yield planned.add_relation(capture)
    mark = installed.functions.get(capture.function)
    if mark != capture.fingerprint:
        yield planned.create_capture(capture, stopped=mark == "stopped")
    if not _has_triggers(capture, installed):
        present = installed.own_triggers(capture)
        names = set(trigger_names(capture.topology).values())
        found = installed.triggers.get(capture.name, ())
        yield planned.create_triggers(capture, sorted({t.name for t in (*present, *found) if t.name in names}))


def _has_triggers(capture: Capture | CentralCapture, installed: Installed) -> bool:
    present = installed.own_triggers(capture)
    return tuple(sorted(present, key=lambda trigger: trigger.name)) == capture.triggers()
