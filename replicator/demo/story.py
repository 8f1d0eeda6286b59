"""How the demo tells its story: a line for what happened, when; on a terminal with a live view of the factories below."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from replicator.demo.lookout import View

_GOOD, _BAD, _DIM = "green", "bold red", "dim"
_TIME, _LABEL = 7, 19


class Story:
    """Tells on a rich console; plain text where that is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the clock was started."""
        return time.monotonic() - self._began

    def start_clock(self) -> None:
        """Set-up is over: time counts from here."""
        self._began = time.monotonic()

    def title(self, text: str) -> None:
        """The heading of a part."""
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def tell(self, label: str, text: str, style: str = "") -> None:
        """One event, at the time it is told."""
        self._row(f"{self.seconds:.1f} s", label, text, style)

    def good(self, label: str, text: str) -> None:
        """An event that proves something."""
        self.tell(label, text, _GOOD)

    def bad(self, label: str, text: str) -> None:
        """An event that should not be."""
        self.tell(label, text, _BAD)

    def aside(self, label: str, text: str) -> None:
        """A line without a time."""
        self._row("", label, text, "")

    def _row(self, moment: str, label: str, text: str, style: str) -> None:
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(width=_TIME, justify="right", style=_DIM)
        row.add_column(width=_LABEL, style="cyan")
        row.add_column(overflow="fold")
        row.add_row(moment, label, Text(text, style=style))
        self._console.print(row)

    def line(self, text: str = "", style: str = "") -> None:
        """Text as it is, never wrapped: for commands that are to be copied."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: names in the first column, words in the last, numbers between."""
        table = Table(box=None, padding=(0, 3, 0, 0), header_style=_DIM)
        for place, name in enumerate(head):
            table.add_column(name, justify="right" if 0 < place < len(head) - 1 else "left", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    @contextmanager
    def live(self, views: Mapping[str, View]) -> Iterator[None]:
        """Show the factories below the story while it goes on."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=lambda: _panel(views), console=self._console, refresh_per_second=8, transient=True):
            yield


def _panel(views: Mapping[str, View]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style=_DIM, title_justify="left")
    for name in ("factory", "test runs", "at the centre", "behind", "lag"):
        table.add_column(name, justify="left" if name == "factory" else "right", min_width=9)
    for site, view in list(views.items()):
        style = "yellow" if view.behind > 50 else _GOOD
        lag = Text(f"{view.lag:.1f} s", style)
        table.add_row(site, f"{view.newest:,}", f"{view.arrived:,}", Text(f"{view.behind:,}", style), lag)
    return table
