"""Finds, splits and renders the shipped SQL, trigger and config files. No SQL text lives in Python.

Files are valid SQL as they stand. Two kinds of marker are replaced when a template is rendered:

* ``"__name__"``: an identifier, quoted by this module;
* ``/*: name */ default /*:*/``: a fragment; the default keeps the unrendered file valid.

Statements are named with a line ``-- name: read_batch`` and run to the next such line; comment lines below it document
the statement (the idea is aiosql's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from replicator.errors import SetupError

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_MARKER = re.compile(r'/\*: (?P<fragment>\w+) \*/.*?/\*:\*/|"__(?P<identifier>\w+?)__"', re.DOTALL)


@cache
def root() -> Traversable:
    """The folder that holds ``sql``, ``triggers`` and ``config``: inside an installed package, else the source tree."""
    shipped = files("replicator") / "_files"
    return shipped if shipped.is_dir() else Path(__file__).resolve().parent.parent


@cache
def text(path: str) -> str:
    """The text of a shipped file, such as ``sql/postgres/queries.sql``. Raises SetupError when it is not shipped."""
    node = root()
    for part in path.split("/"):
        node = node / part
    if not node.is_file():
        raise SetupError(f"shipped file {path} is missing", hint="reinstall the package: pip install --force-reinstall")
    return node.read_text(encoding="utf-8")


@cache
def names(folder: str, suffix: str = ".sql") -> tuple[str, ...]:
    """Sorted names of the files in a shipped folder."""
    node = root()
    for part in folder.split("/"):
        node = node / part
    return tuple(sorted(child.name for child in node.iterdir() if child.name.endswith(suffix)))


@cache
def statements(path: str) -> Mapping[str, str]:
    """Statement name → text of one file of named statements. Raises SetupError on a name used twice."""
    parts = _NAME.split(text(path))
    found: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in found:
            raise SetupError(f"{path}: statement {name} is named twice")
        found[name] = body.strip().rstrip(";")
    return found


def statement(path: str, name: str) -> str:
    """One named statement of a file, without its final semicolon."""
    try:
        return statements(path)[name]
    except KeyError:
        raise SetupError(f"{path}: no statement named {name}") from None


def quote(name: str) -> str:
    """``name`` as a quoted identifier; the spelling is the same in PostgreSQL and SQLite."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """``value`` as a text literal (both engines; PostgreSQL with ``standard_conforming_strings`` on, its default)."""
    return "'" + value.replace("'", "''") + "'"


def quoted(names: tuple[str, ...] | list[str], prefix: str = "") -> str:
    """A comma-separated list of quoted identifiers, each behind ``prefix`` (such as ``t.``)."""
    return ", ".join(prefix + quote(name) for name in names)


def render(
    template: str, *, identifiers: Mapping[str, str] | None = None, fragments: Mapping[str, str] | None = None
) -> str:
    """The template with its identifier markers quoted and its fragments put in.

    Raises KeyError when the template has a marker that is not given: a forgotten marker must never reach a database.
    """

    def fill(match: re.Match[str]) -> str:
        fragment, identifier = match.group("fragment"), match.group("identifier")
        return (fragments or {})[fragment] if fragment else quote((identifiers or {})[identifier])

    return _MARKER.sub(fill, template)  # one pass: what is put in may look like a marker (a column called "__x__")
