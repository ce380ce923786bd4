"""What stays the same of a stack from one start to the next.

Owns: ports and passwords of a directory, in a file of this user alone.
Must not know: servers, processes.
Invariant: a URL that was printed once keeps working, unless somebody else took the port meanwhile.
"""

import json
import secrets
import socket
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Self

from worker.embedded.files import write_private

FILE_NAME = "identity.json"

#: Below what kernels give to outgoing connections (Linux from 32768, macOS from 49152): a port of theirs would be taken
#: by anybody's connection while our server is down, and even a client of ours could be connected to itself there.
PORTS = range(20_000, 32_768)
_TRIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class StackIdentity:
    """Ports and passwords."""

    valkey_port: int
    postgres_port: int
    valkey_password: str
    postgres_password: str

    @classmethod
    def make(cls) -> Self:
        """Return free ports and fresh passwords."""
        return cls(
            valkey_port=free_port(),
            postgres_port=free_port(),
            valkey_password=secrets.token_hex(16),
            postgres_password=secrets.token_hex(16),
        )

    def with_free_port(self, server: str) -> Self:
        """Return the identity with that server on its old port if it is free, else on a new one."""
        if server == "valkey":
            return replace(self, valkey_port=free_port(self.valkey_port))
        return replace(self, postgres_port=free_port(self.postgres_port))


def read_identity(directory: Path) -> StackIdentity | None:
    """Return the directory's identity; None where it has none, or one that no start wrote."""
    try:
        return StackIdentity(**json.loads((directory / FILE_NAME).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_identity(directory: Path, identity: StackIdentity) -> None:
    """Keep the identity for the next start."""
    write_private(directory / FILE_NAME, json.dumps(asdict(identity), indent=2) + "\n")


def free_port(preferred: int = 0) -> int:
    """Return a loopback port that nobody listens on: the preferred one if it is free, else one of `PORTS`.

    Another process may take it before our server does; whoever starts the server tries again then.
    """
    tried = (secrets.choice(PORTS) for _ in range(_TRIES))
    return next(port for port in map(_bindable, chain([preferred] if preferred else [], tried, [0])) if port)


def _bindable(port: int) -> int:
    """Return the port, the kernel's choice for 0, or 0 if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return int(probe.getsockname()[1])
