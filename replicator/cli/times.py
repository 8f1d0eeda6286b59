"""Moments as people read them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

_AGO = re.compile(r"(\d{1,9})\s*([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def at(microseconds: int) -> str:
    """A moment, given as microseconds since 1970, in the local time zone; empty for none."""
    if not microseconds:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def since_moment(words: str) -> int:
    """A moment as people write it, in microseconds since 1970: ``2h`` ago, or a date and time; 0 for none.

    Raises BadParameter.
    """
    if not words:
        return 0
    found = _AGO.fullmatch(words.strip())
    if found:
        return int((time.time() - int(found[1]) * _UNITS[found[2]]) * 1e6)
    try:
        moment = datetime.fromisoformat(words.strip())
    except ValueError:
        hint = "write 90s, 30m, 2h or 7d for so long ago, or a date and time: 2026-05-04 12:30"
        raise click.BadParameter(f"{words!r} is no moment; {hint}", param_hint="--since") from None
    return int(moment.timestamp() * 1e6)
