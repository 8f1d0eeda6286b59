"""A database that begins a new epoch: its links go on, though its history is not the one they knew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from replicator.model import LinkName, Position


@dataclass(frozen=True, slots=True)
class Begun:
    """A site's new epoch: its identity now, and from where the link to the centre goes on (``None``: from the start)."""

    identity: str
    position: Position | None


@dataclass(frozen=True, slots=True)
class Reached:
    """How far the centre has read a site. ``proven``: in the very history that the site has now (Source.prove_history)."""

    position: Position
    proven: bool


class Epochs(Protocol):
    """Begins epochs, for ``replicator rejoin``. Every method is one short transaction and may be repeated.

    The order of the three makes a crash between them safe: until ``begin_at_centre`` the link to the centre is stopped, as its
    source has another identity than its target knows, and until ``let_fall`` the link from the centre is.
    """

    def begin_at_site(
        self, link: LinkName, newest: int, reached: Reached | None, *, rises: bool, falls: bool, copy: bool
    ) -> Begun:
        """At the site of ``link`` (to the centre): a new epoch; what the centre does not have yet is kept to be sent.

        That are changes not acknowledged and behind what the centre has ``reached`` (``None``: nothing). Of a history that was
        put back, changes later than ``newest``, the newest the centre has of the site (microseconds since 1970): the others
        were processed there before the restore, and the rows may have gone on since.
        ``rises``: whether the site sends anything. Where rows come from the centre (``falls``), nothing of the site's is taken
        for processed beyond that, beliefs about the centre's rows are forgotten, and the link from the centre is stopped.
        ``copy``: the database gets a new name as well, and what it knows of other sites' links of the topology goes.
        """
        ...

    def begin_at_centre(self, link: LinkName, begun: Begun, *, rises: bool, falls: bool) -> None:
        """At the centre: the link goes on from there, fed by that database; what was believed of its rows is forgotten.

        Unfinished backfills are left alone. Where rows go to the site (``falls``), all that concerns it waits for it.
        """
        ...

    def begin_centre(self) -> None:
        """At a centre that was put back itself: a new epoch."""
        ...

    def let_fall(self, link: LinkName) -> None:
        """At the site, when the centre has its rows: the link from the centre reads all of the site's part anew."""
        ...

    def close(self) -> None:
        """Release the connection. Repeatable."""
        ...
