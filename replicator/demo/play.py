"""Plays the demo from set-up to clean-up."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from replicator.demo import acts
from replicator.demo.commands import LOG, TOPOLOGY
from replicator.demo.scene import Scene, set_up
from replicator.demo.story import Story
from replicator.errors import ReplicatorError

_ACTS = (
    acts.check,
    acts.install,
    acts.bring_history,
    acts.work,
    acts.write_typo,
    acts.edit_centre,
    acts.cut_line,
    acts.kill,
    acts.heal,
    acts.rest,
    acts.show_conflict,
)


def play(*, keep: bool, directory: Path | None, console: Console) -> int:
    """See ``run_demo``."""
    story = Story(console)
    story.title("replicator: three factories of blood analysers, one centre")
    began = time.monotonic()
    with _stoppable(), set_up(directory, acts.HISTORY) as scene:
        _introduce(scene, story, time.monotonic() - began)
        story.start_clock()
        with story.live(scene.lookout.views):
            equal = _perform(scene, story)
        if keep:
            _keep(scene, story)
    return 0 if equal else 1


def _introduce(scene: Scene, story: Story, seconds: float) -> None:
    rows = scene.factories.all[0].counts.inserted
    version = scene.server.binaries.version
    story.aside("set-up", f"PostgreSQL {version} with the centre and factory_c, SQLite files factory_a and factory_b, "
                f"{rows:,} rows with the same ids in each, in {seconds:.1f} s")  # fmt: skip
    story.line()


def _perform(scene: Scene, story: Story) -> bool:
    try:
        for act in _ACTS:
            act(scene, story)
        return acts.audit(scene, story)
    except ReplicatorError:
        # Where it went wrong is mostly told by the service, and its log goes with the folder.
        story.line(scene.service.log_tail())
        raise


def _keep(scene: Scene, story: Story) -> None:
    """Leave it running, say how to play with it, and wait for Ctrl-C."""
    topology = scene.folder / TOPOLOGY
    psql = shutil.which("psql", path=scene.server.binaries.bindir) or "psql"
    replicator = "replicator" if shutil.which("replicator") else f"{sys.executable} -m replicator"
    story.title("Everything is left running: change a row at a factory and look at the centre. Ctrl-C ends it.")
    story.line(f"  centre      {psql} {scene.centre_url}")
    for factory in scene.factories.all:
        file = factory.url.removeprefix("sqlite:///")
        tool = f"{psql} {factory.url}" if file == factory.url else f"sqlite3 {file}"
        story.line(f"  {factory.name}   {tool}")
    for word in ("status", "audit", "parked list", "conflicts list"):
        story.line(f"  {replicator} {word} -c {topology}")
    story.line(f"  the service's log: {scene.folder / LOG}")
    try:
        signal.pause()
    except KeyboardInterrupt:
        story.line("ending …")


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo in order, as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
