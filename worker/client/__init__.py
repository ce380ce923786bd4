"""For producers, gateways and operators: send requests, wait for outcomes, follow signal vectors."""

from worker.client.asynchronous import AsyncSignalClient, AsyncSignalFeed
from worker.client.errors import OutcomeGone, RedriveRefused, SubmitInterrupted
from worker.client.feeds import Delivery, RefusedEntry
from worker.client.synchronous import SignalClient, SignalFeed

__all__ = [
    "AsyncSignalClient",
    "AsyncSignalFeed",
    "Delivery",
    "OutcomeGone",
    "RedriveRefused",
    "RefusedEntry",
    "SignalClient",
    "SignalFeed",
    "SubmitInterrupted",
]
