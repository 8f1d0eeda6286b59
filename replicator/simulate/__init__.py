"""``replicator simulate``: random histories on throw-away databases, played by the real engines, and what must hold at the end.

``simulate`` is the whole. A history is made from a seed (``history``), played on a world (``world``, ``play``), checked
(``checks``, ``trace``), and made short when it fails (``shrink``). The user's databases are only asked for their catalogues.
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from replicator.app import App
from replicator.embedded import EmbeddedServer, find_binaries
from replicator.errors import SetupError
from replicator.model import Engine, PolicyName
from replicator.simulate.checks import Finding
from replicator.simulate.history import History
from replicator.simulate.places import SqlitePlace
from replicator.simulate.play import Counts, Failure, Player
from replicator.simulate.shrink import shrink
from replicator.simulate.steps import Step, from_json, to_json
from replicator.simulate.world import ENGINES, World

__all__ = [
    "POLICIES",
    "Counts",
    "FailedHistory",
    "Finding",
    "Plan",
    "Report",
    "plan_replay",
    "simulate",
]

POLICIES = (
    PolicyName.SOURCE_WINS, PolicyName.CENTRE_WINS, PolicyName.NEWEST_WINS, PolicyName.SITE_PRIORITY,
    PolicyName.MERGE_COLUMNS, PolicyName.RULE, PolicyName.MANUAL,
)  # fmt: skip
"""What our own topology is played with when nothing is said."""

_OPTIONS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200",
            "wal_level": "logical", "max_wal_senders": "20"}  # fmt: skip
_MEMORY = Path("/dev/shm")
_ROOM = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be played.

    ``config``: the user's topology, None for ours. ``seeds``; ``steps`` a history; ``policies`` in turn (None: as the YAML
    says); ``sites`` in turn; ``engines`` and ``server`` as in World. ``replay``: these steps instead of the seeds'.
    ``shrink_seconds``: how long a failing history is made shorter. ``keep``: a folder for failing histories and their files.
    ``failures``: stop behind so many.
    """

    config: Path | None = None
    seeds: Sequence[int] = ()
    steps: int = 60
    policies: Sequence[PolicyName | None] = (None,)
    sites: Sequence[int] = (2, 3, 4, 5)
    engines: str = "given"
    server: str = ""
    replay: Sequence[Step] = ()
    shrink_seconds: float = 60.0
    keep: Path | None = None
    failures: int = 1


@dataclass(frozen=True, slots=True)
class FailedHistory:
    """A failing history, made short. ``full`` is how many steps it had; ``file`` where it was written to, if it was."""

    seed: int
    world: str
    kind: str
    steps: tuple[Step, ...]
    full: int
    findings: tuple[Finding, ...]
    again: str
    file: str = ""


@dataclass(slots=True)
class Report:
    """What was played and what came of it. The same plan gives the same report but for ``seconds``."""

    histories: int = 0
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)
    failed: list[FailedHistory] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def simulate(plan: Plan, advance: Callable[[int, str], None] = lambda count, text: None) -> Report:
    """Play all of a plan. Raises SetupError when its databases cannot be made, and what the topology's YAML raises."""
    report, began = Report(), time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replicator-simulate-", dir=_fastest())))
        given = App.open(plan.config) if plan.config else None
        server = plan.server or _start_server(stack, plan, given)
        for number, (policy, sites, seeds) in enumerate(_groups(plan)):
            place = folder / str(number)
            place.mkdir()
            made = World(place, given, sites=sites, policy=policy, engines=plan.engines, server=server)
            with closing(made) as world:
                _note(report, world)
                _play_all(plan, world, seeds, report, advance)
            shutil.rmtree(place)
            if len(report.failed) >= plan.failures:
                break
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _note(report: Report, world: World) -> None:
    report.notes += [note for note in world.notes if note not in report.notes]


def _play_all(
    plan: Plan, world: World, seeds: Sequence[int], report: Report, advance: Callable[[int, str], None]
) -> None:
    player = Player(world)
    player.counts = report.counts
    for seed in seeds:
        steps = list(plan.replay) or History(world.schema, seed, world.restorable).steps(plan.steps)
        failure = player.play(steps)
        report.histories += 1
        advance(1, world.description)
        if failure is not None:
            report.failed.append(_explain(plan, world, seed, steps, failure))
            if len(report.failed) >= plan.failures:
                return


def _explain(plan: Plan, world: World, seed: int, steps: Sequence[Step], failure: Failure) -> FailedHistory:
    """The failing history made short, and how to see it again."""
    player = Player(world)

    def fails(tried: Sequence[Step]) -> bool:
        found = player.play(tried)
        return found is not None and found.kind == failure.kind

    until = [step for step in steps if not failure.step or step.number <= failure.step]
    start = until if until and fails(until) else list(steps)
    short = shrink(start, fails, plan.shrink_seconds)
    last = player.play(short) or failure
    file = _keep(plan.keep, world, seed, short) if plan.keep else ""
    return FailedHistory(
        seed,
        world.description,
        last.kind,
        tuple(short),
        len(steps),
        last.findings,
        _again(plan, world, seed, file),
        file,
    )


def _again(plan: Plan, world: World, seed: int, file: str) -> str:
    """The command that plays the history again."""
    words = ["replicator", "simulate"]
    words += ["-c", str(plan.config)] if plan.config else []
    if file:
        return shlex.join([*words, "--replay", file])
    words += ["--seed", str(seed), "--steps", str(plan.steps)]
    words += ["--policy", str(world.policy)] if world.policy else []
    words += ["--sites", str(len(world.sites))]
    words += ["--engine", plan.engines] if plan.engines != "given" else []
    return shlex.join(words)


def _keep(folder: Path, world: World, seed: int, steps: Sequence[Step]) -> str:
    """Write the short history, and the SQLite files as it left them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"seed_{seed}.json"
    document = {
        "seed": seed, "policy": world.policy, "sites": len(world.sites), "engine": world.engines, "steps": to_json(steps)
    }  # fmt: skip
    file.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    for name, place in world.places.items():
        if isinstance(place, SqlitePlace):
            shutil.copyfile(place.path, folder / f"seed_{seed}_{name}.sqlite3")
    return str(file)


def plan_replay(file: Path, plan: Plan) -> Plan:
    """The plan that plays a kept history, with its policy, sites and engines. Raises SetupError when the file is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        policy = PolicyName(found["policy"]) if found["policy"] else None
        return replace(
            plan, seeds=(int(found["seed"]),), policies=(policy,), sites=(int(found["sites"]),),
            engines=str(found["engine"]), replay=from_json(found["steps"]),
        )  # fmt: skip
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SetupError(f"{file}: not a history: {error}", hint="give a file that --keep wrote") from error


def _groups(plan: Plan) -> Iterator[tuple[PolicyName | None, int, list[int]]]:
    """Policies and numbers of sites in turn over the seeds; seeds of one world together."""
    found: dict[tuple[PolicyName | None, int], list[int]] = {}
    for place, seed in enumerate(plan.seeds):
        policy = plan.policies[place % len(plan.policies)]
        sites = plan.sites[place // len(plan.policies) % len(plan.sites)]
        found.setdefault((policy, sites), []).append(seed)
    for (policy, sites), seeds in found.items():
        yield policy, sites, seeds


def _start_server(stack: ExitStack, plan: Plan, given: App | None) -> str:
    """A server of our own where a place is PostgreSQL; empty when none is needed, or to be had (World says so then)."""
    if given is None:
        wanted = bool(ENGINES[plan.engines])
    else:
        databases = [given.settings.centre, *given.settings.sites.values()]
        wanted = plan.engines != "sqlite" and any(each.engine is Engine.POSTGRES for each in databases)
    if not wanted or not find_binaries():
        return ""
    return stack.enter_context(EmbeddedServer(options=_OPTIONS)).dsn()


def _fastest() -> str | None:
    """A folder in memory where there is room in one: nothing here outlives the command."""
    try:
        return str(_MEMORY) if shutil.disk_usage(_MEMORY).free > _ROOM else None
    except OSError:
        return None


def to_document(report: Report) -> Mapping[str, object]:
    """The report as one JSON document."""
    failed = [{**asdict(each), "steps": to_json(each.steps)} for each in report.failed]
    return {
        "converged": not report.failed, "histories": report.histories, "seconds": report.seconds,
        "counts": asdict(report.counts), "notes": report.notes, "failed": failed,
    }  # fmt: skip
