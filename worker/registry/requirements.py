"""What a process needs of the registry's server, looked at once when it starts.

Owns: the least version, the privileges of each role, whether a session is the process's own.
Must not know: what a role does with them; a server that is unavailable, which its caller waits for.
Invariant: looking changes nothing.

A pooler that shares sessions out by transaction (pgbouncer's `pool_mode = transaction`) gives a lock and a LISTEN to
whichever process comes next: two publishers would lead at once, and one that was killed would lead for ever.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from enum import StrEnum

from worker.errors import RegistryUnavailable
from worker.registry.postgres import Connection, answering, connect, translated
from worker.transport.requirements import Finding, refuse_unmet

#: `server_version_num` of the oldest release that is tested.
LEAST_VERSION = 130_000
_NAME = "signal-worker requirements"
#: A transaction of another session may take the one server connection of a pool; then nothing is answered.
_WAIT_SECONDS = 3.0
_ROUNDS = 2
_OF_READERS = (
    ("SELECT", "public.model_registry"),
    ("SELECT", "public.model_activations"),
    ("SELECT", "public.active_models"),
    ("SELECT", "public.canaries"),
    ("EXECUTE", "public.fail_model(text, text, text, text)"),
)
_OF_PUBLISHERS = (
    ("SELECT", "public.model_activations"),
    ("SELECT", "public.registry_outbox"),
    ("UPDATE", "public.registry_outbox.published_at"),
    ("DELETE", "public.registry_outbox"),
)


class RegistryRole(StrEnum):
    """What a process is to the registry."""

    WORKER = "worker"
    PUBLISHER = "publisher"


def require_registry(database_url: str, role: RegistryRole) -> None:
    """Look once whether the server and this login are enough for a role.

    Raises:
        SettingsError: Something is missing; one sentence names all of it.
        RegistryUnavailable: The server does not answer, or is not migrated.
    """
    refuse_unmet("DATABASE_URL", role, registry_findings(database_url, role))


def registry_findings(database_url: str, role: RegistryRole) -> list[Finding]:
    """Return each need of a role and what was found.

    Raises:
        RegistryUnavailable: The server does not answer, or is not migrated.
        SettingsError: The URL cannot be read.
    """
    with connect(database_url, _NAME) as connection, translated():
        findings = [_version(connection), _privileges(connection, role)]
    if role is RegistryRole.PUBLISHER:
        findings.append(session_finding(database_url))
    return findings


def require_session(database_url: str, what: str) -> None:
    """Look whether a session is the process's own.

    Args:
        database_url: Of the registry.
        what: The verb that needs one.

    Raises:
        SettingsError: A pooler shares sessions out.
        RegistryUnavailable: The server does not answer.
    """
    refuse_unmet("DATABASE_URL", what, [session_finding(database_url)])


def session_finding(database_url: str) -> Finding:
    """Return whether a connection keeps its session on the server, whatever other connections do.

    Raises:
        RegistryUnavailable: The server does not answer.
    """
    need = "a session of its own, for its lock: a direct connection, or a pooler in session mode"
    shared = any(_moves(database_url) for _ in range(_ROUNDS))
    return Finding(
        need=need,
        found="a pooler shares sessions out by transaction" if shared else "its session stays",
        met=not shared,
    )


def _moves(database_url: str) -> bool:
    """Return whether a connection's session goes to another that asks in between."""
    with ExitStack() as stack:
        ours, other = (stack.enter_context(connect(database_url, _NAME)) for _ in range(2))
        thread = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        before = _session(ours)
        # The other's transaction takes the session that ours has just used, where a pooler lets it.
        with translated(), other.transaction():
            if _session(other) == before:
                return True
            after = thread.submit(_session, ours)
            with suppress(TimeoutError):
                return after.result(_WAIT_SECONDS) != before
        # Nothing was answered while the other's transaction was open: a slow server, or a pool that is in use.
        return after.result() != before


def _session(connection: Connection) -> int:
    with answering(connection):
        row = connection.execute("SELECT pg_backend_pid() AS pid").fetchone()
    if row is None:
        raise RegistryUnavailable("the server did not state its session")
    return int(row["pid"])


def _version(connection: Connection) -> Finding:
    row = connection.execute(
        "SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version"
    ).fetchone()
    if row is None:
        raise RegistryUnavailable("the server did not state its version")
    return Finding(
        need=f"PostgreSQL {LEAST_VERSION // 10_000} or later",
        found=f"the server is PostgreSQL {row['version']}",
        met=row["number"] >= LEAST_VERSION,
    )


def _privileges(connection: Connection, role: RegistryRole) -> Finding:
    wanted: Sequence[tuple[str, str]] = _OF_READERS if role is RegistryRole.WORKER else _OF_PUBLISHERS
    refused = [f"{privilege} on {name}" for privilege, name in wanted if not _may(connection, privilege, name)]
    row = connection.execute("SELECT current_user AS name").fetchone()
    login = row["name"] if row else "this login"
    group = "signal_reader" if role is RegistryRole.WORKER else "signal_publisher"
    return Finding(
        need=f"the privileges of {group}",
        found=f"{login} lacks {', '.join(refused)}" if refused else f"{login} has them",
        met=not refused,
    )


def _may(connection: Connection, privilege: str, name: str) -> bool:
    values: tuple[str, ...]
    if privilege == "EXECUTE":
        query, values = "has_function_privilege(%s, %s)", (name, privilege)
    elif privilege == "UPDATE":
        table, _, column = name.rpartition(".")
        query, values = "has_column_privilege(%s, %s, %s)", (table, column, privilege)
    else:
        query, values = "has_table_privilege(%s, %s)", (name, privilege)
    row = connection.execute(f"SELECT {query} AS may", values).fetchone()
    return bool(row and row["may"])
