"""Operating-system processes of a private server: under whose account, tied to whose life, gone or not. POSIX only."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from replicator.errors import SetupError

_ACCOUNTS = ("postgres", "nobody")
_LIFELINE = 'read line || kill -INT "$0" 2>/dev/null'


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server; all ``None`` for an ordinary user, who runs it as himself."""

    name: str = "this user"
    user: int | None = None
    group: int | None = None

    @classmethod
    def choose(cls) -> Account:
        """PostgreSQL refuses to run as root, so root hands it to ``postgres`` or ``nobody``. Raises SetupError."""
        if os.geteuid() != 0:
            return cls()
        for name in _ACCOUNTS:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name, entry.pw_uid, entry.pw_gid)
        raise SetupError(
            "PostgreSQL does not run as root, and there is no account postgres or nobody", hint="use another user"
        )

    @property
    def groups(self) -> list[int] | None:
        """Supplementary groups to keep: none of root's."""
        return None if self.user is None else []

    def own(self, path: Path) -> None:
        """Give a path that we made to the account."""
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)

    def may(self, right: str, path: Path) -> bool:
        """Whether the account has a right of test(1) on a path: the system itself is asked (modes, ACLs, parents)."""
        return self.run(["/bin/sh", "-c", 'test "$1" "$2"', "sh", right, str(path)], Path("/")).returncode == 0

    def run(self, command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end in ``folder``."""
        return subprocess.run(
            command,
            cwd=folder,
            env=_environment(),
            user=self.user,
            group=self.group,
            extra_groups=self.groups,
            capture_output=True,
            check=False,
        )

    def spawn(self, command: Sequence[str], folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a program in ``folder``, in a session of its own: Ctrl-C is for us, who stop the server in order."""
        return subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            user=self.user,
            group=self.group,
            extra_groups=self.groups,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


class Lifeline:
    """A shell that waits on our pipe, and stops the process ``pid`` (SIGINT) when this Python process is gone."""

    def __init__(self, pid: int) -> None:
        null = subprocess.DEVNULL
        command = ["/bin/sh", "-c", _LIFELINE, str(pid)]
        self._shell = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=null, stderr=null, cwd="/", start_new_session=True
        )

    def cut(self) -> None:
        """End without stopping anything."""
        self._shell.communicate(b"\n")


def freeze(pid: int) -> tuple[int, ...]:
    """Stop a process so that it forks no more, and return all its children."""
    os.kill(pid, signal.SIGSTOP)
    return tuple(child for child, (parent, _) in _table() if parent == pid)


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL to each that is still there."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def living(pids: Sequence[int]) -> tuple[int, ...]:
    """Those that still hold anything: a dead one that its new parent has yet to reap does not."""
    return tuple(pid for pid, (_, state) in _table() if pid in pids and state != "Z")


def _environment() -> dict[str, str]:
    # PGDATA, PGPORT and their like are meant for another server.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C"}


def _table() -> Iterator[tuple[int, tuple[int, str]]]:
    """(pid, (parent, state letter)) of every process; from /proc where there is one, as slim systems have no ps."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
        ).stdout
        for pid, parent, state in (line.split(maxsplit=2) for line in listed.splitlines()):
            yield int(pid), (int(parent), state[:1])
        return
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The program's name stands in parentheses and may hold anything, also a parenthesis.
            state, parent = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield int(entry.parent.name), (int(parent), state)
