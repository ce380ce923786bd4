"""How far a worker is on its way out.

Owns: the one value that every thread asks whether to go on, and how long what was read may still take.
Must not know: who asked for it, what is finished or nacked.
Invariant: it only moves forward: running, stopping until a deadline, forced.
"""

import threading
import time


class Shutdown:
    """Set by signals, control events and dying threads; read by all."""

    def __init__(self, grace_seconds: float) -> None:
        """Take the time that what was read has to be finished once the worker is to stop."""
        self.grace_seconds = grace_seconds
        self._deadline: float | None = None
        #: Nothing more is read; waits end at once.
        self.stopping = threading.Event()
        #: Someone asked for it, rather than a thread that died.
        self.draining = threading.Event()
        #: What is in flight is nacked instead of finished.
        self.forced = threading.Event()
        #: Control event that asked for it, if one did.
        self.control_id: str | None = None
        #: Name of a thread to what it died of.
        self.deaths: dict[str, Exception] = {}

    def request(self, control_id: str | None = None) -> None:
        """Ask the worker to leave once it has finished what it has time for."""
        self.control_id = self.control_id or control_id
        self.stop(draining=True)

    def died(self, thread: str, error: Exception) -> None:
        """Stop the worker since a thread of it died."""
        self.deaths[thread] = error
        self.stop()

    def stop(self, *, draining: bool = False) -> None:
        """Stop the worker, asked for or not."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.grace_seconds
        if draining:
            self.draining.set()
        self.stopping.set()

    def force(self) -> None:
        """Let what is in flight be nacked."""
        self.forced.set()

    def seconds_left(self) -> float:
        """Return the time that is left to finish what was read; the whole of it while the worker runs."""
        return self.grace_seconds if self._deadline is None else self._deadline - time.monotonic()

    def has_time_for(self, seconds: float) -> bool:
        """Return whether something that takes this long may still be begun."""
        return not self.forced.is_set() and (not self.stopping.is_set() or seconds < self.seconds_left())
