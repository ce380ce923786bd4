"""The embedded stack: a Valkey and a PostgreSQL of one directory.

Owns: starting and stopping both, and to whom they belong.
Must not know: streams, models, migrations.
Invariant: an attached stack ends with its process, however that dies; a detached one stays until it is stopped; never
do two owners serve one directory.
"""

import atexit
import contextlib
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from worker.embedded import postgres, valkey, watchdog
from worker.embedded.accounts import unprivileged_account
from worker.embedded.endpoints import Endpoints, are_detached, read_endpoints, remove_endpoints, write_endpoints
from worker.embedded.errors import StackBusy, StackError
from worker.embedded.files import Lock, lock_holder, locked, take_lock
from worker.embedded.processes import can_bind_to_parent
from worker.embedded.servers import NAMES, end_servers, find_servers
from worker.embedded.starting import StartPlan, bring_up, log_file

_OWNER = "owner"
_OWN_NAMES = ("valkey", "valkey.log", "postgres.log", "identity.json", "endpoints.json", _OWNER, "lock")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One server as it is now."""

    name: str
    #: None: it does not run.
    pid: int | None
    #: Resident memory of the server and its children; pages they share count once.
    memory_bytes: int
    data: Path
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """The stack as it is now."""

    directory: Path
    #: Whether both servers run.
    running: bool
    #: Id of the process with which the servers end; None: they stay until stopped.
    owner: str | None
    endpoints: Endpoints | None
    servers: tuple[ServerStatus, ...]


class LocalStack:
    """Both servers of one directory; as a context manager it yields their endpoints and stops them at the end.

    An attached stack whose directory is already served by a detached one borrows it: nothing is started or stopped.
    """

    def __init__(
        self,
        directory: Path,
        *,
        detached: bool = False,
        fsync: bool = True,
        valkey_bin: Path | None = None,
        postgres_bin: Path | None = None,
    ) -> None:
        """Take the directory; nothing is started yet.

        Args:
            directory: Contains data, logs and `endpoints.json`; made if it is not there.
            detached: Whether the servers outlive this process.
            fsync: Whether PostgreSQL's data survive a power cut; a killed server loses nothing either way.
            valkey_bin: Folder of another `valkey-server` or `redis-server`.
            postgres_bin: Folder of another PostgreSQL's `initdb` and `postgres`.
        """
        self.directory = directory.resolve()
        self._detached, self._fsync = detached, fsync
        self._valkey_bin, self._postgres_bin = valkey_bin, postgres_bin
        self._ownership: Lock | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Endpoints:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if not self._detached:
            self.stop()

    def start(self) -> Endpoints:
        """Return the endpoints once both servers take connections; a server that runs already is left alone.

        Raises:
            StackBusy: The servers belong to another process.
            StackFailed: A server did not start.
            BinariesMissing: The wheels are not installed.
        """
        _make(self.directory)
        with locked(self.directory / "lock"):
            if self._ownership is not None and self._ownership.held:
                return self._bring_up(keep=True)
            return self._start()

    def stop(self) -> bool:
        """Stop the servers and return whether any ran; an attached stack stops only what it started.

        Raises:
            StackBusy: The servers belong to another process.
        """
        ownership = self._ownership
        if not self.directory.is_dir() or not (self._detached or (ownership and ownership.held)):
            return False
        with locked(self.directory / "lock"):
            ownership = ownership or self._claim()
            self._dismiss_watchdog()
            ran = bool(find_servers(self.directory))
            end_servers(self.directory)
            remove_endpoints(self.directory)
            ownership.release()
            self._ownership = None
            atexit.unregister(self.stop)
            return ran

    def wipe(self) -> None:
        """Remove all that the stack wrote, its data too, also where PostgreSQL's user keeps them outside.

        Raises:
            StackError: A server runs.
        """
        if not self.directory.is_dir():
            return
        with locked(self.directory / "lock"):
            if find_servers(self.directory):
                raise StackError(f"the local servers of {self.directory} run: `signal-worker local down` first")
            postgres.remove(self.directory)
            for name in _OWN_NAMES:
                path = self.directory / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.directory.rmdir()  # only if nothing of others is there

    def status(self) -> StackStatus:
        """Return what runs now."""
        found = find_servers(self.directory)
        return StackStatus(
            directory=self.directory,
            running=len(found) == len(NAMES),
            owner=lock_holder(self.directory / _OWNER),
            endpoints=read_endpoints(self.directory) if found else None,
            servers=tuple(_server_status(self.directory, name, found.get(name)) for name in NAMES),
        )

    def _start(self) -> Endpoints:
        ownership = self._claim()
        try:
            detached = are_detached(self.directory)
            if detached and not self._detached and len(find_servers(self.directory)) == len(NAMES):
                return self._borrow(ownership)
            endpoints = self._bring_up(keep=detached and self._detached)
        except BaseException:
            ownership.release()
            raise
        if self._detached:
            ownership.release()
        else:
            self._ownership = ownership
            atexit.register(self.stop)
        return endpoints

    def _claim(self) -> Lock:
        ownership = take_lock(self.directory / _OWNER)
        if ownership is None:
            raise StackBusy(self.directory, lock_holder(self.directory / _OWNER) or "unknown")
        return ownership

    def _borrow(self, ownership: Lock) -> Endpoints:
        ownership.release()
        endpoints = read_endpoints(self.directory)
        if endpoints is None:
            raise StackError(f"{self.directory} lost its endpoints.json: `signal-worker local down`, then `up`")
        return endpoints

    def _bring_up(self, *, keep: bool) -> Endpoints:
        if not keep:
            end_servers(self.directory)  # what a dead owner left behind is still ending, or was never asked to
        bound = not self._detached and can_bind_to_parent()
        if not self._detached and not bound and self._watchdog is None:
            self._watchdog = watchdog.spawn(self.directory)
        plan = StartPlan(
            directory=self.directory,
            bound=bound,
            announce=partial(watchdog.guard, self._watchdog) if self._watchdog else None,
            fsync=self._fsync,
            valkey_bin=self._valkey_bin,
            postgres_bin=self._postgres_bin,
        )
        try:
            endpoints = bring_up(plan, frozenset(NAMES) - find_servers(self.directory).keys())
        except BaseException:
            end_servers(self.directory)
            self._dismiss_watchdog()
            raise
        write_endpoints(self.directory, endpoints, detached=self._detached)
        return endpoints

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is not None:
            watchdog.dismiss(self._watchdog)
            self._watchdog = None


def _make(directory: Path) -> None:
    if not directory.exists():
        directory.mkdir(parents=True)
        # Ours, so open for passage whatever the umask: PostgreSQL's user must get through to its own folder.
        directory.chmod(0o711)


def _server_status(directory: Path, name: str, process: psutil.Process | None) -> ServerStatus:
    data = {
        "valkey": valkey.home(directory),
        "postgres": postgres.home(directory, unprivileged_account()) / "data",
    }[name]
    return ServerStatus(
        name=name,
        pid=process.pid if process else None,
        memory_bytes=_memory(process) if process else 0,
        data=data,
        log=log_file(directory, name),
    )


def _memory(process: psutil.Process) -> int:
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += getattr(member.memory_full_info(), "pss", 0) or member.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
