"""Moments as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def at(microseconds: int) -> str:
    """A moment, given as microseconds since 1970, in the local time zone; empty for none."""
    if not microseconds:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
