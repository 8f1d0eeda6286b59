"""Realistic test runs of blood analysers: what `config/demo/laboratory.yaml` says, with chance. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random

import yaml

from replicator import sqlfiles

_OUTLIERS = 0.04
_BUILT = date(2024, 1, 8)


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured quantity and its expected range."""

    name: str
    unit: str
    low: float
    high: float
    digits: int

    def measure(self, random: Random) -> float:
        """A value as the instrument reports it; one in twenty-five is out of range."""
        middle, width = (self.low + self.high) / 2, self.high - self.low
        spread = width * (0.8 if random.random() < _OUTLIERS else 0.12)
        return round(max(random.gauss(middle, spread), 0.0), self.digits)

    def flag(self, value: float) -> str | None:
        """``L`` or ``H`` when the value is out of range."""
        return "L" if value < self.low else "H" if value > self.high else None


@dataclass(frozen=True, slots=True)
class Run:
    """A test run and its metrics, as rows of the two tables without the run's id."""

    row: tuple[object, ...]
    metrics: tuple[tuple[object, ...], ...]


class Laboratory:
    """Makes rows. Each factory has a seed of its own: same ids, other values."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        told = yaml.safe_load(sqlfiles.text("config/demo/laboratory.yaml"))
        self.metrics = tuple(Metric(**metric) for metric in told["metrics"])
        self.operators: tuple[str, ...] = tuple(told["operators"])
        self._models, self._firmwares = told["models"], [str(each) for each in told["firmwares"]]
        self._lots, self._remarks = told["lots"], told["remarks"]
        self._prefix = f"S{seed}"

    def operator(self, number: int) -> tuple[object, ...]:
        """An operator's row."""
        return number, self.operators[(number - 1) % len(self.operators)], f"{self._prefix}-{number:04}"

    def analyser(self, number: int) -> tuple[object, ...]:
        """An analyser's row."""
        built = _BUILT + timedelta(days=number)
        return number, f"{self._prefix}/{number:06}", self.model(), self.firmware(), built.isoformat()

    def model(self) -> str:
        """A model's name."""
        return str(self._random.choice(self._models))

    def firmware(self) -> str:
        """A firmware version."""
        return str(self._random.choice(self._firmwares))

    def remark(self) -> str | None:
        """What an operator noted, mostly nothing."""
        return str(self._random.choice(self._remarks)) if self._random.random() < 0.2 else None

    def metric(self) -> Metric:
        """Any metric."""
        return self._random.choice(self.metrics)

    def runs(self, first: int, count: int, analysers: int, operators: int) -> Iterator[Run]:
        """Consecutive test runs on the first ``analysers``, by the first ``operators``."""
        started = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        for number in range(first, first + count):
            metrics = tuple(self._measure(number, metric) for metric in self.metrics)
            verdict = "failed" if any(row[-1] for row in metrics) else "passed"
            who, what = self._random.randint(1, operators), self._random.randint(1, analysers)
            lot = self._random.choice(self._lots)
            yield Run((number, what, who, lot, started.isoformat(" "), verdict, self.remark()), metrics)

    def _measure(self, number: int, metric: Metric) -> tuple[object, ...]:
        value = metric.measure(self._random)
        return number, metric.name, value, metric.unit, float(metric.low), float(metric.high), metric.flag(value)

    def value(self, metric: Metric) -> float:
        """A new value of a metric."""
        return metric.measure(self._random)

    def chance(self) -> float:
        """0 to 1."""
        return self._random.random()

    def number(self, low: int, high: int) -> int:
        """Low to high."""
        return self._random.randint(low, high)
