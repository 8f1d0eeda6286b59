"""The wheel holds exactly the repository's SQL, trigger and config files, also when it is built from the sdist.

Hatchling's ``sources`` is silent when a folder is missing, hence the comparison of names.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("sql", "triggers", "config")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel built from the tree, and one built from the sdist."""
    return _build(tmp_path_factory.mktemp("direct"), "--wheel"), _build(tmp_path_factory.mktemp("sdist"))


def test_wheel_ships_every_sql_trigger_and_config_file(wheels: tuple[Path, Path]) -> None:
    inside = {name.removeprefix("replicator/_files/") for name in _contents(wheels[0]) if "/_files/" in name}
    assert inside == {
        str(path.relative_to(ROOT)) for folder in SHIPPED for path in (ROOT / folder).rglob("*") if path.is_file()
    }


def test_wheel_ships_every_module_and_no_test(wheels: tuple[Path, Path]) -> None:
    names = {name for name in _contents(wheels[0]) if "/_files/" not in name and ".dist-info/" not in name}
    sources = (path for path in (ROOT / "replicator").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert names == {str(path.relative_to(ROOT)) for path in sources}
    assert "replicator/py.typed" in names


def test_wheel_from_sdist_is_the_same(wheels: tuple[Path, Path]) -> None:
    direct, by_sdist = map(_contents, wheels)
    assert direct == by_sdist


def test_files_are_found_in_the_zipped_wheel(wheels: tuple[Path, Path]) -> None:
    program = "from replicator import sqlfiles; print(len(sqlfiles.names('sql/postgres/migrations')))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(wheels[0])!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == len(list((ROOT / "sql/postgres/migrations").glob("*.sql")))


def _build(goal: Path, *arguments: str) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(goal), *arguments, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = goal.glob("*.whl")
    return wheel


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
