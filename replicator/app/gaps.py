"""After a lost replication slot: orders that what the log no longer tells is brought again."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from replicator.app.first_loads import is_held
from replicator.backfill import Wish, give_up, order
from replicator.model import Backfill, Direction, LinkName, Prefer, TablePlan

if TYPE_CHECKING:
    from replicator.app.topology import App

REASON = "the replication slot was lost; of rows deleted meanwhile: replicator resync"
OWED = "the replication slot was lost, and with it changes; rows that were deleted meanwhile are still at the centre"
"""What stays on record until a resync has found all tables equal: the backfills bring rows, and remove none."""


def bring_missed(app: App, site: str) -> bool:
    """Order all rows of a site whose slot took the place of a lost one, and let the link read on; false where none did.

    Rows of a table that goes one way come as they are at the site; of one that goes both ways the policy decides where they
    differ, unless the centre has what this very site sent last. What was ordered before is ordered anew, as it has passed rows
    that may be others now. Repeatable: the gap is closed last. Raises BatchError where the database is another one than the
    link was fed by, or was put back from a backup: what it has is not what was missed then.
    """
    topology = app.settings.topology
    log = app.log_of(site)
    if log is None:
        return False
    with closing(log):
        if not log.has_gap(topology):
            return False
        link = app.link(site)
        plans = app.link_plans(site, link.direction)
        record = next((each for each in app.read_links()[0] if each.link == link), None)
        with closing(app.source(link, plans)) as source, closing(app.target(link, plans)) as target:
            if record is not None:
                source.prove_history(record.position, record.stamp, target.read_identity())
            give_up(target, [plan.source.name for plan in plans], keep=is_held)
            order(source, target, [_wish(link, plan) for plan in plans])
        log.close_gap(topology, OWED)
    return True


def list_ordered(app: App, site: str) -> list[Backfill]:
    """What is on order since a slot was lost, and not brought yet."""
    found, _ = app.backfills([site])
    return [each for each in found if each.unfinished and each.reason == REASON]


def _wish(link: LinkName, plan: TablePlan) -> Wish:
    prefer = Prefer.OWN if plan.direction is Direction.BOTH else Prefer.SOURCE
    return Wish(link, plan.source.name, prefer, reason=REASON)
