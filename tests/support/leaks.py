"""What a test left behind: processes, connections, files, keys without an expiry.

Owns: what counts as left, and the sentence about it.
Must not know: fixtures, and what a test does.
Invariant: what was there before the test, or belongs to a longer-lived fixture, is never counted. Linux only, as /proc
is read; elsewhere nothing but files and keys is found.
"""

import contextlib
import gc
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.support.fork_server import fork_servers
from worker.embedded.processes import reap_all, wait_until
from worker.transport.client import text_of

#: Time for what is about to end: a killed process that its parent has not reaped, a socket whose peer has left.
_SETTLING_SECONDS = 5.0
#: joblib starts one beside a process that used its pool, for as long as that process lives.
_TRACKER = "resource_tracker"
_ROOT = Path(__file__).parents[2]
_PROC = Path("/proc")
#: Kept for ever: the positions that a gateway has reached, and which groups were reported to be behind.
_LASTING = re.compile(r"\w+:(gateway:.+:book:.+|janitor:behind)")


@dataclass(frozen=True, slots=True)
class Belongings:
    """What this test process has at one moment."""

    processes: frozenset[int]
    sockets: frozenset[str]
    files: frozenset[Path]

    @classmethod
    def now(cls) -> "Belongings":
        """Return what there is now."""
        servers = {server.pid for server in fork_servers()}
        children = {*_children(os.getpid())} - servers
        children = {pid for pid in children.union(*map(_children, servers)) if _TRACKER not in _command(pid)}
        return cls(
            frozenset(children),
            frozenset(_sockets()),
            frozenset(_files()),
        )

    def left(self, before: "Belongings") -> list[str]:
        """Return a sentence for each thing that was not there before."""
        processes = [f"process {pid}: {_command(pid)}" for pid in sorted(self.processes - before.processes)]
        sockets = sorted(self.sockets - before.sockets)
        files = [f"file {path}" for path in sorted(self.files - before.files)]
        return [*processes, *(f"connection {name}" for name in sockets), *files]


def left_since(before: Belongings) -> list[str]:
    """Return what a test left, once nothing of it is about to end."""

    def left() -> list[str]:
        reap_all()  # a process that was ended is a zombie until then
        return Belongings.now().left(before)

    if not left():
        return []
    gc.collect()  # what the traceback of an expected error refers to
    wait_until(lambda: not left(), _SETTLING_SECONDS)
    return left()


def lasting_keys(client: "redis.Redis", namespace: str) -> list[str]:
    """Return the keys of a namespace that would stay on the server for ever, streams apart, and delete all of them."""
    keys = client.keys(f"{namespace}:*")
    if not keys:
        return []
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.pttl(key)
            pipe.type(key)
        found = iter(pipe.execute())
    client.unlink(*keys)
    lasting = [
        text_of(key)
        for key, expiry, kind in zip(keys, found, found, strict=False)
        if expiry == -1 and kind != b"stream"
    ]
    return [f"key {key} without an expiry" for key in sorted(lasting) if not _LASTING.fullmatch(key)]


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            yield from map(int, (task / "children").read_text(encoding="ascii").split())


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "ended"


def _sockets() -> Iterator[str]:
    ours = {server.descriptor for server in fork_servers()}
    with contextlib.suppress(OSError):
        for descriptor in (_PROC / "self" / "fd").iterdir():
            with contextlib.suppress(OSError):
                if int(descriptor.name) in ours:
                    continue
                name = str(descriptor.readlink())
                if name.startswith("socket:"):
                    yield name


def _files() -> Iterator[Path]:
    for folder in {Path(tempfile.gettempdir()), _ROOT, Path.cwd()}:
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))
