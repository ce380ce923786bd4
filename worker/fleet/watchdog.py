"""The last resort of a worker that is to stop and does not.

Owns: how long leaving may take, and what happens to the entries in flight when it takes longer.
Must not know: why it takes long (a hung compute, a registry or a server that does not answer).
Invariant: after the time limit, or shortly after a second signal, the process ends; what it had read is claimable by
others then, not when its lease runs out.
"""

import os
import threading
from collections.abc import Callable

import structlog

from contracts import GROUP, StreamNames
from worker.errors import StreamUnavailable
from worker.service import Service
from worker.serving.intake import Intake
from worker.shutdown import Shutdown
from worker.transport.client import Client
from worker.transport.scripts import NackAll

#: Time beyond the limit in which the main thread nacks by itself, in seconds.
MARGIN_SECONDS = 1.0
#: Time after a second signal in which it does, in seconds.
FORCED_SECONDS = 2.0
#: Most entries that are nacked; far more than a batch.
_AT_ONCE = 1000

_log = structlog.get_logger()


class ShutdownWatchdog(Service):
    """Waits until the worker is to stop, then ends the process if it has not ended in time."""

    def __init__(
        self, nack_all: Callable[[], int], shutdown: Shutdown, *, end_process: Callable[[int], None] = os._exit
    ) -> None:
        """Take what nacks the entries in flight; it belongs to this thread from now on."""
        super().__init__("watchdog", shutdown)
        self._nack_all, self._end_process = nack_all, end_process
        self._left = threading.Event()

    def stop(self) -> None:
        """Note that the worker left by itself."""
        self._left.set()

    def serve(self) -> None:
        """Wait, and end the process where nothing else does."""
        while not self._shutdown.stopping.wait(0.5):
            if self._left.is_set():
                return
        if self._left_in_time():
            return
        _log.error("leaving_took_too_long", limit_seconds=self._shutdown.grace_seconds)
        try:
            _log.warning("entries_handed_back", entries=self._nack_all())
        except StreamUnavailable as error:
            _log.warning("entries_left_to_their_lease", reason=error.reason)
        self._end_process(1)

    def _left_in_time(self) -> bool:
        while self._shutdown.seconds_left() > 0 and not self._shutdown.forced.is_set():
            if self._left.wait(0.1):
                return True
        forced = self._shutdown.seconds_left() > 0
        self._shutdown.force()
        return self._left.wait(FORCED_SECONDS if forced else MARGIN_SECONDS)


class EntriesInFlight:
    """Nacks all that is pending under one consumer's name."""

    def __init__(self, commands: Client, names: StreamNames, worker: str, *, lease_ms: int, intake: Intake) -> None:
        """Take a connection that nobody else uses."""
        self._commands, self._names, self._worker = commands, names, worker
        self._lease_ms, self._intake = lease_ms, intake

    def __call__(self) -> int:
        """Return how many entries were nacked.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        return self._commands.run(
            NackAll(
                requests=self._names.requests,
                group=GROUP,
                consumer=self._worker,
                idle_ms=self._lease_ms,
                processing_id=self._intake.processing,
                limit=_AT_ONCE,
                heir=f"{self._worker}:handed-back",
            )
        )
