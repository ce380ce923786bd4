"""Control events sent by people, and who answered them.

Owns: sending one control event and gathering its answers from the events stream.
Must not know: what a worker does with it, how answers are shown.
Invariant: times are the server's own, of the control event and of its answers, so that no clock of a machine matters.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from contracts import ContractError, ControlEvent, FleetEvent, Heartbeat, StreamNames
from contracts.codec import decode, encode
from contracts.control import ANSWERS
from contracts.entry_ids import EntryId
from worker.transport.client import Client, pairs_of

#: Longest single read, in milliseconds: the pace at which the deadline is looked at.
BLOCK_MS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandReply:
    """One worker's reply, or its silence."""

    worker: str
    #: Milliseconds from the control event to the answer; None: it did not answer in time.
    after_ms: float | None = None
    #: Milliseconds that the worker itself took, where it says so.
    duration_ms: float | None = None
    #: Why it did not, or not wholly.
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether the worker did what the event asks."""
        return self.after_ms is not None and not self.reason


class Commander:
    """Sends control events over one connection that may block; not safe to share between threads."""

    def __init__(self, client: Client, names: StreamNames, *, maxlen: int) -> None:
        """Take the connection and the approximate length at which the control stream is cut."""
        self._client, self._names, self._maxlen = client, names, maxlen
        self._before = "0-0"

    def send(self, event: ControlEvent) -> str:
        """Append a control event and return its id.

        Raises:
            StreamUnavailable: The server is unavailable, or its reply was lost.
        """
        self._before = self._end_of_events()
        flat = [text for pair in encode(event).items() for text in pair]
        sent = self._client.execute_command("XADD", self._names.control, "MAXLEN", "~", self._maxlen, "*", *flat)
        return str(sent.decode())

    def replies(
        self, event: ControlEvent, control_id: str, workers: list[Heartbeat], timeout: float
    ) -> list[CommandReply]:
        """Return what each worker answered to the event that was just sent, by name, waiting for those who live.

        Args:
            event: What was sent.
            control_id: As `send` returned it.
            workers: Who lived before; only these are waited for, others who answer are listed too.
            timeout: Longest wait, in seconds.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        expected = {beat.worker for beat in workers if event.worker in {None, beat.worker} and _serves(beat, event)}
        replies: dict[str, CommandReply] = {}
        deadline = time.monotonic() + timeout
        while not expected <= replies.keys() and time.monotonic() < deadline:
            for entry_id, event_read in self._read():
                if event_read.control_id == control_id and event_read.type is ANSWERS[event.type]:
                    replies[event_read.worker] = _reply(control_id, entry_id, event_read)
        return [replies.get(worker, CommandReply(worker=worker)) for worker in sorted(expected | replies.keys())]

    def _read(self) -> Iterator[tuple[str, FleetEvent]]:
        reply = self._client.execute_command(
            "XREAD", "COUNT", 100, "BLOCK", BLOCK_MS, "STREAMS", self._names.events, self._before
        )
        for raw_id, flat in reply[0][1] if reply else ():
            self._before = raw_id.decode()
            try:
                yield self._before, decode(FleetEvent, pairs_of(flat))
            except ContractError:
                continue  # of a newer worker, or written by hand: no answer to us

    def _end_of_events(self) -> str:
        rows = self._client.execute_command("XREVRANGE", self._names.events, "+", "-", "COUNT", 1)
        return rows[0][0].decode() if rows else "0-0"


def _serves(beat: Heartbeat, event: ControlEvent) -> bool:
    """Return whether the event is about something that the worker is configured for."""
    return event.strategy is None or not beat.strategies or event.strategy in beat.strategies.split(",")


def _reply(control_id: str, entry_id: str, event: FleetEvent) -> CommandReply:
    return CommandReply(
        worker=event.worker,
        after_ms=float(EntryId.parse(entry_id).ms - EntryId.parse(control_id).ms),
        duration_ms=event.duration_ms,
        reason=event.reason or "",
    )
