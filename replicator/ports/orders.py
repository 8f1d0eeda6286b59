"""What a database has on record of backfills, for whoever looks on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from replicator.model import Backfill


class Orders(Protocol):
    """A database that links end at, looked at for the backfills ordered there. Read only, takes no lease."""

    def list_backfills(self, topology: str, *, unfinished: bool = False) -> Sequence[Backfill]:
        """The backfills of all of a topology's links that end here, oldest first; empty where nothing of ours is installed."""
        ...

    def close(self) -> None:
        """Release the connection. Repeatable."""
        ...
