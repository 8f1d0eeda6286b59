"""``replicator check``: everything that has to be right, before anything is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from replicator.cli.options import common, open_app
from replicator.cli.output import BAD, DIM, EXIT_DIFFERENT, GOOD, WARN, count, say, show_json, show_table
from replicator.errors import ReplicatorError
from replicator.model import Finding

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.check import Looks

_EPILOG = """\b
Examples:
  replicator check -c topology.yaml
  replicator check --site factory_a --problems

Exit codes: 0 nothing stands in the way, 1 there is a problem, 3 error (such as a wrong YAML).
"""


@click.command(epilog=_EPILOG, short_help="Connections, rights, settings, keys, types, clocks.")
@common
@click.option("--problems", is_flag=True, help="Leave out what is right.")
def check(config: str, sites: Sequence[str], as_json: bool, problems: bool) -> None:
    """Check connections, rights, versions, settings, keys, types and clocks; each with the fix. Changes nothing."""
    from replicator.app.outboxes import capacities
    from replicator.capacity import check_outboxes
    from replicator.check import (
        Report,
        check_clocks,
        check_hybrids,
        check_places,
        check_rules,
        finding_of,
        is_problem,
        lacks_rights,
    )
    from replicator.settings import CENTRE

    app = open_app(config)
    chosen = app.chosen(sites)
    failed = app.read_catalogues((CENTRE, *app.sites))
    report = Report()
    rules = check_rules(lambda: app.topology().notes) if CENTRE not in failed else []
    fits = not any(is_problem(each) for each in rules) and CENTRE not in failed
    alive = [place for place in (CENTRE, *chosen) if place not in failed]
    for place in (CENTRE, *chosen):
        if place in failed:
            report.add(place, [finding_of(app.database(place).shown, "access", failed[place])])
    found = check_places({place: _looks(app, place, fits=fits) for place in alive}, app.installable)
    for place, findings in found.findings.items():
        report.add(place, findings)
    for finding in check_clocks(alive, CENTRE, app.installable) if CENTRE in alive else ():
        report.add(finding.place, [finding])
    for finding in check_hybrids(alive, app.installable):
        report.add(finding.place, [finding])
    answering = [site for site in chosen if site in alive] if CENTRE in alive else []
    for finding in (*_twins(app, answering), *_lingering(app, answering)):
        report.add(finding.place, [finding])
    for finding in check_outboxes(capacities(app, alive)) if fits else ():
        report.add(finding.place, [finding])
    report.add("topology", rules)
    for finding in _concerns(app) if fits and not lacks_rights(report.findings.get(CENTRE, ())) else ():
        report.add(finding.place, [finding])
    if as_json:
        listed = {
            place: [asdict(each) for each in found] for place, found in report.in_order((CENTRE, *chosen)).items()
        }
        show_json({"problems": report.problems, "warnings": report.warnings, "findings": listed})
    else:
        _show(
            report.in_order((CENTRE, *chosen)),
            {place: app.database(place).shown for place in (CENTRE, *chosen)},
            problems,
        )
        _conclude(report.problems, report.warnings, config)
    raise SystemExit(EXIT_DIFFERENT if report.problems else 0)


def _concerns(app: App) -> list[Finding]:
    """What rules, tables and the last contacts say of trouble to come."""
    from replicator.check import finding_of
    from replicator.concerns import check_skews, find_concerns
    from replicator.settings import CENTRE

    topology = app.topology()
    found = list(find_concerns(topology))
    try:
        return [*found, *check_skews(topology, app.read_links()[0])]
    except ReplicatorError as error:
        return [*found, finding_of(app.database(CENTRE).shown, "links", error)]


def _twins(app: App, sites: Sequence[str]) -> Iterator[Finding]:
    """Sites whose database is another site's, or a copy of it."""
    from replicator.app.twins import find_twin

    for site in sites:
        try:
            twin = find_twin(app, site)
        except ReplicatorError:
            continue  # the place that does not answer, or is of another schema, has its finding
        if twin is not None:
            yield Finding(site, "identity", False, twin.message, twin.hint)


def _lingering(app: App, sites: Sequence[str]) -> list[Finding]:
    """Backfills nobody carries on."""
    from replicator.backfill import find_lingering

    found, _ = app.backfills(sites) if sites else ([], [])  # a place that does not answer has its finding
    return list(find_lingering(found, int(time.time() * 1e6)))


def _looks(app: App, place: str, *, fits: bool) -> Looks:
    """What a place is looked at for; where rules and tables do not fit, only as a database."""
    from replicator.check import Looks
    from replicator.settings import CENTRE

    if not fits:
        return Looks(None, ()) if place == CENTRE else Looks((), None)
    roles = app.roles(place)
    return Looks(roles.sends, roles.receives, roles.captured, app.settings.topology)


def _show(places: dict[str, list[Finding]], urls: dict[str, str], problems: bool) -> None:
    for place, findings in places.items():
        rows, styles = [], []
        for finding in findings:
            if problems and finding.ok:
                continue
            word, style = _word(finding)
            rows.append((f"  {word}", finding.subject, finding.message))
            styles.append(style)
            if finding.fix and not finding.ok:
                rows.append(("", "", f"fix: {finding.fix}"))
                styles.append(DIM)
        if rows:
            say(f"{place}  {urls.get(place, '')}".rstrip())
            show_table(("  ", "what", "finding"), rows, styles)
            say()


def _word(finding: Finding) -> tuple[str, str]:
    if finding.ok:
        return ("note", WARN) if finding.subject == "note" else ("OK", GOOD)
    return ("warning", WARN) if finding.warning else ("PROBLEM", BAD)


def _conclude(problems: int, warnings: int, config: str) -> None:
    also = f", {count(warnings, 'warning')}" if warnings else ""
    if problems:
        say(f"{count(problems, 'problem')}{also}: mend them, then run check again", BAD)
    else:
        say(f"nothing stands in the way{also}", GOOD)
        say(f"next: replicator plan{config_flag(config)}")


def config_flag(config: str) -> str:
    """The option that names the same YAML again."""
    return "" if config == "topology.yaml" else f" -c {config}"
