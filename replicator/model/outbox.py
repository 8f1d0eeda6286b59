"""What is known of an outbox's size, and the limits it is to keep."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WhenFull(StrEnum):
    """What is done when an outbox has outgrown its limits."""

    WARN = "warn"
    STOP = "stop"
    """At a site capture stops; at a centre the slowest link is waited for no more. Either must be resynchronised."""


@dataclass(frozen=True, slots=True)
class Cap:
    """Limits of an outbox, in bytes. ``max_size`` 0: none. ``keep_free``: what is to stay free on its disk, where known."""

    max_size: int = 0
    keep_free: int = 0
    when_full: WhenFull = WhenFull.WARN


@dataclass(frozen=True, slots=True)
class OutboxFacts:
    """An outbox as measured. Times are microseconds since 1970 by the database's clock, 0 where there is none.

    ``bytes``: on disk (SQLite: about). ``top``: the number of the newest change ever captured. ``sampled_at``, ``sampled``: an
    earlier time and the number then. ``free``: bytes free on its disk, ``None`` where unknown. ``rows``: ``None`` unless
    counted. ``waiting``: bytes of what is not delivered yet, with ``rows``; ``heard_at``: when the slowest link that reads it
    acknowledged last. ``stopped_at``: since when capture is stopped, ``resumed_at``: when install made it anew.
    """

    bytes: int
    top: int
    clock: int
    sampled_at: int = 0
    sampled: int = 0
    free: int | None = None
    rows: int | None = None
    oldest_changed_at: int = 0
    stopped_at: int = 0
    resumed_at: int = 0
    stop_reason: str = ""
    waiting: int | None = None
    heard_at: int = 0
