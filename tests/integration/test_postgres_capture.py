"""What a PostgreSQL site's triggers capture: every change, in order, exact, whatever happens to the table."""

from __future__ import annotations

import psycopg
import pytest

from replicator.filters import parse_expression
from tests.fixtures.databases import PostgresDatabases
from tests.integration.postgres_site import MakeSite, Site, make_site

__all__ = ["make_site"]


def test_every_kind_of_change_is_captured_with_both_images(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key, a text, g int generated always as (id * 2) stored)")
    site.run("insert into t (id, a) values (1, 'one'), (2, null)")
    site.run("update t set a = 'uno' where id = 1")
    site.run("update t set id = 20 where id = 2")
    site.run("delete from t where id = 20")
    site.run("truncate t")
    assert site.read() == [
        ("t", "i", None, ("1", "one")),
        ("t", "i", None, ("2", None)),
        ("t", "u", ("1", "one"), ("1", "uno")),
        ("t", "k", ("2", None), ("20", None)),
        ("t", "d", ("20", None), None),
        ("t", "t", None, None),
    ]


def test_an_update_that_changes_no_captured_value_is_not_captured(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key, a text, f float8)")
    site.run("insert into t values (1, 'x', 0.0)")
    site.read()
    site.run("update t set a = a; update t set f = '-0'")
    assert site.read() == [("t", "u", ("1", "x", "0"), ("1", "x", "-0"))]


def test_invariant_2_rolled_back_changes_are_never_seen(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key)")
    site.run("begin; insert into t values (1); savepoint s; insert into t values (2); rollback to s; commit")
    site.run("begin; insert into t values (3); rollback")
    assert site.read() == [("t", "i", None, ("1",))]


@pytest.mark.parametrize("statement", [
    "update t set v = -v where id % 3 > 0",
    "update t set id = id + 100000",
    "update t set v = o.v + 1 from t o where o.id = t.id - 1 and t.id % 2 = 0",
    "insert into t select i, -i from generate_series(-500, 500) i on conflict (id) do update set v = t.v * 7, w = excluded.id",
    "with a as (update t set v = v + 1 where id < 500 returning *) update t set v = t.v - 1 from a where t.id = a.id + 1000",
])  # fmt: skip
def test_old_and_new_rows_of_an_update_are_paired_exactly(make_site: MakeSite, statement: str) -> None:
    site = make_site(
        """create table t (id int primary key, v bigint, w int) with (fillfactor = 60);
        create table log (n bigserial primary key, op text, o text, v text);
        create function noted() returns trigger language plpgsql as
        'begin insert into log (op, o, v) values (tg_op, row(old.id, old.v, old.w)::text, row(new.id, new.v, new.w)::text);
        return new; end';
        insert into t select i, i * 3 from generate_series(1, 3000) i;
        create trigger noted before update on t for each row execute function noted()"""
    )
    assert _modes(site, "t") == {"update"}
    site.run(statement)
    noted = site.rows("select o, v from log where op = 'UPDATE'")
    captured = site.rows("select before, after from replicator.outbox where relation = (select id from replicator.relation"
                         " where table_name = 't') and op in ('u', 'k')")  # fmt: skip
    assert len(noted) > 300
    assert sorted(map(str, captured)) == sorted(map(str, noted))


def test_merge_is_captured_in_all_its_branches(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key, v int); insert into t values (1, 1), (2, 2)")
    if site.connection.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    site.run(
        """merge into t using (values (1), (2), (3)) s (id) on s.id = t.id when matched and t.id = 1 then delete
        when matched then update set v = 20 when not matched then insert values (s.id, 30)"""
    )
    assert sorted(site.read(), key=str) == sorted([
        ("t", "d", ("1", "1"), None), ("t", "u", ("2", "2"), ("2", "20")), ("t", "i", None, ("3", "30")),
    ], key=str)  # fmt: skip


def test_partitions_are_captured_through_their_root_wherever_rows_are_written(make_site: MakeSite) -> None:
    site = make_site(
        """create table p (id int, k text, v text, primary key (id, k)) partition by list (k);
        create table pa partition of p for values in ('a');
        create table pb (v text, gone int, k text not null, id int not null);
        alter table pb drop column gone; alter table p attach partition pb for values in ('b')"""
    )
    site.run("insert into p values (1, 'a', 'x'); insert into pb (id, k, v) values (2, 'b', 'y')")
    site.run("update p set k = 'b' where id = 1; update pb set v = 'z' where id = 2")
    site.run(
        "create table pc partition of p for values in ('c'); insert into pc values (3, 'c', 'w'); delete from p where id = 3"
    )
    assert site.read() == [
        ("p", "i", None, ("1", "a", "x")),
        ("p", "i", None, ("2", "b", "y")),
        ("p", "d", ("1", "a", "x"), None),
        ("p", "i", None, ("1", "b", "x")),
        ("p", "u", ("2", "b", "y"), ("2", "b", "z")),
        ("p", "i", None, ("3", "c", "w")),
        ("p", "d", ("3", "c", "w"), None),
    ]
    assert site.rows("select distinct tgenabled::text from pg_trigger where tgname like '!replicator%'") == [("A",)]


def test_inherited_tables_are_captured_each_by_itself(make_site: MakeSite) -> None:
    site = make_site(
        "create table a (id int primary key, v int); create table b (x int, primary key (id)) inherits (a)"
    )
    site.run("insert into a values (1, 1); insert into b values (2, 2, 2); update a set v = v + 10; delete from a")
    assert [(table, op) for table, op, *_ in site.read()] == [
        ("a", "i"), ("b", "i"), ("a", "u"), ("b", "u"), ("a", "d"), ("b", "d"),
    ]  # fmt: skip


def test_rows_that_a_users_own_trigger_writes_again_are_captured_in_order(make_site: MakeSite) -> None:
    site = make_site(
        """create table t (id int primary key, v int);
        create function twice() returns trigger language plpgsql as
        'begin update t set v = new.v * 2 where id = new.id; return null; end';
        create trigger aaa after insert on t for each row execute function twice();
        create table parent (id int primary key, up int references parent on update cascade)"""
    )
    assert _modes(site, "t") == {"row"} == _modes(site, "parent")
    site.run("insert into t values (1, 5), (2, 6)")
    changes = site.read()
    assert [c for c in changes if (c[3] or c[2] or ("",))[0] == "1"] == [
        ("t", "i", None, ("1", "5")), ("t", "u", ("1", "5"), ("1", "10")),
    ]  # fmt: skip


def test_a_delete_and_an_insert_of_one_key_in_one_statement_come_in_order(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key, v text); insert into t values (1, 'old'), (2, 'old')")
    site.run("with gone as (delete from t returning id) insert into t select id, 'new' from gone")
    assert [op for _, op, *_ in site.read()] == ["d", "d", "i", "i"]


def test_sessions_settings_do_not_change_what_is_captured(make_site: MakeSite) -> None:
    site = make_site(
        """create type pair as (d date, f float8); create domain moment as timestamptz;
        create table t (id int primary key, a date, b timestamptz, c interval, d float8, e float4, f bytea, g money, h pair,
        i moment, j tstzrange, k regclass, l point, m float8[], n bit varying(5))"""
    )
    site.run(
        """set datestyle = 'German'; set timezone = 'Asia/Tokyo'; set intervalstyle = 'sql_standard';
        set extra_float_digits = -10; set bytea_output = 'escape'; set search_path = public, pg_catalog"""
    )
    site.run(
        """insert into t values (1, '2024-12-31', '2024-12-31 10:00:00.123456+00', '1 year 2 days 03:00', 0.30000000000000004,
        1.1, '\\x00ff5c', 12.5, row('2024-12-31', 0.1), '2024-12-31 10:00+00', '[2024-12-31 10:00+00,)', 'public.t',
        '(0.1,0.30000000000000004)', '{0.30000000000000004,NaN}', B'101')"""
    )
    ((_, _, _, after),) = site.read()
    assert after is not None
    assert after == (
        "1", "2024-12-31", "2024-12-31 10:00:00.123456+00", "1 year 2 days 03:00:00", "0.30000000000000004", "1.1",
        "\\x00ff5c", after[7], "(2024-12-31,0.1)", "2024-12-31 10:00:00+00", '["2024-12-31 10:00:00+00",)', "public.t",
        "(0.1,0.30000000000000004)", "{0.30000000000000004,NaN}", "101",
    )  # fmt: skip


def test_only_settings_that_matter_are_fixed(make_site: MakeSite) -> None:
    site = make_site(
        "create table plain (id int primary key, a text, b numeric); create table timed (id int primary key, t timestamptz)"
    )
    found = site.rows("select proname, proconfig from pg_proc where proname like 'capture_lab_%'")
    settings = {str(name).split("_")[2]: value for name, value in found}
    assert settings == {
        "plain": ["search_path=pg_catalog"],
        "timed": ["search_path=pg_catalog", "DateStyle=ISO, MDY", "TimeZone=UTC"],
    }


CHANGES = {
    "renamed column": "alter table t rename a to b",
    "dropped column": "alter table t drop a",
    "dropped and made again": "alter table t drop a; alter table t add a text",
    "new type": "alter table t alter a type int using 7",
    "added column": "alter table t add b int default 5",
    "renamed table": "alter table t rename to u; create view t as select * from u",
    "moved table": "create schema other; alter table t set schema other; create view t as select * from other.t",
}


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_invariant_10_no_statement_of_the_application_fails_after_the_table_changed(
    make_site: MakeSite, change: str, by_row: bool
) -> None:
    site = make_site(
        "create table t (id int primary key, a text)"
        + (" partition by range (id); create table t1 partition of t for values from (0) to (100)" if by_row else "")
    )
    warm_up = "insert into t (id) values (1); update t set id = 2; delete from t"
    site.run(warm_up)
    site.read()
    site.run(change)
    before = site.rows("select count(*) from replicator.outbox")[0][0]
    site.run(warm_up)
    assert site.rows("select count(*) from replicator.outbox")[0][0] == int(str(before)) + 3


@pytest.mark.parametrize("by_row", [False, True])
def test_changes_captured_by_name_follow_after_install(make_site: MakeSite, by_row: bool) -> None:
    site = make_site(
        "create table t (id int primary key, a text, b char(3))"
        + (" partition by range (id); create table t1 partition of t for values from (0) to (100)" if by_row else "")
    )
    site.run("insert into t values (1, 'x', 'q')")
    site.run("alter table t rename a to name")
    site.run(
        """insert into t values (2, 'a "b" \\ c', null); update t set name = '' where id = 1;
        update t set id = 3 where id = 2"""
    )
    site.install(skip_existing=False)
    assert [c for c in site.read() if c[1] != "i" or c[3] != ("1", "", "q  ")][:5] == [
        ("t", "i", None, ("1", "x", "q  ")),
        ("t", "i", None, ("2", 'a "b" \\ c', None)),
        ("t", "u", ("1", "x", "q  "), ("1", "", "q  ")),
        ("t", "k", ("2", 'a "b" \\ c', None), ("3", 'a "b" \\ c', None)),
        ("t", "i", None, ("3", 'a "b" \\ c', None)),
    ]


def test_a_row_filter_turns_updates_into_inserts_and_deletes(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key, v int)")
    site.filters["t"] = parse_expression("v > 10", {"id": "int", "v": "int"})
    site.install()
    site.run("insert into t values (1, 5), (2, 15), (3, null)")
    site.run("update t set v = v + 10; update t set v = v + 1; update t set v = 0; delete from t")
    assert site.read() == [
        ("t", "i", None, ("2", "15")),
        ("t", "i", None, ("1", "15")),
        ("t", "u", ("2", "15"), ("2", "25")),
        ("t", "u", ("1", "15"), ("1", "16")),
        ("t", "u", ("2", "25"), ("2", "26")),
        ("t", "d", ("1", "16"), None),
        ("t", "d", ("2", "26"), None),
    ]


def test_invariant_10_application_users_need_no_right_on_our_schema(
    make_site: MakeSite, postgres_database: PostgresDatabases
) -> None:
    site = make_site("create table t (id int primary key, v int)")
    user = f"app_{site.connection.info.backend_pid}"
    site.run(f"create role {user}; grant insert, update, delete, select on t to {user}")
    try:
        site.run(f"set role {user}; insert into t values (1, 1); update t set v = 2; delete from t; reset role")
        assert [op for _, op, *_ in site.read()] == ["i", "u", "d"]
    finally:
        site.run(f"reset role; drop owned by {user}; drop role {user}")


def test_two_phase_commit_still_works_while_the_reader_sleeps(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key)")
    if site.rows("show max_prepared_transactions") == [("0",)]:
        pytest.skip("two-phase commit is switched off on this server")
    with psycopg.connect(site.url, autocommit=True) as sleeper:
        number = site.rows(
            "select substring(prosrc from 'lock_shared\\((-?[0-9]+)\\)') from pg_proc where proname like 'capture_lab_t%'"
        )[0][0]
        sleeper.execute(f"select pg_advisory_lock({number})")
        site.run("begin; insert into t values (1); prepare transaction 'x'")
    assert site.read() == []
    site.run("commit prepared 'x'")
    assert site.read() == [("t", "i", None, ("1",))]


def test_our_own_apply_leaves_its_origin_and_the_clock_never_goes_back(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key)")
    site.run("update replicator.clock set seen = 4000000000000000")
    site.run(
        """begin; select set_config('replicator.origin', 'elsewhere', true); insert into t values (1);
            commit; insert into t values (2)"""
    )
    assert site.rows("select origin, changed_at from replicator.outbox order by seq") == [
        ("elsewhere", 4000000000000001), (None, 4000000000000001),
    ]  # fmt: skip


def test_hostile_names_and_the_widest_table_are_captured(make_site: MakeSite) -> None:
    names = [
        "select",
        'a"b',
        "it's",
        "$capture$",
        "$capture1$",
        "__key__",
        "old_rows",
        "n",
        "wanted",
        "captured",
        "ready",
        "stamp",
        "é" * 31,
        "x" * 63,
        " ",
        "tg_op",
        "place",
        "image",
        "o",
        "key",
    ]
    columns = ", ".join('"' + name.replace('"', '""') + '" text' for name in names)
    wide = ", ".join(f"column_{place} int" for place in range(1599))
    site = make_site(
        f"""create schema "Sch""ema"; create table "Sch""ema"."{"t" * 60}é" (id int primary key, {columns});
        create table "Sch""ema"."$capture$ $existing$" (n int, "n o" int, primary key ("n o", n));
        create table wide (id int primary key, {wide})"""
    )
    site.run(
        f"""insert into "Sch""ema"."{"t" * 60}é" values (1, 'a'); update "Sch""ema"."{"t" * 60}é" set "x{"x" * 62}" = 'y'"""
    )
    site.run(
        """insert into "Sch""ema"."$capture$ $existing$" values (1, 2);
        insert into wide (id, column_1598) values (1, 9); update wide set column_0 = 1; delete from wide"""
    )
    assert [op for _, op, *_ in site.read()] == ["i", "u", "i", "i", "u", "d"]


def test_virtual_generated_columns_are_left_out(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key, a int)")
    if site.connection.info.server_version < 180000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    site.run("alter table t add v int generated always as (a * 2) virtual")
    assert site.installer.plan_site("lab", site.plans()).statements == ()
    site.run("insert into t (id, a) values (1, 1); update t set a = 2; alter table t rename a to b; delete from t")
    assert site.rows("select before, after from replicator.outbox order by seq offset 1") == [
        ("(1,1)", "(1,2)"), ('{"id" : "1", "b" : "2"}', None),
    ]  # fmt: skip


def test_a_disabled_replica_role_does_not_silence_capture(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key)")
    site.run("set session_replication_role = replica; insert into t values (1); reset session_replication_role")
    assert len(site.read()) == 1


def _modes(site: Site, table: str) -> set[str]:
    found = site.rows(
        f"select tgname from pg_trigger where tgrelid = '{table}'::regclass and tgname like '!replicator%'"
    )
    names = {str(name).rsplit("_", 1)[1] for (name,) in found}
    return {"row"} if "row" in names else names & {"update"}
