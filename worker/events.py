"""What this worker did, appended to the events stream.

Owns: appending to the events stream.
Must not know: why things happened.
Invariant: an event that cannot be appended is logged and forgotten; emitting never stops the work.
"""

import structlog

from contracts import FleetEvent, FleetEventType, StreamNames
from contracts.codec import encode
from worker.clock import utc_now
from worker.errors import StreamUnavailable
from worker.transport.client import Client

_log = structlog.get_logger()


class Events:
    """The events of one worker; not safe to share between threads."""

    def __init__(self, commands: Client, names: StreamNames, worker: str) -> None:
        """Take the connection of the thread that emits."""
        self._commands, self._names, self._worker = commands, names, worker

    def emit(self, kind: FleetEventType, **facts: str | float | None) -> bool:
        """Append one event, and return whether the server took it."""
        event = FleetEvent(type=kind, worker=self._worker, at=utc_now(), **facts)
        lost: StreamUnavailable | None = None
        try:
            # Not cut here: a length knows nothing of groups. The janitor cuts by age.
            self._commands.xadd(self._names.events, encode(event))  # type: ignore[arg-type]  # invariant dict
        except StreamUnavailable as error:
            lost = error
        # After the entry: whoever reads the log finds it on the stream.
        _log.info("fleet_event", kind=kind.value, **{name: value for name, value in facts.items() if value is not None})
        if lost is not None:
            _log.warning("fleet_event_lost", kind=kind.value, reason=lost.reason)
        return lost is None
