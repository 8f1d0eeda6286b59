"""``replicator conflicts``: what was decided where a change did not fit the row it met, and deciding it otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from replicator.cli.options import common, open_app, plans_at_centre
from replicator.cli.output import BAD, GOOD, WARN, count, image, say, show_json, show_table, shown
from replicator.cli.times import at, since_moment

if TYPE_CHECKING:
    from replicator.app import App
    from replicator.conflicts import Wanted
    from replicator.model import PolicyPlan, RecordedConflict, TablePlan
    from replicator.ports import Target

_EPILOG = """\b
A change that meets a row it did not start from is a conflict. The table's policy decides it, and the decision is put on
record with both rows. Conflicts for a person wait (policy manual): until then the centre's row stands everywhere, and the
site gets it too; its own value is in the conflict, its later changes of the row wait behind. What is decided here goes to
all sites as an ordinary change of the centre.

\b
Examples:
  replicator conflicts list --waiting
  replicator conflicts show 12
  replicator conflicts explain 12
  replicator conflicts resolve 12 --take site
  replicator conflicts resolve 12 --take centre --column note=site --set amount=12.50
  replicator conflicts redo --policy newest_wins --table stock --since 2d
  replicator conflicts redo --policy newest_wins --table stock --since 2d --apply
"""
_LIST = """\b
Examples:
  replicator conflicts list
  replicator conflicts list --waiting
  replicator conflicts list --site clinic_a --table stock --since 2h --limit 20

Exit codes: 0 listed (also when there is none), 3 error.
"""
_SHOW = """\b
"changed" says who changed a column since both sides last agreed; "result" is the row the decision left.

\b
Examples:
  replicator conflicts show 12
  replicator conflicts show 12 --json

Exit codes: 0 shown, 3 error (such as no conflict of that number).
"""
_EXPLAIN = """\b
Examples:
  replicator conflicts explain 12

Exit codes: 0 shown, 3 error (such as no conflict of that number).
"""
_COLOURS = {"both": BAD, "site": GOOD, "centre": WARN, "both alike": GOOD}


class Commands(click.Group):
    """The commands that settle conflicts are in a module of their own, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which one meets them."""
        return ["list", "show", "explain", "resolve", "redo"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        from replicator.cli.settling import redo, resolve

        return {"resolve": resolve, "redo": redo}.get(cmd_name) or super().get_command(ctx, cmd_name)


@click.group(cls=Commands, epilog=_EPILOG, short_help="Conflicts: how they were decided, and deciding them otherwise.")
def conflicts() -> None:
    """See recorded conflicts with both rows, the rule and why; resolve those that wait; decide them again."""


@conflicts.command("list", epilog=_LIST)
@common
@click.option("--table", metavar="NAME", default="", help="Only conflicts of this table at the centre.")
@click.option("--waiting", is_flag=True, help="Only those that wait for a person.")
@click.option("--since", metavar="WHEN", default="", help="Only later ones: 90s, 30m, 2h, 7d ago, or a date and time.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=50, show_default=True, help="The newest N.")
def list_(config: str, sites: Sequence[str], as_json: bool, table: str, waiting: bool, since: str, limit: int) -> None:
    """List the newest decisions, oldest of them first."""
    from replicator.conflicts import Wanted

    app = open_app(config)
    found = read(app, sites, Wanted(table, waiting, since_moment(since), limit))
    if as_json:
        show_json({"conflicts": [document(site, each) for site, each in found]})
        return
    if not found:
        say("no conflict waits for a person" if waiting else "no conflict is on record", GOOD)
        return
    head = ("id", "site", "table", "row", "conflict", "decision", "rule", "at", "state")
    rows = [
        (str(c.id), site, c.table, c.key, c.kind, c.verdict, c.policy, at(c.decided_at), state(c)) for site, c in found
    ]  # fmt: skip
    show_table(head, rows, [WARN if c.state == "waiting" or c.unsure else "" for _, c in found])
    asking = [c.id for _, c in found if c.state == "waiting"]
    say(
        f"{count(len(found), 'conflict')}; see one: replicator conflicts show {asking[0] if asking else found[-1][1].id}"
    )
    if asking:
        say(
            f"{count(len(asking), 'conflict')} waiting: replicator conflicts resolve {asking[0]} --take site|centre",
            WARN,
        )


@conflicts.command(epilog=_SHOW)
@common
@click.argument("number", metavar="ID", type=int)
def show(config: str, sites: Sequence[str], as_json: bool, number: int) -> None:
    """Show one decision: the base, both sides and the result side by side, with the changed columns marked."""
    from replicator.conflicts import left_row

    app = open_app(config)
    site, conflict = find(app, sites, number)
    if as_json:
        changed = {name: who for name, who in _marks(conflict).items() if who}
        left = None if conflict.kind == "parked" else left_row(conflict)
        show_json({**document(site, conflict), "changed": changed, "left": left})
    else:
        show_conflict(site, conflict)


@conflicts.command(epilog=_EXPLAIN)
@common
@click.argument("number", metavar="ID", type=int)
def explain(config: str, sites: Sequence[str], as_json: bool, number: int) -> None:
    """Tell the story of one decision: who wrote what and when, what the rule said, and what would have changed it."""
    from replicator.conflicts import explain as tell

    app = open_app(config)
    site, conflict = find(app, sites, number)
    told = list(tell(conflict, policy_of(plans(app, site), conflict.table), site))
    if as_json:
        show_json({"id": number, "site": site, "explanation": told})
    else:
        for sentence in told:
            say(sentence)


# --- what the commands share ---


def opened(app: App, site: str, planned: Sequence[TablePlan] = ()) -> Target:
    """The centre as the target of a site's link; close it."""
    return app.target(app.link(site), planned)


def read(app: App, sites: Sequence[str], wanted: Wanted) -> list[tuple[str, RecordedConflict]]:
    """The conflicts wanted, of these sites."""
    from replicator.conflicts import list_conflicts

    return list_conflicts(app.chosen(sites), lambda site: opened(app, site), wanted)


def find(app: App, sites: Sequence[str], number: int) -> tuple[str, RecordedConflict]:
    """The conflict of that number and its site. Raises SetupError when there is none."""
    from replicator.conflicts import find_conflict

    return find_conflict(app.chosen(sites), lambda site: opened(app, site), number)


def plans(app: App, site: str) -> Sequence[TablePlan]:
    """What the site sends, as the centre knew it last while the site is away."""
    return plans_at_centre(app, app.link(site))


def policy_of(planned: Sequence[TablePlan], table: str) -> PolicyPlan | None:
    """The policy of a table at the centre, as the YAML has it now."""
    return next((plan.policy for plan in planned if str(plan.target) == table), None)


def document(site: str, conflict: RecordedConflict) -> dict[str, object]:
    """A conflict for ``--json``."""
    return {**asdict(conflict), "site": site}


def state(conflict: RecordedConflict) -> str:
    """The state of a conflict, with a mark where the clocks left it open."""
    return f"{conflict.state}, unsure" if conflict.unsure else conflict.state


def show_conflict(site: str, conflict: RecordedConflict) -> None:
    """One conflict with all it was decided on."""
    from replicator.conflicts import left_row, sides

    say(f"conflict {conflict.id}: {conflict.kind} on {conflict.table} {conflict.key}, change from {site}")
    say(f"  {conflict.verdict} by {conflict.policy} at {at(conflict.decided_at)}: {conflict.reason}")
    written = [f"site wrote at {at(conflict.changed_at)}"] if conflict.changed_at else []
    if conflict.current_at:
        written.append(f"{conflict.current_origin or 'centre'} wrote the centre's row at {at(conflict.current_at)}")
    if written:
        say(f"  {', '.join(written)}")
    if conflict.unsure:
        say("  unsure: the times are closer than the clocks are known", WARN)
    if conflict.state == "resolved":
        say(f"  resolved: {conflict.resolution}", GOOD)
    dropped = conflict.kind == "parked"
    left = None if dropped else left_row(conflict)
    marks = _marks(conflict)
    images = (conflict.before, conflict.after, conflict.current, left)
    base = "base" if conflict.based else "base (not known)"
    heads = ("  column", "changed", base, "site", "centre then", "result")
    rows = [
        (f"  {name}", who, *("" if row is None else shown(row.get(name), 200) for row in images))
        for name, who in marks.items()
    ]
    if rows:
        show_table(heads, rows, [_COLOURS.get(who, "") for who in marks.values()])
    if not dropped and left is None:
        say("  result: no row")
    if conflict.state == "waiting":
        say(f"it waits for a person; next: replicator conflicts resolve {conflict.id} --take {sides(conflict)}", WARN)
    else:
        say(f"why: replicator conflicts explain {conflict.id}")


def show_row(title: str, row: object) -> None:
    """A row on one line behind a title."""
    say(f"{title}: {image(row if isinstance(row, dict) else None, 200)}")


def _marks(conflict: RecordedConflict) -> dict[str, str]:
    """Column → who changed it, in one word or two; empty for nobody."""
    from replicator.conflicts import marked_columns

    words = {"nobody": "", "both, to the same value": "both alike"}
    return {name: words.get(who.value, who.value) for name, who in marked_columns(conflict).items()}
