"""The probe for a Docker engine, against a small engine of our own on a unix socket, and against none."""

from __future__ import annotations

import json
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import docker


class _Engine(socketserver.StreamRequestHandler):
    answers: dict[str, bytes]

    def handle(self) -> None:
        path = self.rfile.readline().split()[1].decode()
        body = self.answers.get(path)
        status = b"404 Not Found" if body is None else b"200 OK"
        self.wfile.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n" + (body or b""))


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a socket that does not exist yet; its path is short enough for one."""
    with tempfile.TemporaryDirectory(prefix="replicator-docker-") as folder:
        yield f"unix://{folder}/s"


def _serve(address: str, answers: dict[str, bytes]) -> socketserver.BaseServer:
    engine = type("Engine", (_Engine,), {"answers": answers})
    server = socketserver.UnixStreamServer(address.removeprefix("unix://"), engine)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


def _images(*tags: str) -> bytes:
    return json.dumps([{"RepoTags": list(tags)}, {"RepoTags": None}]).encode()


def test_newest_local_image_is_chosen(address: str) -> None:
    images = _images("postgres:9.6", "postgres:16-alpine", "postgres:18.1", "postgres:latest", "redis:8")
    with _serve(address, {"/_ping": b"OK", "/images/json": images}) as server:
        assert docker.local_image({"DOCKER_HOST": address}) == "postgres:18.1"
        server.shutdown()


@pytest.mark.parametrize("answers", [{}, {"/_ping": b"OK"}, {"/_ping": b"OK", "/images/json": _images("redis:8")}])
def test_engine_without_an_answer_or_an_image_counts_as_absent(address: str, answers: dict[str, bytes]) -> None:
    with _serve(address, answers) as server:
        assert docker.local_image({"DOCKER_HOST": address}) is None
        server.shutdown()


def test_no_engine_or_a_dead_socket_is_absent_at_once(address: str) -> None:
    assert docker.local_image({"DOCKER_HOST": address}) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(Path(address.removeprefix("unix://"))))
        silent.listen()
        began = time.monotonic()
        assert docker.local_image({"DOCKER_HOST": address}) is None
        assert time.monotonic() - began < 5
