"""SQLite paths made absolute, and sites found as files; done to the raw values, before validation."""

from __future__ import annotations

import re
from pathlib import Path

from replicator.yamlfile import Value, YamlFile


def find_sites(file: YamlFile) -> None:
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
                _add_sites(file, folder, source, key, sites)


def _add_sites(file: YamlFile, folder: Path, source: dict[str, Value], key: str, sites: dict[str, Value]) -> None:
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
