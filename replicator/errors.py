"""The error tree. Every error says what failed, where, and what to do next.

    ReplicatorError
    ├── SetupError        a person has to change something (YAML, rights, schema): do not retry
    │   ├── SettingsError a key of the topology YAML is wrong; names file, line and key
    │   └── SchemaError   tables are not as the link was planned for: plan it anew, make capture anew where that may be done
    ├── RetryableError    the database is away, busy or restarting: wait and try again
    │   ├── LeaseError    another replicator works on this link
    │   └── StaleError    the target row or position moved under us: run the batch again
    ├── RejectedError     the target refuses rows of this span: halve the span, park the culprit
    └── BatchError        this batch cannot pass at all (names link, position, table)

Driver exceptions are translated into this tree at one place per engine and chained with ``from``.
"""

from __future__ import annotations


def rejoin_hint(site: str) -> str:
    """The next step where a site's history, or the centre's, is not the one its links know."""
    return f"run: replicator rejoin --site {site} --dry-run (what happened and what will be done; without --dry-run: do it)"


class ReplicatorError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what failed and where (database, site, table, row key).
        hint: the next step for the operator, one sentence or command.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class SetupError(ReplicatorError):
    """Something a person has to change before work can go on."""


class SettingsError(SetupError):
    """A key of the topology YAML is wrong.

    Args:
        file: path of the YAML file.
        line: 1-based line, 0 when unknown.
        key: dotted path of the key, such as ``sites.factory_a.url``.
    """

    def __init__(self, message: str, *, file: str, line: int = 0, key: str = "", hint: str = "") -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {key}: {message}" if key else f"{place}: {message}", hint=hint)
        self.file, self.line, self.key = file, line, key


class SchemaError(SetupError):
    """A table is not as the link's plan, or its capture, was made for: the link is to be planned anew."""


class RetryableError(ReplicatorError):
    """The database is away, busy or restarting; waiting helps."""


class LeaseError(RetryableError):
    """Another replicator holds this link's lease."""


class StaleError(RetryableError):
    """A row or the link's position moved between two of our statements; the batch is to be run again."""


class RejectedError(ReplicatorError):
    """The target database refused at least one row of a span (data exception, constraint, user trigger).

    Args:
        sqlstate: five-character code (SQLite: the extended result name).
        detail: the database's own detail line.
    """

    def __init__(self, message: str, *, sqlstate: str = "", detail: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sqlstate, self.detail = sqlstate, detail


class BatchError(ReplicatorError):
    """This batch cannot pass, and no single row is to blame."""


def fed_by_another(link: str, site: str, identity: str, known: str) -> BatchError:
    """A link's source is another database, or another history of it, than the one it was fed by."""
    return BatchError(
        f"link {link}: its source's database is now {identity}, but it was fed by {known}",
        hint=f"correct the URL if it names the wrong database; else {rejoin_hint(site)}",
    )


def fed_twice(link: str, site: str, other: str) -> BatchError:
    """Two sites' links are fed by the same database, or by two copies of one."""
    return BatchError(
        f"link {link}: this is the database of site {other}, or a copy of it",
        hint=f"correct the URL if it names the wrong database; a copy that is to be a site of its own: "
        f"replicator rejoin --site {site} --new-identity",
    )
