"""``replicator simulate``: does this topology converge, whatever happens? Random histories on throw-away databases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicator.cli.options import debug_option, json_option
from replicator.cli.output import BAD, EXIT_DIFFERENT, GOOD, WARN, count, progress, say, seconds, show_json

if TYPE_CHECKING:
    from replicator.model import PolicyName
    from replicator.simulate import FailedHistory, Plan, Report

_EPILOG = """\b
Examples:
  replicator simulate                                    our own topology, every policy, 2 to 5 sites
  replicator simulate -c topology.yaml --seeds 1000      yours; only its tables' shapes are read
  replicator simulate -c topology.yaml --policy newest_wins --policy manual
  replicator simulate --seed 17 --steps 60 --keep found  one history again; a failing one is written to a file
  replicator simulate --replay found/seed_17.json

A history: all places write the same few rows, links are cut, crash, repeat themselves, clocks jump by days, files are put
back from copies. Then everything is let run out. All replicas must be equal, nothing parked without a cause, and every
write final, superseded by somebody who had seen it, or on record as a conflict.

Exit codes: 0 every history converged, 1 one did not, 3 error.
"""
_ENGINES = ("given", "sqlite", "postgres", "mixed", "crossed", "wal")


@click.command(epilog=_EPILOG, short_help="Play random histories on throw-away databases; does it converge?")
@click.option("-c", "--config", metavar="FILE", type=click.Path(path_type=Path), help="The topology; default ours.")
@click.option("--seeds", metavar="N", type=click.IntRange(min=1), default=50, show_default=True,
              help="How many histories, from seed 0 on.")  # fmt: skip
@click.option("--seed", metavar="S", type=int, help="This one history.")
@click.option(
    "--steps", metavar="N", type=click.IntRange(min=1), default=60, show_default=True, help="Steps a history."
)
@click.option("--policy", "policies", metavar="NAME", multiple=True,
              help="Decides all conflicts, whatever the YAML says; repeatable, in turn.")  # fmt: skip
@click.option("--sites", metavar="N[..M]", default="2..5", show_default=True, help="How many sites, in turn.")
@click.option("--engine", "engines", type=click.Choice(_ENGINES), default="given", show_default=True,
              help="sqlite: every place as a SQLite file. For ours: postgres, mixed (centre and every second site are "
              "PostgreSQL), crossed (the other sites are), wal (postgres, sites captured from their logs).")  # fmt: skip
@click.option("--server", metavar="URL", default="", envvar="REPLICATOR_SIMULATE_SERVER",
              help="A PostgreSQL server for throw-away databases; default one of our own.")  # fmt: skip
@click.option("--replay", metavar="FILE", type=click.Path(path_type=Path), help="A history that --keep wrote.")
@click.option(
    "--keep", metavar="DIR", type=click.Path(path_type=Path), help="Write failing histories and their files here."
)
@click.option("--failures", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
              help="Stop behind so many failing histories.")  # fmt: skip
@click.option("--shrink", "shrink_seconds", metavar="SECONDS", type=click.FloatRange(min=0), default=60.0,
              show_default=True, help="How long a failing history is made shorter.")  # fmt: skip
@json_option
@debug_option
def simulate(
    config: Path | None, seeds: int, seed: int | None, steps: int, policies: Sequence[str], sites: str, engines: str,
    server: str, replay: Path | None, keep: Path | None, failures: int, shrink_seconds: float, as_json: bool,
) -> None:  # fmt: skip
    """Play random histories of writes, partitions, crashes, wrong clocks and restores with the real engines.

    Your databases are only asked what tables they have; the histories run on throw-away ones.
    """
    from replicator import simulate as simulation

    if config is not None and engines not in ("given", "sqlite"):
        raise click.UsageError("only --engine given and sqlite are for a topology of yours")
    plan = simulation.Plan(
        config=config, seeds=[seed] if seed is not None else range(seeds), steps=steps, policies=_policies(policies, config),
        sites=_range(sites), engines=engines, server=server, shrink_seconds=shrink_seconds, keep=keep, failures=failures,
    )  # fmt: skip
    plan = simulation.plan_replay(replay, plan) if replay else plan
    with progress("histories", len(plan.seeds), "histories", hidden=as_json) as advance:
        report = simulation.simulate(plan, advance)
    if as_json:
        show_json(simulation.to_document(report))
    else:
        _show(report, plan)
    raise SystemExit(EXIT_DIFFERENT if report.failed else 0)


def _policies(names: Sequence[str], config: Path | None) -> Sequence[PolicyName | None]:
    from replicator.model import PolicyName
    from replicator.simulate import POLICIES

    for name in names:
        if name not in [str(policy) for policy in POLICIES]:
            raise click.BadParameter(f"{name!r}: choose from {', '.join(POLICIES)}", param_hint="--policy")
    return [PolicyName(name) for name in names] or (POLICIES if config is None else [None])


def _range(text: str) -> Sequence[int]:
    low, _, high = text.partition("..")
    try:
        found = range(int(low), int(high or low) + 1)
    except ValueError:
        raise click.BadParameter("write a number, or two as in 2..5", param_hint="--sites") from None
    if not found or found[0] < 1:
        raise click.BadParameter("from 1 up, the smaller first", param_hint="--sites")
    return found


def _show(report: Report, plan: Plan) -> None:
    for text in report.notes:
        say(f"note: {text}", WARN)
    counts = report.counts
    say(
        f"{count(report.histories, 'history', 'histories')} in {seconds(report.seconds)}: {count(counts.writes, 'write')}, "
        f"{count(counts.batches, 'batch', 'batches')}, {count(counts.conflicts, 'conflict')}, {counts.parked:,} parked, "
        f"{count(counts.crashes, 'crash', 'crashes')}, {count(counts.restores, 'database')} put back "
        f"({counts.noticed:,} noticed)"
    )
    for failed in report.failed:
        _show_failed(failed)
    if not report.failed:
        say("every history converged", GOOD)


def _show_failed(failed: FailedHistory) -> None:
    say()
    say(f"seed {failed.seed} ({failed.world}): {failed.kind}", BAD)
    say(f"the shortest history found ({len(failed.steps)} of {failed.full} steps):")
    for number, step in enumerate(failed.steps, 1):
        say(f"  {number:>3}. {step}")
    for finding in failed.findings:
        say(f"  {finding.text}", BAD)
        for line in finding.detail.rstrip().splitlines():
            say(f"      {line}")
    say(f"again: {failed.again}")
