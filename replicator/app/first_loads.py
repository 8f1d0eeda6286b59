"""First loads by backfill: the rows that a site's tables have when capture of them begins, without writing them twice.

The order is put on record first, paused, and let go when capture has begun. So whatever is interrupted, and wherever, an order
says which rows are still to come; until they have, a change of a row that is not there yet brings the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from replicator.backfill import CHUNK_ROWS, give_up
from replicator.model import Backfill, BackfillState, TableName
from replicator.settings import CENTRE

if TYPE_CHECKING:
    from replicator.app.topology import App

REASON = "first load"


def hold_first_loads(app: App, site: str, tables: Sequence[TableName]) -> None:
    """Order backfills of tables that are not captured yet, in this order, paused. Repeatable. Raises SetupError.

    An order from when such a table was captured before is given up: nothing tells what became of the rows it has passed.
    """
    link = app.link(site)
    plans = app.link_plans(site, link.direction)
    estimates = {plan.source.name: plan.source.estimate for plan in plans}
    with closing(app.target(link, plans)) as target:
        give_up(target, tables, keep=is_held)
        for table in tables:
            target.order_backfill(
                table, chunk_rows=CHUNK_ROWS, estimate=max(estimates[table], 0), reason=REASON, held=True
            )


def release_first_loads(app: App, site: str) -> list[Backfill]:
    """Let a site's orders go whose tables are captured by now, also those of an install that was interrupted; which."""
    link = app.link(site)
    with closing(app.orders(CENTRE)) as orders:
        held = [each for each in orders.list_backfills(app.settings.topology) if each.link == link and is_held(each)]
    if not held:
        return []
    with closing(app.installable(site)) as database:
        captured = database.list_captured(app.settings.topology)
    ready = [each for each in held if each.table in captured]
    plans = app.link_plans(site, link.direction)
    with closing(app.target(link, plans)) as target, closing(app.source(link, plans)) as source:
        done = [each for each in ready if target.steer_backfill(each.id, BackfillState.RUNNING)]
        source.wake_others()
    return done


def is_held(backfill: Backfill) -> bool:
    """Whether it is a first load that waits for capture to begin."""
    fresh = backfill.state is BackfillState.PAUSED and not backfill.started_at
    return fresh and backfill.reason == REASON
