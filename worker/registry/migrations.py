"""Applying the numbered SQL files.

Owns: where the files are, which of them a database has, applying the rest through yoyo.
Must not know: what is in them.
Invariant: one migrator at a time, by a lock that dies with its session; each file is one transaction and can run again
without harm, so a migrator killed between a file and its mark is healed by the next.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

import worker
from worker.errors import MigrationFailed, RegistryUnavailable
from worker.registry.postgres import connect, translated
from worker.registry.requirements import require_session
from worker.server_urls import registry_url

#: Any number, the same in every release: the advisory lock of migrators.
_LOCK = 7_265_001
_LOCK_WAIT_SECONDS = 60
#: Longest wait of a statement for a table that a transaction has locked. Whoever asks for the table after us waits
#: behind us, so that a migrator which waits on stops the registry; this one steps back, lets them pass and tries again.
_TABLE_WAIT_MS = 2000
_TRIES = 20
_PAUSE_SECONDS = (0.5, 1.5)
#: What `003_add_roles` creates where it may.
_ROLES = ("signal_reader", "signal_publisher", "signal_admin")
#: yoyo's default name: its own commands work on the database too.
_TABLE = "_yoyo_migration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file, and when the database got it."""

    #: File name without `.sql`.
    name: str
    #: None: not yet.
    applied_at: datetime | None


def migrations_directory() -> Path:
    """Return the folder of the SQL files: inside the installed package, or beside it in a source tree.

    Raises:
        MigrationFailed: Neither is there.
    """
    package = Path(worker.__file__).resolve().parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if any(folder.glob("*.sql")):
            return folder
    raise MigrationFailed(f"no migrations in {package / 'migrations'} nor in {package.parent / 'migrations'}")


def migrate(database_url: str) -> tuple[str, ...]:
    """Apply every file that the database does not have yet, in order, and return their names.

    Raises:
        RegistryUnavailable: The server is unavailable, or after a minute another migrator is still busy or a table is
            still locked by a transaction.
        MigrationFailed: The server refused a statement; the file that contains it left no trace.
        SettingsError: A pooler shares sessions out, which would lose the lock.
    """
    require_session(database_url, "db migrate")
    with _lock(database_url), _backend(database_url) as backend:
        applied = []
        for migration in backend.to_apply(_files()):
            _apply(backend, migration)
            applied.append(migration.id)
    with connect(database_url, "signal-worker db migrate") as connection, translated():
        # Roles that were created since the migrations get their privileges now.
        connection.execute("SELECT public.grant_registry_roles()")
    return tuple(applied)


def missing_roles(database_url: str) -> tuple[str, ...]:
    """Return the roles of the registry that the server does not have: the migrating login may not create roles.

    Raises:
        RegistryUnavailable: The server is unavailable.
    """
    with connect(database_url, "signal-worker db migrate") as connection, translated():
        rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(_ROLES),)).fetchall()
    present = {row["rolname"] for row in rows}
    return tuple(role for role in _ROLES if role not in present)


def migrations(database_url: str) -> tuple[Migration, ...]:
    """Return every file in order, with the time at which the database got it.

    Raises:
        RegistryUnavailable: The server is unavailable.
    """
    names = [migration.id for migration in _files()]
    with translated(), connect(database_url, "signal-worker db status") as connection:
        known = connection.execute("SELECT to_regclass(%s) AS found", (_TABLE,)).fetchone()
        times = {}
        if known and known["found"]:
            rows = connection.execute("SELECT migration_id, applied_at_utc FROM _yoyo_migration").fetchall()
            times = {row["migration_id"]: row["applied_at_utc"].replace(tzinfo=UTC) for row in rows}
    return tuple(Migration(name=name, applied_at=times.get(name)) for name in names)


@contextmanager
def _lock(database_url: str) -> Iterator[None]:
    """Hold the lock of all migrators; refuse a login that cannot migrate before anything is changed."""
    # yoyo's own lock is a row, which a killed migrator leaves behind for ever.
    with connect(database_url, "signal-worker db migrate", statement_ms=_LOCK_WAIT_SECONDS * 1000) as connection:
        with translated():
            connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            login = connection.execute(
                "SELECT current_user AS name, has_schema_privilege('public', 'CREATE') AS may_create"
            ).fetchone()
        if login and not login["may_create"]:
            raise MigrationFailed(
                f"permission denied for schema public: {login['name']} may not create tables there; connect as the "
                f"owner of the database, or let the owner run GRANT CREATE ON SCHEMA public TO {login['name']}"
            )
        yield


@contextmanager
def _backend(database_url: str) -> Iterator[Any]:
    # Imported here: yoyo and its parser cost start-up time that no other command should pay.
    from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend  # noqa: PLC0415
    from yoyo.connections import DatabaseURI  # noqa: PLC0415

    class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo has no types
        def init_connection(self, connection: Any) -> None:  # noqa: ANN401
            # Each file is applied by a connection of its own. Not by `options` at connecting: poolers refuse it.
            super().init_connection(connection)
            connection.execute(f"SET lock_timeout = {_TABLE_WAIT_MS}")

        def get_log_data(self, migration: Any, operation: str = "apply") -> dict[str, object]:  # noqa: ANN401
            # yoyo's own asks for a login name and a host name: a container's user may have none, a resolver be slow.
            return _log_entry(migration, operation)

    given = {
        name: str(value) for name, value in conninfo_to_dict(registry_url(database_url)).items() if value is not None
    }
    # Every part as the driver's own parser reads it: yoyo's knows neither sockets in the host nor service files.
    uri = DatabaseURI(
        scheme="postgresql+psycopg",
        username=None,
        password=None,
        hostname=None,
        port=None,
        database=given.pop("dbname", None),
        args={"application_name": "signal-worker db migrate"} | given,
    )
    with translated():
        backend = Backend(uri, _TABLE)
    with backend:
        with translated():
            backend.init_database()
            # We own the lock of all migrators, so a row here was left by one that was killed.
            backend.break_lock()
            backend.ensure_internal_schema_updated()
        yield backend


def _apply(backend: Any, migration: Any) -> None:  # noqa: ANN401 - yoyo has no types
    held = psycopg.errors.LockNotAvailable
    attempts = Retrying(
        retry=retry_if_exception_type(held),
        wait=wait_random(*_PAUSE_SECONDS),
        stop=stop_after_attempt(_TRIES),
        reraise=True,
    )
    try:
        attempts(backend.apply_one, migration)
    except held as error:
        raise RegistryUnavailable(
            f"{migration.id}: a transaction of somebody else's held a table it changes, at each of {_TRIES} tries of "
            f"{_TABLE_WAIT_MS} ms; nothing of the file was applied"
        ) from error
    except psycopg.OperationalError as error:
        raise RegistryUnavailable(f"{migration.id}: {error}") from error
    except psycopg.Error as error:
        raise MigrationFailed(f"{migration.id}: {error.diag.message_primary or error}") from error


def _log_entry(migration: Any, operation: str) -> dict[str, object]:  # noqa: ANN401 - yoyo has no types
    return {
        "id": str(uuid.uuid4()),
        "migration_id": migration.id,
        "migration_hash": migration.hash,
        "username": "signal-worker",
        "hostname": "",
        "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
        "operation": operation,
    }


def _files() -> Any:  # noqa: ANN401 - yoyo has no types
    from yoyo import read_migrations  # noqa: PLC0415

    return read_migrations(str(migrations_directory()))
