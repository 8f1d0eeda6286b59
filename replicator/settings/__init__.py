"""The topology YAML as frozen models: which databases, which tables, how they are keyed, divided and decided.

``load`` reads, fills in secrets, validates and cross-checks; every mistake is a SettingsError with file, line, key and
what would be right. All keys with their meaning: ``config/reference.yaml``. Passwords are in ``url`` only, which no
repr shows; show ``shown``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from replicator.settings.checks import check, require_param
from replicator.settings.databases import CENTRE, Database, Site, SitesFrom, mask
from replicator.settings.explain import explain
from replicator.settings.model import Settings
from replicator.settings.params import with_params
from replicator.settings.rules import Columns, Defaults, Follows, ParamsFrom, PolicyRule, TableRule
from replicator.settings.sites import find_sites
from replicator.yamlfile import read_yaml

__all__ = [
    "CENTRE",
    "Columns",
    "Database",
    "Defaults",
    "Follows",
    "ParamsFrom",
    "PolicyRule",
    "Settings",
    "Site",
    "SitesFrom",
    "TableRule",
    "load",
    "mask",
    "require_param",
    "with_params",
]

_TEXTS = re.compile(
    r"sites\..*|centre\..*|sites_from.*|params_from.*|topology"
    r"|tables\..*\.(where|name|target|follows|table|sql|python)|defaults\.policy\.(sql|python)"
)


def load(path: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and check a topology YAML. Raises SettingsError for the first mistakes, with their lines."""
    file = read_yaml(Path(path), os.environ if environment is None else environment, _TEXTS)
    find_sites(file)
    try:
        settings = Settings.model_validate(file.values)
    except ValidationError as error:
        raise explain(file, error, Settings) from None
    settings._file = file
    settings._params_known = settings.params_from is None
    check(settings)
    return settings
