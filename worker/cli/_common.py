"""What every verb begins and ends with: settings and endpoints, one sentence and an exit code where it cannot go on.

Owns: the exit codes, the one map from error to exit code, options that many verbs have, JSON on stdout.
Must not know: what a verb does.
Invariant: a refusal is one sentence on stderr, never a traceback; with `--json`, stdout is one JSON document.
"""

import dataclasses
import getpass
import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self

import typer
from typer.core import TyperGroup

from worker.embedded import (
    Endpoints,
    StackError,
    StackNotRunning,
    resolve_database_url,
    resolve_endpoints,
    resolve_redis_url,
)
from worker.errors import (
    IllegalTransition,
    ImpossibleShare,
    InvalidRegistration,
    ReasonMissing,
    RegistryUnavailable,
    RequestTimeout,
    SettingsError,
    StreamUnavailable,
    UnknownVersion,
    VersionExists,
    WorkerError,
)
from worker.settings import Settings, load_settings


class ExitCode(IntEnum):
    """How a verb ended, for scripts; the members' documentation is the table of docs/cli.md."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> Self:
        """Make a number that carries its meaning."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    OK = 0, "done"
    FAILED = 1, "failed, or the answer is no: something differs, is missing, or nobody is there"
    USAGE = 2, "wrong call, wrong setting, or no URL is set and no embedded server runs"
    NOT_FOUND = 3, "what was named does not exist, or cannot be computed again"
    CONFLICT = 4, "the registry's state forbids it, or changed meanwhile"
    CRITERION = 5, "a criterion does not hold: nothing was promoted, or the prediction drifted"
    REJECTED = 6, "the request was answered with a rejection"
    TIMEOUT = 7, "no answer within --timeout"
    UNAVAILABLE = 8, "a server cannot be reached, or refuses commands"


#: The first class that an error is an instance of decides.
_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (StreamUnavailable, ExitCode.UNAVAILABLE),
    (RegistryUnavailable, ExitCode.UNAVAILABLE),
    (RequestTimeout, ExitCode.TIMEOUT),
    (SettingsError, ExitCode.USAGE),
    (StackNotRunning, ExitCode.USAGE),
    (StackError, ExitCode.FAILED),
    (InvalidRegistration, ExitCode.USAGE),
    (ReasonMissing, ExitCode.USAGE),
    (ImpossibleShare, ExitCode.USAGE),
    (UnknownVersion, ExitCode.NOT_FOUND),
    (IllegalTransition, ExitCode.CONFLICT),
    (VersionExists, ExitCode.CONFLICT),
    (WorkerError, ExitCode.FAILED),
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Namespace = Annotated[str | None, typer.Option(help="Prefix of every key on the server.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the snapshots; default SIGNALS_DATA_DIR.")]


class VerbGroup(TyperGroup):
    """A group of verbs in which an error of an edge becomes one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the context's class is private in some versions of typer
        """Run the verb that was named."""
        try:
            return super().invoke(ctx)
        except (WorkerError, StackError) as error:
            refuse(error, code=code_of(error))


def code_of(error: Exception) -> ExitCode:
    """Return the exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def refuse(sentence: object, code: ExitCode = ExitCode.USAGE) -> NoReturn:
    """Print one sentence on stderr and end."""
    warn(sentence)
    raise typer.Exit(code)


def warn(sentence: object) -> None:
    """Print one sentence on stderr."""
    typer.echo(f"signal-worker: {' '.join(str(sentence).split())}", err=True)


def settings_of(**overrides: object) -> Settings:
    """Return the settings.

    Raises:
        SettingsError: An unknown name or an impossible value.
    """
    return load_settings(**overrides)


def endpoints_of(settings: Settings) -> Endpoints:
    """Return where the servers are.

    Raises:
        StackNotRunning: No URL is set and no embedded server runs.
    """
    return resolve_endpoints(settings.redis_url, settings.database_url, settings.local_dir)


def redis_url_of(settings: Settings) -> str:
    """Return where the stream server is, for a verb that needs no database.

    Raises:
        StackNotRunning: No URL is set and no embedded server runs.
    """
    return resolve_redis_url(settings.redis_url, settings.local_dir)


def database_url_of(settings: Settings) -> str:
    """Return where the registry is, for a verb that needs no stream server.

    Raises:
        StackNotRunning: No URL is set and no embedded server runs.
    """
    return resolve_database_url(settings.database_url, settings.local_dir)


def operator() -> str | None:
    """Return the login name of who calls, or None where the system knows none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def print_json(value: object) -> None:
    """Print a value as one JSON document: times in ISO 8601 and UTC, what is not a number as null."""
    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a value in the types that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, StrEnum | date | Path | Decimal):
        return str(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_none=True)
    return value
