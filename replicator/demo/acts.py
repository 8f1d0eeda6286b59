"""The acts of the demo, in order. Each does something to the factories and tells what came of it, with measured numbers."""

from __future__ import annotations

import threading
from typing import Any

from replicator.demo.commands import TOPOLOGY
from replicator.demo.scene import Scene
from replicator.demo.story import Story
from replicator.errors import ReplicatorError

HISTORY = 1_500
"""Test runs each factory has before the replicator is installed."""

_RATE = 25
"""Transactions a second of each factory's application."""
_KILLS = 2
_ORDINARY, _CUT = 3.0, 4.0
_BULK = 3_000
_PATIENCE = 60.0
_EDITED_RUN = 100
_CAUGHT_UP = 0.5
"""Seconds behind that still count as keeping up."""


def check(scene: Scene, story: Story) -> None:
    """``replicator check``, on databases the replicator has never touched."""
    report = scene.commands.ask("check")
    findings = sum(map(len, report["findings"].values()))
    warnings = f", {report['warnings']} of them warnings" if report["warnings"] else ", all good"
    story.tell("replicator check", f"{findings} findings on 4 databases{warnings}")


def install(scene: Scene, story: Story) -> None:
    """``replicator install``: triggers and tables at the sites, the missing tables at the centre."""
    done = scene.commands.run("install", "--yes")
    story.tell(
        "replicator install",
        f"triggers at 3 factories, their tables at the centre, {_rows(scene):,} old rows queued, in {done.seconds:.1f} s",
    )


def bring_history(scene: Scene, story: Story) -> None:
    """``replicator run``: the rows that were there before come first."""
    scene.lookout.start()
    scene.service.start()
    seconds = _wait_for_all(scene, "the history is at the centre")
    story.tell("replicator run", f"the old rows are at the centre {seconds:.1f} s after the service's start")


def work(scene: Scene, story: Story) -> None:
    """An ordinary day."""
    scene.factories.tell(f"work {_RATE}")
    _pause(0.5)
    scene.lookout.forget_worst()
    _pause(_ORDINARY)
    worst = scene.lookout.worst()
    story.tell(
        "factories work",
        f"{_RATE} transactions/s in each: runs, corrections, deletions, roll-backs; the centre is at most {worst:.2f} s behind",
    )


def write_typo(scene: Scene, story: Story) -> None:
    """A text in a number column: SQLite takes it, the centre cannot. Nobody else waits."""
    scene.factories["factory_a"].tell("typo")
    (change,) = scene.commands.wait_parked(1, _PATIENCE)
    story.bad(
        "a bad value",
        f"factory_a stored 'n/a' as a number in {change['table']} (SQLite allows it): that change is parked, all others go on",
    )


def edit_centre(scene: Scene, story: Story) -> None:
    """Somebody edits a row at the centre, and then the factory changes that row too: a conflict."""
    scene.centre.run("write_at_centre", "factory_b", _EDITED_RUN, "edited at the centre by mistake")
    scene.centre.commit()
    scene.factories["factory_b"].tell(f"correct {_EDITED_RUN}")
    story.bad(
        "a conflict", f"run {_EDITED_RUN} of factory_b is edited by hand at the centre, then corrected at the factory"
    )


def cut_line(scene: Scene, story: Story) -> None:
    """factory_c goes off the network, goes on working, and comes back."""
    scene.lookout.forget_worst()
    scene.line.cut()
    _pause(_CUT)
    view = scene.lookout.views["factory_c"]
    missing, others = view.behind, scene.lookout.worst("factory_c")
    story.bad(
        "line cut", f"factory_c has no network for {_CUT:.0f} s and works on; the others: at most {others:.2f} s behind"
    )
    scene.line.mend()
    seconds = scene.lookout.wait(lambda: view.lag < _CAUGHT_UP, _PATIENCE, "factory_c has caught up")
    story.good("line back", f"factory_c reconnected and {missing:,} test runs caught up in {seconds:.1f} s")


def kill(scene: Scene, story: Story) -> None:
    """SIGKILL in the middle of a large batch, twice; then the replicator is left in peace."""
    for _ in range(_KILLS):
        _wait_for_half_a_batch(scene)
        scene.service.kill()
        scene.kills += 1
        runs = scene.lookout.views["factory_a"].behind
        story.bad(
            "SIGKILL",
            f"the replicator dies in the middle of a large batch, {runs:,} test runs of factory_a not there yet",
        )
        scene.service.start()
    seconds = _wait_for_all(scene, "all have caught up after the kills")
    story.good(
        "restarted", f"all is caught up {seconds:.1f} s after the last start; was anything lost? the audit will tell"
    )


def _wait_for_half_a_batch(scene: Scene) -> None:
    """Return while the centre applies a large transaction of factory_a, which is made to write one where there is none.

    A quick machine may be through before it is seen: then the next one is larger. Raises ReplicatorError in the end.
    """
    view = scene.lookout.views["factory_a"]

    def decided() -> bool:
        return view.behind < _BULK or view.applying

    for size in (0, _BULK, 2 * _BULK, 4 * _BULK, 8 * _BULK):
        if size:
            scene.factories["factory_a"].tell(f"load {size}")
        scene.lookout.wait(decided, _PATIENCE, "a large batch is being applied")
        if view.behind >= _BULK:
            return
    raise ReplicatorError("no large batch was seen while it was being applied")


def heal(scene: Scene, story: Story) -> None:
    """The parked change is dropped, the factory corrects its typo, and the correction goes through by itself."""
    (bad,) = scene.commands.parked()
    scene.commands.run("parked", "skip", str(bad["id"]), "--yes")
    scene.factories["factory_a"].tell("mend")
    story.good(
        "healed", "`replicator parked skip` drops the bad change (it stays on record), factory_a corrects the value"
    )


def rest(scene: Scene, story: Story) -> None:
    """The factories stop; status says when all has arrived. Raises ReplicatorError when the service is gone."""
    if not scene.service.alive:
        raise ReplicatorError("the service ended by itself")
    counts = scene.factories.tell("work 0")
    began = story.seconds
    links = scene.commands.wait_up_to_date(_PATIENCE)
    seconds = story.seconds - began
    total = {
        name: sum(getattr(each, name) for each in counts)
        for name in ("transactions", "inserted", "corrected", "deleted")
    }
    story.tell(
        "factories rest",
        f"{total['transactions']:,} transactions: {total['inserted']:,} rows inserted, {total['corrected']:,} corrected, "
        f"{total['deleted']:,} deleted; {sum(each.rolled_back for each in counts):,} transactions rolled back",
    )
    changes, conflicts = (sum(link[name] for link in links) for name in ("changes", "conflicts"))
    story.tell(
        "replicator status",
        f"up to date on every link {seconds:.1f} s later: {changes:,} changes; conflicts decided: {conflicts:,}; "
        f"parked: {sum(link['parked'] for link in links):,}",
    )


def show_conflict(scene: Scene, story: Story) -> None:
    """What became of the edit at the centre. Raises ReplicatorError when it was overwritten without a trace."""
    conflicts = scene.commands.ask("conflicts", "list")["conflicts"]
    met = [each for each in conflicts if f"{_EDITED_RUN}" in each["key"] and "factory_b" in each["key"]]
    if not met:
        raise ReplicatorError("the edit at the centre was overwritten, and there is no conflict on record")
    story.good(
        "on record",
        f"{met[0]['kind']} of {met[0]['table']} {met[0]['key']}: decided {met[0]['verdict']}, by {met[0]['policy']}",
    )


def audit(scene: Scene, story: Story) -> bool:
    """``replicator audit``; whether all is equal."""
    began = story.seconds
    report = scene.commands.ask("audit", accept=(0, 1, 2))
    seconds = story.seconds - began
    sites = [factory.name for factory in scene.factories.all]
    cells = {(table["source"], table["site"]): table for table in report["tables"]}
    names = list(dict.fromkeys(name for name, _ in cells))
    story.line()
    story.table(("table", *sites, "centre", "verdict"), [_row([cells[name, site] for site in sites]) for name in names])
    story.line()
    if report["verdict"] != "equal":
        story.bad(report["verdict"], f"look closer with: replicator audit -c {scene.folder / TOPOLOGY}")
        return False
    compared = sum(table["compared"] for table in report["tables"])
    story.good(
        "all equal",
        f"{compared:,} rows of {len(sites)} factories compared with the centre by checksum in {seconds:.1f} s, "
        f"after {scene.kills} kills, a cut line, a bad value and a conflict",
    )
    return True


def _row(tables: list[dict[str, Any]]) -> list[str]:
    """One table of all sites: rows at each, rows at the centre, and what the audit says."""
    verdicts = sorted({str(table["verdict"]) for table in tables})
    at_centre = sum(table["rows_target"] for table in tables)
    return [
        tables[0]["source"],
        *(f"{table['rows_source']:,}" for table in tables),
        f"{at_centre:,}",
        ", ".join(verdicts),
    ]


def _wait_for_all(scene: Scene, what: str) -> float:
    """Wait until the centre keeps up with every factory; how long it took."""
    views = scene.lookout.views.values()

    def hold() -> bool:
        return all(view.arrived and view.lag < _CAUGHT_UP and view.behind < _RATE for view in views)

    return scene.lookout.wait(hold, _PATIENCE, what)


def _rows(scene: Scene) -> int:
    """Rows the factories have inserted so far, as told last."""
    return sum(factory.counts.inserted for factory in scene.factories.all)


def _pause(seconds: float) -> None:
    """Let the factories work for a while."""
    threading.Event().wait(seconds)
