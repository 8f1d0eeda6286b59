"""What a compiled topology says of trouble to come: warnings and notes of ``check``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from replicator import routes
from replicator.model import (
    Direction,
    Engine,
    Finding,
    LinkRecord,
    PolicyName,
    TableName,
    TablePlan,
    TruncatePolicy,
)
from replicator.resolve import listed
from replicator.shapes import unique_columns
from replicator.topology import Topology

_SKEW_US = 1_000_000
_LISTED = 12
TOPOLOGY = "topology"
"""The place of findings that are about the rules, not about one database."""


def find_concerns(topology: Topology) -> list[Finding]:
    """All that the rules and the tables tell without asking a database again."""
    found = (slow_conditions, spreading_truncates, second_keys, new_tables)
    return [finding for look in found for finding in look(topology)]


def slow_conditions(topology: Topology) -> Iterator[Finding]:
    """Conditions with parameters that no column of the table answers: every site then looks at every change."""
    for plan in _by_source(topology.downward):
        if plan.where is None or plan.route.columns or not routes.parameters(plan.where.source):
            continue
        yield Finding(
            TOPOLOGY, str(plan.source.name), False,
            f"where {plan.where.source!r}: no condition routes, so every site's link reads every change of the table",
            "join a condition column = :site.parameter with and, on a column of whole numbers or plain text",
            warning=True,
        )  # fmt: skip


def spreading_truncates(topology: Topology) -> Iterator[Finding]:
    """Tables that a TRUNCATE at one site would empty everywhere."""
    for site, plans in topology.plans.items():
        for plan in plans:
            shared = plan.direction is Direction.BOTH and not plan.constants
            truncates = plan.source_engine is Engine.POSTGRES and plan.truncate is TruncatePolicy.REPLICATE
            if shared and truncates:
                yield Finding(
                    site, str(plan.source.name), False,
                    f"a TRUNCATE here empties {plan.target} at the centre, and then at every site that gets it",
                    "set truncate: park, then it waits for you", warning=True,
                )  # fmt: skip


def second_keys(topology: Topology) -> Iterator[Finding]:
    """Unique keys besides the primary key of tables that come from the centre: rows of two sides may collide there."""
    found: dict[tuple[TableName, tuple[str, ...]], list[str]] = {}
    for site, plans in topology.downward.items():
        for plan in plans:
            key = {column.target for column in plan.columns if column.source in plan.key}
            for columns in dict.fromkeys(unique_columns(plan.target_shape)):
                if set(columns) != key:
                    found.setdefault((plan.target, columns), []).append(site)
    for (table, columns), sites in found.items():
        message = (
            f"unique on ({listed(columns)}) at {_sites(sites)}: a row that collides there is parked, the rest goes on, "
            "and it heals when one of the two is changed"
        )
        yield Finding(TOPOLOGY, str(table), True, message)


def check_skews(topology: Topology, links: Sequence[LinkRecord]) -> Iterator[Finding]:
    """Sites whose clock is wrong while the later of two edits is to win there. ``links``: what the centre has on record."""
    skews = {record.link.site: record.skew_us for record in links if record.link.direction.rises}
    for site, plans in topology.plans.items():
        skew = skews.get(site, 0)
        tables = [str(plan.source.name) for plan in plans if PolicyName.NEWEST_WINS in plan.policy.names]
        if tables and abs(skew) > _SKEW_US:
            yield Finding(
                site, "clock", False,
                f"{skew / 1e6:+.1f} s from the centre's at the last contact, and the later edit wins in {listed(tables)}",
                "let the machine follow a time server (NTP), or set unsure: park, or let another policy decide",
                warning=True,
            )  # fmt: skip


def new_tables(topology: Topology) -> Iterator[Finding]:
    """Tables the centre lacks, which install will create (what a site lacks stands in the topology's notes)."""
    names = [str(shape.name) for shape in topology.missing]
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        yield Finding(TOPOLOGY, "new tables", True, f"install creates at the centre: {listed(names[:_LISTED])}{more}")


def _by_source(plans: Mapping[str, Sequence[TablePlan]]) -> Iterable[TablePlan]:
    """One plan per table of the centre."""
    return {plan.source.name: plan for found in plans.values() for plan in found}.values()


def _sites(names: Sequence[str]) -> str:
    return f"site {names[0]}" if len(names) == 1 else f"{len(names)} sites"
