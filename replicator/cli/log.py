"""The service's log: one line per event, state changes and errors once, a summary now and then."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.model import LinkName
    from replicator.worker import LinkReport


class Log:
    """Writes events to standard error as ``time event key=value …``, or as one JSON object a line. Thread-safe."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._lock = threading.Lock()

    def write(self, event: str, **fields: object) -> None:
        """One line; fields without a value are left out."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        kept = {name: value for name, value in fields.items() if value not in ("", None)}
        if self._as_json:
            line = json.dumps({"time": now, "event": event, **kept}, ensure_ascii=False, default=str)
        else:
            line = " ".join([now, event, *(f"{name}={_text(value)}" for name, value in kept.items())])
        with self._lock:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


class Watcher:
    """Turns workers' reports into log lines."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last: dict[LinkName, LinkReport] = {}
        self._changes = self._loaded = 0
        self._lock = threading.Lock()

    def listen(self, report: LinkReport) -> None:
        """A worker's report (from its thread): logged when the link's state, its error or its troubles changed."""
        with self._lock:
            before = self._last.get(report.link)
            self._last[report.link] = report
        link = str(report.link)
        self._tell_of_outbox(report, before)
        if report.error:
            if before is None or before.error != report.error:
                message, _, hint = report.error.partition("\n  hint: ")
                self._log.write("failing", link=link, error=message, hint=hint)
            return
        if report.state == "stopped":
            self._log.write("link_stopped", link=link, changes=report.changes)
        elif before is None:
            self._log.write("link_up", link=link)
        elif before.error:
            self._log.write("recovered", link=link, retries=before.retries)
        for line in report.news if before is None or before.news != report.news else ():
            self._log.write("schema", link=link, what=line)
        parked = report.parked - (before.parked if before else 0)
        conflicts = report.conflicts - (before.conflicts if before else 0)
        healed = report.healed - (before.healed if before else 0)
        if healed:
            self._log.write("healed", link=link, rows=healed, which=_rows(report, healed))
        if parked:
            self._log.write(
                "parked", link=link, changes=parked, which=_rows(report, parked), hint="replicator parked list"
            )
        if conflicts:
            self._log.write("conflicts", link=link, decided=conflicts)

    def _tell_of_outbox(self, report: LinkReport, before: LinkReport | None) -> None:
        if report.outbox != (before.outbox if before else ""):
            self._log.write("outbox", link=str(report.link), problem=report.outbox or "has room again")

    def crashed(self, report: LinkReport, error: Exception) -> None:
        """A worker's thread ended by a bug: in full."""
        full = "".join(traceback.format_exception(error)) if not isinstance(error, ReplicatorError) else str(error)
        self._log.write("crashed", link=str(report.link), error=f"{type(error).__name__}: {error}", traceback=full)

    def summary(self, reports: Sequence[LinkReport], seconds: float) -> str:
        """Log a summary and give it as one sentence."""
        changes = sum(report.changes for report in reports)
        new, self._changes = changes - self._changes, changes
        failing = list(dict.fromkeys(report.link.site for report in reports if report.error))
        parked = sum(report.parked for report in reports)
        loaded = sum(report.loaded for report in reports)
        fresh, self._loaded = loaded - self._loaded, loaded
        rate = round(new / seconds, 1)
        self._log.write(
            "summary",
            links=len(reports),
            failing=",".join(failing),
            changes=new,
            per_second=rate,
            total=changes,
            parked=parked,
            backfilled=fresh or None,
        )
        return f"{len(reports)} links, {len(failing)} failing, {new} changes in {seconds:.0f} s"


def _rows(report: LinkReport, number: int) -> str:
    """Table and key of the rows, as far as they are named."""
    more = number - len(report.rows)
    return ", ".join(report.rows) + (f" and {more} more" if more > 0 and report.rows else "")


def notify(message: str) -> None:
    """Tell systemd, where it asked to be told (``NOTIFY_SOCKET``); elsewhere nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(message.encode(), address)
        except OSError as error:
            sys.stderr.write(f"systemd could not be told: {error}\n")


def _text(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n\t') else text
