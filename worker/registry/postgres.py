"""Connections to PostgreSQL, and what its errors mean.

Owns: time limits and names of connections, the translation of driver errors.
Must not know: which statements are made.
Invariant: no driver error leaves the room; what the registry refuses and what keeps it from answering are distinguished
by SQLSTATE, never by reading a message.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from worker.errors import (
    IllegalTransition,
    ImpossibleShare,
    InvalidRegistration,
    ReasonMissing,
    RegistryRefusal,
    RegistryUnavailable,
    SettingsError,
    UnknownVersion,
    VersionExists,
    WorkerError,
)
from worker.server_urls import registry_url

Connection = psycopg.Connection[DictRow]

#: Longest time a connection may take to be made, in seconds.
CONNECT_SECONDS = 5
#: Longest time a statement may run, in milliseconds; waiting for another activation counts.
STATEMENT_MS = 10_000
#: Time beyond that for the answer to arrive, in seconds.
GRACE_SECONDS = 5.0

#: What the functions of `migrations/` and the table's constraints raise.
_REFUSALS: dict[str, type[RegistryRefusal]] = {
    "SW001": UnknownVersion,
    "SW002": IllegalTransition,
    "SW003": ReasonMissing,
    "SW004": IllegalTransition,
    "SW005": ImpossibleShare,
    "23505": VersionExists,
}
#: No such table, column, function or schema.
_NOT_MIGRATED = frozenset({"42P01", "42703", "42883", "3F000"})

_log = structlog.get_logger()


def connect(database_url: str, name: str, *, statement_ms: int = STATEMENT_MS) -> Connection:
    """Return a connection in autocommit, for one thread, whose every wait has an end.

    Args:
        database_url: `postgresql://` URL or a libpq connection string.
        name: Shown by `pg_stat_activity`.
        statement_ms: Longest run of one statement.

    Raises:
        RegistryUnavailable: The server is unavailable, starting, full, or refuses the login.
        SettingsError: The URL cannot be read.
    """
    conninfo = _readable(database_url)
    with translated():
        connection = psycopg.connect(
            conninfo,
            autocommit=True,
            row_factory=dict_row,
            application_name=name,
            connect_timeout=CONNECT_SECONDS,
            keepalives=1,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            # A peer that vanished silently is noticed by what was sent to it and never confirmed.
            tcp_user_timeout=15_000,
        )
        try:
            # Not by `options` at connecting: poolers refuse it, and it would replace the URL's own.
            connection.execute(f"SET statement_timeout = {int(statement_ms)}; SET TIME ZONE 'UTC'")
        except psycopg.Error:
            connection.close()
            raise
    return connection


def _readable(database_url: str) -> str:
    """Return the URL as libpq reads it; its own error would quote it, password included."""
    conninfo, readable = registry_url(database_url), True
    try:
        conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        readable = False
    if not readable:
        raise SettingsError("DATABASE_URL is no URL and no connection string that libpq can read")
    return conninfo


@contextmanager
def translated() -> Iterator[None]:
    """Turn driver errors into ours.

    Raises:
        RegistryRefusal: The registry answered no; the subclass names why.
        RegistryUnavailable: Anything else that keeps it from answering.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _translation(error) from error
    except UnicodeEncodeError as error:
        raise InvalidRegistration(f"{error.object!r} is not text that the database can store") from error


@contextmanager
def answering(connection: Connection, statement_ms: int = STATEMENT_MS) -> Iterator[Connection]:
    """Give the connection, and cut it if the server has not answered some seconds after its own time limit.

    A server that is frozen, rather than gone, keeps no limit of its own; its kernel still confirms what it is sent.

    Raises:
        RegistryRefusal: The registry answered no; the subclass names why.
        RegistryUnavailable: Anything else that keeps it from answering.
    """
    watch = threading.Timer(statement_ms / 1000 + GRACE_SECONDS, _cut, [connection])
    watch.daemon = True
    watch.start()
    try:
        with translated():
            yield connection
    finally:
        watch.cancel()


class RegistryOutage:
    """Logs an outage of the database: one line when it begins, one when it ends."""

    def __init__(self) -> None:
        """Start with the database available."""
        self.lasting = False

    def away(self, error: RegistryUnavailable) -> None:
        """Note a failed try."""
        if not self.lasting:
            _log.warning("registry_away", detail=str(error))
        self.lasting = True

    def back(self) -> None:
        """Note a try that worked."""
        if self.lasting:
            _log.info("registry_back")
        self.lasting = False


def _cut(connection: Connection) -> None:
    # Not close(): the thread that waits on this connection must be the one that lets go of it.
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def _translation(error: psycopg.Error) -> WorkerError:
    sentence = error.diag.message_primary or str(error).strip() or type(error).__name__
    refusal = _REFUSALS.get(error.sqlstate or "")
    if refusal is not None:
        return refusal(_with_hint(sentence, error.diag))
    if isinstance(error, psycopg.DataError | psycopg.errors.CheckViolation):
        return InvalidRegistration(sentence, error.diag.constraint_name)
    if error.sqlstate in _NOT_MIGRATED:
        return RegistryUnavailable(f"the registry is not migrated ({sentence}): run signal-worker db migrate")
    return RegistryUnavailable(" ".join(sentence.split()))


def _with_hint(sentence: str, diagnosis: Any) -> str:  # noqa: ANN401 - the driver's own type is private
    return f"{sentence}. {diagnosis.message_hint}" if diagnosis.message_hint else sentence
