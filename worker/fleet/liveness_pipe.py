"""The line between a worker and the supervisor that started it.

Owns: what a worker writes into the supervisor's pipe, and what it does when nobody reads it any more.
Must not know: how the supervisor acts on it; servers.
Invariant: a supervised worker never outlives its supervisor, however that one dies.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:  # the supervisor speaks the same words and needs none of what a worker needs
    from worker.fleet.health import Liveness

#: Pause between two words, in seconds.
WORD_SECONDS = 1.0
ALIVE, HUNG = b"+", b"-"

_PR_SET_PDEATHSIG = 1
_log = structlog.get_logger()


class Lifeline(threading.Thread):
    """Says once a second whether the worker lives; the thread that computes nothing and waits for no server."""

    def __init__(self, descriptor: int, liveness: "Liveness", on_orphaned: Callable[[], None]) -> None:
        """Take the pipe's end for writing."""
        super().__init__(name="lifeline", daemon=True)
        self._descriptor, self._liveness, self._on_orphaned = descriptor, liveness, on_orphaned
        self._end = threading.Event()
        # A supervisor that is stopped reads nothing; its full pipe must not stop this thread too.
        os.set_blocking(descriptor, False)

    def run(self) -> None:
        """Speak until ended or alone."""
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
                self._on_orphaned()
                return
            if self._end.wait(WORD_SECONDS):
                return

    def end(self) -> None:
        """Say no more."""
        self._end.set()


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when the thread that started it ends.

    Killed, not told to stop: a hung worker would not hear it, and a killed one loses nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
