"""Enums, spelled as in SQL and in logs, and the small types of positions and keys."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

Position = NewType("Position", str)
"""A source's opaque, ordered place in its change stream; only the source that made it can read it.

PostgreSQL: the horizon, a ``pg_snapshot`` as text. SQLite: ``<nonce>:<seq>``.
"""

Key = tuple[object, ...]
"""Primary-key values of one row, in key-column order, as the driver gives them."""


class Engine(StrEnum):
    """Database engines."""

    POSTGRES = "postgres"
    SQLITE = "sqlite"


class Direction(StrEnum):
    """Which way a table's changes flow; a link has one of the first two."""

    TO_CENTRE = "to_centre"
    FROM_CENTRE = "from_centre"
    BOTH = "both"

    @property
    def rises(self) -> bool:
        """Whether a site's changes go to the centre."""
        return self is not Direction.FROM_CENTRE

    @property
    def falls(self) -> bool:
        """Whether the centre's changes go to the sites that want them."""
        return self is not Direction.TO_CENTRE


class PolicyName(StrEnum):
    """Who wins a conflict. The ``*sql_wins`` names say it by engine; compiled plans never hold them."""

    SOURCE_WINS = "source_wins"
    CENTRE_WINS = "centre_wins"
    POSTGRESQL_WINS = "postgresql_wins"
    SQLITE_WINS = "sqlite_wins"
    NEWEST_WINS = "newest_wins"
    SITE_PRIORITY = "site_priority"
    MERGE_COLUMNS = "merge_columns"
    ADD = "add"
    """For a column: the site's increment is added to what the centre has."""
    RULE = "rule"
    """The user's own rule: a SQL expression or a Python callable."""
    MANUAL = "manual"


class TruncatePolicy(StrEnum):
    """What a TRUNCATE at the source does at the target."""

    REPLICATE = "replicate"
    PARK = "park"
    IGNORE = "ignore"


class Op(StrEnum):
    """What happened to a row, as the outbox and the stage spell it."""

    INSERT = "i"
    UPDATE = "u"
    DELETE = "d"
    KEY_UPDATE = "k"
    TRUNCATE = "t"
    STATE = "s"
    """Key mode: the row as it is now; whether it was there before is for the ledger to say."""
    GONE = "g"
    """Key mode: the row is not there now."""
    MARKER = "m"
    """The centre's outbox only: the place up to which it has processed a site's changes."""


class ConflictKind(StrEnum):
    """PostgreSQL's names for a change that does not fit the row it meets."""

    INSERT_EXISTS = "insert_exists"
    UPDATE_DIFFERS = "update_differs"
    UPDATE_MISSING = "update_missing"
    UPDATE_DELETED = "update_deleted"
    DELETE_DIFFERS = "delete_differs"
    DELETE_MISSING = "delete_missing"


class Verdict(StrEnum):
    """What is done with a conflicting change."""

    APPLY = "apply"
    KEEP = "keep"
    MERGE = "merge"
    PARK = "park"


class ParkedState(StrEnum):
    """State of a parked change: the first of a row's queue is ``parked``, those behind it wait."""

    PARKED = "parked"
    WAITING = "waiting"
