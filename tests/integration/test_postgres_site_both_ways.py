"""A PostgreSQL site that gets changes too: what comes from the centre is not captured, what is unanswered is not pruned."""

from __future__ import annotations

from dataclasses import replace

from replicator.engines.postgres.source import PostgresSource
from replicator.model import Direction, Position
from tests.integration.postgres_site import LINK, MakeSite, Site, make_site, read_once

__all__ = ["make_site"]

TABLES = "create table t (id int primary key, x int); create table s (id int primary key, p int references s on delete cascade)"


def test_what_comes_from_the_centre_is_not_captured(make_site: MakeSite) -> None:
    site = make_site(TABLES)  # t by statement, s by row
    changes = (
        "insert into t values (1, 1); insert into s values (1, null); update t set x = 2; truncate t; delete from s"
    )
    for origin, captured in (("lab/centre", 0), ("other/centre", 5), ("lab/site", 5)):
        site.run(f"begin; select set_config('replicator.origin', '{origin}', true); {changes}; commit")
        assert len(site.read()) == captured, origin


def test_nothing_is_pruned_before_the_centre_has_answered(make_site: MakeSite) -> None:
    """The marker rule needs what was sent until its answer has come back."""
    site = make_site(TABLES)
    site.run("insert into t values (1, 1)")
    source = PostgresSource(site.url, LINK, [replace(plan, direction=Direction.BOTH) for plan in site.plans()])
    site.opened.append(source)
    _, sent, _ = read_once(source, site.position, 100)
    assert sent is not None
    source.acknowledge_batch(sent)
    source.tidy()
    assert _left(site) == 1
    assert site.rows("select position from replicator.acknowledged where link = 'lab/site/from_centre'") == [("1:1:",)]
    _answer(site, sent)
    source.tidy()
    assert _left(site) == 0


def _left(site: Site) -> int:
    return int(str(site.rows("select count(*) from replicator.outbox")[0][0]))


def _answer(site: Site, marker: Position) -> None:
    site.run(f"update replicator.acknowledged set position = '{marker}' where link = 'lab/site/from_centre'")
