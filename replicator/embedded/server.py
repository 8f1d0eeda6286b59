"""One private PostgreSQL server: make, start, stop, kill, restart.

It listens on 127.0.0.1 and on a socket in its own folder, and trusts every local user: put nothing in it that others
may not read. Its folder lies below the temporary folder and goes with it. Binaries that the server's account cannot
read (a virtual environment below a 0700 home, run by root) are copied there.

The server ends with the Python process: by ``atexit`` on a normal end, by a lifeline (see ``processes``) on a kill.
PR_SET_PDEATHSIG is not used: it follows the *thread* that started the server, not the process, and needs preexec_fn,
which is not safe beside threads.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from replicator.embedded.binaries import Binaries, copy_binaries, first_binaries
from replicator.embedded.processes import Account, Lifeline, freeze, kill_all, living
from replicator.errors import SetupError

_OPTIONS = {"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20"}
_POLL_SECONDS = 0.005


class EmbeddedServer:
    """A PostgreSQL server of our own, as a context manager; superuser ``postgres``, no password.

    Args:
        directory: the cluster's folder, made and kept there; ``None``: inside the server's own temporary folder.
        binaries: which programs to run; ``None``: the first that ``find_binaries`` names.
        options: server settings on top of ours (``wal_level=logical``); ``fsync=off`` only where a failure of the whole
            machine may lose all.

    Not for two threads at once. A closed server cannot be started again. Every method raises SetupError, with the end
    of the server's log, when the server cannot be made to do it.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        binaries: Binaries | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.binaries = binaries or first_binaries()
        self.options = _OPTIONS | dict(options or {})
        self.port = 0
        self._account = Account.choose()
        self._own = Path(tempfile.mkdtemp(prefix="replicator-pg-", dir=_temporary()))
        self._account.own(self._own)
        self._data = directory or self._own / "data"
        self._bindir = self.binaries.bindir
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        self._python = os.getpid()
        atexit.register(self._close_at_exit)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The postmaster's process id; 0 when the server does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def socket_directory(self) -> Path:
        """Folder of the unix socket."""
        return self._own

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._own / "log"

    def dsn(self, database: str = "postgres") -> str:
        """A libpq URL for one database of this server. The port stays the same over restarts."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self, timeout: float = 60.0) -> None:
        """Start the server, making the cluster on the first call. Returns when it accepts connections. Repeatable."""
        if self.pid:
            return
        # A server that died on its own leaves its lifeline.
        self.stop()
        self._prepare()
        while True:
            port = self.port or _free_port()
            try:
                self._launch(port, timeout)
            except _PortTakenError:
                # Another program was quicker; a port that is known already has to be waited for by the caller.
                if self.port:
                    raise
                continue
            self.port = port
            return

    def stop(self, timeout: float = 30.0) -> None:
        """Fast shutdown: open transactions are rolled back, connections are closed. Repeatable."""
        process, self._process = self._process, None
        self._cut_lifeline()
        if process is None:
            return
        for way in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(way)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                continue
            return

    def kill(self, timeout: float = 30.0) -> None:
        """SIGKILL to the postmaster and all its children, as if the machine had failed; returns when all are gone."""
        process, self._process = self._process, None
        self._cut_lifeline()
        if process is None or process.poll() is not None:
            return
        children = freeze(process.pid)
        kill_all((process.pid, *children))
        process.wait(timeout)
        deadline = time.monotonic() + timeout
        while left := living(children):
            if time.monotonic() > deadline:
                raise SetupError(f"processes of a killed server do not go away: {left}")
            time.sleep(_POLL_SECONDS)

    def restart(self) -> None:
        """Fast shutdown and start, on the same data and port."""
        self.stop()
        self.start()

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of ``template`` where given, and return its URL."""
        copied = ("--template", template) if template else ()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *copied, "--", name)
        return self.dsn(name)

    def close(self) -> None:
        """Stop, and remove the server's own folder (never a ``directory`` that was given). Repeatable."""
        atexit.unregister(self._close_at_exit)
        self.stop()
        shutil.rmtree(self._own, ignore_errors=True)

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the server's log, empty before the first start."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _prepare(self) -> None:
        if not self._account.may("-x", self._bindir / "postgres"):
            self._bindir = copy_binaries(self._bindir, self._own / "binaries")
        if (self._data / "PG_VERSION").exists():
            return
        if not self._data.exists():
            self._data.mkdir(mode=0o700, parents=True)
            self._account.own(self._data)
        if not self._account.may("-w", self._data):
            hint = f"choose a new folder below {_temporary()}"
            raise SetupError(f"{self._account.name} cannot write to {self._data}", hint=hint)
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")

    def _launch(self, port: int, timeout: float) -> None:
        settings = self.options | {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self._own)}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._bindir / "postgres"), "-D", str(self._data), "-p", str(port), *flags]
        with self.log.open("wb") as log:
            self._process = self._account.spawn(command, self._own, log)
        self._lifeline = Lifeline(self._process.pid)
        deadline = time.monotonic() + timeout
        while not self._ready(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = self.log_tail()
                error = _PortTakenError if "could not bind" in tail else SetupError
                raise error(f"PostgreSQL {self.binaries.version} does not start:\n{tail}")
            time.sleep(_POLL_SECONDS)

    def _ready(self, pid: int) -> bool:
        """Whether the postmaster wrote ``ready`` on the eighth line of its pid file: what pg_ctl looks at."""
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def _run(self, program: str, *arguments: str) -> None:
        done = self._account.run([str(self._bindir / program), *arguments], self._own)
        if done.returncode:
            raise SetupError(f"{program} failed: {done.stderr.decode(errors='replace').strip()}")

    def _cut_lifeline(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline:
            lifeline.cut()

    def _close_at_exit(self) -> None:
        # A forked child that ends normally must not stop its parent's server.
        if os.getpid() == self._python:
            self.close()


class _PortTakenError(SetupError):
    """Another program listens on the port."""


def _temporary() -> Path:
    """Where server folders go: a unix socket's path may have 107 bytes, and macOS' own temporary folder is long."""
    here = Path(tempfile.gettempdir())
    return here if len(str(here)) < 40 else Path("/tmp")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
