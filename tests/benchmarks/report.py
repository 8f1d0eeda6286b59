"""Figures, the aims they are held against, the table and the JSON. A missed aim is printed like any other result."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound on a figure's value, or on its ratio to the baseline."""

    at_least: float | None = None
    at_most: float | None = None
    of_ratio: bool = False

    def reached(self, figure: Figure) -> bool:
        """Whether the figure keeps the bound. A ratio without a baseline does not."""
        measured = figure.ratio if self.of_ratio else figure.value
        if measured is None:
            return False
        return (self.at_least is None or measured >= self.at_least) and (
            self.at_most is None or measured <= self.at_most
        )

    def __str__(self) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {number(bound or 0.0)}{' ×' if self.of_ratio else ''}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing: the median of ``samples``, and what it is compared with (``ratio`` = value / baseline).

    ``what`` of a figure that belongs to the one before it begins with the same words up to ``: ``.
    """

    what: str
    samples: Sequence[float]
    unit: str
    baseline: str = ""
    baseline_samples: Sequence[float] = ()
    aims: Sequence[Aim] = ()
    note: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    @property
    def baseline_value(self) -> float | None:
        """The baseline's median."""
        return statistics.median(self.baseline_samples) if self.baseline_samples else None

    @property
    def ratio(self) -> float | None:
        """Value over baseline."""
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def reached(self) -> bool | None:
        """Whether all aims are reached; ``None`` where there is none."""
        return all(aim.reached(self) for aim in self.aims) if self.aims else None

    @property
    def verdict(self) -> str:
        """``reached``, ``missed`` or empty."""
        return {True: "reached", False: "missed", None: ""}[self.reached]


@dataclass(slots=True)
class Report:
    """All results of one run, written anew after every benchmark so that a broken one loses nothing."""

    file: Path
    server: str
    scale: float
    repetitions: int
    results: dict[str, list[Figure]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, figures: list[Figure], seconds: float) -> None:
        """Keep, print and write a benchmark's figures."""
        self.results[name], self.seconds[name] = figures, round(seconds, 1)
        print(table(figures), flush=True)
        self.write()

    def fail(self, name: str, error: str) -> None:
        """Keep what broke."""
        self.broken[name] = error
        self.write()

    def write(self) -> None:
        """Write the JSON file."""
        values = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "server": self.server,
            "scale": self.scale,
            "repetitions": self.repetitions,
            "machine": machine(),
            "results": {name: [_plain(figure) for figure in figures] for name, figures in self.results.items()},
            "seconds": self.seconds,
            "broken": self.broken,
        }
        self.file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def summary(self) -> str:
        """How many aims were reached, and every missed one."""
        figures = [(name, figure) for name, group in self.results.items() for figure in group if figure.aims]
        missed = [(name, figure) for name, figure in figures if not figure.reached]
        lines = [f"aims reached: {len(figures) - len(missed)} of {len(figures)}"]
        for name, figure in missed:
            aims = ", ".join(map(str, figure.aims))
            ratio = "" if figure.ratio is None else f" ({figure.ratio:.2f} × {figure.baseline})"
            lines.append(f"  missed: {name}: {figure.what}: {number(figure.value)} {figure.unit}{ratio}, aim {aims}")
        lines += [f"  broken: {name}: {error}" for name, error in self.broken.items()]
        if self.scale < 1:
            lines.append(f"  measured at scale {self.scale:g}: aims are meant for scale 1")
        return "\n".join(lines)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
    }


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned text."""
    rows = [("", "measured", "", "baseline", "ratio", "aim", "")]
    last = ""
    for figure in figures:
        base = "" if figure.baseline_value is None else f"{number(figure.baseline_value)} {figure.baseline}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} ×"
        aims = ", ".join(map(str, figure.aims))
        head, _, tail = figure.what.partition(": ")
        shown = f"  {tail}" if tail and head == last else figure.what
        last = head
        rows.append((shown, number(figure.value), figure.unit, base, ratio, aims, figure.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if column in (1, 4) else text.ljust(width) for column, (text, width) in _zip(row, widths)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    notes = [f"  – {figure.what}: {figure.note}" for figure in figures if figure.note]
    return "\n".join(lines + notes)


def _zip(row: tuple[str, ...], widths: list[int]) -> list[tuple[int, tuple[str, int]]]:
    return list(enumerate(zip(row, widths, strict=True)))


def number(value: float) -> str:
    """A number for people: three digits below a thousand, grouped above."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _plain(figure: Figure) -> dict[str, object]:
    values = asdict(figure) | {"aims": [str(aim) for aim in figure.aims]}
    derived = {
        "value": figure.value,
        "baseline_value": figure.baseline_value,
        "ratio": figure.ratio,
        "reached": figure.reached,
    }
    return values | derived
