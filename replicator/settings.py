"""The topology YAML as frozen models: which databases, which tables, how they are keyed.

``load`` reads, fills in secrets, validates and cross-checks; every mistake is a SettingsError with file, line, key and
what would be right. All keys with their meaning: ``config/reference.yaml``. Passwords are in ``url`` only, which no
repr shows; show ``shown``.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, get_args
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from replicator.errors import SettingsError
from replicator.model import Direction, Engine, PolicyName, TruncatePolicy
from replicator.yamlfile import Value, YamlFile, read_yaml

_URL_PASSWORD = re.compile(r"(\b[A-Za-z][\w+.-]*://[^:/\s@]*):(\S*)@")
_WORD_PASSWORD = re.compile(r"(\b(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&'\"]+)", re.IGNORECASE)
_TEXTS = re.compile(r"sites\..*|centre\..*|sites_from.*|tables\..*\.(where|name|target)|topology")
_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})
_SITE = "site"
CENTRE = "centre"
"""The centre's place name beside the sites' names."""

Texts = Annotated[tuple[str, ...], Field(strict=False)]


def mask(text: str) -> str:
    """``text`` (a URL, a libpq keyword string, or a message that quotes one) without its passwords."""
    return _WORD_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", text))


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Database(_Model):
    """Where a database is. SQLite URLs are absolute after loading."""

    url: str = Field(repr=False, min_length=1)
    password: str = Field(default="", repr=False)

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if re.match(r"postgres(ql)?://.", url) or re.match(r"sqlite:///(?!:memory:).", url):
            return url
        raise ValueError(
            "not a database URL: write postgresql://user@host/name, sqlite:///relative or sqlite:////absolute"
        )

    @model_validator(mode="after")
    def _password_only_on_postgres(self) -> Database:
        if self.password and (self.engine is Engine.SQLITE or "@" not in self.url):
            raise ValueError("password belongs to a PostgreSQL URL that names its user: postgresql://user@host/name")
        return self

    @property
    def engine(self) -> Engine:
        """The engine the URL's scheme names."""
        return Engine.SQLITE if self.url.startswith("sqlite:") else Engine.POSTGRES

    @property
    def path(self) -> Path:
        """The SQLite file; the text behind ``sqlite:///`` is taken as it is."""
        return Path(self.url.removeprefix("sqlite:///"))

    @property
    def dsn(self) -> str:
        """The libpq URL with its password. Never log it."""
        if not self.password:
            return self.url
        head, _, tail = self.url.partition("://")
        user, _, rest = tail.partition("@")
        return f"{head}://{user.partition(':')[0]}:{quote(self.password, safe='')}@{rest}"

    @property
    def shown(self) -> str:
        """The URL as people may see it."""
        return mask(self.url)

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for two URLs that lead to one database, as far as their text tells."""
        if self.engine is Engine.SQLITE:
            return ("sqlite", os.path.realpath(self.path))
        parts = urlsplit(self.url)
        asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        user, _, place = parts.netloc.rpartition("@")
        host, _, port = place.rpartition(":") if re.search(r":\d*$", place) else (place, "", "")
        host = asked.get("host", unquote(host)).strip("[]").lower()
        user = asked.get("user", unquote(user.partition(":")[0]))
        name = asked.get("dbname", unquote(parts.path.lstrip("/"))) or user
        return ("postgres", "" if host in _LOCAL else host, asked.get("port", port) or "5432", name)


class Site(Database):
    """A site: its database and the parameters ``keyed_by`` may use."""

    params: Mapping[str, str] = {}


class SitesFrom(_Model):
    """Sites found as SQLite files. ``name`` and ``params`` may use {stem}, {name} and {parent} of the file's path."""

    glob: str
    name: str = "{stem}"
    params: Mapping[str, str] = {}


class Columns(_Model):
    """Which columns go, and how they are called at the centre. ``include`` and ``exclude`` take globs."""

    include: Texts = ("*",)
    exclude: Texts = ()
    rename: Mapping[str, str] = {}
    types: Mapping[str, str] = {}


class TableRule(_Model):
    """One entry of ``tables``: a name or glob and what happens to the tables it matches. The first match wins."""

    name: str = Field(min_length=1)
    key: Texts = ()
    columns: Columns = Columns()
    where: str = ""
    target: str = ""
    keyed_by: Texts = ()
    direction: Annotated[Direction, Field(strict=False)] = Direction.TO_CENTRE
    policy: Annotated[PolicyName | None, Field(strict=False)] = None
    truncate: Annotated[TruncatePolicy | None, Field(strict=False)] = None

    @property
    def is_glob(self) -> bool:
        """Whether the name can match several tables."""
        return any(character in self.name for character in "*?[")

    @model_validator(mode="after")
    def _target_of_one(self) -> TableRule:
        if self.target and self.is_glob:
            raise ValueError("target is for a rule that names one table; a glob would send several tables to one")
        return self


class Defaults(_Model):
    """What holds where a rule says nothing. ``truncate`` unset: replicate where one site feeds the table, else park."""

    policy: Annotated[PolicyName, Field(strict=False)] = PolicyName.SOURCE_WINS
    truncate: Annotated[TruncatePolicy | None, Field(strict=False)] = None
    batch_changes: int = Field(default=50_000, ge=1, le=10_000_000)
    poll_seconds: float = Field(default=0.5, gt=0, le=3600, strict=False)


class Settings(_Model):
    """A topology: the centre, the sites (those of ``sites_from`` included), the table rules, the defaults."""

    topology: str = Field(max_length=32, pattern=r"^[a-z][a-z0-9_]*$")
    centre: Database
    sites: Mapping[str, Site] = {}
    sites_from: Annotated[tuple[SitesFrom, ...], Field(strict=False)] = ()
    tables: Annotated[tuple[TableRule, ...], Field(strict=False)]
    defaults: Defaults = Defaults()
    _file: YamlFile = PrivateAttr()

    def error(self, message: str, *, key: str, hint: str = "") -> SettingsError:
        """A SettingsError at a dotted key of the file these settings came from, such as ``tables.0.where``."""
        return self._file.error(mask(message), key=key, hint=hint)

    @property
    def file(self) -> Path:
        """The YAML file."""
        return self._file.path


def load(path: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and check a topology YAML. Raises SettingsError for the first mistakes, with their lines."""
    file = read_yaml(Path(path), os.environ if environment is None else environment, _TEXTS)
    _resolve(file)
    try:
        settings = Settings.model_validate(file.values)
    except ValidationError as error:
        raise _explain(file, error) from None
    settings._file = file
    _check_sites(settings)
    return settings


def _resolve(file: YamlFile) -> None:
    """Make SQLite paths absolute and turn ``sites_from`` into sites, in place, before validation."""
    folder, values = file.path.resolve().parent, file.values
    sites = values.setdefault("sites", {})
    for database in (values.get("centre"), *(sites.values() if isinstance(sites, dict) else ())):
        url = database.get("url") if isinstance(database, dict) else None
        if isinstance(database, dict) and isinstance(url, str) and re.match(r"sqlite:///(?!:memory:).", url):
            database["url"] = f"sqlite:///{folder / url.removeprefix('sqlite:///')}"
    sources = values.get("sites_from")
    if isinstance(sources, dict):
        values["sites_from"] = sources = [sources]
    if isinstance(sources, list) and isinstance(sites, dict):
        for place, source in enumerate(sources):
            key = "sites_from" if "sites_from.0" not in file.lines else f"sites_from.{place}"
            if isinstance(source, dict):
                _find_sites(file, folder, source, key, sites)


def _find_sites(file: YamlFile, folder: Path, source: dict[str, Value], key: str, sites: dict[str, Value]) -> None:
    pattern, name = source.get("glob"), source.get("name", "{stem}")
    params = source.get("params", {})
    if not (isinstance(pattern, str) and pattern and isinstance(name, str) and isinstance(params, dict)):
        return
    root = Path(pattern).anchor
    found = sorted(Path(root or folder).glob(str(Path(pattern).relative_to(root)) if root else pattern))
    found = [place for place in found if place.is_file()]
    if not found:
        raise file.error(f"no file matches {pattern!r}", key=f"{key}.glob", hint=f"paths start at {folder}")
    for place in found:
        words = {"stem": place.stem, "name": place.name, "parent": place.parent.name}
        try:
            site = name.format(**words)
            filled = {param: str(text).format(**words) for param, text in params.items()}
        except (KeyError, IndexError, ValueError, AttributeError):
            raise file.error("a placeholder is unknown", key=key, hint="use {stem}, {name} or {parent}") from None
        if site in sites:
            raise file.error(f"{place} would be a second site {site!r}", key=f"{key}.name", hint="try {parent}_{stem}")
        sites[site] = {"url": f"sqlite:///{place.resolve()}", "params": dict(filled)}


def _check_sites(settings: Settings) -> None:
    if not settings.sites:
        raise settings.error("there is no site", key="sites", hint="add sites: {name: {url: sqlite:///file}}")
    if not settings.tables:
        raise settings.error("there is no table", key="tables", hint=_REQUIRED["tables"])
    taken = {settings.centre.identity: "the centre"}
    for name, site in settings.sites.items():
        key = f"sites.{name}"
        if not name.strip() or len(name) > 63 or not name.isprintable():
            raise settings.error("a site's name has 1 to 63 printable characters", key=key)
        if name == CENTRE:
            raise settings.error("this name stands for the centre", key=key, hint="call the site something else")
        if site.identity in taken:
            hint = "each database is one site, and the centre is none of them"
            raise settings.error(f"the same database as {taken[site.identity]}: {site.shown}", key=key, hint=hint)
        taken[site.identity] = f"site {name}"
    for place, rule in enumerate(settings.tables):
        _check_keyed_by(settings, place, rule)


def _check_keyed_by(settings: Settings, place: int, rule: TableRule) -> None:
    key = f"tables.{place}.keyed_by"
    if len(set(rule.keyed_by)) != len(rule.keyed_by):
        raise settings.error("a name stands there twice", key=key)
    for word in rule.keyed_by:
        lacking = [name for name, site in settings.sites.items() if word != _SITE and word not in site.params]
        if lacking:
            known = sorted({_SITE, *(param for site in settings.sites.values() for param in site.params)})
            hint = f"give it in params of that site, or use {_SITE}" + _suggest(word, known)
            raise settings.error(f"site {lacking[0]} has no parameter {word!r}", key=key, hint=hint)


def _explain(file: YamlFile, error: ValidationError) -> SettingsError:
    """The findings of pydantic as one SettingsError, the others listed below the first. Never with a value."""
    found = sorted(_findings(file, error), key=lambda finding: (file.line(finding[0]), finding[1] != _UNKNOWN))
    key, message, hint = found[0]
    others = [f"\n  also line {file.line(other)}: {other}: {text}" for other, text, _ in found[1:5]]
    return file.error(message + "".join(others), key=key, hint=hint)


def _findings(file: YamlFile, error: ValidationError) -> Iterator[tuple[str, str, str]]:
    for finding in error.errors(include_input=False, include_url=False, include_context=True):
        loc = [str(part) for part in finding["loc"]]
        if loc[:2] == ["sites_from", "0"] and "sites_from.0" not in file.lines:
            del loc[1]
        key, kind = ".".join(loc), finding["type"]
        context = finding.get("ctx", {})
        if kind == "extra_forbidden":
            known = _known_keys(finding["loc"])
            yield key, _UNKNOWN, f"known here: {', '.join(known)}" + _suggest(loc[-1], known)
        elif kind == "missing":
            yield key, "this key is required", _REQUIRED.get(loc[-1], "see config/reference.yaml")
        elif kind == "enum":
            yield key, "not one of the allowed words", f"write {context['expected']}"
        elif kind == "tuple_type":
            yield key, "a list belongs here", f"write [{loc[-1]}_1, {loc[-1]}_2]"
        elif kind == "value_error":
            yield key, str(context["error"]), ""
        elif key == "topology":
            yield key, "a topology's name is 1 to 32 of a-z, 0-9 and _, and starts with a letter", "try: bloodlab"
        else:
            yield key, finding["msg"][:1].lower() + finding["msg"][1:], "see config/reference.yaml"


_UNKNOWN = "unknown key"
_REQUIRED = {
    "topology": "give the topology a name: topology: bloodlab",
    "centre": "say where everything goes: centre: {url: postgresql://localhost/central}",
    "tables": 'say which tables: tables: [{name: "*"}]',
    "url": "give a database URL: postgresql://host/name or sqlite:///file",
}


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys the model at ``loc`` knows."""
    model: type[BaseModel] = Settings
    for part in loc[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            model = inner or model
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
