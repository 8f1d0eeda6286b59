"""``replicator demo``: the whole thing on this machine, in under a minute."""

from __future__ import annotations

from pathlib import Path

import click

from replicator.cli.options import debug_option

_EPILOG = """\b
Examples:
  replicator demo
  replicator demo --keep --directory /tmp/bloodlab     leaves it running to play with

Exit codes: 0 every row was equal at the end, 1 some were not, 3 error.
"""


@click.command(epilog=_EPILOG, short_help="Watch it all work on this machine; no set-up.")
@click.option("--keep", is_flag=True, help="Leave databases and service running afterwards, to play with.")
@click.option(
    "--directory", metavar="DIR", type=click.Path(path_type=Path), help="Where to put it; default a temporary one."
)
@debug_option
def demo(keep: bool, directory: Path | None) -> None:
    """Watch two SQLite factories and a PostgreSQL one replicate to a centre, break and recover. Needs no set-up."""
    from rich.console import Console

    from replicator.demo import run_demo

    raise SystemExit(run_demo(keep=keep, directory=directory, console=Console(highlight=False)))
