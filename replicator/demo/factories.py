"""The demo's factories: their application processes, and what is told to them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from replicator.demo.application import Counts
from replicator.demo.commands import environment
from replicator.errors import ReplicatorError


class Factory:
    """One factory and its application's process, which ends when this process does.

    Args:
        name: the site's name.
        url: its own database, not by way of any line.
        seed: makes its values differ from the other factories'.
        log: where the application's errors go.
    """

    def __init__(self, name: str, url: str, seed: int, log: Path) -> None:
        self.name, self.url, self._log = name, url, log
        self.command = [sys.executable, "-m", "replicator.demo.application", url, str(seed)]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                self.command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                text=True, start_new_session=True,
            )  # fmt: skip
        self.counts = Counts()

    def tell(self, word: str) -> Counts:
        """Say a word to the application (see ``application``) and wait until it is done; its counts then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        if self._process.poll() is None:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
            raise ReplicatorError(f"the application of {self.name} died at {word!r}:\n" + "\n".join(said))
        self.counts = Counts(**json.loads(answer))
        return self.counts

    def close(self) -> None:
        """End the application. Repeatable."""
        self._process.terminate()
        self._process.communicate()


class Factories:
    """All factories; ``close`` ends them."""

    def __init__(self, urls: Mapping[str, str], folder: Path) -> None:
        log = folder / "applications.log"
        self.all = tuple(Factory(name, url, seed, log) for seed, (name, url) in enumerate(urls.items(), 1))

    def __getitem__(self, name: str) -> Factory:
        return next(factory for factory in self.all if factory.name == name)

    def tell(self, *words: str) -> Sequence[Counts]:
        """Say the words to all at the same time."""

        def tell_one(factory: Factory) -> Counts:
            return [factory.tell(word) for word in words][-1]

        with ThreadPoolExecutor(max_workers=len(self.all)) as pool:
            return list(pool.map(tell_one, self.all))

    def close(self) -> None:
        """End all."""
        for factory in self.all:
            factory.close()
