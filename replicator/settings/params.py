"""The sites' parameters from a table at the centre (``params_from``). Pure: whoever reads the table hands in the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from replicator.settings.checks import check_params
from replicator.settings.model import Settings


def with_params(settings: Settings, rows: Iterable[Mapping[str, object]]) -> Settings:
    """The settings with the rows of the ``params_from`` table put into the sites' parameters.

    ``rows`` are column → value; values become texts, NULL is no value, and what the YAML says itself counts before the
    table. Rows of sites the YAML does not have are passed over. Raises SettingsError where a site has two rows, the
    table has no such column, or a parameter some rule needs is still lacking. Without ``params_from`` nothing changes.
    """
    source = settings.params_from
    if source is None:
        return settings
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        column = next((name for name in row if name.lower() == source.site.lower()), None)
        if column is None:
            hint = f"it has: {', '.join(row)}"
            raise settings.error(f"{source.table} has no column {source.site!r}", key="params_from.site", hint=hint)
        site = _text(row[column])
        if site not in settings.sites:
            continue
        if site in found:
            message, hint = f"{source.table} has two rows for site {site}", f"make {source.site} its unique key"
            raise settings.error(message, key="params_from", hint=hint)
        found[site] = {name: _text(value) for name, value in row.items() if name != column and value is not None}
    sites = {
        name: site.model_copy(update={"params": {**found.get(name, {}), **site.params}})
        for name, site in settings.sites.items()
    }
    filled = settings.model_copy(update={"sites": sites})
    filled._params_known = True
    check_params(filled)
    return filled


def _text(value: object) -> str:
    """A value as PostgreSQL would show it as text; booleans as true and false."""
    return str(value).lower() if isinstance(value, bool) else str(value)
