"""Where databases are: the centre, the sites, and sites found as files. Passwords are in ``url`` only; show ``shown``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from replicator.model import Engine

_URL_PASSWORD = re.compile(r"(\b[A-Za-z][\w+.-]*://[^:/\s@]*):(\S*)@")
_WORD_PASSWORD = re.compile(r"(\b(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&'\"]+)", re.IGNORECASE)
_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})

CENTRE = "centre"
"""The centre's place name beside the sites' names."""

Texts = Annotated[tuple[str, ...], Field(strict=False)]


def mask(text: str) -> str:
    """``text`` (a URL, a libpq keyword string, or a message that quotes one) without its passwords."""
    return _WORD_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", text))


class Model(BaseModel):
    """A part of the YAML: frozen, strict, and silent about the values it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Database(Model):
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


class Centre(Database):
    """The centre's database. ``capture`` may be left out: there is one way."""

    capture: Literal["triggers"] = "triggers"

    @field_validator("capture", mode="before")
    @classmethod
    def _not_from_log(cls, value: object) -> object:
        if value == "wal":
            raise ValueError(
                "the centre is captured by triggers: they find out inside each transaction which sites a row concerns; "
                "capture: wal is for sites"
            )
        return value


class Site(Database):
    """A site: its database, the parameters ``keyed_by`` may use, and how its changes are captured."""

    params: Mapping[str, str] = {}
    capture: Literal["triggers", "wal"] = "triggers"
    outbox: Literal["keep", "bypass"] = "keep"

    @field_validator("outbox", mode="before")
    @classmethod
    def _sizes_elsewhere(cls, written: object) -> object:
        if isinstance(written, Mapping):
            raise ValueError("sizes belong under defaults.outbox, for all places; of a site: keep or bypass")
        return written

    @model_validator(mode="after")
    def _log_only_on_postgres(self) -> Site:
        if self.capture == "wal" and self.engine is Engine.SQLITE:
            raise ValueError("capture: wal is for PostgreSQL sites; SQLite files are captured by triggers")
        if self.outbox == "bypass" and self.capture != "wal":
            raise ValueError("outbox: bypass goes with capture: wal; triggers have nowhere else to write")
        return self


class SitesFrom(Model):
    """Sites found as SQLite files. ``name`` and ``params`` may use {stem}, {name} and {parent} of the file's path."""

    glob: str
    name: str = "{stem}"
    params: Mapping[str, str] = {}
