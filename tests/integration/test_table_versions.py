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


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_columns_that_come_and_go_in_one_batch(make_pair: MakePair, engine: str) -> None:
    """Each install makes a version; the row ends at the values of the last one, whichever columns were there between."""
    pair = make_pair("postgres", engine)
    pair.site.run("create table job (id bigint primary key, n bigint, d0 text)")
    pair.install("job")
    pair.site.run("insert into job values (1, 1, 'a'), (2, 1, 'a')")
    pair.sync()
    for turn in (1, 2, 3):
        pair.site.run(f"update job set n = {turn}0, d{turn - 1} = 'x{turn}' where id = 1")
        pair.site.run(f"alter table job add column d{turn} text", f"alter table job drop column d{turn - 1}")
        pair.centre.run(f"alter table job add column d{turn} text")
        pair.install("job")
        pair.site.run(
            f"update job set n = {turn}1, d{turn} = 'y{turn}'", f"insert into job values ({turn + 2}, 0, 'n')"
        )
        pair.site.run(f"update job set n = {turn}2 where id = 1", f"delete from job where id = {turn + 1}")
    pair.sync()
    assert pair.parked() == []
    rows = pair.site.rows("select id, n, d3 from job order by id")
    assert pair.centre.rows("select id, n, d3 from job order by id") == rows


@pytest.mark.parametrize("direction", ["to_centre", "both"])
@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_a_row_recorded_anew_by_install_and_deleted_then_is_deleted(
    make_pair: MakePair, engine: str, direction: str
) -> None:
    """Its first change of the new version is an insert, its last a delete; the centre has had it all along."""
    pair = make_pair("postgres", engine)
    rule = {"name": "job", "direction": direction}
    pair.site.run(JOB)
    pair.install(rule)
    pair.site.run("insert into job values (1, 1), (2, 1), (3, 1)")
    pair.settle()
    pair.site.run("alter table job add column c text")
    pair.centre.run("alter table job add column c text")
    pair.install(rule)
    pair.site.run("delete from job where id = 1", "update job set n = 2 where id = 2", "delete from job where id = 2")
    pair.site.run("insert into job values (4, 4, 'x')", "delete from job where id = 4")
    pair.settle()
    assert (pair.parked(), pair.conflicts()) == ([], [])
    assert pair.centre.rows("select id from job") == [(3,)]
    pair.assert_equal("job")
