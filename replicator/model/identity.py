"""What a database is called: ``[server/number/]database id, epoch``, as ports.Source.read_identity gives it."""

from __future__ import annotations

import re

_SEPARATOR = re.compile("[/:]")


def lineage(identity: str) -> str:
    """Database id and epoch: the part that stays when the same database is brought to another server."""
    return "/".join(_SEPARATOR.split(identity)[-2:])


def database_id(identity: str) -> str:
    """The name install gave the database: a copy has it too, until it is made a database of its own."""
    return _SEPARATOR.split(identity)[-2] if identity else ""
