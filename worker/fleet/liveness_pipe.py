"""The pipe between a worker and the supervisor that started it.

Owns: what a worker writes into the supervisor's pipe, and what it does when nobody reads it any more.
Must not know: how the supervisor acts on it; servers.
Invariant: a supervised worker never outlives its supervisor, however that one dies.
"""

import os
import threading
from typing import TYPE_CHECKING

import structlog

from worker.service import Service
from worker.shutdown import Shutdown

if TYPE_CHECKING:  # the supervisor reads the same bytes and needs none of what a worker needs
    from worker.fleet.health import Liveness

#: Pause between two reports, in seconds.
INTERVAL_SECONDS = 1.0
ALIVE, HUNG = b"+", b"-"

_log = structlog.get_logger()


class LivenessPipe(Service):
    """Reports once a second whether the worker lives; the thread that computes nothing and waits for no server."""

    def __init__(self, descriptor: int, liveness: "Liveness", shutdown: Shutdown) -> None:
        """Take the pipe's end for writing."""
        super().__init__("liveness_pipe", shutdown)
        self._descriptor, self._liveness = descriptor, liveness
        self._end = threading.Event()
        # A supervisor that is stopped reads nothing; its full pipe must not stop this thread too.
        os.set_blocking(descriptor, False)

    def serve(self) -> None:
        """Report until stopped; a worker whose supervisor is gone leaves."""
        hung = False
        while True:
            reasons = self._liveness.reasons()
            if reasons and not hung:
                _log.error("worker_hung", reasons=[reason.sentence for reason in reasons])
            hung = bool(reasons)
            try:
                os.write(self._descriptor, HUNG if hung else ALIVE)
            except BlockingIOError:
                pass
            except OSError:
                # Where the kernel sends no signal, or sent it before it was asked to.
                _log.warning("supervisor_gone")
                self._shutdown.request()
                return
            if self._end.wait(INTERVAL_SECONDS):
                return

    def stop(self) -> None:
        """Report no more."""
        self._end.set()
