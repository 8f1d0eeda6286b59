"""``replicator init``: writes a commented topology YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

import click

from replicator import sqlfiles
from replicator.cli.options import debug_option
from replicator.cli.output import can_ask, note, say
from replicator.errors import SettingsError, SetupError

_PLAIN = re.compile(r"[A-Za-z][\w.:/@%?=&+~$-]*")
_PASSWORD = re.compile(r"^(postgres(?:ql)?://[^:/@]+):([^@]+)@")

_EPILOG = """\b
Examples:
  replicator init
  replicator init --topology bloodlab --centre postgresql://localhost/central \\
      --site factory_a=factory_a.sqlite3 --site factory_c=postgresql://localhost/factory_c --table 'devices_*'
  replicator init --both --topology clinic --centre postgresql://localhost/central \\
      --site ward_1=ward_1.sqlite3 --site ward_2=ward_2.sqlite3 --table patient --table visit

Exit codes: 0 written, 2 called wrongly, 3 nothing written (the file exists, or would not be a right one).
"""


@click.command(epilog=_EPILOG, short_help="Write a commented topology YAML.")
@click.option("--topology", metavar="NAME", help="What to call it: a-z, 0-9 and _; part of the names of our objects.")
@click.option("--centre", metavar="URL", help="Where everything goes: postgresql://… or a SQLite file.")
@click.option("--site", "sites", metavar="NAME=URL", multiple=True, help="Where changes come from; repeatable.")
@click.option(
    "--table", "tables", metavar="NAME", multiple=True, help="A table or a glob like 'devices_*'; repeatable."
)
@click.option(
    "--keyed-by-site/--shared-keys", default=None,
    help="Whether sites use the same keys for different rows, so that the site becomes part of the key at the centre. "
    "Default: yes when there are several sites and the tables do not go both ways.",
)  # fmt: skip
@click.option("--both", is_flag=True,
              help="The tables go both ways: changes of the centre, and of other sites, come back to the sites.")  # fmt: skip
@click.option("--file", "path", metavar="FILE", default="topology.yaml", show_default=True, help="What to write.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
@debug_option
def init(
    topology: str | None,
    centre: str | None,
    sites: Sequence[str],
    tables: Sequence[str],
    keyed_by_site: bool | None,
    both: bool,
    path: str,
    force: bool,
) -> None:
    """Write a commented topology YAML: which databases, which tables.

    Asks for what the flags do not say when it runs on a terminal. SQLite files may be given as plain paths.
    """
    file = Path(path)
    if file.exists() and not force:
        raise SetupError(f"{file} exists already", hint="write another with --file, or write over it with --force")
    topology = topology or _ask("--topology", "Name of the topology (a-z, 0-9, _)", "bloodlab")
    centre = centre or _ask(
        "--centre", "Centre: URL of the database everything goes to", "postgresql://localhost/central"
    )
    named = dict(_named_site(site) for site in (sites or _ask_sites()))
    globs = tables or [_ask("--table", "Tables (a name, or a glob like devices_*)", "*")]
    keyed = bool(keyed_by_site) if both else _is_keyed(named, keyed_by_site)
    more = (", keyed_by: [site]" if keyed else "") + (", direction: both" if both else "")
    written = _render(file, topology, centre, named, globs, more)
    _write(file, written)
    say(f"wrote {file}")
    for name in re.findall(r"\$\{(\w+_PASSWORD)\}", written):
        note(f"the password is not in the file: set the environment variable {name}")
    config = "" if path == "topology.yaml" else f" -c {path}"
    say(f"next: replicator check{config}")


def _ask(option: str, question: str, default: str) -> str:
    if not can_ask():
        raise click.UsageError(f"{option} is missing (there is no terminal to ask on)")
    answer: str = click.prompt(question, default=default, show_default=bool(default))
    return answer


def _ask_sites() -> list[str]:
    sites: list[str] = []
    while True:
        first = _ask("--site", "A site, as name=URL or name=file.sqlite3 (empty: no more)", "")
        if not first and sites:
            return sites
        if first:
            sites.append(first)


def _is_keyed(sites: dict[str, str], asked: bool | None) -> bool:
    if asked is not None:
        return asked
    if len(sites) < 2 or not can_ask():
        return len(sites) > 1
    return click.confirm(
        "Do the sites use the same keys for different rows (then the site becomes part of the key)?", True
    )


def _named_site(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not (name and equals and url) or ":" in name or "/" in name:
        raise click.BadParameter(f"{text!r} is not NAME=URL", param_hint="--site")
    return name, url


def _render(file: Path, topology: str, centre: str, sites: dict[str, str], tables: Sequence[str], more: str) -> str:
    return Template(sqlfiles.text("config/init.yaml")).substitute(
        file=file,
        topology=_scalar(topology),
        centre=_database(centre, "CENTRE"),
        sites="\n".join(f"  {_scalar(name)}: {{url: {_database(url, name)}}}" for name, url in sites.items()),
        tables="\n".join(f"  - {{name: {json.dumps(name, ensure_ascii=False)}{more}}}" for name in tables),
    )


def _database(url: str, name: str) -> str:
    """A URL as YAML; a password in it becomes an environment variable."""
    if "://" not in url:
        url = f"sqlite:///{url}"
    found = _PASSWORD.match(url)
    if found is None or found.group(2).startswith("${"):
        return _scalar(url)
    variable = re.sub(r"\W", "_", name).upper() + "_PASSWORD"
    return _scalar(f"{found.group(1)}@{url[found.end() :]}") + f', password: "${{{variable}}}"'


def _scalar(text: str) -> str:
    """``text`` as a YAML scalar that may stand in a flow mapping."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return text if plain and not text.endswith(":") else json.dumps(text, ensure_ascii=False)


def _write(file: Path, text: str) -> None:
    """Write the file once it is known to be a right one; what it replaces is kept until then."""
    from replicator.settings import load

    draft = file.with_name(f".{file.name}.new")
    try:
        draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{file} cannot be written: {error.strerror}", hint="name another with --file") from error
    try:
        load(draft, _Anything())
    except SettingsError as error:
        draft.unlink()
        message = error.message.replace(f"{draft}:{error.line}: ", "")
        raise SetupError(f"nothing written: {message}", hint=error.hint) from error
    draft.replace(file)


class _Anything(dict[str, str]):
    """An environment in which every variable is set: the file is judged, not the environment."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return "x"
