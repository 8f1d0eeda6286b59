"""Everything the demo plays with: a folder, a PostgreSQL server, databases, a line, applications, the service."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from replicator import sqlfiles
from replicator.demo.application import Database, open_database
from replicator.demo.commands import TOPOLOGY, Commands, Service
from replicator.demo.factories import Factories
from replicator.demo.line import Line
from replicator.demo.lookout import Lookout
from replicator.embedded import EmbeddedServer
from replicator.errors import SetupError


@dataclass(slots=True)
class Scene:
    """What the acts work with. ``line`` is the network line between factory_c and the replicator."""

    folder: Path
    server: EmbeddedServer
    centre_url: str
    centre: Database
    line: Line
    factories: Factories
    commands: Commands
    service: Service
    lookout: Lookout
    kills: int = 0


@contextmanager
def work_folder(directory: Path | None) -> Iterator[Path]:
    """The folder for SQLite files, topology and logs: ``directory``, which stays, else a temporary one, which goes.

    Raises SetupError when ``directory`` holds anything.
    """
    if directory is None:
        folder = Path(tempfile.mkdtemp(prefix="replicator-demo-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise SetupError(f"{directory} is not empty", hint="name a new folder")
    yield directory.resolve()


@contextmanager
def set_up(directory: Path | None, history: int) -> Iterator[Scene]:
    """Build it all, with ``history`` test runs in every factory; on leaving, end every process and remove what was made.

    Raises SetupError when there is no PostgreSQL server to run.
    """
    with work_folder(directory) as folder, EmbeddedServer() as server:
        centre_url, factory_c = server.create_database("central"), server.create_database("factory_c")
        line = Line(("127.0.0.1", server.port))
        files = {name: f"sqlite:///{folder / name}.sqlite3" for name in ("factory_a", "factory_b")}
        _write_topology(folder, centre_url, _by_way_of(factory_c, line))
        sites = {**files, "factory_c": factory_c}
        factories = Factories(sites, folder)
        service = Service(folder)
        lookout = Lookout(sites, centre_url)
        try:
            factories.tell("create", f"load {history}")
            centre = open_database(centre_url)
            yield Scene(folder, server, centre_url, centre, line, factories, Commands(folder), service, lookout)
            centre.close()
        finally:
            lookout.stop()
            factories.close()
            service.stop()
            line.cut()


def _by_way_of(url: str, line: Line) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}@{parts.hostname}:{line.port}").geturl()


def _write_topology(folder: Path, centre: str, factory_c: str) -> None:
    text = Template(sqlfiles.text("config/demo/topology.yaml")).substitute(centre=centre, factory_c=factory_c)
    (folder / TOPOLOGY).write_text(text, encoding="utf-8")
