"""The execution gateway's consumer: applies each vector once, the newest last, none too late.

Owns: what becomes of each vector that reaches a gateway.
Must not know: brokers, orders, prices; the callback does.
Invariant: a vector recorded as applied is never handed to the callback again; one whose application was cut off is,
with the same order keys, so that a broker which knows its orders by key places none twice.
"""

import re
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import structlog

from contracts import Purpose, ServedAs, SignalVector, weights_digest
from worker.client.feeds import Delivery
from worker.client.inbox import Disposition, Inbox, Permission
from worker.client.synchronous import BACKOFF_MAX_SECONDS, SignalClient
from worker.errors import GroupVanished
from worker.retry import Outage, RetryPolicy, backoff
from worker.transport.client import connect
from worker.transport.requirements import StreamRole, require_stream_server

#: First and longest pause before a vector whose application failed is tried again, in seconds.
FIRST_PAUSE_SECONDS, RETRY_MAX_SECONDS = 0.05, 5.0
#: Makes order keys of this program differ from anyone else's.
_ORDER_KEYS = uuid.UUID("6f1d3c52-6a0e-5d0c-9a55-1f2f0f5f7b10")
_CLOSING_KEYS = uuid.uuid5(_ORDER_KEYS, "closing")

_ALARMS = frozenset({Disposition.CONFLICT, Disposition.OVERTAKEN, Disposition.SHADOW, Disposition.PROBE})
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One vector, to be applied now."""

    vector: SignalVector
    #: Weight by symbol, of the whole book: names that leave it have 0 there.
    targets: Mapping[str, float]
    #: 1, or more where an earlier attempt was cut off and may have placed some of its orders under the same keys.
    attempt: int

    def order_key(self, symbol: str) -> str:
        """Return the idempotency key of this vector's order in a symbol: the same at every attempt, 36 characters."""
        return order_key(self.vector.request_id, symbol)


def order_key(request_id: str, symbol: str) -> str:
    """Return the idempotency key of the order that a request's vector means in a symbol."""
    return str(uuid.uuid5(_ORDER_KEYS, f"{request_id}/{symbol}"))


def closing_key(request_id: str, symbol: str) -> str:
    """Return the key of the order that closes a position before the other side is opened under `order_key`."""
    return str(uuid.uuid5(_CLOSING_KEYS, f"{request_id}/{symbol}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How a gateway reads and remembers."""

    #: Name of this process within the gateway; the same after a restart.
    consumer: str = "gateway"
    #: Where a gateway that never ran begins: `0` = the oldest vector kept, `$` = what comes from now on, or a position.
    from_id: str = "0"
    #: Strategies whose requests it follows; vectors of others are acknowledged. None = all.
    strategies: frozenset[str] | None = None
    #: Producers whose requests it follows, as they name themselves in `producer`. None = all.
    producers: frozenset[str] | None = None
    #: Partitions whose requests it follows; empty text = the stream of no partition. Other than a producer's name it is
    #: stated by the worker, so that access rules for request streams decide who may trade. None = all.
    partitions: frozenset[str] | None = None
    #: Universes that it follows: digests as `contracts.universe_digest` computes them of the symbols asked for, or
    #: `model` for requests that name no symbols. None = all: any vector replaces the book of its strategy.
    universes: frozenset[str] | None = None
    #: Longest blocking read.
    block_ms: int = 2000
    #: Idle time after which vectors of the gateway's other processes are taken over; None = never.
    claim_after_ms: int | None = None
    #: How long a request id is remembered: longer than results are kept.
    remembered_seconds: int = 30 * 86_400
    #: How long the gateway's other processes keep off a book that one of them is applying to.
    hold_seconds: float = 60.0
    #: By which a vector's validity is judged; None = the server's clock, as money needs it. A replay has its own.
    clock: Callable[[SignalVector], datetime] | None = None

    def __post_init__(self) -> None:
        """Refuse a text where a set of names is wanted: its letters would be the names."""
        for name in ("strategies", "producers", "partitions", "universes"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} was the text {getattr(self, name)!r}, must be a set of names")  # noqa: TRY004

    def unfollowed(self, vector: SignalVector) -> str:
        """Return why this gateway does not follow a vector's request; empty: it does."""
        if self.strategies is not None and vector.strategy not in self.strategies:
            return f"strategy {vector.strategy} is not followed"
        if self.producers is not None and vector.producer not in self.producers:
            return f"producer {vector.producer or 'unnamed'} is not followed"
        if self.partitions is not None and vector.partition not in self.partitions:
            return f"partition {vector.partition or 'none'} is not followed"
        if self.universes is not None and not self.universes & {vector.universe, vector.universe_sha256}:
            symbols = len(vector.weights) + len(vector.excluded)
            return f"the universe of {symbols} symbols with digest {vector.universe_sha256} is not followed"
        return ""


class Gateway:
    """One process of an execution gateway; `run` belongs to one thread."""

    def __init__(
        self,
        client: SignalClient,
        name: str,
        apply: Callable[[Application], None],
        *,
        options: GatewayOptions | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Connect on first use.

        Args:
            client: Names the server and the namespace; its connection is not used.
            name: Of the gateway: its consumer group, inbox and books.
            apply: Makes the broker's book equal to `targets`, then returns; raises where it could not, to be called
                again. It must not return before the broker has accepted the orders.
            options: How it reads and remembers.
            stop: Ends `run` after the current vector.

        Raises:
            ValueError: The name cannot be a key.
        """
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise ValueError(f"a gateway's name has 1 to 64 letters, digits, _, . or -, was {name!r}")
        chosen = options or GatewayOptions()
        self._apply, self._options, self._stop = apply, chosen, stop or threading.Event()
        self._commands, self._names = connect(client.redis_url, f"gateway:{name}"), client.names
        self._inbox = Inbox(
            self._commands,
            client.names,
            gateway=name,
            consumer=chosen.consumer,
            remembered_seconds=chosen.remembered_seconds,
            hold_seconds=chosen.hold_seconds,
        )
        self._feed = client.signals(
            chosen.from_id,
            group=name,
            consumer=chosen.consumer,
            block_ms=chosen.block_ms,
            claim_after_ms=chosen.claim_after_ms,
            stop=self._stop,
        )
        self._patience = RetryPolicy(self._stop, Outage("inbox"), BACKOFF_MAX_SECONDS)
        self.counts: Counter[Disposition] = Counter()

    def __enter__(self) -> Self:
        """Return this gateway."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; what was read and not decided about is handed out again after a restart."""
        self._feed.close()
        self._commands.close()

    @property
    def refused_count(self) -> int:
        """How many entries of the results stream were no vectors."""
        return self._feed.refused_count

    def run(self) -> None:
        """Apply vectors as they come until stopped, outages of the server waited out.

        Raises:
            SettingsError: The server or the login is not enough for a gateway; nothing was read.
            StreamUnavailable: The server was unavailable when the gateway was stopped.
        """
        self._patience.call(lambda: require_stream_server(self._commands, self._names, StreamRole.GATEWAY))
        for delivery in self._feed:
            self.take(delivery)

    def run_once(self) -> list[Disposition]:
        """Take what can be read now, waiting for the first, and return what became of each."""
        waiting, taken = deque(self._feed.read()), []
        try:
            while waiting:
                taken.append(self.take(waiting[0]))
                waiting.popleft()
        finally:
            self._feed.release(*waiting)
        return taken

    def take(self, delivery: Delivery) -> Disposition:
        """Decide about one vector, apply it where it is due, and record that."""
        vector = delivery.vector
        if refused := self._refused(vector):
            self._feed.ack(delivery)
            return self._note(delivery, *refused)
        permission = self._patience.call(lambda: self._permission(delivery))
        if permission.refusal is not None:
            self._unless_again(delivery, permission.refusal)
            if permission.attempts and permission.refusal in {Disposition.EXPIRED, Disposition.NOT_NEWER}:
                _log.error("application_left_unfinished", request_id=vector.request_id, attempts=permission.attempts)
            return self._note(delivery, permission.refusal, permission.detail)
        targets = targets_of(vector, permission.symbols)
        application = Application(vector=vector, targets=targets, attempt=permission.attempts)
        return self._apply_and_record(delivery, application)

    def _refused(self, vector: SignalVector) -> tuple[Disposition, str] | None:
        """Return what a vector alone shows against applying it, whatever the book contains."""
        if vector.purpose is not Purpose.TRADE:
            return Disposition.PROBE, "answers a probe, never to be traded"
        if vector.served_as is ServedAs.SHADOW:
            return Disposition.SHADOW, f"computed by {vector.model_version}, never to be traded"
        if unfollowed := self._options.unfollowed(vector):
            return Disposition.IGNORED, unfollowed
        actual = weights_digest(vector.weights)
        if actual != vector.weights_sha256:
            return Disposition.CONFLICT, f"the weights' digest is {actual}"
        return None

    def _permission(self, delivery: Delivery) -> Permission:
        try:
            clock = self._options.clock
            return self._inbox.begin(delivery, clock(delivery.vector) if clock else None)
        except GroupVanished as error:
            # The next read makes the group again and hands the entry out anew; trying on here would never end.
            return Permission(refusal=Disposition.FENCED, detail=str(error), attempts=0, symbols=frozenset())

    def _apply_and_record(self, delivery: Delivery, application: Application) -> Disposition:
        try:
            self._apply(application)
        except Exception:  # noqa: BLE001 - around one vector
            # It stays recorded as being applied, and is tried again until it expires or something newer is applied.
            _log.exception("application_failed", request_id=delivery.vector.request_id, attempt=application.attempt)
            self._feed.release(delivery)
            self._stop.wait(backoff(application.attempt + 1, first=FIRST_PAUSE_SECONDS, longest=RETRY_MAX_SECONDS))
            return self._note(delivery, Disposition.FAILED, "")
        done = self._patience.call(lambda: self._inbox.finish(delivery))
        self._feed.settled(delivery)
        return self._note(delivery, done, "")

    def _unless_again(self, delivery: Delivery, refusal: Disposition) -> None:
        """Settle what the script acknowledged; what another consumer keeps from us comes back after a pause."""
        if refusal is Disposition.BUSY:
            self._feed.release(delivery)
            self._stop.wait(backoff(4, first=FIRST_PAUSE_SECONDS, longest=RETRY_MAX_SECONDS))
        else:
            self._feed.settled(delivery)

    def _note(self, delivery: Delivery, disposition: Disposition, detail: str) -> Disposition:
        self.counts[disposition] += 1
        vector = delivery.vector
        alarm = disposition in _ALARMS
        (_log.error if alarm else _log.info)(
            "vector_taken",
            disposition=disposition.value,
            request_id=vector.request_id,
            entry=delivery.entry_id,
            strategy=vector.strategy,
            as_of=vector.as_of.isoformat(),
            activation=vector.activation,
            served_as=vector.served_as.value,
            weights_sha256=vector.weights_sha256,
            **({"detail": detail} if detail else {}),
        )
        return disposition


def targets_of(vector: SignalVector, held: Collection[str]) -> dict[str, float]:
    """Return the weight of every symbol of the vector, and 0 for what is held and not in it."""
    targets = {signal.symbol: signal.target_weight for signal in vector.weights}
    return targets | {symbol: 0.0 for symbol in sorted(held) if symbol not in targets}
