"""The demo as a user runs it: it must end with every row equal, in time, and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator.demo.line import Line

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 180
"""Far more than it takes: the machine may be busy."""


@pytest.mark.slow
def test_the_demo_ends_with_all_equal_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        _command(), cwd=ROOT, env=_environment(tmp_path), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"all equal .*\d rows", done.stdout)
    assert done.stdout.count("SIGKILL") == 2
    assert "parked" in done.stdout
    _assert_nothing_left(tmp_path)


@pytest.mark.slow
def test_the_demo_keeps_its_files_and_ends_in_order_when_told_to(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with _running(tmp_path, "--directory", str(folder)) as demo:
        _wait(lambda: (folder / "replicator.log").exists())
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 128 + signal.SIGTERM
    assert {path.name for path in folder.iterdir()} >= {"topology.yaml", "factory_a.sqlite3", "factory_b.sqlite3"}
    _assert_nothing_left(tmp_path)
    again = subprocess.run(
        _command("--directory", str(folder)),
        cwd=ROOT, env=_environment(tmp_path), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert again.returncode == 3
    assert "is not empty" in again.stderr


@pytest.mark.slow
def test_no_process_outlives_a_killed_demo(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with _running(tmp_path, "--directory", str(folder)) as demo:
        _wait(lambda: (folder / "replicator.log").exists())
        demo.kill()
        demo.wait()
        _wait(lambda: not _processes(tmp_path), 180.0)


def test_a_line_carries_both_ways_until_it_is_cut_and_again_when_it_is_mended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = Line(("127.0.0.1", server.getsockname()[1]))
        port = line.port
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), 5) as near:
                far, _address = server.accept()
                with far:
                    near.sendall(b"there")
                    assert far.recv(5) == b"there"
                    far.sendall(b"back")
                    assert near.recv(4) == b"back"
                    line.cut()
                    assert near.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
            line.mend()
            assert line.port == port
        line.cut()


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "replicator", "demo", *words]


def _environment(tmp_path: Path) -> dict[str, str]:
    """Its temporary files go where they can be counted, and everything it starts can be told by a mark."""
    return {**os.environ, "TMPDIR": str(_temporary(tmp_path)), "REPLICATOR_TEST_MARK": str(tmp_path)}


def _temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _running(tmp_path: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    demo = subprocess.Popen(
        _command(*words),
        cwd=ROOT,
        env=_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield demo
    finally:
        if demo.poll() is None:
            demo.terminate()
        demo.communicate(timeout=60)


def _assert_nothing_left(tmp_path: Path) -> None:
    _wait(lambda: not _processes(tmp_path))
    assert list(_temporary(tmp_path).iterdir()) == []


def _processes(tmp_path: Path) -> list[str]:
    """Living processes that inherited the mark."""
    mark = f"REPLICATOR_TEST_MARK={tmp_path}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # gone meanwhile, or another user's
    return found


def _wait(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.05)
