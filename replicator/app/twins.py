"""Copies: a site whose database is another site's, or a copy of it, is named before anything is done with it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from replicator.errors import BatchError, fed_twice
from replicator.model import database_id

if TYPE_CHECKING:
    from replicator.app.topology import App


def find_twin(app: App, site: str) -> BatchError | None:
    """What is to be said of a site that has the database of another, or a copy of it; None for one that is its own.

    Of two that share one, the site is meant that the centre does not know by it; where it knows neither, the later one in the
    YAML. Raises what the databases raise.
    """
    own = _database(app, site)
    if not own:
        return None
    fed_by = {
        each.link.site: database_id(each.source_identity) for each in app.read_links()[0] if each.link.direction.rises
    }
    if fed_by.get(site) == own:
        return None
    other = next((name for name, fed in fed_by.items() if fed == own), "")
    if not other:
        before = app.sites[: app.sites.index(site)]
        other = next((name for name in before if name not in app.away and _database(app, name) == own), "")
    return fed_twice(str(app.link(site)), site, other) if other else None


def _database(app: App, site: str) -> str:
    with closing(app.installable(site)) as database:
        return database_id(database.read_identity())
