"""The threads of a worker.

Owns: how a thread starts, ends and dies.
Must not know: what any thread does.
Invariant: a thread that dies keeps its error and stops the worker; nothing that it raises is lost.
"""

import threading
from abc import abstractmethod

import structlog

from worker.errors import StreamUnavailable
from worker.shutdown import Shutdown

_log = structlog.get_logger()


class Service(threading.Thread):
    """One thread of a worker: it serves until the worker stops, or dies of what it raises."""

    def __init__(self, name: str, shutdown: Shutdown) -> None:
        """Take the thread's name in logs and reasons."""
        super().__init__(name=name, daemon=True)
        self._shutdown = shutdown
        #: What it died of; None: it lives, or ended as it should.
        self.error: Exception | None = None

    @abstractmethod
    def serve(self) -> None:
        """Work until the worker stops."""

    def stop(self) -> None:
        """End this thread; most end by the worker's `Shutdown` and need nothing more."""

    def run(self) -> None:
        """Serve; an error ends the worker, unless it is an outage while the worker stops anyway."""
        try:
            self.serve()
        except Exception as error:  # noqa: BLE001 - a thread's loop
            if isinstance(error, StreamUnavailable) and self._shutdown.stopping.is_set():
                return
            _log.exception(f"{self.name}_thread_died")
            self.error = error
            self._shutdown.died(self.name, error)
