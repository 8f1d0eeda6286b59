"""The topology YAML: what loads, and that every mistake is named with file, line and key and without a secret."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from replicator import sqlfiles
from replicator.errors import SettingsError
from replicator.model import Engine, TruncatePolicy
from replicator.settings import load, mask

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
    for model in (settings, settings.centre, settings.sites["factory_a"], settings.tables[0], settings.tables[0].columns,
                  settings.defaults):  # fmt: skip
        assert [name for name in type(model).model_fields if f"{name}:" not in text] == []
    fresh = type(settings.defaults)()
    assert settings.defaults.batch_changes == fresh.batch_changes
    assert settings.defaults.poll_seconds == fresh.poll_seconds
    assert settings.defaults.policy is fresh.policy


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
        (("{name: devices}", "{name: devices, policy: newest}"), 6, "tables.0.policy", "'source_wins' or 'centre_wins'"),
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
        (("tables:", "defaults: {batch_changes: many}\ntables:"), 5, "defaults.batch_changes", "valid integer"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(yaml: Path, change: tuple[str, str], line: int, key: str, words: str) -> None:
    error = refuse(yaml, BASE.replace(*change))
    assert (error.line, error.key.startswith(key)) == (line, True), str(error)
    assert words in str(error)


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
