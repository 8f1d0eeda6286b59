"""What a PostgreSQL database has on record of links, sites and captures, for whoever installs and looks on."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, translated
from replicator.engines.postgres.level import newest_level, read_level
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


class Recorded(ABC):
    """The part of an installable database that reads and keeps records; our tables may be of an older schema, or not there."""

    _place: str

    @property
    @abstractmethod
    def _connection(self) -> PostgresConnection: ...

    def list_links(self, topology: str) -> Sequence[LinkRecord]:
        """Links recorded here (targets only)."""
        with translated(self._place):
            if not rows(self._connection, "install", "our_schema")[0][0]:
                return []
            require_level(self._place, read_level(self._connection), newest_level())
            found = rows(self._connection, "install", "list_links", topology)
        return [_link_record(row) for row in found]

    def remember_site(self, topology: str, site: str, catalogue: Catalogue) -> None:
        """See ports.Installable."""
        with translated(self._place):
            if not rows(self._connection, "install", "has_known_sites")[0][0]:
                return  # not before our tables have been brought forward
            sql = sqlfiles.statement("sql/postgres/install.sql", "remember_site")
            self._connection.execute(sql.encode(), (topology, site, encode_catalogue(catalogue)))

    def recall_sites(self, topology: str) -> Mapping[str, Catalogue]:
        """See ports.Installable."""
        with translated(self._place):
            if not rows(self._connection, "install", "has_known_sites")[0][0]:
                return {}
            found = rows(self._connection, "install", "recall_sites", topology)
        return {str(site): decode_catalogue(str(text)) for site, text in found}

    def read_clock(self) -> int:
        """See ports.Installable."""
        with translated(self._place):
            ((now,),) = rows(self._connection, "target", "read_clock")
        return int(str(now))

    def read_seen(self) -> int:
        """See ports.Installable."""
        with translated(self._place):
            if not rows(self._connection, "install", "our_schema")[0][0]:
                return 0
            ((seen,),) = rows(self._connection, "install", "read_seen")
        return int(str(seen))

    def read_identity(self) -> str:
        """See ports.Installable."""
        with translated(self._place):
            if not rows(self._connection, "install", "our_schema")[0][0]:
                return ""
            return str(rows(self._connection, "target", "read_identity")[0][0])

    def is_stopped(self, topology: str) -> bool:
        """Whether capture was stopped because the outbox was full, and not resumed."""
        with translated(self._place):
            if not rows(self._connection, "purge", "has_stops")[0][0]:
                return False
            found = rows(self._connection, "purge", "read_stop", topology)
        return bool(found) and not found[0][1]


def _link_record(row: tuple[object, ...]) -> LinkRecord:
    topology, site, direction, position, identity, *numbers, stamp = row
    recorded_at, changes, conflicts, parked, skew_us, newest, undecided = (
        int(re.sub(r"\..*", "", str(n))) for n in numbers
    )
    return LinkRecord(
        link=LinkName(str(topology), str(site), Direction(str(direction))),
        position=None if position is None else Position(str(position)), source_identity=str(identity),
        recorded_at=recorded_at, changes=changes, conflicts=conflicts, parked=parked, skew_us=skew_us,
        newest_changed_at=newest, undecided=undecided, stamp=str(stamp),
    )  # fmt: skip
