"""Options that many commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from replicator.cli.output import note

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.model import LinkName, TablePlan

DEBUG, JSON = "replicator.debug", "replicator.json"
"""Keys of ``click.Context.meta``: what the door has to know about the command's options."""

Command = TypeVar("Command", bound=Callable[..., object])


def _note(key: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def callback(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
        if value:
            ctx.meta[key] = True
        return value

    return callback


def debug_option(command: Command) -> Command:
    """``--debug``: the traceback below an error."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_note(DEBUG),
        is_eager=True,
        help="Show tracebacks of errors.",
    )(command)


def config_option(command: Command) -> Command:
    """``-c/--config``: the topology YAML."""
    return click.option(
        "-c", "--config", metavar="FILE", default="topology.yaml", show_default=True, envvar="REPLICATOR_CONFIG",
        show_envvar=True, help="The topology YAML.",
    )(command)  # fmt: skip


def site_option(command: Command) -> Command:
    """``--site``: only these sites."""
    return click.option("--site", "sites", metavar="NAME", multiple=True, help="Only this site; repeatable.")(command)


def json_option(command: Command) -> Command:
    """``--json``: one JSON document on standard output."""
    return click.option(
        "--json", "as_json", is_flag=True, callback=_note(JSON), is_eager=True,
        help="Print one JSON document instead of text.",
    )(command)  # fmt: skip


def common(command: Command) -> Command:
    """The options every command on a topology has."""
    return config_option(site_option(json_option(debug_option(command))))


def open_app(config: str) -> App:
    """The topology of a YAML file. Raises SettingsError."""
    from replicator.app import App

    return App.open(config)


def plans_at_centre(app: App, link: LinkName) -> Sequence[TablePlan]:
    """A link's plans for work at the centre alone; a site that is away is taken as the centre knew it last, with a note."""
    known = app.knows(link.site)
    plans = app.plans_at_centre(link)
    if not known and link.site in app.away:
        note(f"{link.site} is away, its tables are taken as they were: {app.away[link.site].message}")
    return plans
