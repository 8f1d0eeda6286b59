"""``replicator run`` as a process: it moves changes as they come, says what happens, and stops as it should."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.cli import Laboratory, started
from tests.fixtures.databases import PostgresDatabases
from tests.fixtures.services import DEADLINE, Running, until


@pytest.fixture
def laboratory(tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases) -> Laboratory:
    """A SQLite factory and a PostgreSQL one, installed."""
    sites = {"factory_a": f"sqlite:///{sqlite_file('a')}", "factory_c": postgres_database("site")}
    made = Laboratory(tmp_path, postgres_database("centre"), sites)
    made.fill()
    made.run("install")
    return made


@pytest.fixture
def run(laboratory: Laboratory) -> Iterator[Callable[..., Running]]:
    """Starts services on the laboratory; none outlives the test."""
    begun: list[Running] = []

    def start(*arguments: object, **environment: str) -> Running:
        begun.append(Running(started("run", *laboratory.options, *arguments, **environment)))
        return begun[-1]

    yield start
    for each in begun:
        each.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_changes_arrive_and_a_signal_stops_cleanly(
    laboratory: Laboratory, run: Callable[..., Running], number: int
) -> None:
    service = run("--summary", 1)
    count = "select count(*) from devices_run"
    until(lambda: laboratory.read("centre", count) == [(6,)])
    laboratory.write("factory_a", "insert into devices_run values (10, 1, 'a')")
    laboratory.write("factory_c", "insert into devices_run values (10, 1, 'c'); delete from devices_run where id = 1;")
    until(lambda: laboratory.read("centre", count) == [(7,)])
    service.wait_for("summary", "links=2")
    assert laboratory.run("status").output.endswith("2 links healthy\n")
    assert service.end(number) == 0
    assert "clean=true" in service.wait_for(" stopped ")
    laboratory.run("audit")


def test_one_replicator_per_link(laboratory: Laboratory, run: Callable[..., Running]) -> None:
    run().wait_for("link_up", "factory_a")
    until(lambda: laboratory.ask("status", code=None)["healthy"])
    output = laboratory.run("sync", "--site", "factory_a", code=3).output
    assert "held by" in output


def test_an_error_is_said_once_and_a_recovery_too(laboratory: Laboratory, run: Callable[..., Running]) -> None:
    path = Path(laboratory.sites["factory_a"].removeprefix("sqlite:///"))
    away = path.with_name("away")
    path.rename(away)
    service = run("--log-format", "json", "--summary", 1)
    line = json.loads(service.wait_for('"failing"', "factory_a"))
    assert line["hint"]
    service.wait_for('"link_up"', "factory_c")
    for _ in range(2):
        service.lines.clear()
        service.wait_for('"summary"')
    assert not [line for line in service.lines if '"failing"' in line and "summary" not in line]
    assert service.end() == 0
    away.rename(path)


def test_systemd_is_told(tmp_path: Path, run: Callable[..., Running]) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        channel.settimeout(DEADLINE)
        service = run(NOTIFY_SOCKET=str(address))
        assert channel.recv(100) == b"READY=1"
        service.end()
        assert channel.recv(100) == b"STOPPING=1"


def test_a_second_signal_ends_it_at_once(laboratory: Laboratory, run: Callable[..., Running]) -> None:
    service = run("--grace", 600)
    service.wait_for("link_up", "factory_a")
    os.kill(service.process.pid, signal.SIGSTOP)  # so that both signals are there before it can end
    os.kill(service.process.pid, signal.SIGTERM)
    os.kill(service.process.pid, signal.SIGINT)
    os.kill(service.process.pid, signal.SIGCONT)
    assert service.process.wait(DEADLINE) in (-signal.SIGTERM, -signal.SIGINT)
    laboratory.run("sync", code=0)
