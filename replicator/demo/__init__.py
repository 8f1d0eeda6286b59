"""The demo: three factories of blood analysers and their centre on this machine, in under a minute.

Two factories are SQLite files, one is a PostgreSQL database, the centre is PostgreSQL. The replicator is used as its users
use it, by its commands, each a process of its own; the factories' applications are processes that know nothing of it.

``run_demo`` plays; ``scene`` builds everything, ``acts`` is what happens, ``story`` tells it; ``application`` is what a
factory runs, ``line`` a network line that can be cut, ``lookout`` measures from outside how far the centre is behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def run_demo(*, keep: bool, directory: Path | None, console: Console) -> int:
    """Play the demo; 0 only when the audit found every row equal.

    Args:
        keep: leave the server and the service running until Ctrl-C, with commands to play with.
        directory: a new or empty folder for SQLite files, topology and logs; it stays. ``None``: a temporary one, which
            goes.
        console: where the story is told.

    Raises SetupError when there is no PostgreSQL server to run or ``directory`` is not empty, and ReplicatorError when a
    command or a factory fails. Whatever happens, no process is left.
    """
    from replicator.demo.play import play  # the applications import this package too, and need none of that

    return play(keep=keep, directory=directory, console=console)
