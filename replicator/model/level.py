"""The schema of our own tables in a database, as the number of the last migration that ran: who may work with which."""

from __future__ import annotations

from replicator import __version__
from replicator.errors import SetupError
from replicator.model.stream import Finding


def require_level(place: str, level: int | None, known: int, *, upgrading: bool = False) -> None:
    """Raises SetupError unless the tables of ``place`` are of the schema this replicator knows.

    ``level``: what ran there last, ``None`` where nothing of ours is. ``upgrading``: an older one will do.
    """
    if level is not None and level > known:
        raise SetupError(
            f"{place}: replicator's tables there are of schema {level}, this replicator ({__version__}) knows {known} at most",
            hint="a newer replicator was installed there; upgrade this one to that version: pip install --upgrade replicator",
        )
    if level is not None and level < known and not upgrading:
        raise SetupError(
            f"{place}: replicator's tables there are of schema {level}, this replicator ({__version__}) works with {known}",
            hint="run: replicator install (it brings them forward; nothing captured is lost)",
        )


def level_findings(place: str, level: int | None, known: int) -> list[Finding]:
    """What ``check`` says of the schema: nothing before install."""
    try:
        require_level(place, level, known)
    except SetupError as error:
        return [Finding(place, "schema", False, error.message, error.hint)]
    return [] if level is None else [Finding(place, "schema", True, f"replicator's tables are of schema {level}")]
