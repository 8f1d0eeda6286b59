"""A database whose outbox is watched: its size, its rate, and capture that is stopped before the disk is full."""

from __future__ import annotations

from typing import Protocol

from replicator.model import OutboxFacts


class Outbox(Protocol):
    """One database's outbox, for one topology. Used by one thread at a time; needs no other end of a link."""

    def measure(self, *, count: bool = False) -> OutboxFacts | None:
        """Its size now, ``None`` before install. Read only; ``count``: also its rows and the oldest, which may read it all."""
        ...

    def sample(self) -> None:
        """Note the newest number, at most once an hour, so that the rate can be told later. Own short transaction."""
        ...

    def stop_capture(self, reason: str) -> str:
        """At a site: capture nothing any more, and put that on record. The application's statements go on as before.

        Own short transaction that waits for no table; repeatable. Install captures again. Where changes come from a log, it is
        only not brought into the outbox for a while; gives back what that means, else "".
        """
        ...

    def expire_slowest(self, silent_seconds: float) -> str:
        """At a centre: wait no more for the link that is furthest behind and was silent for so long; its name, "" if none."""
        ...

    def forget_stop(self, resumed_at: int) -> None:
        """What was written until capture went on at that time has been looked at. Own short transaction; repeatable.

        ``resumed_at``: as it was measured before the look. When capture was stopped again since, nothing is done.
        """
        ...

    def close(self) -> None:
        """Release the connection. Repeatable; it opens again when used again."""
        ...
