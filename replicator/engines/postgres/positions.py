"""Positions of links whose changes may come past the outbox, straight from the log: a snapshot, and a place in the log.

``10:20:`` is a snapshot alone: the target has what the outbox had of every transaction visible in it. ``10:20:@0/15D3E88``: it
also has every transaction that the log shows committed before that place, whatever the outbox has of them.
"""

from __future__ import annotations

from replicator.model import Position


def spelled_lsn(lsn: int) -> str:
    """A place in the log as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parsed_lsn(text: str) -> int:
    """A place in the log as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def joined(snapshot: Position, lsn: int) -> Position:
    """Both as one position; the snapshot alone when nothing came past the outbox."""
    return Position(f"{snapshot}@{spelled_lsn(lsn)}") if lsn else snapshot


def snapshot_of(position: Position) -> Position:
    """A position's snapshot."""
    return Position(position.partition("@")[0])


def lsn_of(position: Position | None) -> int:
    """A position's place in the log; 0 when it has none."""
    place = position.partition("@")[2] if position is not None else ""
    return parsed_lsn(place) if place else 0
