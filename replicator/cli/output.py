"""What commands show: tables and colours on a terminal, plain aligned text in a pipe, one JSON document on request.

Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass

import click

from replicator.errors import ReplicatorError

EXIT_DIFFERENT, EXIT_NOT_PROVEN, EXIT_ERROR = 1, 2, 3

GOOD, BAD, WARN, DIM = "green", "red", "yellow", "dim"
Row = Sequence[str]
Advance = Callable[[int, str], None]
"""Tells progress how many units are done since the last call, and what to say beside the bar."""


def on_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def can_ask() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def say(text: str = "", style: str = "") -> None:
    """One line on standard output; the style is for terminals only."""
    if style == DIM:
        click.secho(text, dim=True)
    else:
        click.secho(text, fg=style or None)


def errors_of(failed: Mapping[str, ReplicatorError]) -> dict[str, dict[str, str]]:
    """Places that did not answer, for ``--json``."""
    return {place: {"error": error.message, "hint": error.hint} for place, error in failed.items()}


def note(text: str) -> None:
    """One line on standard error, beside the results."""
    click.echo(text, err=True)


def show_json(document: object) -> None:
    """The one JSON document of a command."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=_plain))


def show_error(message: str, hint: str, *, as_json: bool = False) -> None:
    """An error and what to do next, on standard error; with ``as_json`` as a document on standard output too."""
    click.secho(f"error: {message}", fg="red", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    if as_json:
        show_json({"error": message, "hint": hint})


def show_table(head: Row, rows: Sequence[Row], styles: Sequence[str] = ()) -> None:
    """A table; ``styles`` gives one style per row. In a pipe: aligned columns, nothing cut, nothing coloured."""
    if on_terminal():
        _show_rich(head, rows, styles)
        return
    widths = [max(map(_width, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _show_rich(head: Row, rows: Sequence[Row], styles: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in head:
        table.add_column(title, overflow="fold")
    for place, row in enumerate(rows):
        table.add_row(*map(Text, row), style=styles[place] if place < len(styles) else "")
    Console(highlight=False).print(table)


@contextmanager
def progress(title: str, total: int, unit: str, *, hidden: bool = False) -> Iterator[Advance]:
    """A progress bar on standard error where that is a terminal; else nothing. The total grows when it is passed."""
    if hidden or not sys.stderr.isatty():
        yield lambda count, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn(f"{{task.completed:,}} {unit}"),
        TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[note]}", style=DIM), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=max(total, 1), rate="", note="")

        def advance(count: int, text: str) -> None:
            known = bars.tasks[0]
            done = int(known.completed) + count
            rate = f"{done / known.elapsed:,.0f}/s" if known.elapsed else ""
            bars.update(task, completed=done, total=max(int(known.total or 1), done), rate=rate, note=text)

        yield advance


def seconds(value: float | None) -> str:
    """A length of time as people say it."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.1f} s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:,.0f} {unit}"
    return f"{value:.0f} s"


def count(number: int, unit: str, units: str = "") -> str:
    """A number with its unit, in the plural where it is one."""
    return f"{number:,} {unit if number == 1 else units or unit + 's'}"


def shown(value: object, longest: int = 60) -> str:
    """A value of a row for people: NULL told apart from empty text, long ones cut."""
    text = (
        "NULL" if value is None else repr(value) if isinstance(value, str) and not value.isprintable() else str(value)
    )
    if value == "":
        text = "''"
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def image(row: Mapping[str, object] | None, longest: int = 60) -> str:
    """A row on one line."""
    if row is None:
        return "no row"
    return ", ".join(f"{name} = {shown(value, longest)}" for name, value in row.items())


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
