"""What producers and gateways written in Python use, one thread a client.

Owns: running the client's operations over blocking connections.
Must not know: how workers work, which commands are sent.
Invariant: a request is sent under an id of the caller's, so that sending it again after a lost reply never asks twice.
"""

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal, Self

from contracts import Heartbeat, Rejection, SignalRequest, SignalVector, StreamNames
from worker.client import feeds, protocol
from worker.client.feeds import Delivery, Feed, RefusedEntry
from worker.client.protocol import Execute, Operation, Pause, Result, Step
from worker.errors import WorkerError
from worker.retry import Outage
from worker.transport.client import Client, connect

#: Longest pause between two tries to reach an unavailable server, in seconds.
BACKOFF_MAX_SECONDS = 5.0


class Runner:
    """Runs the steps of operations over connections that block."""

    def __init__(self, commands: Client, *, reader: Client | None = None, stop: threading.Event | None = None) -> None:
        """Take a connection, one that may block where an operation does, and the event that ends every pause."""
        self._commands, self._reader = commands, reader or commands
        self.stop = stop or threading.Event()

    @classmethod
    def connect(cls, url: str, name: str, *, block_ms: int = 0, stop: threading.Event | None = None) -> Self:
        """Return a runner over connections of its own, made on first use."""
        reader = connect(url, f"{name}:reader", block_ms=block_ms) if block_ms else None
        return cls(connect(url, name), reader=reader, stop=stop)

    def run(self, operation: Operation[Result]) -> Result:
        """Return what the operation returns; errors of the server are raised inside it first."""
        try:
            step = next(operation)
            while True:
                try:
                    reply = self._do(step)
                except WorkerError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # typeshed leaves the value of StopIteration untyped

    def close(self) -> None:
        """Close the connections."""
        self._commands.close()
        self._reader.close()

    def _do(self, step: Step) -> Any:  # noqa: ANN401 - replies have every shape
        if isinstance(step, Pause):
            return self.stop.wait(step.seconds)
        if isinstance(step, Execute):
            return (self._reader if step.blocking else self._commands).execute_command(*step.command)
        with self._commands.pipeline(transaction=False) as pipe:
            for command in step.commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]  # the driver's own border
            return pipe.execute()


class _Closing(ABC):
    """A `with` block that closes."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SignalClient(_Closing):
    """A producer's connection; not safe to share between threads."""

    def __init__(self, redis_url: str, *, namespace: str = "signals", partition: str = "") -> None:
        """Connect on first use; requests go to the stream of the partition, if one is named."""
        self._url, self.names = redis_url, StreamNames(namespace, partition)
        self._runner = Runner.connect(redis_url, "signal-client")

    @property
    def redis_url(self) -> str:
        """Where the server is."""
        return self._url

    def close(self) -> None:
        """Close the connection."""
        self._runner.close()

    def submit(
        self,
        strategy: str,
        symbols: Sequence[str] | None = None,
        *,
        as_of: date | datetime | str | None = None,
        request_id: str | None = None,
        **options: object,
    ) -> str:
        """Send a request.

        Args:
            strategy: Which model to ask.
            symbols: None for the model's universe.
            as_of: None for the latest complete session.
            request_id: Yours, to send the same request again without asking twice; None for a new one.
            options: Further fields of `SignalRequest`, such as `explain=True`.

        Returns:
            The request id.

        Raises:
            SubmitInterrupted: The server is unavailable, or its reply was lost; pass the error's `requests` to
                `submit_many`, or send again under the id of its one request; neither asks twice. It is a
                `StreamUnavailable`.
            pydantic.ValidationError: The fields are no request.
        """
        request = protocol.new_request(strategy, symbols, as_of=as_of, request_id=request_id, **options)
        return self._runner.run(protocol.submit(self.names, request))

    def submit_many(self, requests: Iterable[SignalRequest | Mapping[str, Any]]) -> list[str]:
        """Send many requests in few round trips.

        Args:
            requests: Each a `SignalRequest`, or the arguments of `submit`. All are checked before the first is sent.

        Returns:
            The request ids, in the order of the requests.

        Raises:
            SubmitInterrupted: The server became unavailable; pass the error's `requests` in again; none is asked twice.
            pydantic.ValidationError: One of them is no request; none was sent.
        """
        return self._runner.run(protocol.submit_many(self.names, requests))

    def outcome(self, request_id: str) -> SignalVector | Rejection | None:
        """Return the outcome of a request as it is on its stream; None if there is none yet.

        Raises:
            OutcomeGone: It was published, and has been cut from its stream since.
            StreamUnavailable: The server is unavailable.
        """
        return self._runner.run(protocol.outcome(self.names, request_id))

    def result(self, request_id: str, *, timeout: float) -> SignalVector | Rejection:
        """Return the outcome of a request, waiting for it.

        Looks at the remembered id, first every millisecond, then ever less often (a tenth of the time waited, a
        quarter of a second at most): reading the results stream instead would bring every waiting client every
        other client's vectors.

        Args:
            request_id: As `submit` returned it.
            timeout: Longest wait, in seconds.

        Raises:
            RequestTimeout: There is none yet; the request stays valid.
            OutcomeGone: It was published, and has been cut from its stream since.
            StreamUnavailable: The server is unavailable.
        """
        return self._runner.run(protocol.result(self.names, request_id, timeout))

    def workers(self) -> list[Heartbeat]:
        """Return the heartbeat of every living worker, by name.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        return self._runner.run(protocol.workers(self.names))

    def signals(
        self,
        from_id: str = "0",
        *,
        group: str | None = None,
        consumer: str = "gateway",
        block_ms: int = 2000,
        claim_after_ms: int | None = None,
        outages: Literal["wait", "raise"] = "wait",
        stop: threading.Event | None = None,
    ) -> "SignalFeed":
        """Return a feed of the vectors on the results stream, over connections of its own.

        Args:
            from_id: With a group: where it begins if it does not exist yet, or has vanished. Without: the position to
                read on from. `0` is the oldest vector still kept, `$` what comes from now on.
            group: Your consumer group on the results stream; None to read without one and keep `position` yourself.
            consumer: Your name in the group; the same name after a restart takes up what was not acknowledged.
            block_ms: Longest wait of one read.
            claim_after_ms: Idle time after which entries of the group's other consumers are taken over; None = never.
            outages: `wait` until the server is back, or `raise` StreamUnavailable.
            stop: Ends the iteration and every wait.
        """
        feed = Feed(
            names=self.names,
            group=group,
            consumer=consumer,
            from_id=from_id,
            block_ms=block_ms,
            claim_after_ms=claim_after_ms,
        )
        runner = Runner.connect(self._url, f"signals:{group or 'alone'}", block_ms=block_ms, stop=stop)
        return SignalFeed(feed, runner, patient=outages == "wait")


class SignalFeed(_Closing):
    """Vectors as they come; not safe to share between threads, but for `stop`."""

    def __init__(self, feed: Feed, runner: Runner, *, patient: bool) -> None:
        """Take the feed's state and what runs its operations."""
        self._feed, self._runner, self._patient = feed, runner, patient
        self._outage = Outage("results")

    def close(self) -> None:
        """Close the connections; what was not acknowledged is handed out again to the same consumer name."""
        self._runner.close()

    @property
    def position(self) -> str:
        """Entry id of the last vector read; without a group, what to give as `from_id` to read on."""
        return self._feed.position

    @property
    def refused(self) -> tuple[RefusedEntry, ...]:
        """The last entries that were no vectors; they were acknowledged, and stay on the stream until it is cut."""
        return tuple(self._feed.refused)

    @property
    def refused_count(self) -> int:
        """How many entries were no vectors."""
        return self._feed.refused_count

    @property
    def trimmed_count(self) -> int:
        """How many entries, own or to be taken over, were cut from the stream before they were acknowledged."""
        return self._feed.trimmed_count

    def stop(self) -> None:
        """End the iteration after what was read, from any thread; a read that blocks ends within its block."""
        self._runner.stop.set()

    def __iter__(self) -> Iterator[Delivery]:
        """Yield vectors until stopped; what was read and not yielded is handed out again."""
        while not self._runner.stop.is_set():
            batch = deque(self.read())
            try:
                while batch and not self._runner.stop.is_set():
                    yield batch.popleft()
            finally:
                self.release(*batch)

    def read(self, count: int = 100) -> list[Delivery]:
        """Return vectors, waiting for the first; none after `block_ms`.

        Raises:
            StreamUnavailable: The server is unavailable, and the feed raises outages or was stopped.
        """
        return self._run(lambda: feeds.read(self._feed, count))

    def ack(self, *deliveries: Delivery) -> None:
        """Acknowledge that vectors were dealt with, so that they are never handed out again.

        Raises:
            StreamUnavailable: As `read`.
            ValueError: The feed has no group.
        """
        entry_ids = [delivery.entry_id for delivery in deliveries]
        self._run(lambda: feeds.acknowledge(self._feed, *entry_ids))

    def release(self, *deliveries: Delivery) -> None:
        """Let vectors that were not dealt with be handed out again by the next read."""
        for delivery in deliveries:
            feeds.release(self._feed, delivery.entry_id)

    def settled(self, delivery: Delivery) -> None:
        """Note that a vector was acknowledged by other means than `ack`."""
        self._feed.in_flight.discard(delivery.entry_id)

    def _run(self, operation: Callable[[], Operation[Result]]) -> Result:
        if not self._patient:
            return self._runner.run(operation())
        stopped = self._runner.stop.is_set
        return self._runner.run(
            protocol.retrying(operation, outage=self._outage, stopped=stopped, max_seconds=BACKOFF_MAX_SECONDS)
        )
