"""Names of our objects in a SQLite file."""

from __future__ import annotations

import hashlib
import re
from functools import cache

from replicator.sqlfiles import names, text

_CREATED = re.compile(r"^create table (\w+)", re.MULTILINE)
_MIGRATIONS = "sql/sqlite/migrations"


@cache
def our_tables() -> frozenset[str]:
    """Names of all tables the migrations create."""
    return frozenset(name for file in names(_MIGRATIONS) for name in _CREATED.findall(text(f"{_MIGRATIONS}/{file}")))


def trigger_prefix(topology: str) -> str:
    """What the names of all triggers of one topology begin with."""
    return f"replicator_{_readable(topology)}_{_digest(topology)[:6]}_"


def trigger_name(topology: str, table: str, event: str) -> str:
    """The name of the trigger for ``event`` (``ai``, ``au`` …): readable, unique by its hash."""
    return f"{trigger_prefix(topology)}{_readable(table)}_{_digest(topology, table)[:8]}_{event}"


def _readable(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())[:24].strip("_") or "x"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
