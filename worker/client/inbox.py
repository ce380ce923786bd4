"""What a gateway remembers on the server: request ids it has decided about, and what its books contain.

Owns: the keys of a gateway and the two scripts that decide and record.
Must not know: how a vector is applied.
Invariant: deciding, recording and acknowledging are one step each; the server's clock and the order (as-of,
activation) decide, never the order of arrival.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from contracts import SignalVector, StreamNames
from worker.client.feeds import Delivery
from worker.transport.client import Client
from worker.transport.scripts import BeginApplication, FinishApplication


class Disposition(StrEnum):
    """What a gateway did with a vector."""

    #: Applied, and recorded as applied.
    APPLIED = "applied"
    #: Decided about before under the same request id with the same weights.
    REPEATED = "repeated"
    #: Another vector came under this request id before, or the weights are not those of their digest: an alarm.
    CONFLICT = "conflict"
    #: The book's vector is as new or newer by (as-of, activation).
    NOT_NEWER = "not_newer"
    #: Its `valid_until` has passed by the server's clock, or by the gateway's own where it has one.
    EXPIRED = "expired"
    #: A shadow vector, which is never traded and must not be among the results: an alarm.
    SHADOW = "shadow"
    #: The answer to a probe, which is never traded and must not be among the results: an alarm.
    PROBE = "probe"
    #: Of a strategy, a producer or a universe that this gateway does not follow.
    IGNORED = "ignored"
    #: Another consumer is applying to the same book; tried again.
    BUSY = "busy"
    #: Another consumer has taken the entry over.
    FENCED = "fenced"
    #: Applying it failed; tried again until it expires or something newer is applied.
    FAILED = "failed"
    #: Applied, but so late that another consumer had the book in the meantime: an alarm.
    OVERTAKEN = "overtaken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """The answer to a gateway that wants to apply a vector."""

    #: None: apply it now.
    refusal: Disposition | None
    detail: str
    #: How often applying it was begun, this time included.
    attempts: int
    #: Symbols that the book may contain, from the last vector applied and from applications that were not finished.
    symbols: frozenset[str]


class Inbox:
    """The memory of one gateway, as one of its consumers uses it."""

    def __init__(
        self,
        commands: Client,
        names: StreamNames,
        *,
        gateway: str,
        consumer: str,
        remembered_seconds: int,
        hold_seconds: float,
    ) -> None:
        """Take a connection that does not block.

        Args:
            commands: The connection.
            names: Of the namespace.
            gateway: Name of the gateway, which is also its consumer group.
            consumer: Name of this process in it.
            remembered_seconds: How long a request id is remembered; longer than results are kept on their stream.
            hold_seconds: How long other consumers keep off a book that this one is applying to.
        """
        self._commands = commands
        self._names, self._gateway, self._consumer = names, gateway, consumer
        self._remembered_ms, self._hold_ms = remembered_seconds * 1000, int(hold_seconds * 1000)

    def key(self, request_id: str) -> str:
        """Return the hash of one request id."""
        return f"{self._names.namespace}:gateway:{self._gateway}:inbox:{request_id}"

    def book(self, strategy: str) -> str:
        """Return the hash of one strategy's book."""
        return f"{self._names.namespace}:gateway:{self._gateway}:book:{strategy}"

    def begin(self, delivery: Delivery, now: datetime | None = None) -> Permission:
        """Ask to apply a vector; the intent is recorded before the answer. Idempotent.

        Args:
            delivery: The vector.
            now: Instant by which its validity is judged; None: the server's.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        vector = delivery.vector
        status, detail, attempts, symbols = self._commands.run(
            BeginApplication(
                results=self._names.results,
                inbox=self.key(vector.request_id),
                book=self.book(vector.strategy),
                group=self._gateway,
                consumer=self._consumer,
                entry_id=delivery.entry_id,
                weights_sha256=vector.weights_sha256,
                as_of=_as_of(vector),
                activation=vector.activation,
                valid_until_ms=int(vector.valid_until.timestamp() * 1000),
                remember_ms=self._remembered_ms,
                hold_ms=self._hold_ms,
                symbols=_weighted(vector),
                now_ms="" if now is None else int(now.timestamp() * 1000),
            )
        )
        refusal = None if status == "apply" else Disposition(status)
        names = frozenset(name for name in symbols.split(",") if name)
        return Permission(refusal=refusal, detail=detail, attempts=attempts, symbols=names)

    def finish(self, delivery: Delivery) -> Disposition:
        """Record that a vector was applied. Idempotent.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        vector = delivery.vector
        status = self._commands.run(
            FinishApplication(
                results=self._names.results,
                inbox=self.key(vector.request_id),
                book=self.book(vector.strategy),
                group=self._gateway,
                consumer=self._consumer,
                entry_id=delivery.entry_id,
                weights_sha256=vector.weights_sha256,
                as_of=_as_of(vector),
                activation=vector.activation,
                request_id=vector.request_id,
                remember_ms=self._remembered_ms,
                symbols=_weighted(vector),
            )
        )
        return Disposition(status)


def _as_of(vector: SignalVector) -> int:
    return int(vector.as_of.strftime("%Y%m%d"))


def _weighted(vector: SignalVector) -> str:
    return ",".join(signal.symbol for signal in vector.weights if signal.target_weight)
