"""What a SQLite file has on record of links, sites and captures, for whoever installs and looks on."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from replicator.engines.sqlite.connection import translated
from replicator.engines.sqlite.level import newest_level, read_level
from replicator.model import (
    Catalogue,
    Direction,
    LinkName,
    LinkRecord,
    Position,
    decode_catalogue,
    encode_catalogue,
    require_level,
)
from replicator.sqlfiles import statement

_SQL = "sql/sqlite/install.sql"
_CATALOGUE = "sql/sqlite/catalogue.sql"


class Recorded(ABC):
    """The part of an installable file that reads and keeps records; our tables may be of an older schema, or not there."""

    _place: str

    @property
    @abstractmethod
    def _connection(self) -> sqlite3.Connection: ...

    def list_links(self, topology: str) -> Sequence[LinkRecord]:
        """Links recorded here."""
        with translated(self._place):
            if "replicator_link" not in self._table_names():
                return []
            require_level(self._place, read_level(self._connection), newest_level())
            rows = self._connection.execute(statement(_SQL, "list_links"), (topology,)).fetchall()
        return [_link_record(topology, row) for row in rows]

    def remember_site(self, topology: str, site: str, catalogue: Catalogue) -> None:
        """See ports.Installable."""
        with translated(self._place):
            if "replicator_known_site" not in self._table_names():
                return  # not before our tables have been brought forward
            self._connection.execute(statement(_SQL, "remember_site"), (topology, site, encode_catalogue(catalogue)))

    def recall_sites(self, topology: str) -> Mapping[str, Catalogue]:
        """See ports.Installable."""
        with translated(self._place):
            if "replicator_known_site" not in self._table_names():
                return {}
            return {str(site): decode_catalogue(str(text)) for site, text in self._rows("recall_sites", topology)}

    def read_clock(self) -> int:
        """See ports.Installable."""
        with translated(self._place):
            (now,) = self._connection.execute(statement("sql/sqlite/source.sql", "read_clock")).fetchone()
        return int(now)

    def read_seen(self) -> int:
        """See ports.Installable."""
        with translated(self._place):
            found = self._rows("read_seen") if "replicator_control" in self._table_names() else []
        return int(str(found[0][0])) if found else 0

    def read_identity(self) -> str:
        """See ports.Installable."""
        with translated(self._place):
            found = self._rows("identity") if "replicator_identity" in self._table_names() else []
        return str(found[0][0]) if found else ""

    def is_stopped(self, topology: str) -> bool:
        """Whether capture was stopped because the outbox was full, and not resumed."""
        with translated(self._place):
            found = self._connection.execute(statement("sql/sqlite/purge.sql", "read_stop"), (topology,)).fetchone()
        return found is not None and not found[1]

    def _rows(self, name: str, *parameters: str) -> list[tuple[object, ...]]:
        return self._connection.execute(statement(_SQL, name), parameters).fetchall()

    def _table_names(self) -> frozenset[str]:
        rows = self._connection.execute(statement(_CATALOGUE, "list_table_names")).fetchall()
        return frozenset(str(name) for (name,) in rows)


def _link_record(topology: str, row: tuple[object, ...]) -> LinkRecord:
    site, direction, position, identity, *numbers, stamp = row
    recorded_at, changes, conflicts, parked, skew_us, newest, undecided = (int(str(number)) for number in numbers)
    return LinkRecord(
        link=LinkName(topology, str(site), Direction(str(direction))),
        position=None if position is None else Position(str(position)),
        source_identity=str(identity),
        recorded_at=recorded_at,
        changes=changes,
        conflicts=conflicts,
        parked=parked,
        skew_us=skew_us,
        newest_changed_at=newest,
        undecided=undecided,
        stamp=str(stamp),
    )
