"""Meets ports.Installable for a SQLite file: our tables and triggers, planned as text, put in and taken out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from replicator.engines.sqlite import gone, planned
from replicator.engines.sqlite.capture import Capture, capture_of
from replicator.engines.sqlite.captured import State, Trigger, is_ours, plan_capture, plan_central
from replicator.engines.sqlite.catalogue import read_catalogue
from replicator.engines.sqlite.checks import (
    check_central,
    check_file,
    check_followers,
    check_foreign_keys,
    check_table,
)
from replicator.engines.sqlite.connection import connect, spare_the_disk, translated
from replicator.engines.sqlite.level import newest_level, read_level
from replicator.engines.sqlite.names import our_tables, trigger_name, trigger_prefix
from replicator.engines.sqlite.recorded import Recorded
from replicator.errors import RetryableError, SetupError
from replicator.model import (
    Catalogue,
    CentralTable,
    DatabasePlan,
    Finding,
    PlannedStatement,
    TableName,
    TablePlan,
    TableShape,
    level_findings,
)
from replicator.sqlfiles import render, statement

_SQL = "sql/sqlite/install.sql"
_CATALOGUE = "sql/sqlite/catalogue.sql"
_FIRST_KEY_PLACES = 4
"""Key places the first migration gives the outbox: k0 to k3."""
_BOTH_WAYS = 2
"""The migration that lets a centre capture."""


class SqliteInstaller(Recorded):
    """One SQLite file that our tables and triggers go into.

    Args:
        path: the database file.
        may_be_absent: an absent file is planned for as an empty one and made by ``install`` (a centre); else its absence
            is an error (a site).
    """

    def __init__(self, path: str | Path, *, may_be_absent: bool = False) -> None:
        self._path, self._may_be_absent = Path(path), may_be_absent
        self._place = str(path)
        self._opened: sqlite3.Connection | None = None

    @cached_property
    def _nothing(self) -> sqlite3.Connection:
        """Stands for a file that does not exist yet, so that it can be planned for without making it."""
        return sqlite3.connect(":memory:", isolation_level=None)

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            if not self._path.exists():
                return self._nothing
            self._opened = connect(self._path, upgrading=True)
        return self._opened

    def list_captured(self, topology: str) -> Mapping[TableName, Sequence[str]]:
        """See ports.Installable."""
        self._require_file()
        with translated(self._place):
            if "replicator_migration" not in self._table_names():
                return {}
            found = self._rows("list_relations", topology)
        return {TableName("", str(table)): tuple(json.loads(str(columns))) for _, table, _, columns in found}

    def list_renamed(self, topology: str) -> Mapping[TableName, TableName]:
        """See ports.Installable."""
        self._require_file()
        with translated(self._place):
            state = self._read_state(topology)
        found = {table: gone.present_name(topology, table, state.triggers) for table in gone.gone(state)}
        return {TableName("", table): TableName("", name) for table, name in found.items() if name}

    def set_aside(self, topology: str, table: TableName) -> None:
        """See ports.Installable."""
        with translated(self._place):
            for number, _ in self._read_state(topology).relations.get(table.name, []):
                self._connection.executescript(planned.set_aside(number))

    def read_catalogue(self) -> Catalogue:
        """All user tables with columns, keys, unique and foreign keys. Raises RetryableError when the file is absent."""
        self._require_file()
        with translated(self._place):
            return read_catalogue(self._connection)

    def _require_file(self) -> None:
        if not self._may_be_absent and not self._path.exists():
            raise RetryableError(f"{self._place}: no such file", hint="bring it back, or correct the url in the YAML")

    def read_rows(self, table: TableName) -> Sequence[Mapping[str, object]]:
        """See ports.Installable."""
        sql = render(statement(_CATALOGUE, "all_rows"), identifiers={"table": table.name})
        with translated(self._place):
            found = self._connection.execute(sql)
            columns = [str(column[0]) for column in found.description]
            return [dict(zip(columns, row, strict=True)) for row in found]

    def check(self, plans: Sequence[TablePlan], *, as_source: bool) -> Sequence[Finding]:
        """Everything that keeps this file from being a source (or target), each with the fix."""
        findings = list(check_file(self._path, self._connection, as_source=as_source))
        if self._path.exists() and all(found.ok or found.warning for found in findings):
            with translated(self._place):
                findings += level_findings(self._place, read_level(self._connection), newest_level())
        if not as_source or not self._path.exists() or any(not f.ok and not f.warning for f in findings):
            return findings
        with translated(self._place):
            triggers = self._triggers()
            captured_by = sorted(self._topologies())
            catalogue = read_catalogue(self._connection)
        for plan in plans:
            bodies = [t.body for t in triggers.values() if t.table == plan.source.name.name and not is_ours(t.name)]
            findings += check_table(self._place, plan, bodies)
            findings += check_foreign_keys(self._place, plan, catalogue)
        capturable = [plan for plan in plans if plan.key and plan.source.kind != "virtual"]
        for topology in captured_by:
            findings += self._drift(topology, capturable)
        return findings

    def check_captured(self, captured: Sequence[CentralTable]) -> Sequence[Finding]:
        """See ports.Installable."""
        if not self._path.exists():
            return ()
        with translated(self._place):
            return [found for table in captured for found in check_followers(self._place, self._connection, table)]

    def check_central(
        self, topology: str, plans: Sequence[TablePlan], captured: Sequence[CentralTable]
    ) -> Sequence[Finding]:
        """See ports.Installable."""
        if not self._path.exists():
            return []
        with translated(self._place):
            state = self._read_state(topology)
        findings: list[Finding] = []
        for each in captured:
            table, fix = each.table.name.name, "run: replicator install"
            on = [trigger for trigger in state.triggers.values() if trigger.table.lower() == table.lower()]
            findings += check_central(self._place, each.table, [t.body for t in on if not is_ours(t.name)])
            if table in state.relations:
                names = {trigger.name for trigger in on}
                whole = all(trigger_name(topology, table, event) in names for event in ("ai", "au", "ak", "ad"))
                message = f"changes are {'' if whole else 'not all '}captured for topology {topology}"
                findings.append(Finding(self._place, f"table {table}", whole, message, "" if whole else fix))
        return [*findings, *self._central_drift(topology, plans, captured, state)]

    def _central_drift(
        self, topology: str, plans: Sequence[TablePlan], captured: Sequence[CentralTable], state: State
    ) -> Iterator[Finding]:
        """What is not as planned; nothing where the topology is not installed yet."""
        for step in self.plan_centre(topology, plans, captured).statements if state.relations else ():
            message = f"not as planned for topology {topology}: {step.purpose}"
            yield Finding(self._place, step.object, False, message, "run: replicator install", warning=True)

    def _drift(self, topology: str, plans: Sequence[TablePlan]) -> Iterator[Finding]:
        """What is not as planned; nothing for a topology that is not installed yet."""
        for step in self.plan_site(topology, plans).statements:
            message = f"not as planned for topology {topology}: {step.purpose}"
            yield Finding(self._place, step.object, False, message, "run: replicator install", warning=True)

    def plan_site(
        self, topology: str, plans: Sequence[TablePlan], *, unqueued: Collection[TableName] = ()
    ) -> DatabasePlan:
        """See ports.Installable. Raises SetupError when a migration was edited."""
        self._require_file()
        with translated(self._place):
            state = self._read_state(topology)
        steps = list(self._plan_ours(state))
        widest = max((len(plan.key) for plan in plans), default=0)
        steps += [planned.widen_outbox(place) for place in range(state.key_places, widest)]
        if any(plan.direction.falls for plan in plans) and not self._has_marker(topology, state):
            steps.append(planned.first_marker(topology))
        state, carried = gone.carry(topology, plans, state)
        steps += [*carried, *gone.give_up(topology, plans, state)]
        captures = list(self._plan_captures(topology, plans, state))
        spared = [step.queues for step in captures if step.queues is not None and step.queues in unqueued]
        steps += self._plan_captures(topology, plans, state, spared) if spared else captures
        if "replicator_capture_stop" in state.tables and self.is_stopped(topology):
            steps.append(planned.resume(topology))
        left = state.tables - {plan.source.name.name for plan in plans}
        leftovers = [f"triggers on {table}" for table in state.relations if table in left]
        return planned.database_plan(self._place, steps, leftovers, spared)

    def plan_centre(
        self, topology: str, plans: Sequence[TablePlan], captured: Sequence[CentralTable] = ()
    ) -> DatabasePlan:
        """Our tables, the target tables that are not there yet, parents first, and the capture of the centre's tables."""
        with translated(self._place):
            state = self._read_state(topology)
            existing = {name.lower() for name in state.tables}
            wanted = {plan.target: plan.target_shape for plan in plans}
            wanted |= {each.table.name: each.table for each in captured}
            missing = [shape for name, shape in wanted.items() if name.name.lower() not in existing]
            created = tuple(planned.create_tables(missing))
            shapes = self._shapes_after(created)
        steps = [*self._plan_ours(state), *created]
        tables = [replace(each, table=shapes.get(each.table.name.name.lower(), each.table)) for each in captured]
        widest = max((len(each.key) for each in tables), default=0)
        steps += [planned.widen_outbox(place) for place in range(state.key_places, widest)]
        steps += plan_central(topology, tables, state)
        kept = {each.table.name.name for each in tables}
        leftovers = [f"triggers on {table}" for table in state.relations if table not in kept] if captured else []
        return planned.database_plan(self._place, steps, leftovers)

    def _shapes_after(self, created: Sequence[PlannedStatement]) -> dict[str, TableShape]:
        """All tables by lower-case name, as they will be once the missing ones are made."""
        found = dict(read_catalogue(self._connection).tables)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as blank:
            for step in created:
                blank.execute(step.sql)
            found |= read_catalogue(blank).tables
        return {name.name.lower(): shape for name, shape in found.items()}

    def install(self, plan: DatabasePlan) -> None:
        """Run a plan. Each object is one short transaction; what stands already is left in place when one fails."""
        if not plan.statements:
            return
        self._require_file()
        if self._opened is None:
            self._opened = connect(self._path, create=self._may_be_absent, upgrading=True)
        with translated(self._place):
            spare_the_disk(self._connection)
            for step in plan.statements:
                self._run(step)

    def plan_uninstall(self, topology: str) -> DatabasePlan:
        """Triggers first, then our tables when no other topology needs them."""
        with translated(self._place):
            present = sorted(our_tables() & self._table_names())
            prefix = trigger_prefix(topology)
            triggers = sorted(name for name in self._triggers() if name.startswith(prefix))
            topologies = self._topologies()
            others = topologies - {topology}
            if not triggers and others and topology not in topologies:
                present = []  # only others are here
            steps = planned.uninstall(topology, triggers, present, last=not others)
        return planned.database_plan(self._place, steps)

    def list_objects(self) -> Sequence[str]:
        """Every table and trigger of ours in the file."""
        with translated(self._place):
            ours = json.dumps(sorted(our_tables()))
            rows = self._connection.execute(statement(_CATALOGUE, "list_our_objects"), (ours,)).fetchall()
        return [str(name) for (name,) in rows]

    def close(self) -> None:
        """Release the connection. Repeatable."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        if "_nothing" in self.__dict__:
            self._nothing.close()
            del self.__dict__["_nothing"]

    # --- planning -------------------------------------------------------------------------------------------------

    def _plan_ours(self, state: State) -> Iterator[PlannedStatement]:
        for number, name, checksum in planned.migrations():
            recorded = state.migrations.get(number)
            if recorded is None:
                yield planned.migrate(number, name, checksum)
            elif recorded != checksum:
                raise SetupError(
                    f"{self._place}: migration {name} ran here in another wording",
                    hint="install the replicator version that made it, or uninstall and install again",
                )
        if not state.named:
            yield planned.create_identity()

    def _plan_captures(
        self, topology: str, plans: Sequence[TablePlan], state: State, unqueued: Collection[TableName] = ()
    ) -> Iterator[PlannedStatement]:
        next_relation = state.next_relation
        by_table: dict[str, list[Trigger]] = {}
        for trigger in state.triggers.values():
            by_table.setdefault(trigger.table.lower(), []).append(trigger)
        for plan in plans:
            table = plan.source.name.name
            known = state.relations.get(table, [])
            wanted = planned.fingerprint_of(table, plan.key)
            same = [number for number, fingerprint in known if fingerprint == wanted]
            if not same:
                same = [
                    n for n, _ in known if _is_renamed(capture_of(topology, n, plan), by_table.get(table.lower(), ()))
                ]
                if same:
                    yield planned.rename_key(same[0], table, plan.key)
            relation = same[0] if same else next_relation
            next_relation += not same
            capture = capture_of(topology, relation, plan)
            retired = [number for number, _ in known if number != relation]
            planned_columns = {column.source for column in plan.columns}
            wider = bool(same) and not planned_columns <= state.columns[relation]
            narrower = bool(same) and planned_columns < state.columns[relation]
            recorded = state.columns.get(relation, frozenset())
            if same and not recorded:  # the table was gone
                yield planned.bring_back(relation, table, max(state.key_places, len(plan.key)))
            found = by_table.get(table.lower(), ())
            columns = [column.source for column in plan.columns]
            yield from plan_capture(
                capture, columns, found, new=not same, wider=wider, narrower=narrower, retired=retired,
                added=[name for name in columns if wider and recorded and name not in recorded],
                unqueued=plan.source.name in unqueued,
            )  # fmt: skip

    def _read_state(self, topology: str) -> State:
        tables = self._table_names()
        ours = "replicator_migration" in tables
        relations: dict[str, list[tuple[int, str]]] = {}
        recorded: dict[int, frozenset[str]] = {}
        for number, table, fingerprint, listed in self._rows("list_relations", topology) if ours else ():
            relations.setdefault(str(table), []).append((int(str(number)), str(fingerprint)))
            recorded[int(str(number))] = frozenset(json.loads(str(listed)))
        migrations = {int(str(n)): str(c) for n, c in self._rows("list_migrations")} if ours else {}
        versioned = self._rows("list_versioned") if _BOTH_WAYS in migrations else []
        columns = self._connection.execute(statement(_CATALOGUE, "list_columns"), ("replicator_outbox",)).fetchall()
        places = sum(1 for column in columns if str(column[0]).startswith("k"))
        return State(
            tables=tables,
            triggers=self._triggers(),
            migrations=migrations,
            relations=relations,
            columns=recorded,
            versioned=frozenset(int(str(number)) for (number,) in versioned),
            next_relation=int(str(self._rows("next_relation")[0][0])) if ours else 1,
            key_places=places or _FIRST_KEY_PLACES,
            named=bool(ours and self._rows("identity")),
        )

    def _has_marker(self, topology: str, state: State) -> bool:
        with translated(self._place):
            return bool(state.migrations and self._rows("has_marker", topology))

    def _triggers(self) -> dict[str, Trigger]:
        rows = self._connection.execute(statement(_CATALOGUE, "list_triggers")).fetchall()
        return {name: Trigger(name, table, body, place) for name, table, body, place in rows}

    def _topologies(self) -> set[str]:
        if "replicator_migration" not in self._table_names():
            return set()
        return {str(name) for (name,) in self._rows("list_topologies")}

    def _run(self, step: PlannedStatement) -> None:
        connection = self._connection
        try:
            connection.executescript(step.sql)
        finally:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.rollback()


def _is_renamed(capture: Capture, triggers: Sequence[Trigger]) -> bool:
    """Whether the key's columns were only renamed: SQLite has changed the names in our triggers, which are whole."""
    found = {trigger.name: trigger for trigger in triggers}
    wanted = capture.triggers()
    return all(name in found and found[name].same_text(body) for name, body in wanted.items())
