"""A PostgreSQL database captured from its log, for tests: as ``postgres_site``, with our other installer and source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import psycopg
import pytest

from replicator.engines.postgres.wal.installer import PostgresWalInstaller
from replicator.engines.postgres.wal.source import PostgresWalSource
from replicator.model import TablePlan
from tests.fixtures.databases import PostgresDatabases
from tests.integration.postgres_site import LINK, Change, MakeSite, Site, read_once


@dataclass
class WalSite(Site):
    """One database captured from its log. ``hidden``: columns the plans leave out."""

    hidden: frozenset[str] = frozenset()

    def plans(self) -> list[TablePlan]:
        """As ``Site.plans``, without the hidden columns."""
        return [
            replace(plan, columns=tuple(column for column in plan.columns if column.source not in self.hidden))
            for plan in super().plans()
        ]

    @cached_property
    def installer(self) -> PostgresWalInstaller:
        """An installer of its own connection."""
        return PostgresWalInstaller(self.url, patience=20)

    def source(self) -> PostgresWalSource:
        """A new source for the link, closed with the site."""
        source = PostgresWalSource(self.url, LINK, self.plans())
        self.opened.append(source)
        return source

    def read(self, limit: int = 1 << 40) -> list[Change]:
        """All changes behind the site's position, which moves."""
        source = PostgresWalSource(self.url, LINK, self.plans())
        try:
            found: list[Change] = []
            while True:
                changes, upto, _ = read_once(source, self.position, limit)
                if upto is None:
                    return found
                found += changes
                self.position = upto
        finally:
            source.close()


@pytest.fixture
def make_wal_site(postgres_database: PostgresDatabases) -> Iterator[MakeSite]:
    """A factory of databases captured from their log, made from statements."""
    made: list[Site] = []

    def make(sql: str) -> Site:
        url = postgres_database("wal")
        site = WalSite(url, psycopg.connect(url, autocommit=True))
        made.append(site)
        site.run(sql)
        site.install()
        return site

    yield make
    for site in made:
        site.close()
