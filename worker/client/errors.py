"""Errors of the client: what a producer or a gateway may meet beyond an outage.

Owns: one class for each.
Must not know: how the conversation with the server runs.
Invariant: each is also one of the worker room's errors, so that callers who know only those still catch it.
"""

from collections.abc import Sequence

from contracts import SignalRequest
from worker.errors import RequestTimeout, StreamUnavailable, WorkerError


class OutcomeGone(RequestTimeout):
    """A request whose outcome was published and has been cut from its stream since; waiting longer is of no use."""


class SubmitInterrupted(StreamUnavailable):
    """Requests of which it is not known whether the server has them; sending them again never asks twice.

    Attributes:
        requests: What to pass to `submit_many` again, under the same ids: those the client made up, too.
    """

    def __init__(self, cause: StreamUnavailable, requests: Sequence[SignalRequest]) -> None:
        which = f"request {requests[0].request_id} is" if len(requests) == 1 else f"{len(requests)} requests are"
        super().__init__(cause.reason, f"{which} not surely sent: {cause}")
        self.requests = tuple(requests)


class RedriveRefused(WorkerError):
    """A rejected request that cannot be put back as it came; the message names why."""
