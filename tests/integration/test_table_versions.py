"""Changes captured under several versions of one table (columns added, install run again) that arrive in one batch."""

from __future__ import annotations

import pytest

from tests.fixtures.pairs import MakePair

JOB = "create table job (id bigint primary key, n bigint)"


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_a_row_changed_under_several_versions_ends_as_the_last(make_pair: MakePair, engine: str) -> None:
    """Row 3 is first only recorded by install, then changed: its later version must not be applied first."""
    pair = make_pair("postgres", engine)
    pair.site.run(JOB)
    pair.install("job")
    pair.site.run("insert into job values (1, 1), (2, 1), (3, 1)")
    pair.sync()
    for turn in (1, 2):
        pair.site.run(f"update job set n = {turn}0 where id = 1", f"alter table job add column c{turn} text")
        pair.site.run(f"update job set n = {turn}1 where id in (2, {turn + 1})")
        pair.centre.run(f"alter table job add column c{turn} text")
        pair.install("job")
        pair.site.run(f"update job set n = {turn}2 where id = 1")
    pair.sync()
    assert pair.parked() == []
    pair.assert_equal("job")
