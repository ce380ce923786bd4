"""The embedded PostgreSQL.

Owns: its cluster (made once), command line, process and readiness.
Must not know: Valkey, stacks, migrations.
Invariant: it never runs as root; root hands it to `nobody`, whose files are where `nobody` can reach them.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from worker.embedded.accounts import Account, can_enter, unprivileged_account
from worker.embedded.binaries import reachable_binaries
from worker.embedded.errors import StackFailed
from worker.embedded.processes import account_options, bind_to_parent, clean_environment, find

PROGRAM = "postgres"
#: Both the superuser and the database.
NAME = "signals"
#: SIGINT is the fast shutdown: it drops the clients and writes everything out.
END_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
#: Where root keeps clusters of directories that `nobody` cannot reach, such as those below a 0700 home.
OUTSIDE = Path("/var/lib/signal-worker")

_BUILTIN_LOCALE_SINCE = 17
_IO_METHOD_SINCE = 18
#: Lines of `postmaster.pid`: process id, folder, start time, port, socket folder, address, shared memory, status.
_STATUS_LINE = 7
_PORT_LINE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster on disk and the programs that serve it."""

    home: Path
    #: Folder of `initdb` and `postgres`.
    programs: Path
    major: int
    #: None: this user.
    account: Account | None
    #: Off only where a power cut may cost the data, as in tests; a killed server loses nothing either way.
    fsync: bool

    @property
    def data(self) -> Path:
        """The folder that marks the server's process on its command line."""
        return self.home / "data"

    def initialise(self, password: str) -> bool:
        """Make the cluster with its database; it appears under its name only when complete, never by halves.

        Returns whether it had to be made.

        Raises:
            StackFailed: `initdb` refused, with the end of its output.
        """
        if self.data.exists():
            return False
        unfinished, secret = self.home / "data.unfinished", self.home / "password"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self.account is not None:
            os.chown(unfinished, self.account.uid, self.account.gid)
        try:
            self._hand_over(secret, password)
            self._run(self._initdb(unfinished, secret))
        finally:
            secret.unlink(missing_ok=True)
        self._execute(unfinished, f"CREATE DATABASE {NAME}")
        unfinished.rename(self.data)
        return True

    def change_password(self, password: str) -> None:
        """Give the superuser another password, while the server does not run."""
        self._execute(self.data, f"ALTER ROLE {NAME} PASSWORD '{password}'")

    def command(self, port: int) -> tuple[str, ...]:
        """Return the server's command line, on loopback alone."""
        options = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            # In the data folder: a killed server would leave its segments in /dev/shm, small in containers besides.
            "dynamic_shared_memory_type": "mmap",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
        }
        if self.major >= _IO_METHOD_SINCE:
            options["io_method"] = "sync"  # spares three processes that a small database never needs
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return (str(self.programs / PROGRAM), "-D", str(self.data), *flags)

    def clear_stale_pid(self) -> None:
        """Remove what a crash left, since PostgreSQL would refuse where its old process id is someone else's now."""
        if _find(self.data) is None:
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def answers(self, port: int) -> bool:
        """Return whether the server states that it takes connections on the port."""
        lines = _pid_lines(self.data)
        if len(lines) <= _STATUS_LINE or lines[_STATUS_LINE].strip() != "ready":
            return False
        return lines[_PORT_LINE].strip() == str(port) and _find(self.data) is not None

    def _hand_over(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if self.account is not None:
                os.fchown(descriptor, self.account.uid, self.account.gid)

    def _initdb(self, folder: Path, secret: Path) -> list[str]:
        # Not from the environment: without LANG, lower('Ä') would stay as it is.
        locale = ["--locale=C"]
        if self.major >= _BUILTIN_LOCALE_SINCE:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        fixed = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-sync", "--no-instructions"]
        return [
            str(self.programs / "initdb"),
            "-D",
            str(folder),
            "-U",
            NAME,
            f"--pwfile={secret}",
            *fixed,
            *locale,
        ]

    def _execute(self, data: Path, statement: str) -> None:
        # PostgreSQL in one process, without a port: nobody else can be there yet.
        command = [str(self.programs / PROGRAM), "--single", "-D", str(data), "-c", "fsync=off", "template1"]
        self._run(command, statement + "\n")

    def _run(self, command: list[str], text: str = "") -> None:
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=clean_environment(),
            check=False,
            preexec_fn=bind_to_parent(signal.SIGKILL),
            **account_options(self.account),
        )
        output = done.stdout.decode(errors="replace").strip()
        if done.returncode != 0 or "ERROR:" in output:
            raise StackFailed(f"{Path(command[0]).name} in {self.home} failed: {output[-500:]}")


def open_cluster(directory: Path, *, programs: Path | None = None, fsync: bool = True) -> Cluster:
    """Return the cluster of a stack's directory, with programs that its user can run.

    Raises:
        BinariesMissing: No PostgreSQL is installed or named.
        StackFailed: The programs do not run.
    """
    account = unprivileged_account()
    folder = home(directory, account)
    for ours in (folder.parent, folder):
        if not ours.exists():
            ours.mkdir()
            ours.chmod(0o711)  # whatever the umask: the account must pass
    runnable = reachable_binaries(programs, folder, account)
    return Cluster(home=folder, programs=runnable, major=_major(runnable, account), account=account, fsync=fsync)


def home(directory: Path, account: Account | None) -> Path:
    """Return where the cluster of a stack's directory is: inside, unless its account cannot enter there."""
    existing = directory
    while not existing.exists():
        existing = existing.parent
    if account is None or can_enter(existing, account):
        return directory / "postgres"
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    return OUTSIDE / f"{directory.parent.name}-{digest}"


def remove(directory: Path) -> None:
    """Remove the cluster of a stack's directory for good."""
    folder = home(directory, unprivileged_account())
    if folder.exists():
        shutil.rmtree(folder)
    if folder.parent == OUTSIDE and OUTSIDE.exists() and not any(OUTSIDE.iterdir()):
        OUTSIDE.rmdir()


def find_process(directory: Path) -> psutil.Process | None:
    """Return the running server of a stack's directory."""
    return _find(home(directory, unprivileged_account()) / "data")


def _find(data: Path) -> psutil.Process | None:
    lines = _pid_lines(data)
    pid = int(lines[0]) if lines and lines[0].strip().isdigit() else None
    return find(pid, (PROGRAM, "-D", str(data)))


def _pid_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _major(programs: Path, account: Account | None) -> int:
    try:
        output = subprocess.run(
            [str(programs / PROGRAM), "--version"],
            capture_output=True,
            cwd="/",
            env=clean_environment(),
            check=True,
            **account_options(account),
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise StackFailed(f"{programs / PROGRAM} does not run: {error}") from error
    found = re.search(rb"(\d+)", output.stdout)
    if found is None:
        raise StackFailed(f"{programs / PROGRAM} reports no version: {output.stdout!r}")
    return int(found.group(1))
