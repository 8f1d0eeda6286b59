"""The topology YAML as one frozen model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr

from replicator.errors import SettingsError
from replicator.model import Direction
from replicator.settings.databases import Centre, Model, Site, SitesFrom, mask
from replicator.settings.rules import Defaults, ParamsFrom, PolicyRule, TableRule
from replicator.yamlfile import YamlFile


class Settings(Model):
    """A topology: the centre, the sites (those of ``sites_from`` included), the table rules, the defaults."""

    topology: str = Field(max_length=32, pattern=r"^[a-z][a-z0-9_]*$")
    centre: Centre
    sites: Mapping[str, Site] = {}
    sites_from: Annotated[tuple[SitesFrom, ...], Field(strict=False)] = ()
    params_from: ParamsFrom | None = None
    tables: Annotated[tuple[TableRule, ...], Field(strict=False)]
    defaults: Defaults = Defaults()
    _file: YamlFile = PrivateAttr()
    _params_known: bool = PrivateAttr(default=True)

    def error(self, message: str, *, key: str, hint: str = "") -> SettingsError:
        """A SettingsError at a dotted key of the file these settings came from, such as ``tables.0.where``."""
        return self._file.error(mask(message), key=key, hint=hint)

    def nearest(self, key: str) -> str:
        """The key, or the nearest above it that stands in the file: the short form of a policy has no ``name``."""
        while key and key not in self._file.lines:
            key = key.rpartition(".")[0]
        return key

    def direction_of(self, rule: TableRule) -> Direction:
        """Which way the rule's tables flow."""
        return rule.direction or self.defaults.direction

    def policy_of(self, rule: TableRule) -> PolicyRule:
        """Who decides the conflicts of the rule's tables."""
        return rule.policy or self.defaults.policy

    @property
    def written(self) -> Mapping[str, object]:
        """The YAML's values as read, secrets put in, for whoever writes a variant of the topology. Never show it."""
        return self._file.values

    @property
    def params_known(self) -> bool:
        """Whether all parameters of the sites are known: not before ``with_params`` where ``params_from`` is given."""
        return self._params_known

    @property
    def file(self) -> Path:
        """The YAML file."""
        return self._file.path
