"""Files of the embedded stack that others must not read, and the lock around starting and stopping.

Owns: private files written whole or not at all, locks that the kernel releases with their process.
Must not know: what the files contain.
Invariant: no reader ever sees half a file, and no lock outlives its process.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.embedded.errors import StackError

#: Time a start or stop waits for another one of the same directory, in seconds.
LOCK_SECONDS = 60.0


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only this user can read."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep out every other start and stop of the same directory.

    Raises:
        StackError: Another one took longer than a minute.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while (lock := take_lock(path)) is None:
        if time.monotonic() > deadline:
            raise StackError(f"{path} was locked by another start or stop for {LOCK_SECONDS:g} s")
        time.sleep(0.01)
    try:
        yield
    finally:
        lock.release()


class Lock:
    """A file's lock, held until it is released or its process ends, however that ends."""

    def __init__(self, descriptor: int) -> None:
        """Take the open file that has the lock."""
        self._descriptor = descriptor
        self._pid = os.getpid()

    @property
    def held(self) -> bool:
        """Whether this very process holds it; a forked child does not."""
        return self._descriptor >= 0 and self._pid == os.getpid()

    def release(self) -> None:
        """Release it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def take_lock(path: Path) -> Lock | None:
    """Return the file's lock with our process id written into the file; None where another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return Lock(descriptor)


def lock_holder(path: Path) -> str | None:
    """Return the process id of the lock's holder; None where nobody has it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return path.read_text(encoding="utf-8")
