"""Opens PostgreSQL connections with fixed text forms, and translates the driver's errors into replicator's tree.

Values cross between databases as text, so every session spells them the same way (ISO dates in UTC, shortest exact
floats, hex bytes) whatever the role, database or server defaults are. This is the only module that knows SQLSTATEs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from replicator import sqlfiles
from replicator.engines.postgres.level import newest_level, read_level
from replicator.errors import (
    BatchError,
    RejectedError,
    ReplicatorError,
    RetryableError,
    SchemaError,
    SetupError,
    StaleError,
)
from replicator.model import require_level

PostgresConnection: TypeAlias = "psycopg.Connection[TupleRow]"

# What libpq fills in where the URL is silent: a dead peer is noticed within a minute instead of two hours.
_DEFAULTS: Mapping[str, str] = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "4",
}

_RETRYABLE_CLASSES = ("08", "40", "53", "58")
_CONTENTION = frozenset({"40001", "40P01"})
"""Serialization failure, deadlock: two links wrote the same rows at the same time; the same again passes."""
_RETRYABLE_CODES = frozenset({
    "25006",  # read only: the host still points to a standby during a failover
    "25P03", "25P04", "55006", "55P03", "57014", "57P01", "57P02", "57P03", "57P04", "57P05",
})  # fmt: skip
_REJECTED_CLASSES = ("09", "21", "22", "23", "27", "2F", "38", "39", "44", "P0")
_REJECTED_CODES = frozenset({"54000"})  # an index row that is too large
_SETUP_CLASSES = ("28", "3D", "3F", "42")
_MOVED = frozenset({"42703", "42P01", "42804", "42P10"})  # a column, a table, a type, a key is not as it was
_OURS = frozenset({"42601"})  # a syntax error is our fault, not the operator's
_OF_VALUES = frozenset({"42601", "428C9"})  # a jsonpath, tsquery, ltree … that cannot be read; GENERATED ALWAYS

_HINTS: Mapping[str, str] = {
    "25006": "the server is read only (a standby, or default_transaction_read_only): point the URL to the primary",
    "28000": "check user, pg_hba.conf and sslmode in the URL",
    "28P01": "check the password: use ${ENV} or file: in the YAML, or ~/.pgpass",
    "3D000": "create the database, or correct its name in the URL",
    "3F000": "run: replicator install",
    "42501": "run: replicator check; it prints the GRANT statements",
    "42703": "the table's columns are not as planned; run: replicator schema diff, then replicator install",
    "42883": "run: replicator install",
    "42P01": "run: replicator plan, then replicator install",
    "53100": "free disk space on the database server",
    "53300": "raise max_connections, or close connections",
}

# A refused connection carries no SQLSTATE through libpq; these texts (of English servers) are what waiting cannot mend.
_REFUSED = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("authentication failed", "28000"),
    ("no pg_hba.conf entry", "28000"),
    ("is not permitted to log in", "28000"),
    ("permission denied for database", "42501"),
    ("role ", "28000"),
    ("does not exist", "3D000"),
    ("server does not support ssl", "28000"),
)


def connect(url: str, *, application_name: str, autocommit: bool = True, upgrading: bool = False) -> PostgresConnection:
    """A new connection with every setting that touches values fixed; placeholders are PostgreSQL's own ``$1``.

    ``upgrading``: our tables may be of an older schema than this replicator's. Raises SetupError when they are and may not be,
    when a newer replicator made them, when the URL is wrong or the login refused; RetryableError when the server is away.
    """
    place = describe(url)
    with translated(place):
        parameters = {**_DEFAULTS, **_parameters(url), "client_encoding": "UTF8", "application_name": application_name}
        connection: PostgresConnection = psycopg.connect(
            make_conninfo("", **parameters), autocommit=True, cursor_factory=psycopg.RawCursor
        )
        try:
            connection.execute(sqlfiles.statement("sql/postgres/session.sql", "settle").encode())
            require_level(place, read_level(connection), newest_level(), upgrading=upgrading)
            connection.autocommit = autocommit
        except BaseException:
            connection.close()
            raise
    return connection


def describe(url: str) -> str:
    """The URL for messages: who, where, which database, and never a password."""
    try:
        parameters = _parameters(url)
    except SetupError:
        return "postgresql (unreadable URL)"
    user = f"{parameters['user']}@" if parameters.get("user") else ""
    port = f":{parameters['port']}" if parameters.get("port") else ""
    host = parameters.get("host") or parameters.get("hostaddr") or ""
    return f"postgresql://{user}{host}{port}/{parameters.get('dbname', '')}"


def _parameters(url: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        # Not chained: libpq's message repeats the URL, password and all.
        raise SetupError(
            "the database URL is not one libpq can read",
            hint="write postgresql://user@host:5432/database; special characters in names as %40",
        ) from None


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Driver errors inside become errors of replicator's tree, naming ``place``."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, place) from error


def translate(error: psycopg.Error, place: str) -> ReplicatorError:
    """One driver error as one of ours. See the error tree for what each kind makes the caller do."""
    code = error.sqlstate or _refusal(error)
    message = f"{place}: {_text(error)}" + (f" [{code}]" if error.sqlstate else "")
    hint = _HINTS.get(code, "")
    family = code[:2]
    if code in _CONTENTION:
        return StaleError(message, hint=hint)
    if code in _RETRYABLE_CODES or family in _RETRYABLE_CLASSES:
        return RetryableError(message, hint=hint)
    if family in _REJECTED_CLASSES or code in _REJECTED_CODES or _is_of_value(error, code):
        return RejectedError(message, sqlstate=code, detail=error.diag.message_detail or "", hint=hint)
    if code in _MOVED:
        return SchemaError(message, hint=hint)
    if family in _SETUP_CLASSES and code not in _OURS:
        return SetupError(message, hint=hint)
    if not code and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return RetryableError(message, hint=hint)
    if not code and isinstance(error, psycopg.DataError):
        return RejectedError(message, sqlstate="22000", hint=hint)
    return BatchError(message, hint=hint)


def _is_of_value(error: psycopg.Error, code: str) -> bool:
    """Whether a value is to blame, not a statement: then the message points to no place in one, ours or a function's."""
    diag = error.diag
    return code in _OF_VALUES and diag.statement_position is None and diag.internal_query is None


def _refusal(error: psycopg.Error) -> str:
    """The SQLSTATE a refused connection would have had, empty when it is not one of those."""
    if not isinstance(error, psycopg.OperationalError):
        return ""
    text = str(error).lower()
    return next((code for phrase, code in _REFUSED if phrase in text and "fatal" in text), "")


def _text(error: psycopg.Error) -> str:
    """The server's message with its context line; a failed connect's text, on one line."""
    primary = error.diag.message_primary
    if primary is None:
        return " ".join(str(error).split())
    where = error.diag.context
    return f"{primary} ({where.splitlines()[0]})" if where else primary
