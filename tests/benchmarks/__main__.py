"""``make bench``: runs the benchmarks named (all when none), prints each table as it is ready, and writes JSON."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from replicator.embedded import Binaries, EmbeddedServer, find_binaries
from tests.benchmarks.backfill import backfill
from tests.benchmarks.both_ways import both_ways
from tests.benchmarks.drain import drain
from tests.benchmarks.fanout import fanout
from tests.benchmarks.ground import SERVER_OPTIONS, Ground
from tests.benchmarks.idle import idle
from tests.benchmarks.latency import latency
from tests.benchmarks.memory import memory
from tests.benchmarks.report import Figure, Report, machine
from tests.benchmarks.source_cost import source_cost
from tests.benchmarks.wake import wake
from tests.benchmarks.wal import wal

BENCHMARKS: Mapping[str, Callable[[Ground], list[Figure]]] = {
    "source": source_cost,
    "drain": drain,
    "backfill": backfill,
    "latency": latency,
    "memory": memory,
    "idle": idle,
    "wake": wake,
    "both_ways": both_ways,
    "fanout": fanout,
    "wal": wal,
}


def main() -> int:
    """Zero unless something broke: a missed aim is a result."""
    options = _options()
    binaries = _binaries(options.server)
    file = options.json or Path(tempfile.gettempdir()) / f"replicator-bench-{datetime.now():%Y%m%d-%H%M%S}.json"
    shown = f"{binaries.label} ({binaries.version})"
    report = Report(file.resolve(), shown, options.scale, options.repetitions)
    print(f"PostgreSQL {shown}, scale {options.scale:g}, median of {options.repetitions}")
    print(", ".join(f"{name} {value}" for name, value in (machine() | SERVER_OPTIONS | {"fsync": "on"}).items()))
    folder = Path(tempfile.mkdtemp(prefix="replicator-bench-"))
    try:
        with EmbeddedServer(binaries=binaries, options=SERVER_OPTIONS) as server:
            ground = Ground(server, folder, options.scale, options.repetitions)
            for name in options.names or BENCHMARKS:
                _measure(name, ground, report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{report.summary()}\nresults: {report.file}")
    return 1 if report.broken else 0


def _measure(name: str, ground: Ground, report: Report) -> None:
    """One benchmark; when it breaks, the others still run."""
    print(f"\n{name}: {(sys.modules[BENCHMARKS[name].__module__].__doc__ or '').splitlines()[0]}", flush=True)
    start = time.perf_counter()
    try:
        figures = BENCHMARKS[name](ground)
    except Exception as error:
        traceback.print_exc()
        report.fail(name, f"{type(error).__name__}: {error}")
        return
    report.add(name, figures, time.perf_counter() - start)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes and times (default 1)")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each side is measured (default 3)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the results go (default: a new temporary file)"
    )
    parser.add_argument(
        "--server", metavar="LABEL", help="which PostgreSQL, such as wheel-18 (default: the first found)"
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark called {unknown[0]}; there are: {', '.join(BENCHMARKS)}")
    if options.scale <= 0 or options.repetitions < 1:
        parser.error("--scale is above 0, --repetitions is 1 or more")
    return options


def _binaries(label: str | None) -> Binaries:
    found = find_binaries()
    for each in found:
        if label in (None, each.label):
            return each
    sys.exit(f"no server called {label}; there are: {', '.join(each.label for each in found) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
