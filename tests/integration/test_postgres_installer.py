"""Installing into PostgreSQL: idempotent, fast for many tables, polite to the application, and removable with proof."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from replicator.engines.postgres.connection import connect, describe, translate
from replicator.engines.postgres.installer import PostgresInstaller
from replicator.errors import BatchError, RejectedError, RetryableError, SchemaError, SetupError, StaleError
from replicator.model import ColumnShape, ForeignKeyShape, TableName, TableShape, UniqueShape
from tests.fixtures.databases import PostgresDatabases
from tests.integration.postgres_site import LINK, MakeSite, Site, make_site, plan_of

__all__ = ["make_site"]


@pytest.fixture
def site(postgres_database: PostgresDatabases) -> Iterator[Site]:
    url = postgres_database("plain")
    made = Site(url, psycopg.connect(url, autocommit=True))
    yield made
    made.close()


def test_the_catalogue_shows_tables_keys_types_and_ties(site: Site) -> None:
    site.run(
        """create schema s; create domain s.name as text;
        create table s.parent (a int, b text collate "C", primary key (b, a), unique (a) deferrable);
        create table child (id bigint generated always as identity primary key, a int not null default 7, b text, c s.name[],
            d numeric(10,2), g int generated always as (a + 1) stored,
            foreign key (b, a) references s.parent (b, a) on delete cascade on update set null deferrable);
        create unique index partial on child (a) where b is null; create unique index lowered on child (lower(b));
        create view v as select 1; create temporary table hidden (x int)"""
    )
    tables = site.installer.read_catalogue().tables
    assert set(tables) == {TableName("s", "parent"), TableName("public", "child")}
    parent, child = tables[TableName("s", "parent")], tables[TableName("public", "child")]
    assert parent.key == ("b", "a")
    assert parent.column("b").collation
    assert [(u.columns, u.deferrable) for u in parent.uniques if not u.primary] == [(("a",), True)]
    assert child.columns[0] == ColumnShape("id", "bigint", True, identity_always=True)
    assert [c.type for c in child.columns] == ["bigint", "integer", "text", "s.name[]", "numeric(10,2)", "integer"]
    assert child.column("a").default == "7"
    assert child.column("g").generated
    assert {u.name: u.exact for u in child.uniques} == {"child_pkey": True, "lowered": False, "partial": False}
    assert [replace(key, name="") for key in child.foreign_keys] == [
        ForeignKeyShape("", ("b", "a"), TableName("s", "parent"), ("b", "a"), "cascade", "set null", True)
    ]


def test_install_is_idempotent_and_uninstall_leaves_nothing(make_site: MakeSite) -> None:
    site = make_site('create table t (id int primary key); create table "Odd "" name" (id int primary key)')
    assert site.installer.plan_site(LINK.topology, site.plans()).statements == ()
    assert len(site.installer.list_objects()) > 10
    plan = site.installer.plan_uninstall(LINK.topology)
    site.installer.install(plan)
    assert site.installer.list_objects() == []
    assert site.installer.plan_uninstall(LINK.topology).statements == ()
    site.run("insert into t values (1)")


def test_one_of_two_topologies_can_be_removed(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key)")
    site.installer.install(site.installer.plan_site("other", site.plans()))
    site.installer.install(site.installer.plan_uninstall("other"))
    assert site.installer.plan_site(LINK.topology, site.plans()).statements == ()
    site.run("insert into t values (1)")
    assert [op for _, op, *_ in site.read()] == ["i"]
    assert site.rows(
        "select count(*) from replicator.outbox where relation not in (select id from replicator.relation)"
    ) == [(0,)]


@pytest.mark.parametrize("damage", [
    "drop trigger {insert} on t",
    "alter table t disable trigger {insert}",
    "alter table t enable trigger {insert}",
    "alter table t add b int",
    "create or replace function replicator.{function}() returns trigger language plpgsql as 'begin return null; end';"
    " comment on function replicator.{function}() is 'x'",
    "create function noted() returns trigger language plpgsql as 'begin return null; end';"
    " create trigger noted after insert on t for each row execute function noted()",
])  # fmt: skip
def test_drift_is_seen_and_mended(make_site: MakeSite, damage: str) -> None:
    site = make_site("create table t (id int primary key, a text); insert into t values (7)")
    ((function,),) = site.rows("select proname from pg_proc where proname like 'capture_lab_t_%'")
    ((insert,),) = site.rows("select quote_ident(tgname) from pg_trigger where tgname like '!replicator%insert'")
    site.run(damage.format(function=function, insert=insert))
    findings = site.installer.check(site.plans(), as_source=True)
    assert any("not as planned" in finding.message for finding in findings)
    site.install()
    assert site.installer.plan_site(LINK.topology, site.plans()).statements == ()
    assert not any(
        "not as planned" in finding.message for finding in site.installer.check(site.plans(), as_source=True)
    )
    site.run("insert into t (id, a) values (1, 'x')")
    assert [(op, (after or ())[:2]) for _, op, _, after in site.read()] == [("i", ("1", "x"))]


def test_rows_that_are_there_already_are_captured_once_and_in_order(site: Site) -> None:
    site.run(
        """create table t (a text, b int, v int, primary key (a, b)); insert into t select i % 7, i, 0
            from generate_series(1, 12345) i"""
    )
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(site.url, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("update t set v = v + 1 where b = (random() * 12345)::int")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        site.install(skip_existing=False)
    finally:
        stop.set()
        thread.join()
    rows: dict[object, object] = {}
    for _, _, before, after in site.read():
        for image in (before, after):
            if image is not None:
                rows[image[1]] = image[2]
    assert rows == {str(b): str(v) for b, v in site.rows("select b, v from t")}


def test_tables_a_yaml_no_longer_names_are_shown_and_left_alone(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key); create table u (id int primary key)")
    plan = site.installer.plan_site(LINK.topology, [p for p in site.plans() if p.source.name.name == "t"])
    assert (plan.statements, plan.leftovers) == ((), ("triggers on u",))


def test_every_planned_statement_runs_by_hand(site: Site, tmp_path: object) -> None:
    site.run("create table t (id int primary key, v text); insert into t values (1)")
    plan = site.installer.plan_site(LINK.topology, site.plans())
    assert all("$1" not in step.sql for step in plan.statements if "capture_by_name" not in step.object)
    for step in plan.statements:
        site.run(step.sql)
    assert site.installer.plan_site(LINK.topology, site.plans()).statements == ()


def test_five_hundred_tables_install_and_plan_quickly(site: Site) -> None:
    site.run(
        """do $$ begin for i in 1..500 loop execute format('create table t%s (id int primary key,
            v text, at timestamptz)', i); end loop; end $$"""
    )
    start = time.monotonic()
    assert len(site.installer.read_catalogue().tables) == 500
    catalogue = time.monotonic() - start
    site.install()
    start = time.monotonic()
    assert site.installer.plan_site(LINK.topology, site.plans()).statements == ()
    again = time.monotonic() - start
    site.installer.install(site.installer.plan_uninstall(LINK.topology))
    assert site.installer.list_objects() == []
    assert catalogue < 3
    assert again < 6


def test_a_waiting_install_lets_the_applications_statements_through(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key)")
    site.run("alter table t add b int")
    plan = site.installer.plan_site(LINK.topology, site.plans())
    site.run("alter table t disable trigger all")
    with psycopg.connect(site.url) as reader:
        reader.execute("insert into t values (1)")
        thread = threading.Thread(
            target=site.installer.install, args=(site.installer.plan_site(LINK.topology, site.plans()),)
        )
        thread.start()
        with psycopg.connect(site.url, autocommit=True) as writer:
            longest, deadline = 0.0, time.monotonic() + 4
            while time.monotonic() < deadline:
                start = time.monotonic()
                writer.execute("insert into t values (0) on conflict do nothing")
                longest = max(longest, time.monotonic() - start)
            assert thread.is_alive()
        reader.commit()
    thread.join(20)
    assert not thread.is_alive()
    assert longest < 3
    assert plan.statements


def test_a_table_that_stays_locked_is_reported_for_retry(make_site: MakeSite) -> None:
    site = make_site("create table t (id int primary key)")
    site.run("alter table t disable trigger all")
    installer = PostgresInstaller(site.url, patience=0.1)
    with psycopg.connect(site.url) as reader:
        reader.execute("lock table t in access share mode")
        plan = installer.plan_site(LINK.topology, site.plans())
        with pytest.raises(RetryableError, match="capture changes of t"):
            installer.install(plan)
    installer.close()


def test_missing_rights_are_named_with_their_grant(site: Site) -> None:
    user = f"poor_{site.connection.info.backend_pid}"
    site.run(
        f"""create table t (id int primary key); create table k (id int); create role {user} login;
            alter role {user} password 'secret'"""
    )
    url = site.url.replace("postgres@", f"{user}:secret@", 1).replace("postgres:", f"{user}:secret-", 1)
    poor = PostgresInstaller(url)
    try:
        with _owner_role(site, user):
            plans = [plan_of(shape, key=shape.key) for shape in poor.read_catalogue().tables.values()]
            findings = {f.message: f.fix for f in poor.check(plans, as_source=True) if not f.ok}
            fixes = "\n".join(findings.values())
            assert f'grant create on database "{site.connection.info.dbname}" to "{user}";' in fixes
            assert f'grant "{site.connection.info.user}" to "{user}";' in fixes
            assert any("no primary key" in message for message in findings)
            with pytest.raises(SetupError):
                poor.install(poor.plan_site(LINK.topology, [p for p in plans if p.key]))
            site.run(
                f'grant create on database "{site.connection.info.dbname}" to {user}; alter table t owner to {user}'
            )
            poor.install(poor.plan_site(LINK.topology, [p for p in plans if p.key]))
            site.run("insert into t values (1)")
            assert site.rows("select op::text from replicator.outbox") == [("i",)]
            poor.install(poor.plan_uninstall(LINK.topology))
            assert poor.list_objects() == []
    finally:
        poor.close()


@contextmanager
def _owner_role(site: Site, user: str) -> Iterator[None]:
    try:
        yield
    finally:
        site.run(f"drop owned by {user} cascade; drop role {user}")


def test_the_centre_gets_missing_tables_parents_first(site: Site) -> None:
    parent = TableShape(
        TableName("lab", 'parent " x'),
        (
            ColumnShape("site", "text", True), ColumnShape("id", "bigint", True, identity_always=True),
            ColumnShape("n", "numeric(10,2)"),
        ),
        key=("site", "id"), uniques=(UniqueShape("p_n", ("site", "n")),),
    )  # fmt: skip
    child = TableShape(
        TableName("lab", "child"),
        (ColumnShape("site", "text", True), ColumnShape("id", "integer", True), ColumnShape("up", "bigint")),
        key=("site", "id"), foreign_keys=(
            ForeignKeyShape("child_up", ("site", "up"), parent.name, ("site", "id"), "cascade"),
            ForeignKeyShape("child_self", ("site", "id"), TableName("lab", "child"), ("site", "id")),
            ForeignKeyShape("elsewhere", ("up",), TableName("lab", "unknown"), ("id",)),
        ),
    )  # fmt: skip
    plans = [replace(plan_of(shape), target_shape=shape, target=shape.name) for shape in (child, parent)]
    site.installer.install(site.installer.plan_centre("top", plans))
    assert site.installer.plan_centre("top", plans).statements == ()
    made = site.installer.read_catalogue().tables
    assert [(c.name, c.type, c.not_null, c.identity_always) for c in made[parent.name].columns] == [
        ("site", "text", True, False), ("id", "bigint", True, False), ("n", "numeric(10,2)", False, False),
    ]  # fmt: skip
    assert made[parent.name].key == ("site", "id")
    assert [(u.columns, u.deferrable) for u in made[parent.name].uniques if not u.primary] == [(("site", "n"), True)]
    assert {key.name: (key.on_delete, key.deferrable) for key in made[child.name].foreign_keys} == {
        "child_up": ("cascade", True), "child_self": ("no action", True),
    }  # fmt: skip
    assert site.installer.list_links("top") == []


def test_passwords_stay_out_of_messages(postgres_database: PostgresDatabases) -> None:
    for url in (
        "postgresql://u:s3cret@127.0.0.1:1/x",
        "postgresql://u:s3cret@:::/x",
        "host=127.0.0.1 port=1 password=s3cret",
    ):
        with pytest.raises((RetryableError, SetupError)) as caught:
            connect(url, application_name="test")
        assert "s3cret" not in f"{caught.value} {caught.value.__cause__} {describe(url)}"


@pytest.mark.parametrize(("sqlstate", "kind"), [
    ("57P01", RetryableError), ("40P01", StaleError), ("53100", RetryableError),
    ("08006", RetryableError), ("55P03", RetryableError),
    ("23505", RejectedError), ("22003", RejectedError), ("P0001", RejectedError),
    ("2F002", RejectedError), ("44000", RejectedError),
    ("42501", SetupError), ("42P01", SchemaError), ("42703", SchemaError), ("28000", SetupError), ("3D000", SetupError),
    ("42601", RejectedError), ("XX000", BatchError),
])  # fmt: skip
def test_every_kind_of_driver_error_has_its_place_in_our_tree(sqlstate: str, kind: type[Exception]) -> None:
    error = psycopg.errors.lookup(sqlstate)("x") if sqlstate != "P0001" else psycopg.errors.RaiseException("x")
    translated = translate(error, "somewhere")
    assert type(translated) is kind
    assert "somewhere" in str(translated)


def test_sessions_spell_values_the_same_whatever_the_roles_defaults(site: Site) -> None:
    site.run(
        """do $$ begin execute format('alter database %I set datestyle = german', current_database());
            execute format('alter database %I set timezone = ''Asia/Tokyo''', current_database());
            end $$"""
    )
    with connect(site.url, application_name="test") as connection:
        ((shown,),) = connection.execute("select ('2024-12-31 10:00+00'::timestamptz)::text").fetchall()
    assert shown == "2024-12-31 10:00:00+00"
