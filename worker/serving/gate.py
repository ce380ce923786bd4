"""Whether this worker reads requests just now.

Owns: the one place where reading stops and begins again; announcing each change once.
Must not know: how entries are read.
Invariant: a worker reads only while a proven bundle of each strategy it is configured for and a snapshot serve here;
what it leaves alone others read, or it waits and is visible as the group's lag, and its deadline is kept.
"""

import threading
import time
from collections.abc import Callable

import structlog

from contracts import FleetEventType
from worker.events import Events
from worker.retry import RetryPolicy
from worker.serving.deadlines import Deadlines
from worker.serving.peers import Peers
from worker.serving.slots import Slots

#: Seconds between two looks for requests whose deadline passed unread.
DEADLINES_SECONDS = 1.0

_log = structlog.get_logger()


class Gate:
    """Belongs to the consumer's thread, as do its connections."""

    def __init__(
        self,
        slots: Slots,
        paused: threading.Event,
        events: Events,
        deadlines: Deadlines,
        peers: Peers,
        *,
        retry: RetryPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take every part from the composition root."""
        self._slots, self._paused, self._events = slots, paused, events
        self._deadlines, self._peers, self._retry, self._clock = deadlines, peers, retry, clock
        #: Why nothing is read, as announced last.
        self._reason = ""
        self._next_look = 0.0

    def open(self) -> bool:
        """Return whether to read; announce that it changed, and keep the deadlines of what nobody reads."""
        reason = self._slots.unable()
        self._announce(reason)
        if reason and self._clock() >= self._next_look:
            self._next_look = self._clock() + DEADLINES_SECONDS
            if not self._peers.serve():
                self._retry.call(self._deadlines.sweep)
        return not reason and not self._paused.is_set()

    def _announce(self, reason: str) -> None:
        if bool(reason) != bool(self._reason):
            kind = FleetEventType.UNREADY if reason else FleetEventType.READY
            self._events.emit(kind, reason=reason[:2000] or None)
        elif reason != self._reason:
            _log.info("still_unready", reason=reason)
        self._reason = reason
