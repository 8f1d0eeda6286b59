"""``replicator conflicts resolve`` and ``redo``: deciding recorded conflicts otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import click

from replicator.cli.conflicts import document, find, opened, plans, policy_of, read
from replicator.cli.options import common, open_app
from replicator.cli.output import (
    BAD,
    EXIT_DIFFERENT,
    GOOD,
    WARN,
    can_ask,
    count,
    image,
    note,
    say,
    show_json,
    show_table,
    shown,
)
from replicator.cli.times import since_moment

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.conflicts import Redone, Scene
    from replicator.model import RecordedConflict

_RESOLVE = """\b
The row is made of the side taken (without --take: the centre's row as it is now), then single columns and values are put
in. It is shown before anything is done. All sites that want the row get it, the one the change came from as well; changes
of the row that wait behind the conflict are dropped, "site" stands for the last of them.

\b
Examples:
  replicator conflicts resolve 12 --take site
  replicator conflicts resolve 12 --take centre --yes
  replicator conflicts resolve 12 --column note=site --column amount=base
  replicator conflicts resolve 12 --take site --set amount=12.50 --null remark
  replicator conflicts resolve 12 --delete

Exit codes: 0 resolved, 1 not confirmed, 2 called wrongly, 3 not done (the row has changed since, or is refused), or error.
"""
_REDO = """\b
Without --apply nothing is changed. With it, rows are changed that are still as their last decision left them.

Exit codes: 0 shown, or done with --apply, 1 a row that should have been changed was not, 3 error.

\b
Policies: source_wins, centre_wins, postgresql_wins, sqlite_wins, newest_wins, site_priority, merge_columns, rule

\b
Examples:
  replicator conflicts redo --policy newest_wins
  replicator conflicts redo --policy merge_columns --site clinic_a --table stock --since 2d
  replicator conflicts redo --policy centre_wins --table stock --apply --yes
"""


@click.command(epilog=_RESOLVE)
@common
@click.argument("number", metavar="ID", type=int)
@click.option("--take", type=click.Choice(["site", "centre", "base"]), default=None, help="The row to take.")
@click.option("--column", "columns", metavar="NAME=SIDE", multiple=True, help="A column from a side; repeatable.")
@click.option("--set", "values", metavar="NAME=VALUE", multiple=True, help="A value, as text; repeatable.")
@click.option("--null", "nulls", metavar="NAME", multiple=True, help="Make this column NULL; repeatable.")
@click.option("--delete", is_flag=True, help="Let there be no row.")
@click.option("--force", is_flag=True, help="Also when the row has changed since, or the conflict is resolved already.")
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking; needed without a terminal.")
def resolve(
    config: str, sites: Sequence[str], as_json: bool, number: int, take: str | None, columns: Sequence[str],
    values: Sequence[str], nulls: Sequence[str], delete: bool, force: bool, yes: bool,
) -> None:  # fmt: skip
    """Decide a conflict yourself: take a side, mix columns, give values, or delete the row."""
    from replicator.conflicts import Choice, chosen_row, look, settle

    choice = Choice(take or "", _columns(columns), _values(values, nulls), delete)
    choice.check()
    if not yes and (as_json or not can_ask()):
        raise click.UsageError("a row is not changed without --yes")
    app = open_app(config)
    site, recorded = find(app, sites, number)
    planned = plans(app, site)
    plan = next((each for each in planned if str(each.target) == recorded.table), None)
    with closing(opened(app, site, planned)) as target:
        scene = look(target, recorded, plan)
        row = chosen_row(scene, choice, plan.target_key if plan else ())
        if not as_json:
            _show_scene(site, scene, row)
        if not yes:
            click.confirm("make it so?", abort=True)
        settle(target, scene, row, choice, force=force)
    if as_json:
        show_json({"id": number, "site": site, "resolution": choice.words, "row": row, "dropped": scene.queued})
    else:
        say(f"conflict {number} is resolved: {choice.words}", GOOD)


@click.command(epilog=_REDO)
@common
@click.option("--policy", metavar="NAME", required=True, help="The other policy.")
@click.option("--table", metavar="NAME", default="", help="Only conflicts of this table at the centre.")
@click.option("--since", metavar="WHEN", default="", help="Only later ones: 90s, 30m, 2h, 7d ago, or a date and time.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=10_000, show_default=True, help="The newest N."
)
@click.option("--apply", "apply_", is_flag=True, help="Change the rows that can be changed.")
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking; needed without a terminal.")
def redo(
    config: str, sites: Sequence[str], as_json: bool, policy: str, table: str, since: str, limit: int, apply_: bool,
    yes: bool,
) -> None:  # fmt: skip
    """Show what another policy would have decided over recorded conflicts; with --apply, do it."""
    from replicator.conflicts import Wanted

    if apply_ and not yes and (as_json or not can_ask()):
        raise click.UsageError("rows are not changed without --yes")
    _known(policy)
    app = open_app(config)
    found = read(app, sites, Wanted(table, since=since_moment(since), limit=limit))
    redone = list(_redone(app, found, policy))
    ready = [each for each in redone if each.can_apply]
    if not as_json:
        _show_redone(redone, ready, policy)
    failed: Mapping[int, str] = {}
    if apply_ and ready:
        if not yes:
            click.confirm(f"change {count(len(ready), 'row')}?", abort=True)
        failed = _apply(app, ready)
    if as_json:
        listed = [_document(each, apply_, failed) for each in redone]
        show_json({"policy": policy, "applied": len(ready) - len(failed) if apply_ else 0, "conflicts": listed})
    elif apply_:
        for number, why in failed.items():
            say(f"conflict {number}: not done, {why}", BAD)
        say(f"{len(ready) - len(failed)} of {count(len(ready), 'row')} changed", BAD if failed else GOOD)
    elif ready:
        say("nothing was changed; do it with --apply")
    raise SystemExit(EXIT_DIFFERENT if failed else 0)


def _known(policy: str) -> None:
    from replicator.model import PolicyName

    usable = [str(name) for name in PolicyName if name not in (PolicyName.ADD, PolicyName.MANUAL)]
    if policy not in usable:
        raise click.BadParameter(f"{policy!r} is not one of {', '.join(usable)}", param_hint="--policy")


def _redone(app: App, found: Sequence[tuple[str, RecordedConflict]], policy: str) -> Iterator[Redone]:
    from replicator.conflicts import other_plan
    from replicator.conflicts import redo as decide_again
    from replicator.model import PolicyName
    from replicator.settings import CENTRE

    for site in dict.fromkeys(site for site, _ in found):
        own = [each for owner, each in found if owner == site]
        engines = app.database(site).engine, app.database(CENTRE).engine
        planned = plans(app, site)
        now = {table: policy_of(planned, table) for table in dict.fromkeys(each.table for each in own)}
        for table in [table for table, plan in now.items() if plan is None]:
            note(f"conflicts of {table} are left out: the topology does not name that table now")
        others = {table: other_plan(plan, PolicyName(policy), *engines, table) for table, plan in now.items() if plan}
        with closing(opened(app, site, planned)) as target:
            yield from decide_again(site, target, [each for each in own if each.table in others], others.__getitem__)


def _apply(app: App, ready: Sequence[Redone]) -> Mapping[int, str]:
    """Change the rows; conflict → why, for those that were not."""
    from replicator.conflicts import apply_redone

    failed = {}
    for site in dict.fromkeys(each.site for each in ready):
        with closing(opened(app, site, plans(app, site))) as target:
            for each in ready:
                if each.site == site:
                    done, why = apply_redone(target, each)
                    if not done:
                        failed[each.recorded.id] = why
    return failed


def _show_scene(site: str, scene: Scene, row: Mapping[str, str | None] | None) -> None:
    recorded = scene.recorded
    say(
        f"conflict {recorded.id}: {recorded.kind} on {recorded.table} {recorded.key}, change from {site}, {recorded.state}"
    )
    if not scene.as_left:
        say("  the row has changed since it was decided", WARN)
    if scene.queued:
        say(f"  {count(scene.queued, 'later change')} of the row from {site} will be dropped with it", WARN)
    if row is None:
        say("  the row will be deleted" if scene.now is not None else "  there will be no row, as now", WARN)
        return
    rows = []
    for name, value in row.items():
        now = None if scene.now is None else scene.now.get(name)
        changes = scene.now is None or now != value
        rows.append(
            (f"  {name}", "" if scene.now is None else shown(now, 200), shown(value, 200), "*" if changes else "")
        )
    show_table(("  column", "now", "will be", ""), rows, [WARN if each[3] else "" for each in rows])


def _show_redone(redone: Sequence[Redone], ready: Sequence[Redone], policy: str) -> None:
    if not redone:
        say("no conflict is on record", GOOD)
        return
    differing = [each for each in redone if each.differs or each.can_apply]
    rows = []
    for each in differing:
        assert each.decision is not None
        c = each.recorded
        rows.append(
            (str(c.id), each.site, c.table, c.key, f"{c.verdict} by {c.policy}", str(each.decision.verdict),
             image(each.row), each.obstacle or "can be changed")
        )  # fmt: skip
    if rows:
        show_table(("id", "site", "table", "row", "decided", policy, "the row would be", "now"), rows)
    say(
        f"{count(len(redone), 'conflict')}: {policy} would have decided {len(differing)} otherwise; {len(ready)} can be changed"
    )


def _document(each: Redone, applied: bool, failed: Mapping[int, str]) -> dict[str, object]:
    assert each.decision is not None
    did = applied and each.can_apply and each.recorded.id not in failed
    return {
        **document(each.site, each.recorded), "other_verdict": each.decision.verdict, "other_reason": each.decision.reason,
        "other_row": each.row, "differs": each.differs, "can_apply": each.can_apply, "obstacle": each.obstacle,
        "applied": did, "cause": failed.get(each.recorded.id, ""),
    }  # fmt: skip


def _columns(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, _, side = text.rpartition("=")
        if not name or side not in ("site", "centre", "base"):
            raise click.BadParameter(f"{text!r} is not NAME=site, NAME=centre or NAME=base", param_hint="--column")
        if name in found:
            raise click.UsageError(f"column {name} is named twice")
        found[name] = side
    return found


def _values(texts: Sequence[str], nulls: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(nulls)
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
        if name in found:
            raise click.UsageError(f"column {name} is named twice")
        found[name] = value
    return found
