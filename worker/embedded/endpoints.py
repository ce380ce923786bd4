"""Where the two servers are.

Owns: the choice between the URLs that were given and the running local servers; the file that names the latter.
Must not know: how servers are started.
Invariant: nothing is ever started here, and a URL that was given always wins.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.embedded import postgres, valkey
from worker.embedded.errors import StackError, StackNotRunning
from worker.embedded.files import write_private

FILE_NAME = "endpoints.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The two servers a command talks to; both URLs hold a password."""

    #: `redis://` URL of the stream server.
    redis_url: str
    #: `postgresql://` URL of the registry's database.
    database_url: str


def resolve_endpoints(redis_url: str | None, database_url: str | None, local_dir: Path) -> Endpoints:
    """Return the servers of this environment: each URL that is given, else the running local server.

    Raises:
        StackNotRunning: A URL is missing and the local servers are not up.
    """
    return Endpoints(
        redis_url=resolve_redis_url(redis_url, local_dir),
        database_url=resolve_database_url(database_url, local_dir),
    )


def resolve_redis_url(redis_url: str | None, local_dir: Path) -> str:
    """Return the stream server's URL, for a command that needs no database.

    Raises:
        StackNotRunning: The URL is missing and the local server is not up.
    """
    if redis_url:
        return redis_url
    local = read_endpoints(local_dir)
    if local is None or valkey.find_process(local_dir.resolve()) is None:
        raise StackNotRunning("REDIS_URL", local_dir.resolve())
    return local.redis_url


def resolve_database_url(database_url: str | None, local_dir: Path) -> str:
    """Return the registry's URL, for a command that needs no stream server.

    Raises:
        StackNotRunning: The URL is missing and the local server is not up.
    """
    if database_url:
        return database_url
    local = read_endpoints(local_dir)
    if local is None or postgres.find_process(local_dir.resolve()) is None:
        raise StackNotRunning("DATABASE_URL", local_dir.resolve())
    return local.database_url


def read_endpoints(directory: Path) -> Endpoints | None:
    """Return what the last start wrote, whether or not the servers still run; None before it and after a stop.

    Raises:
        StackError: The file belongs to another user, or is not ours.
    """
    path = directory / FILE_NAME
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return Endpoints(redis_url=written["redis_url"], database_url=written["database_url"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise StackError(f"{path} belongs to another user: set REDIS_URL and DATABASE_URL") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(f"{path} is not a file of local servers: remove it, then `signal-worker local up`") from error


def write_endpoints(directory: Path, endpoints: Endpoints, *, detached: bool) -> None:
    """Name the running servers, readable by this user alone."""
    written = asdict(endpoints) | {"detached": detached}
    write_private(directory / FILE_NAME, json.dumps(written, indent=2) + "\n")


def are_detached(directory: Path) -> bool:
    """Return whether the last start was meant to outlive its process."""
    try:
        return json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))["detached"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remove_endpoints(directory: Path) -> None:
    """Note that nothing runs."""
    (directory / FILE_NAME).unlink(missing_ok=True)
