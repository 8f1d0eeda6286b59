"""The door: ``replicator COMMAND``. Commands are found by name and imported when asked for, so that help stays light.

A command's module imports click and the ground floor; drivers, settings and engines are imported inside the command.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping

import click

from replicator import __version__
from replicator.cli.options import DEBUG, JSON, debug_option
from replicator.cli.output import EXIT_ERROR, show_error
from replicator.errors import ReplicatorError

COMMANDS: Mapping[str, str] = {
    "init": "init",
    "check": "check",
    "plan": "install",
    "install": "install",
    "sync": "run",
    "run": "run",
    "status": "status",
    "audit": "audit",
    "backfill": "backfill",
    "resync": "resync",
    "parked": "parked",
    "conflicts": "conflicts",
    "history": "history",
    "schema": "schema",
    "change": "change",
    "rejoin": "rejoin",
    "uninstall": "install",
    "simulate": "simulate",
    "demo": "demo",
}
"""Command → module of this package, in the order in which one meets them."""

_INTERRUPTED = 130

_EPILOG = """\b
Exit codes:
  0    done, equal, healthy
  1    a difference was found, or what was checked does not hold
  2    not proven (audit), or the command was called wrongly
  3    error: something failed, see the message
  130  interrupted

\b
Begin with:
  replicator demo                      watch it work, no set-up needed
  replicator init                      write a topology.yaml for your databases
"""


class Door(click.Group):
    """Imports a command when it is asked for, and turns every error into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"replicator.cli.{COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors end here."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(_INTERRUPTED)
        except Exception as error:
            self._explain(ctx, error)
            ctx.exit(EXIT_ERROR)

    @staticmethod
    def _explain(ctx: click.Context, error: Exception) -> None:
        """Ours are told in their own words; anything else is a bug and says so."""
        if ctx.meta.get(DEBUG):
            click.echo("".join(traceback.format_exception(error)), err=True)
        ours = isinstance(error, ReplicatorError)
        message = error.message if isinstance(error, ReplicatorError) else f"unexpected {type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, ReplicatorError) else ""
        if not ours and not ctx.meta.get(DEBUG):
            hint = "this is a bug; show it in full with: replicator --debug …"
        show_error(message, hint, as_json=bool(ctx.meta.get(JSON)))


def _show_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    from replicator.sqlfiles import names

    if wanted and not ctx.resilient_parsing:
        levels = [
            names(f"sql/{engine}/migrations")[-1].split("_", 1)[0].lstrip("0") for engine in ("postgres", "sqlite")
        ]
        click.echo(f"replicator, version {__version__} (schema {levels[0]} on PostgreSQL, {levels[1]} on SQLite)")
        ctx.exit()


@click.group(
    cls=Door, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
              help="Show the version, and the schema of our tables it works with.")  # fmt: skip
@debug_option
def main() -> None:
    """Replicate the changes of many SQLite and PostgreSQL databases to one central database, with proof.

    One YAML file, the topology, says which databases and tables. Capture is done by triggers; the position of each site
    is stored at the centre with the rows themselves; the audit compares checksums of both sides.
    """
