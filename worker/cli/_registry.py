"""What every verb about the registry begins and ends with: the database, its refusals as exit codes, JSON.

Owns: exit codes 1 (failed), 2 (wrong call), 3 (not found), 4 (conflict).
Must not know: what is asked of the registry.
Invariant: a refusal is one sentence on stderr, never a traceback.
"""

import dataclasses
import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from worker.cli._common import USAGE, refuse, settings_of
from worker.embedded import StackNotRunning, resolve_database_url
from worker.errors import (
    IllegalTransition,
    ImpossibleShare,
    InvalidRegistration,
    MigrationFailed,
    ReasonMissing,
    RegistryUnavailable,
    UnknownVersion,
    VersionExists,
    WorkerError,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from worker.registry.registry import Registry

FAILED, NOT_FOUND, CONFLICT = 1, 3, 4
_CODES: dict[type[WorkerError], int] = {
    RegistryUnavailable: FAILED,
    MigrationFailed: FAILED,
    InvalidRegistration: USAGE,
    ReasonMissing: USAGE,
    ImpossibleShare: USAGE,
    UnknownVersion: NOT_FOUND,
    IllegalTransition: CONFLICT,
    VersionExists: CONFLICT,
}


def database_url() -> str:
    """Return where the registry is, or end with a sentence."""
    settings = settings_of()
    try:
        return resolve_database_url(settings.database_url, settings.local_dir)
    except StackNotRunning as error:
        refuse(error)


@contextmanager
def refusals() -> Iterator[None]:
    """End with a sentence and its exit code where the registry refuses."""
    try:
        yield
    except WorkerError as error:
        refuse(error, code=_CODES.get(type(error), FAILED))


@contextmanager
def registry() -> Iterator["Registry"]:
    """Give the registry to one verb."""
    from worker.registry.registry import Registry

    with refusals(), Registry(database_url(), name="signal-worker models") as client:
        yield client


def operator() -> str | None:
    """Return the login name of who calls, or None where the system knows none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def print_json(value: "DataclassInstance | list[DataclassInstance] | None") -> None:
    """Print rows as JSON; times in ISO 8601."""
    rows = (
        [dataclasses.asdict(row) for row in value] if isinstance(value, list) else value and dataclasses.asdict(value)
    )
    typer.echo(json.dumps(rows, indent=2, default=_json_time))


def _json_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON spelling")
