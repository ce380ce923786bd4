"""Both servers of a directory, as running processes.

Owns: finding and ending them together.
Must not know: how they are started, who owns them.
Invariant: what runs is read from the servers' own pid files and command lines, which no crash of ours makes untrue.
"""

import signal
from collections.abc import Collection
from pathlib import Path

import psutil

from worker.embedded import postgres, valkey
from worker.embedded.processes import end_all

_FINDERS = {"valkey": valkey.find_process, "postgres": postgres.find_process}
_END_SIGNALS: dict[str, tuple[signal.Signals, ...]] = {
    "valkey": valkey.END_SIGNALS,
    "postgres": postgres.END_SIGNALS,
}
NAMES = tuple(_FINDERS)


def find_servers(directory: Path) -> dict[str, psutil.Process]:
    """Return the running servers of a directory, by name."""
    found = {name: finder(directory) for name, finder in _FINDERS.items()}
    return {name: process for name, process in found.items() if process is not None}


def end_servers(directory: Path, *, only: Collection[int] | None = None) -> None:
    """End the servers of a directory, both at once.

    Args:
        directory: A stack's directory.
        only: Process ids to which this is confined, where newer servers must live on.
    """
    end_all(
        [
            (process, _END_SIGNALS[name])
            for name, process in find_servers(directory).items()
            if only is None or process.pid in only
        ]
    )
