"""Rows that are copied straight into users' tables: whatever stands at these tables, it comes out as when they are inserted.

Every case is played twice, as the log sends it past the outbox, and again with no hope of the quick way; the centres must end
alike, in their tables, in what is parked, and in what another capture of theirs has seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
import pytest

from replicator.engines.postgres.installer import PostgresInstaller
from replicator.engines.postgres.quick import Luck, Quick
from replicator.engines.postgres.session import apply_sql
from replicator.pipeline import run_once
from tests.fixtures.databases import PostgresDatabases
from tests.fixtures.pairs import MakePair, Pair
from tests.integration.postgres_site import plan_of

FUNCTION = "create function {name}() returns trigger language plpgsql as $$ begin {body} end $$"
TRIGGER = "create trigger {name} {when} on {table} {more} execute function {name}()"


@dataclass(frozen=True)
class Case:
    """A table at both, what the centre has there besides, what the site writes, and whether the rows can be copied."""

    table: str
    there: tuple[str, ...]
    writes: tuple[str, ...]
    quick: bool
    later: tuple[str, ...] = ()
    """What the centre is given when rows have been copied already; ``writes`` is done again then, with other keys."""


def trigger(name: str, when: str, table: str, body: str, more: str = "for each row") -> tuple[str, str]:
    return FUNCTION.format(name=name, body=body), TRIGGER.format(name=name, when=when, table=table, more=more)


PLAIN = "(id int primary key, n int, note text)"
ROWS = ("insert into {table} select g, g % 4, 'r' || g from generate_series({low} + 1, {low} + 20) g",)
MIXED = (
    *ROWS, "update {table} set n = 7 where id in (1, 2)", "delete from {table} where id = 3",
    "insert into {table} values ({low} + 30, 1, E'tab\\t, \\\\N, \\\\., new\\nline')",
)  # fmt: skip
CASES = {
    "nothing": Case(PLAIN, (), MIXED, True),
    "a trigger changes rows": Case(
        PLAIN, trigger("shout", "before insert", "{table}", "new.note := upper(new.note); return new;"), ROWS, True
    ),
    "a rule, made later": Case(
        PLAIN, (), ROWS, False,
        later=("create rule r as on insert to {table} do also insert into seen values ('rule', new.id)",),
    ),
    "a trigger leaves rows out": Case(
        PLAIN,
        trigger("drop_some", "before insert", "{table}", "return case when new.n <> 1 then new end;"), ROWS, False,
    ),
    "a trigger refuses a row": Case(
        PLAIN,
        trigger("refuse", "before insert", "{table}", "if new.id % 20 = 9 then raise 'no'; end if; return new;"), ROWS, False,
    ),
    "triggers look on": Case(
        PLAIN,
        (
            *trigger("seen_row", "after insert", "{table}", "insert into seen values ('row', new.id); return null;"),
            *trigger("seen_rows", "after insert", "{table}",
                     "insert into seen select 'rows', id from fresh; return null;",
                     "referencing new table as fresh for each statement"),
            *trigger("seen_replica", "after insert", "{table}", "insert into seen values ('replica', 0); return null;"),
            "alter table {table} enable replica trigger seen_replica",
        ),
        ROWS, True,
    ),
    "a rule": Case(
        PLAIN, ("create rule r as on insert to {table} do also insert into seen values ('rule', new.id)",), ROWS, False
    ),
    "partitions": Case(
        "(id int primary key, n int, note text)", (
            "drop table {table}", "create table {table} (id int primary key, n int, note text) partition by range (id)",
            "create table {table}_low partition of {table} for values from (0) to (1010)",
            "create table {table}_high partition of {table} for values from (1010) to (9999)",
            *trigger("mark", "before insert", "{table}_high", "new.note := 'high'; return new;"),
        ), ROWS, True,
    ),
    "generated values": Case(
        "(id int generated always as identity primary key, n int, twice int generated always as (n * 2) stored, note text)",
        ("alter table {table} add column own int default 5",),
        ("insert into {table} (n, note) select g, 'g' from generate_series(1, 20) g",), True,
    ),
    "foreign keys": Case(
        "(id int primary key, n int references {table} deferrable initially deferred, note text)",
        ("alter table {table} add unique (note)",),
        ("insert into {table} select g, case when g < {low} + 20 then g + 1 end, 'r' || g"
         " from generate_series({low} + 1, {low} + 20) g",), True,
    ),
    "a deferred refusal": Case(
        PLAIN,
        (FUNCTION.format(name="late", body="if new.n = 2 then raise 'no'; end if; return null;"),
         "create constraint trigger late after insert on {table} deferrable initially deferred"
         " for each row execute function late()"),
        ROWS, False,
    ),
    "a row is there": Case(PLAIN, ("insert into {table} values (1005, 0, 'centre')",), ROWS, False),
    "a check of the centre": Case(PLAIN, ("alter table {table} add check (n <> 3 or id % 2 = 0)",), ROWS, False),
    "keys of many spellings": Case(
        "(id numeric primary key, n int, note text)", (),
        ("insert into {table} values ({low} + 1.0, 1, 'a')", "delete from {table} where id = {low} + 1",
         "insert into {table} values ({low} + 1.00, 1, 'a')"), True,
    ),
}  # fmt: skip


@pytest.fixture
def pairs(make_pair: MakePair) -> tuple[Pair, Pair]:
    """One for either way, with the tables of all cases."""
    made = make_pair("postgres-bypass", "postgres"), make_pair("postgres-bypass", "postgres")
    for pair in made:
        pair.centre.run("create table seen (what text, id int)")
        names = []
        for number, case in enumerate(CASES.values()):
            table = f"t{number}"
            names.append(table)
            for place in (pair.site, pair.centre):
                place.run(f"create table {table} {case.table.format(table=table)}")
            pair.centre.run(*(_own(text, number) for text in case.there))
        pair.install(*names)
        chain = PostgresInstaller(pair.centre.url)
        tables = [each for each in chain.read_catalogue().tables.values() if each.name.name in names]
        chain.install(chain.plan_site("chain", [plan_of(each) for each in tables]))
        chain.close()
        pair.site.run("select 1")
        pair.sync()
    return made


def _own(text: str, number: int) -> str:
    """Functions and triggers of a name of their own."""
    return re.sub(r"(create (?:function|(?:constraint )?trigger)|execute function|replica trigger) (\w+)",
                  rf"\1 \2_{number}", text.replace("{table}", f"t{number}"))  # fmt: skip


def play(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, *, hopeful: bool
) -> tuple[dict[str, object], dict[str, list[bool]]]:
    """Each case by itself; what the centre has then, and whether each batch was clean the quick way."""
    taken: list[bool] = []
    real = Quick.take

    def take(quick: Quick, batch: object) -> bool:
        quick._luck.rest = 0
        taken.append(real(quick, batch))  # type: ignore[arg-type]
        return taken[-1]

    monkeypatch.setattr(Quick, "take", take)
    monkeypatch.setattr(Luck, "hopeful", lambda luck: hopeful)
    found: dict[str, object] = {}
    ways: dict[str, list[bool]] = {}
    with pair.ends() as ends:
        for number, (name, case) in sorted(enumerate(CASES.items()), key=lambda each: not each[1][1].quick):
            taken.clear()  # those first that park nothing: later changes may have to wait then
            for low in (1000, 2000) if case.later else (1000,):
                if low > 1000:
                    pair.centre.run(*(_own(text, number) for text in case.later))
                pair.site.commit(*(text.format(table=f"t{number}", low=low) for text in case.writes))
                while run_once(ends.source, ends.target, 10_000) is not None:
                    continue
            found[name] = sorted(map(repr, pair.centre.rows(f"select * from t{number}")))
            ways[name] = list(taken)
        parked = [(each.table, each.key, each.op) for each in ends.target.list_parked()]
    monkeypatch.undo()
    found["parked"] = sorted(map(repr, parked))
    found["seen"] = sorted(map(repr, pair.centre.rows("select * from seen")))
    found["captured"] = sorted(map(repr, pair.centre.rows(
        "select r.table_name, op, origin, before, after from replicator.outbox o"
        " join replicator.relation r on r.id = abs(o.relation) where r.topology = 'chain'"
    )))  # fmt: skip
    found["conflicts"] = sorted(map(repr, pair.conflicts()))
    return found, ways


def test_invariants_1_and_4_rows_that_are_copied_end_as_rows_that_are_inserted(
    pairs: tuple[Pair, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, ways = play(pairs[0], monkeypatch, hopeful=True)
    careful, others = play(pairs[1], monkeypatch, hopeful=False)
    assert not any(itself for each in others.values() for itself in each)
    assert {name: each[-1] for name, each in ways.items()} == {name: case.quick for name, case in CASES.items()}
    assert ways["a rule, made later"] == [True, False]
    for name, rows in careful.items():
        assert quick[name] == rows, name
    assert len(quick["captured"]) > 200  # type: ignore[arg-type]
    assert "centre" in str(quick["a row is there"]) or quick["conflicts"]


def test_row_security_is_not_passed_by(postgres_database: PostgresDatabases) -> None:
    """COPY is refused where a policy stands between the role and the table."""
    with psycopg.connect(postgres_database("security"), autocommit=True) as connection:
        connection.execute("create table t (id int)")
        connection.execute("create view v as select * from t")
        asked = apply_sql("takes_copy").encode()
        with psycopg.RawCursor(connection) as cursor:
            assert cursor.execute(asked, ("public", "t")).fetchall() == [(True,)]
            assert cursor.execute(asked, ("public", "v")).fetchall() == [(False,)]
            cursor.execute("alter table t enable row level security")
            assert cursor.execute(asked, ("public", "t")).fetchall() == [(True,)]  # a superuser stands above it
            cursor.execute("set role pg_monitor")
            assert cursor.execute(asked, ("public", "t")).fetchall() == [(False,)]
