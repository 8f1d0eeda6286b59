"""Topologies compiled against hand-made catalogues: shapes, keys, and every refusal with its words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from replicator.errors import SettingsError, SetupError
from replicator.model import (
    Catalogue,
    ColumnShape,
    Engine,
    ForeignKeyShape,
    TableName,
    TablePlan,
    TableShape,
    TruncatePolicy,
    UniqueShape,
)
from replicator.settings import Settings, load
from replicator.shapes import in_foreign_key_order
from replicator.topology import Topology, check_expressions, compile_site, compile_topology, matches
from tests.fixtures.catalogues import catalogue, column, table

PG, LITE = Engine.POSTGRES, Engine.SQLITE
Make = Callable[..., Settings]
HOSTILE = "Säl\"e;--' \U0001f600 select"


EMPTY = catalogue(PG)
DEVICES = table("devices", ["id INTEGER!", "name VARCHAR(20)!", "price DECIMAL(10,2)", "seen DATETIME"])
PG_DEVICES = table(
    "devices", ["id bigint!", "name character varying(20)", "price numeric(10,2)", "seen timestamp with time zone"],
    schema="public",
)  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def settings(
        *rules: str, sites: str = "a", centre: str = "postgresql://localhost/central", defaults: str = "{}"
    ) -> Settings:
        lines = [f"topology: t\ncentre: {{url: '{centre}'}}\ndefaults: {defaults}\nsites:"]
        lines += [f"  {site}: {{url: 'sqlite:///{site}.db', params: {{region: r_{site}}}}}" for site in sites.split()]
        lines += ["tables:", *(f"  - {rule}" for rule in rules)]
        path = tmp_path / "topo.yaml"
        path.write_text("\n".join(lines), encoding="utf-8")
        return load(path, {})

    return settings


def site_plans(settings: Settings, site: str, own: Catalogue, centre: Catalogue) -> tuple[TablePlan, ...]:
    return compile_site(settings, site, own, centre).plans[site]


def compiled(settings: Settings, sites: Mapping[str, Catalogue], centre: Catalogue = EMPTY) -> Topology:
    return compile_topology(settings, sites, centre)


def test_a_table_the_centre_lacks_gets_the_sites_shape(make: Make) -> None:
    (plan,) = site_plans(make('{name: "dev*", keyed_by: [site]}'), "a", catalogue(LITE, DEVICES), EMPTY)
    assert plan.target == TableName("public", "devices")
    assert plan.constants == (("site", "a"),)
    assert plan.target_key == ("site", "id") == plan.target_shape.key
    assert [(c.name, c.type, c.not_null) for c in plan.target_shape.columns] == [
        ("site", "text", True), ("id", "bigint", True), ("name", "text", True), ("price", "numeric", False),
        ("seen", "timestamp(6) without time zone", False),
    ]  # fmt: skip
    assert [(c.fits, c.form, c.staging_type) for c in plan.columns][:2] == [
        ("int64", "integer", ""),
        ("text", "text", ""),
    ]
    assert plan.ledgered
    assert plan.truncate is TruncatePolicy.REPLICATE


def test_the_first_matching_rule_wins_and_ours_and_odd_kinds_are_passed_over(make: Make) -> None:
    site = catalogue(
        LITE,
        DEVICES,
        table("replicator_outbox", ["seq INTEGER!"], key=["seq"]),
        TableShape(TableName("", "search"), (), kind="virtual"),
        table("runs", ["id INT!", "ward TEXT"]),
    )
    plans = compiled(make("{name: runs, target: archive.lab_runs}", '{name: "*"}'), {"a": site})
    assert [str(plan.target) for plan in plans.plans["a"]] == ["devices", "archive.lab_runs"]
    assert any("search is passed over: it is a virtual table" in note for note in plans.notes)
    with pytest.raises(SettingsError, match="virtual table"):
        compiled(make("{name: search}"), {"a": site})


@pytest.mark.parametrize(
    ("pattern", "name", "engine", "same"),
    [
        ("devices", TableName("public", "devices"), PG, True), ("Devices", TableName("public", "devices"), PG, False),
        ("Devices", TableName("", "devices"), LITE, True), ("dev*", TableName("lab", "devices"), PG, False),
        ("lab.*", TableName("lab", "devices"), PG, True), ("lab.dev", TableName("", "lab.dev"), LITE, True),
        ("*", TableName("public", "a.b"), PG, True), ("a[1]", TableName("", "a[1]"), LITE, True),
        (HOSTILE, TableName("public", HOSTILE), PG, True),
    ],
)  # fmt: skip
def test_names(pattern: str, name: TableName, engine: Engine, same: bool) -> None:
    assert matches(pattern, name, engine) is same


def test_a_rule_that_matches_nothing_anywhere_is_an_error_on_one_site_a_note(make: Make) -> None:
    settings = make("{name: devices, keyed_by: [site]}", "{name: deviced}", sites="a b")
    site = catalogue(LITE, DEVICES)
    with pytest.raises(SettingsError, match="Did you mean devices") as caught:
        compiled(settings, {"a": site, "b": catalogue(LITE)})
    assert caught.value.key == "tables.1.name"
    notes = compiled(settings, {"a": site}).notes
    assert "site a has no table for the rule 'deviced'" in notes


# --- keys ---------------------------------------------------------------------------------------------------------


def keyless(*uniques: UniqueShape, not_null: str = "!") -> TableShape:
    return table("devices", [f"code TEXT{not_null}", "n INT"], key=[], uniques=uniques)


CODE = UniqueShape("u", ("code",))


def test_a_named_unique_key_serves_where_there_is_no_primary_key(make: Make) -> None:
    (plan,) = site_plans(make("{name: devices, key: [CODE]}"), "a", catalogue(LITE, keyless(CODE)), EMPTY)
    assert plan.key == ("code",) == plan.target_shape.key
    assert [unique.columns for unique in plan.target_shape.uniques] == [("code",)]


@pytest.mark.parametrize(
    ("rule", "shape", "words"),
    [
        ("{name: devices}", keyless(CODE), "no primary key.*\n.*key: \\[code\\] would do"),
        ("{name: devices}", keyless(), "add a primary key"),
        ("{name: devices, key: [code]}", keyless(CODE, not_null=""), "no unique index over exactly"),
        ("{name: devices, key: [code]}", keyless(UniqueShape("u", ("code",), exact=False)), "no unique index"),
        ("{name: devices, key: [cod]}", keyless(CODE), "no column 'cod'"),
        ("{name: devices, key: [name]}", DEVICES, "has the primary key \\(id\\)"),
        ("{name: devices, columns: {exclude: [ID]}}", DEVICES, "key columns cannot be excluded"),
        ("{name: devices, columns: {include: [name]}}", DEVICES, "key columns cannot be excluded"),
        ("{name: devices, columns: {exclude: [nope]}}", DEVICES, "no table of this rule has a column 'nope'"),
        ("{name: devices, columns: {rename: {nam: x}}}", DEVICES, "no table of this rule has a column 'nam'"),
        ("{name: devices, columns: {rename: {name: price}}}", DEVICES, "both go to 'price'"),
        ("{name: devices, columns: {rename: {name: site}}, keyed_by: [site]}", DEVICES, "called 'site' at the centre"),
        ("{name: devices, where: 'nope = 1'}", DEVICES, "no column 'nope'"),
        ("{name: devices, where: \"name > 'x'\"}", DEVICES, "would not mean the same on SQLite"),
    ],
)
def test_refusals_name_rule_site_table_and_fix(make: Make, rule: str, shape: TableShape, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        compiled(make(rule), {"a": catalogue(LITE, shape)})
    assert caught.value.key.startswith("tables.0")
    assert caught.value.line == 7


def test_generated_columns_stay_behind(make: Make) -> None:
    shape = table("devices", ["id INT!", ColumnShape("twice", "INT", generated=True)])
    (plan,) = site_plans(make("{name: devices}"), "a", catalogue(LITE, shape), EMPTY)
    assert [c.source for c in plan.columns] == ["id"]


def test_columns_are_chosen_renamed_and_typed(make: Make) -> None:
    columns = "{exclude: [se*], rename: {Name: label}, types: {price: 'numeric(12,2)'}}"
    rule = f"{{name: devices, columns: {columns}, where: price > 5}}"
    (plan,) = site_plans(make(rule), "a", catalogue(LITE, DEVICES), EMPTY)
    assert [(c.source, c.target, c.target_type) for c in plan.columns] == [
        ("id", "id", "bigint"), ("name", "label", "text"), ("price", "price", "numeric(12,2)"),
    ]  # fmt: skip
    assert plan.where is not None
    assert plan.where.sqlite


# --- several sites ------------------------------------------------------------------------------------------------


def test_a_postgres_sites_type_goes_before_a_sqlite_sites(make: Make) -> None:
    found = compiled(
        make("{name: devices}", sites="a c"), {"a": catalogue(LITE, DEVICES), "c": catalogue(PG, PG_DEVICES)}
    )
    (shape,) = found.missing
    assert [(c.name, c.type, c.not_null) for c in shape.columns] == [
        ("id", "bigint", True), ("name", "character varying(20)", False), ("price", "numeric(10,2)", False),
        ("seen", "timestamp with time zone", False),
    ]  # fmt: skip
    assert found.plans["a"][0].truncate is TruncatePolicy.PARK
    assert not found.plans["c"][0].ledgered


def test_sites_that_disagree_are_both_named(make: Make) -> None:
    settings = make("{name: devices}", sites="a b")
    other = table("devices", ["id INTEGER!", "name VARCHAR(20)!", "price REAL", "seen DATETIME"])
    with pytest.raises(SetupError, match=r"'price' of devices: site a has DECIMAL.* site b has REAL"):
        compiled(settings, {"a": catalogue(LITE, DEVICES), "b": catalogue(LITE, other)})
    fewer = table("devices", ["id INTEGER!", "name VARCHAR(20)!"])
    with pytest.raises(
        SetupError, match="'price' of devices: site a, table devices has it, site b, table devices has not"
    ):
        compiled(settings, {"a": catalogue(LITE, DEVICES), "b": catalogue(LITE, fewer)})


def test_only_what_is_unique_everywhere_is_unique_at_the_centre(make: Make) -> None:
    one = table(
        "devices", ["id INT!", "a TEXT", "b TEXT"], uniques=[UniqueShape("x", ("a",)), UniqueShape("y", ("b",))]
    )
    two = table("devices", ["id INT!", "a TEXT", "b TEXT"], uniques=[UniqueShape("z", ("b",))])
    found = compiled(
        make("{name: devices, keyed_by: [region]}", sites="a b"), {"a": catalogue(LITE, one), "b": catalogue(LITE, two)}
    )
    (shape,) = found.missing
    assert [(unique.columns, unique.deferrable) for unique in shape.uniques] == [
        (("region", "id"), False), (("region", "b"), True),
    ]  # fmt: skip
    assert found.plans["b"][0].constants == (("region", "r_b"),)


def test_truncate_policies(make: Make) -> None:
    def policy(rule: str, sites: str = "a b", defaults: str = "{}") -> TruncatePolicy:
        cats = {site: catalogue(LITE, DEVICES) for site in sites.split()}
        return compiled(make(rule, sites=sites, defaults=defaults), cats).plans["a"][0].truncate

    assert policy("{name: devices}") is TruncatePolicy.PARK
    assert policy("{name: devices}", sites="a") is TruncatePolicy.REPLICATE
    assert policy("{name: devices, keyed_by: [site]}") is TruncatePolicy.REPLICATE
    assert policy("{name: devices, truncate: ignore}") is TruncatePolicy.IGNORE
    assert policy("{name: devices}", sites="a", defaults="{truncate: park}") is TruncatePolicy.PARK


# --- foreign keys -------------------------------------------------------------------------------------------------


def runs(kind: str = "INTEGER") -> TableShape:
    parent = ForeignKeyShape("fk", ("device_id",), TableName("", "Devices"), (), on_delete="cascade")
    return table("runs", ["id INTEGER!", f"device_id {kind}"], parents=[parent])


def test_foreign_keys_carry_the_constants(make: Make) -> None:
    found = compiled(make('{name: "*", keyed_by: [site]}'), {"a": catalogue(LITE, DEVICES, runs())})
    assert [shape.name.name for shape in found.missing] == ["devices", "runs"]
    (key,) = found.missing[1].foreign_keys
    assert (key.columns, key.parent.name, key.parent_columns) == (("site", "device_id"), "devices", ("site", "id"))
    assert (key.on_delete, key.deferrable) == ("no action", True)


@pytest.mark.parametrize(
    ("rules", "child", "reason"),
    [
        (["{name: runs, keyed_by: [site]}"], runs(), "not captured"),
        (["{name: runs}", "{name: devices, keyed_by: [site]}"], runs(), "keyed_by other columns"),
        (["{name: runs}", "{name: devices, where: id > 5}"], runs(), "row filter"),
        (["{name: runs}", "{name: devices}"], runs("TEXT"), "other types"),
    ],
)
def test_foreign_keys_that_cannot_hold_are_left_out_and_told(
    make: Make, rules: list[str], child: TableShape, reason: str
) -> None:
    found = compiled(make(*rules), {"a": catalogue(LITE, DEVICES, child)})
    assert not any(shape.foreign_keys for shape in found.missing)
    assert [note for note in found.notes if reason in note]


def test_parents_come_first_and_cycles_are_cut() -> None:
    def shape(name: str, *parents: str) -> TableShape:
        keys = [ForeignKeyShape(f"to_{parent}", ("p",), TableName("", parent), ("id",)) for parent in parents]
        return table(name, ["id INT!", "p INT"], parents=keys)

    ordered = in_foreign_key_order(
        [shape("a", "b"), shape("b", "c", "b"), shape("c"), shape("x", "y"), shape("y", "x")]
    )
    names = [one.name.name for one in ordered]
    assert sorted(names) == ["a", "b", "c", "x", "y"]
    assert names.index("c") < names.index("b") < names.index("a")


# --- a centre that has the table already --------------------------------------------------------------------------


def centre(*columns: str, key: Sequence[str] = ("site", "id"), uniques: Sequence[UniqueShape] = ()) -> Catalogue:
    return catalogue(PG, table("devices", columns, schema="public", key=key, uniques=uniques))


RULE = "{name: devices, keyed_by: [site], columns: {include: [id, name]}}"


def test_the_centres_own_table_is_taken_as_it_is(make: Make) -> None:
    there = centre("site text!", "id integer!", "name text", "note text")
    found = compiled(make(RULE), {"a": catalogue(LITE, DEVICES)}, there)
    assert found.missing == ()
    assert [(c.target_type, c.fits) for c in found.plans["a"][0].columns] == [("integer", "int32"), ("text", "text")]
    assert found.plans["a"][0].target_shape is there.tables[TableName("public", "devices")]


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (centre("site text!", "id integer!"), "column 'name' goes to 'name', which devices at the centre lacks"),
        (centre("id integer!", "name text", key=["id"]), "lacks the column 'site' of keyed_by"),
        (centre("site text!", "id integer!", "name text", key=["id"]), "no unique key on \\(site, id\\)"),
        (centre("site text!", "id integer!", "name text", "note text!"), "'note' of devices at the centre is NOT NULL"),
        (centre("site text!", "id integer!", "name bytea"), "no meaning as bytea"),
    ],
)
def test_a_centre_table_that_does_not_fit_is_told_precisely(make: Make, there: Catalogue, words: str) -> None:
    with pytest.raises(SetupError, match=words) as caught:
        compiled(make(RULE), {"a": catalogue(LITE, DEVICES)}, there)
    assert "site a, table devices" in str(caught.value)


def test_a_deferrable_key_at_the_centre_is_not_enough(make: Make) -> None:
    late = UniqueShape("u", ("site", "id"), deferrable=True)
    there = centre("site text!", "id integer!", "name text", key=[], uniques=[late])
    with pytest.raises(SetupError, match="not deferrable"):
        compiled(make(RULE), {"a": catalogue(LITE, DEVICES)}, there)


def test_staging_types_guard_what_the_centre_would_cut(make: Make) -> None:
    there = catalogue(PG, table("devices", ["id bigint!", "price numeric(6,1)"], schema="public"))
    rule = "{name: devices, columns: {include: [id, price]}}"
    (plan,) = site_plans(make(rule), "a", catalogue(PG, PG_DEVICES), there)
    assert [(c.staging_type, c.fits) for c in plan.columns] == [("", ""), ("numeric", "")]


# --- other centres and names --------------------------------------------------------------------------------------


def test_a_sqlite_centre(make: Make) -> None:
    site = catalogue(PG, PG_DEVICES, table("runs", ["id integer!"], schema="lab"))
    settings = make('{name: "*"}', '{name: "lab.*"}', centre="sqlite:///central.db")
    found = compiled(settings, {"a": site}, catalogue(LITE))
    assert [str(shape.name) for shape in found.missing] == ["devices", "lab_runs"]
    assert [c.type for c in found.missing[0].columns] == ["INTEGER", "TEXT", "DECIMAL_TEXT", "TIMESTAMPTZ_TEXT"]


def test_two_tables_for_one_target_are_refused(make: Make) -> None:
    site = catalogue(LITE, DEVICES, table("runs", ["id INT!"]))
    with pytest.raises(SettingsError, match="devices and runs would both go to devices"):
        compiled(make("{name: runs, target: devices}", "{name: devices}"), {"a": site})
    with pytest.raises(SetupError, match="differ in case only"):
        compiled(make("{name: runs, target: DEVICES}", "{name: devices}"), {"a": site})


def test_hostile_names_everywhere(make: Make) -> None:
    names = [f"{HOSTILE}{number}" for number in range(4)]
    parent = table(
        names[0], [column("id INT!"), ColumnShape(names[1], "TEXT", True)], uniques=[UniqueShape("", (names[1],))]
    )
    reference = ForeignKeyShape("f", (names[2],), TableName("", names[0]), (names[1],))
    child = table("x" * 63, [column("id INT!"), ColumnShape(names[2], "TEXT")], parents=[reference])
    found = compiled(make('{name: "*", keyed_by: [site]}'), {"a": catalogue(LITE, parent, child)})
    (key,) = found.missing[1].foreign_keys
    assert key.parent_columns == ("site", names[1])
    made = [unique.name for shape in found.missing for unique in shape.uniques] + [key.name]
    assert all(len(name.encode()) <= 63 for name in made)
    assert len(set(made)) == len(made)
    with pytest.raises(SettingsError, match="63 bytes"):
        compiled(make('{name: "*"}'), {"a": catalogue(LITE, table("é" * 32, ["id INT!"]))})


def test_five_hundred_tables_compile(make: Make) -> None:
    tables = [table(f"t{number}", ["id INT!", *(f"c{place} TEXT" for place in range(20))]) for number in range(500)]
    assert len(compiled(make('{name: "*", keyed_by: [site]}'), {"a": catalogue(LITE, *tables)}).missing) == 500


def test_expressions_are_read_before_any_database(make: Make) -> None:
    check_expressions(make("{name: a, where: x = 1}"))
    with pytest.raises(SettingsError, match="a subquery") as caught:
        check_expressions(make("{name: a}", "{name: b, where: x in (select 1)}"))
    assert (caught.value.key, caught.value.line) == ("tables.1.where", 8)
