"""The threads of a worker.

Owns: how a thread starts, ends and dies.
Must not know: what any thread does.
Invariant: a thread that dies keeps its error and stops the worker; nothing that it raises is lost.
"""

import threading
from abc import ABC, abstractmethod

import structlog

from worker.errors import StreamUnavailable
from worker.shutdown import Shutdown

_log = structlog.get_logger()


class Service(ABC):
    """One thread of a worker: it serves until the worker stops, or dies of what it raises.

    It has a thread and is none: the private names of `threading.Thread` differ between versions of Python, and a method
    of the same name would replace them or be replaced.
    """

    def __init__(self, name: str, shutdown: Shutdown) -> None:
        """Take the thread's name in logs and reasons."""
        self.name = name
        self._shutdown = shutdown
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)
        #: What it died of; None: it lives, or ended as it should.
        self.error: Exception | None = None

    def start(self) -> None:
        """Begin to serve, once."""
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, at most for a time in seconds."""
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Return whether the thread serves."""
        return self._thread.is_alive()

    @abstractmethod
    def serve(self) -> None:
        """Work until the worker stops."""

    def stop(self) -> None:  # noqa: B027 - most services need nothing more than the Shutdown
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
