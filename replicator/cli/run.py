"""``replicator sync`` (drain once) and ``replicator run`` (the service)."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from replicator.cli.check import config_flag
from replicator.cli.log import Log, Watcher, notify
from replicator.cli.options import common, config_option, debug_option, open_app, site_option
from replicator.cli.output import (
    BAD,
    EXIT_DIFFERENT,
    EXIT_ERROR,
    GOOD,
    WARN,
    count,
    progress,
    say,
    show_error,
    show_json,
    show_table,
)
from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.model import LinkName
    from replicator.worker import LinkReport, Worker

_STOPPING = (signal.SIGTERM, signal.SIGINT)

_SYNC_EPILOG = """\b
Examples:
  replicator sync -c topology.yaml
  replicator sync --site factory_a --json

Exit codes: 0 all links drained, 1 drained, but changes were parked (replicator parked list) or wait for a decision
(replicator conflicts list --waiting), 3 a link failed (the others are drained).
"""
_RUN_EPILOG = """\b
Examples:
  replicator run -c topology.yaml
  replicator run --log-format json --grace 60

SIGTERM and SIGINT finish the batch in hand and stop; a second one stops at once, which is safe: an unfinished batch is
rolled back and read again. Under systemd use config/replicator.service.
Exit codes: 0 stopped cleanly, 3 could not start, or a batch outlived --grace.
"""


@dataclass(slots=True)
class _Drained:
    """What one link did in a sync. ``parked``: changes set aside and not applied later; ``healed``: rows that were."""

    link: str
    site: str
    direction: str
    state: str
    batches: int
    changes: int
    rows: int
    conflicts: int
    parked: int
    healed: int
    error: str = ""
    hint: str = ""
    news: tuple[str, ...] = ()


@click.command(epilog=_SYNC_EPILOG, short_help="Bring everything over once.")
@common
@click.option(
    "--parallel", metavar="N", type=click.IntRange(1, 64), default=4, show_default=True, help="Links at a time."
)
def sync(config: str, sites: Sequence[str], as_json: bool, parallel: int) -> None:
    """Bring everything the sites have to the centre, and to the sites what they get from there, once, and stop.

    Where sites get changes too, links are drained in turns until nothing moves, so that corrections arrive as well.
    """
    from replicator.service import drain_all

    app = open_app(config)
    chosen = app.chosen(sites)
    began = time.monotonic()
    drained: list[_Drained] = []
    order = [str(link) for site in chosen for link in app.links(site)]
    with progress("sync", 0, "changes", hidden=as_json) as advance:
        moved: dict[LinkName, int] = {}
        lock = threading.Lock()

        def listen(report: LinkReport) -> None:
            with lock:
                new = report.changes - moved.get(report.link, 0)
                moved[report.link] = report.changes
                advance(new, f"{report.link}: {report.changes:,}, {len(drained)}/{len(order)} links done")

        for worker, failure in drain_all(app.workers(chosen, listen), parallel):
            drained.append(_drained(worker, failure))
    seconds = time.monotonic() - began
    drained.sort(key=lambda each: order.index(each.link))
    failed, parked = sum(bool(each.error) for each in drained), sum(each.parked for each in drained)
    if as_json:
        show_json({"seconds": round(seconds, 3), "links": drained})
    else:
        _show_drained(drained, seconds, config)
    raise SystemExit(EXIT_ERROR if failed else EXIT_DIFFERENT if parked else 0)


def _drained(worker: Worker, failure: Exception | None) -> _Drained:
    report = worker.report
    still = max(report.parked - report.healed, 0)
    counts = (report.batches, report.changes, report.net, report.conflicts, still, report.healed)
    about = (str(report.link), report.link.site, str(report.link.direction))
    if failure is None:
        return _Drained(*about, "drained", *counts, news=report.news)
    if isinstance(failure, ReplicatorError):
        return _Drained(*about, "failed", *counts, failure.message, failure.hint)
    return _Drained(*about, "failed", *counts, f"unexpected {type(failure).__name__}: {failure}", "this is a bug")


def _show_drained(drained: Sequence[_Drained], seconds: float, config: str) -> None:
    head = ("link", "state", "changes", "rows", "conflicts", "parked")
    rows = [
        (each.link, each.state, *(f"{n:,}" for n in (each.changes, each.rows, each.conflicts, each.parked)))
        for each in drained
    ]
    show_table(head, rows, [BAD if each.error else WARN if each.parked else "" for each in drained])
    for line in dict.fromkeys(line for each in drained for line in each.news):
        say(line, WARN)
    for each in drained:
        if each.error:
            show_error(f"{each.link}: {each.error}", each.hint)
    changes, parked = sum(each.changes for each in drained), sum(each.parked for each in drained)
    rate = f" ({changes / seconds:,.0f}/s)" if changes > 1000 else ""
    say(f"{count(changes, 'change')} in {seconds:.1f} s{rate}", GOOD if not any(each.error for each in drained) else "")
    if parked:
        say(f"{count(parked, 'change')} parked; next: replicator parked list{config_flag(config)}", WARN)


@click.command(epilog=_RUN_EPILOG, short_help="The service: bring changes as they happen.")
@config_option
@site_option
@click.option("--grace", metavar="SECONDS", type=click.FloatRange(min=0), default=30.0, show_default=True,
              help="How long a stop waits for batches in hand.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="Log lines as key=value, or one JSON object a line; on standard error.")  # fmt: skip
@click.option("--summary", metavar="SECONDS", type=click.FloatRange(min=1), default=60.0, show_default=True,
              help="How often a summary line is logged.")  # fmt: skip
@debug_option
def run(config: str, sites: Sequence[str], grace: float, log_format: str, summary: float) -> None:
    """The service: bring every change to where it belongs as it happens, until stopped."""
    from replicator.service import Service

    app = open_app(config)
    chosen = app.chosen(sites)
    log = Log(as_json=log_format == "json")
    watcher = Watcher(log)
    workers = app.workers(chosen, watcher.listen)
    service = Service(workers, watcher.crashed)
    signals = Signals()
    log.write("started", topology=app.settings.topology, links=len(workers), pid=os.getpid(), config=config)
    with app.keep_filling(chosen):
        service.start()
        notify("READY=1")
        while not (caught := signals.wait(summary)):
            notify(f"STATUS={watcher.summary(service.reports(), summary)}")
        log.write("stopping", signal=caught)
        notify("STOPPING=1")
        clean = service.stop(grace)
    totals = service.reports()
    log.write("stopped", clean=clean, changes=sum(r.changes for r in totals), parked=sum(r.parked for r in totals))
    if not clean:
        # Threads still at work would keep the interpreter from ending; their batches roll back.
        os._exit(EXIT_ERROR)


class Signals:
    """SIGTERM and SIGINT, waited for by the main thread; after the first, the next one ends the process at once.

    Handlers that set an event can meet the main thread while it holds the event's lock, so nothing is done in one: the
    interpreter writes the signal's number into a pipe.
    """

    def __init__(self) -> None:
        self._out, into = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(into, False)
        signal.set_wakeup_fd(into, warn_on_full_buffer=False)
        for number in _STOPPING:
            signal.signal(number, lambda *_: None)

    def wait(self, seconds: float) -> str:
        """The name of the signal that came, empty when none came in time."""
        ready, _, _ = select.select([self._out], [], [], seconds)
        caught = [signal.Signals(number) for number in os.read(self._out, 64)] if ready else []
        stopping = [each for each in caught if each in _STOPPING]
        if not stopping:
            return ""
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)
        if len(stopping) > 1:
            signal.raise_signal(stopping[-1])
        return stopping[0].name
