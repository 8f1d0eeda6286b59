"""The replicator as its users meet it: commands and the service, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from replicator.embedded.processes import Lifeline
from replicator.errors import ReplicatorError

TOPOLOGY, LOG = "topology.yaml", "replicator.log"


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended: exit code, what it wrote, seconds."""

    code: int
    output: str
    seconds: float


def environment() -> Mapping[str, str]:
    """Lets a child find this package, also where it is not installed."""
    package = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join((package, inherited)) if inherited else package}


def command(*words: str) -> list[str]:
    """The command line of ``replicator WORDS``."""
    return [sys.executable, "-m", "replicator", *words]


class Commands:
    """Runs commands on the topology of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, *words: str, accept: tuple[int, ...] = (0,)) -> Done:
        """Run one to its end. Raises ReplicatorError, with what it said, for an exit code that is not accepted."""
        began = time.monotonic()
        done = subprocess.run(
            command(*words, "-c", TOPOLOGY), cwd=self._folder, env=environment(), capture_output=True, text=True,
            stdin=subprocess.DEVNULL, start_new_session=True, check=False,
        )  # fmt: skip
        if done.returncode not in accept:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
            raise ReplicatorError(f"replicator {' '.join(words)} ended with {done.returncode}:\n{said}")
        return Done(done.returncode, done.stdout, time.monotonic() - began)

    def ask(self, *words: str, accept: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """The JSON document a command prints."""
        document: dict[str, Any] = json.loads(self.run(*words, "--json", accept=accept).output)
        return document

    def parked(self) -> list[dict[str, Any]]:
        """What is parked, oldest first."""
        changes: list[dict[str, Any]] = self.ask("parked", "list")["parked"]
        return changes

    def wait_parked(self, count: int, seconds: float) -> list[dict[str, Any]]:
        """Wait until so many changes are parked or wait behind a parked one. Raises ReplicatorError after ``seconds``."""
        return _wait(self.parked, lambda changes: len(changes) == count, seconds, f"{count} changes parked")

    def wait_up_to_date(self, seconds: float) -> list[dict[str, Any]]:
        """Wait until status calls every link up to date; the links. Raises ReplicatorError after ``seconds``."""

        def links() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self.ask("status", accept=(0, 1))["links"]
            return found

        def arrived(found: list[dict[str, Any]]) -> bool:
            return all(link["health"] == "up to date" and not link["behind_changes"] for link in found)

        return _wait(links, arrived, seconds, "every link up to date")


Answer = TypeVar("Answer")


def _wait(ask: Callable[[], Answer], holds: Callable[[Answer], bool], seconds: float, what: str) -> Answer:
    deadline = time.monotonic() + seconds
    while not holds(answer := ask()):
        if time.monotonic() > deadline:
            raise ReplicatorError(f"after {seconds:.0f} s still not so: {what}; last answer: {answer}")
    return answer


class Service:
    """``replicator run``. It ends with this process, whatever ends that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None

    def start(self) -> None:
        """Start it."""
        with (self._folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                command("run", "-c", TOPOLOGY), cwd=self._folder, env=environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._lifeline = Lifeline(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: it can do nothing about it."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM: it finishes what it has in hand. Its exit code; 0 when it does not run."""
        return self._end(signal.SIGTERM)

    def _end(self, way: signal.Signals) -> int:
        process, self._process = self._process, None
        lifeline, self._lifeline = self._lifeline, None
        if lifeline:
            lifeline.cut()
        if process is None:
            return 0
        process.send_signal(way)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The end of its log."""
        log = self._folder / LOG
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])
