"""The topology YAML: what loads, and that every mistake is named with file, line and key and without a secret."""

from __future__ import annotations

import string
import sys
from pathlib import Path

import pytest

from replicator import sqlfiles
from replicator.errors import SettingsError
from replicator.model import ConflictKind, Direction, Engine, PolicyName, TruncatePolicy
from replicator.settings import Follows, ParamsFrom, PolicyRule, Settings, load, mask, with_params

BASE = """topology: bloodlab
centre: {url: "postgresql://admin:s3cret@db/central"}
sites:
  factory_a: {url: "sqlite:///a.sqlite3"}
tables:
  - {name: devices}
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    return tmp_path / "topo.yaml"


def refuse(yaml: Path, text: str, environment: dict[str, str] | None = None) -> SettingsError:
    yaml.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(yaml, environment or {})
    assert "s3cret" not in str(caught.value)
    assert caught.value.file == str(yaml)
    return caught.value


def test_the_smallest_topology_loads() -> None:
    settings = load(ROOT / "config/example.yaml", {})
    assert settings.topology == "bloodlab"
    assert settings.centre.engine is Engine.POSTGRES
    assert settings.sites["factory_a"].path == ROOT / "config/factory_a.sqlite3"
    assert settings.tables[0].keyed_by == ("site",)


def test_the_reference_names_every_key_with_its_default() -> None:
    settings = load(ROOT / "config/reference.yaml", {})
    text = (ROOT / "config/reference.yaml").read_text(encoding="utf-8")
    policy = settings.tables[0].policy
    assert policy is not None
    for model in (settings, settings.centre, settings.sites["factory_a"], settings.tables[0], settings.tables[0].columns,
                  policy, settings.defaults, ParamsFrom(table="t", site="s"), Follows(table="t", via=())):  # fmt: skip
        assert [name for name in type(model).model_fields if f"{name}:" not in text] == []
    fresh = type(settings.defaults)()
    assert settings.defaults.batch_changes == fresh.batch_changes
    assert settings.defaults.poll_seconds == fresh.poll_seconds
    assert settings.defaults.retention_days == fresh.retention_days == 30
    assert settings.defaults.direction is fresh.direction
    assert (policy.otherwise, policy.unsure) == (PolicyRule(name=policy.name).otherwise, "flag")
    assert [str(name) for name in (*PolicyName, *ConflictKind, *Direction) if str(name) not in text] == []
    assert settings.defaults.policy == fresh.policy


def test_the_init_template_loads_once_filled(yaml: Path) -> None:
    template = string.Template(sqlfiles.text("config/init.yaml"))
    filled = template.substitute(topology="lab", file="topo.yaml", centre="postgresql://localhost/central",
                                 sites="  a: {url: sqlite:///a.sqlite3}", tables='  - {name: "*"}')  # fmt: skip
    yaml.write_text(filled, encoding="utf-8")
    assert load(yaml, {}).topology == "lab"


@pytest.mark.parametrize(
    ("change", "line", "key", "words"),
    [
        (("topology: bloodlab", "topology: Blood-Lab"), 1, "topology", "1 to 32 of a-z"),
        (("topology: bloodlab", "topology: " + "a" * 33), 1, "topology", "1 to 32 of a-z"),
        (("sites:", "sits:"), 3, "sits", "did you mean sites?"),
        (("{name: devices}", "{nam: devices}"), 6, "tables.0", "did you mean name?"),
        (("{name: devices}", "{name: devices, keyd_by: [site]}"), 6, "tables.0.keyd_by", "did you mean keyed_by?"),
        (("{name: devices}", "{name: devices, policy: newest}"), 6, "tables.0.policy", "source_wins, centre_wins"),
        (("{name: devices}", "{name: devices, key: id}"), 6, "tables.0.key", "a list belongs here"),
        (("{name: devices}", "{name: devices, keyed_by: [sit]}"), 6, "tables.0.keyed_by", "did you mean site?"),
        (("{name: devices}", "{name: 'd*', target: x}"), 6, "tables.0", "names one table"),
        (("  - {name: devices}", "  name: devices"), 5, "tables", "a list belongs here"),
        (("  - {name: devices}", "  []"), 5, "tables", "there is no table"),
        (("sqlite:///a.sqlite3", "mysql://u:s3cret@h/x"), 4, "sites.factory_a.url", "not a database URL"),
        (("sqlite:///a.sqlite3", "sqlite:///:memory:"), 4, "sites.factory_a.url", "not a database URL"),
        (("s3cret", "${CENTRE_PASSWORD}"), 2, "centre.url", "CENTRE_PASSWORD is not set"),
        (("s3cret", "${file:pw}"), 2, "centre.url", "cannot be read"),
        (("topology: bloodlab", "topology: a\ntopology: b"), 2, "topology", "written twice, first in line 1"),
        (("sqlite:///a.sqlite3", "postgres://other@DB:5432/central?x=1"), 4, "sites.factory_a", "same database as the centre"),
        (("tables:", "  b: {url: 'sqlite:///./a.sqlite3'}\ntables:"), 5, "sites.b", "same database as site factory_a"),
        (("tables:", "sites_from: {glob: 'f/*.sqlite3'}\ntables:"), 5, "sites_from.glob", "'f/*.sqlite3'"),
        (("tables:", "defaults: {retention_days: abc}\ntables:"), 5, "defaults.retention_days", "a number belongs here"),
        (('a.sqlite3"}', 'a.sqlite3", params: 2}'), 4, "sites.factory_a.params", "names with values belong here"),
        (('a.sqlite3"}', 'a.sqlite3", params: {ward: [2]}}'), 4, "sites.factory_a.params.ward", "one text belongs here"),
        (("tables:", "params_from: drugs\ntables:"), 5, "params_from", "write {table: …}; known here: table, site"),
        (("tables:", "defaults: {batch_changes: many}\ntables:"), 5, "defaults.batch_changes", "a whole number belongs here"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(yaml: Path, change: tuple[str, str], line: int, key: str, words: str) -> None:
    error = refuse(yaml, BASE.replace(*change))
    assert (error.line, error.key.startswith(key)) == (line, True), str(error)
    assert words in str(error)


def test_words_that_are_refused_are_not_offered(yaml: Path) -> None:
    for policy in ("newest", "add", "{name: merge_columns, columns: {x: newest}}"):
        hint = refuse(yaml, BASE.replace("{name: devices}", f"{{name: devices, policy: {policy}}}")).hint
        words = hint.removeprefix("write one of ").partition(";")[0].split(", ")
        assert "rule" not in words
        assert ("add" in words) is policy.startswith("{")
        assert "newest_wins" in words


def test_a_word_is_not_suggested_for_itself(yaml: Path) -> None:
    two = 'sites:\n  b: {url: "sqlite:///b.sqlite3", params: {ward: "1"}}'
    text = BASE.replace("sites:", two).replace("{name: devices}", "{name: devices, keyed_by: [ward]}")
    error = refuse(yaml, text)
    assert "site factory_a has no parameter 'ward'" in str(error)
    assert "did you mean" not in str(error)


@pytest.mark.parametrize("text", ["a: [", "[]", "- x", "a: 1\n? [x]\n: 2", "a: &a {b: *a}", "", "a: b: c"])
def test_what_is_no_mapping_is_refused(yaml: Path, text: str) -> None:
    refuse(yaml, text)


def test_several_mistakes_come_at_once(yaml: Path) -> None:
    error = refuse(yaml, BASE.replace("{name: devices}", "{name: devices, wher: x, polic: y}"))
    assert "wher" in str(error)
    assert "polic" in str(error)


def test_secrets_from_environment_and_files(yaml: Path) -> None:
    (yaml.parent / "pw").write_text("p@ss/w:rd\n", encoding="utf-8")
    text = BASE.replace("admin:s3cret@", "admin@").replace('central"}', 'central", password: "file:pw"}')
    yaml.write_text(text.replace("db/", "${HOST}/").replace("devices", '"$${x}"'), encoding="utf-8")
    settings = load(yaml, {"HOST": "db.example"})
    assert settings.centre.url == "postgresql://admin@db.example/central"
    assert settings.centre.dsn == "postgresql://admin:p%40ss%2Fw%3Ard@db.example/central"
    assert settings.tables[0].name == "${x}"
    assert "p@ss" not in repr(settings)
    assert "p%40ss" not in repr(settings)


def test_no_repr_shows_a_password(yaml: Path) -> None:
    yaml.write_text(BASE, encoding="utf-8")
    settings = load(yaml, {})
    assert "s3cret" not in repr(settings) + str(settings) + repr(settings.centre) + settings.centre.shown
    assert "s3cret" in settings.centre.dsn
    assert "s3cret" not in str(settings.error(f"cannot reach {settings.centre.url}", key="centre.url"))


def test_sites_from_files(yaml: Path) -> None:
    for folder in ("eu", "us"):
        (yaml.parent / folder).mkdir()
        (yaml.parent / folder / "lab.sqlite3").touch()
    glob = "sites_from: {glob: '*/*.sqlite3', name: '{parent}_{stem}', params: {region: '{parent}'}}\ntables:"
    yaml.write_text(BASE.replace("tables:", glob).replace("devices}", "devices, keyed_by: [region]}").replace(
        'sqlite3"}', 'sqlite3", params: {region: 007}}'), encoding="utf-8")  # fmt: skip
    settings = load(yaml, {})
    assert list(settings.sites) == ["factory_a", "eu_lab", "us_lab"]
    assert [site.params["region"] for site in settings.sites.values()] == ["007", "eu", "us"]
    error = refuse(yaml, BASE.replace("tables:", "sites_from: {glob: '*/*.sqlite3'}\ntables:"))
    assert "second site 'lab'" in str(error)


def test_defaults_are_the_documented_ones(yaml: Path) -> None:
    yaml.write_text(BASE + "defaults: {truncate: ignore}\n", encoding="utf-8")
    settings = load(yaml, {})
    assert settings.defaults.batch_changes == 50_000
    assert settings.defaults.truncate is TruncatePolicy.IGNORE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p@ss@h/db", "postgresql://u:***@h/db"),
        ("cannot reach postgres://u:p@h: refused", "cannot reach postgres://u:***@h: refused"),
        ("host=h password='a b\\' c' port=1", "host=h password=*** port=1"),
        ("host=h password=x dbname=d", "host=h password=*** dbname=d"),
        ("postgresql://h/db?password=x&a=1", "postgresql://h/db?password=***&a=1"),
        ("postgresql://h:5432/db", "postgresql://h:5432/db"),
        ("sqlite:////a/b", "sqlite:////a/b"),
    ],
)
def test_mask(text: str, shown: str) -> None:
    assert mask(text) == shown


# --- directions, policies, routes -----------------------------------------------------------------------------------


def loaded(yaml: Path, rule: str, more: str = "") -> Settings:
    yaml.write_text(BASE.replace("{name: devices}", f"{{name: devices, {rule}}}") + more, encoding="utf-8")
    return load(yaml, {})


def test_direction_and_policy_come_from_the_rule_else_from_the_defaults(yaml: Path) -> None:
    defaults = (
        "  - {name: runs}\ndefaults: {direction: both, policy: {name: newest_wins, unsure: park}, retention_days: 7}\n"
    )
    settings = loaded(yaml, "direction: from_centre", defaults)
    assert [settings.direction_of(rule) for rule in settings.tables] == [Direction.FROM_CENTRE, Direction.BOTH]
    assert [settings.policy_of(rule).unsure for rule in settings.tables] == ["park", "park"]
    assert settings.defaults.retention_days == 7
    settings = loaded(yaml, "policy: manual")
    assert settings.direction_of(settings.tables[0]) is Direction.TO_CENTRE
    assert settings.policy_of(settings.tables[0]).name is PolicyName.MANUAL


def test_a_policy_may_say_more_than_its_name(yaml: Path) -> None:
    policy = loaded(
        yaml,
        "policy: {name: merge_columns, columns: {balance: add, notes: newest_wins}, kinds: {update_deleted: centre_wins},"
        " otherwise: site_priority, priority: [centre, factory_a], unsure: park}",
    ).tables[0].policy  # fmt: skip
    assert policy is not None
    assert policy.columns == {"balance": PolicyName.ADD, "notes": PolicyName.NEWEST_WINS}
    assert policy.kinds == {ConflictKind.UPDATE_DELETED: PolicyName.CENTRE_WINS}
    assert (policy.otherwise, policy.priority, policy.unsure) == (
        PolicyName.SITE_PRIORITY, ("centre", "factory_a"), "park",
    )  # fmt: skip
    own = loaded(yaml, "policy: {sql: \"case when site.a > 1 then 'source' else 'centre' end\"}").tables[0].policy
    assert own is not None
    assert own.name is PolicyName.RULE


@pytest.mark.parametrize(
    ("rule", "key", "words"),
    [
        ("direction: up", "direction", "'to_centre', 'from_centre' or 'both'"),
        ("policy: add", "policy", "add cannot stand here"),
        ("policy: rule", "policy", "give it as sql: or python:"),
        ("policy: {nam: manual}", "policy.nam", "did you mean name?"),
        ("policy: {columns: {a: add}}", "policy.name", "name the policy"),
        ("policy: {name: manual, unsure: maybe}", "policy.unsure", "'flag' or 'park'"),
        ("policy: {name: manual, unsure: park}", "policy.unsure", "only newest_wins can be unsure"),
        ("policy: {name: manual, kinds: {update_gone: manual}}", "policy.kinds.update_gone", "'update_deleted'"),
        ("policy: {name: manual, kinds: {update_deleted: add}}", "policy.kinds.update_deleted", "cannot stand here"),
        (
            "policy: {name: manual, kinds: {update_deleted: soon}}",
            "policy.kinds.update_deleted",
            "merge_columns, manual",
        ),
        ("policy: {name: manual, columns: {a: add}}", "policy.columns", "set name: merge_columns"),
        ("policy: {name: merge_columns, columns: {a: merge_columns}}", "policy.columns.a", "cannot stand here"),
        ("policy: {name: merge_columns, otherwise: merge_columns}", "policy.otherwise", "cannot stand here"),
        (
            "policy: {name: site_priority, priority: [centre], otherwise: site_priority}",
            "policy.otherwise",
            "cannot stand",
        ),
        ("policy: site_priority", "policy", "add priority: [centre, factory_a]"),
        ("policy: {name: site_priority, priority: [centre, factory_b]}", "policy.priority", "did you mean factory_a?"),
        ("policy: {name: site_priority, priority: [centre, centre]}", "policy.priority", "stands there twice"),
        ("policy: {name: newest_wins, priority: [centre]}", "policy.priority", "never asked"),
        ("policy: {name: newest_wins, sql: 'true'}", "policy.sql", "never asked"),
        ("policy: {sql: 'true', python: 'a:b'}", "policy.python", "not both"),
        ("policy: {python: rules}", "policy.python", "write module:function"),
        ("policy: {python: 'no.such:x'}", "policy.python", "cannot be imported: ModuleNotFoundError"),
        ("policy: {python: 'json:nope'}", "policy.python", "has no such name"),
        ("policy: {python: 'json:__name__'}", "policy.python", "cannot be called"),
        ("direction: both, follows: {via: [a]}", "follows.table", "name the table"),
        ("direction: both, follows: {table: a, via: b}", "follows.via", "a list belongs here"),
        ("follows: a", "follows", "only goes to the centre"),
        ("direction: both, follows: a, where: b > 1", "where", "row filter of its own"),
    ],
)
def test_a_mistake_of_both_ways_is_named(yaml: Path, rule: str, key: str, words: str) -> None:
    error = refuse(yaml, BASE.replace("{name: devices}", f"{{name: devices, {rule}}}"))
    assert (error.line, error.key) == (6, f"tables.0.{key}"), str(error)
    assert words in str(error)


@pytest.mark.parametrize(
    ("more", "key", "words"),
    [
        ("{retention_days: 0}", "defaults.retention_days", "more than 0"),
        ("{retention_days: .inf}", "defaults.retention_days", "36500 at most"),
        ("{policy: {name: newest_wins, unsure: ask}}", "defaults.policy.unsure", "'flag' or 'park'"),
        ("{direction: down}", "defaults.direction", "'from_centre'"),
    ],
)
def test_a_mistake_in_the_defaults_is_named(yaml: Path, more: str, key: str, words: str) -> None:
    error = refuse(yaml, f"{BASE}defaults: {more}\n")
    assert (error.line, error.key) == (7, key), str(error)
    assert words in str(error)


def test_a_python_rule_may_lie_beside_the_yaml(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (yaml.parent / "ward_rules.py").write_text("class Rules:\n    decide = staticmethod(lambda conflict: 'park')\n")
    policy = loaded(yaml, "policy: {python: 'ward_rules:Rules.decide'}").tables[0].policy
    assert policy is not None
    assert (policy.name, policy.python) == (PolicyName.RULE, "ward_rules:Rules.decide")
    (yaml.parent / "broken_rules.py").write_text("raise RuntimeError('no licence')\n")
    text = BASE.replace("{name: devices}", "{name: devices, policy: {python: 'broken_rules:decide'}}")
    assert "RuntimeError: no licence" in str(refuse(yaml, text))


def test_parameters_from_a_table_are_asked_for_when_they_are_there(yaml: Path) -> None:
    settings = loaded(yaml, "keyed_by: [region]", "params_from: {table: clinics, site: code}\n")
    assert not settings.params_known
    filled = with_params(settings, [{"code": "factory_a", "region": 7, "open": True, "note": None}])
    assert filled.params_known
    assert filled.sites["factory_a"].params == {"region": "7", "open": "true"}
    with pytest.raises(SettingsError, match="factory_a has no parameter 'region'") as caught:
        with_params(settings, [])
    assert (caught.value.key, caught.value.line) == ("tables.0.keyed_by", 6)
    assert with_params(loaded(yaml, "keyed_by: [site]"), [{}]).sites["factory_a"].params == {}
    error = refuse(yaml, BASE + "params_from: {table: clinics}\n")
    assert (error.key, error.line) == ("params_from.site", 7)


def test_a_centre_is_not_captured_from_its_log(yaml: Path) -> None:
    error = refuse(yaml, BASE.replace('central"}', 'central", capture: wal}'))
    assert (error.line, error.key) == (2, "centre.capture")
    assert "capture: wal is for sites" in str(error)
