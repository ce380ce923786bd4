"""What other workers serve, as their heartbeats say.

Owns: the question whether a version that is refused here serves elsewhere.
Must not know: why it is refused here, what follows.
Invariant: a worker is no witness to itself; a heartbeat that cannot be read bears no witness.
"""

from collections.abc import Iterator

from contracts import ContractError, Heartbeat, StreamNames
from contracts.codec import decode
from worker.transport.client import Client, say, translated


class Witnesses:
    """The other living workers; not safe to share between threads."""

    def __init__(self, commands: Client, names: StreamNames, worker: str) -> None:
        """Take the connection of the thread that asks, and the name of the worker that does."""
        self._commands, self._names, self._worker = commands, names, worker

    def serve(self, strategy: str, version: str) -> bool:
        """Return whether another living worker has loaded a version, as the active one or as a candidate.

        Raises:
            StreamUnavailable: The server is away.
        """
        return any((strategy, version) in _loaded(beat) for beat in self._beats() if beat.worker != self._worker)

    def _beats(self) -> Iterator[Heartbeat]:
        with translated():
            keys = list(self._commands.scan_iter(match=self._names.worker("*"), count=1000))
        for key in keys:
            with translated():
                flat = say(self._commands, "HGETALL", key)
            try:
                yield decode(Heartbeat, tuple(flat.items()))
            except ContractError:
                continue  # of another release, written by hand, or gone meanwhile


def _loaded(beat: Heartbeat) -> set[tuple[str, str]]:
    candidates = {(one.strategy, one.version) for one in beat.candidates if one.since is not None}
    return candidates | {(one.strategy, one.version) for one in beat.serving}
