"""The client's twin for event loops.

Owns: running the client's operations over `redis.asyncio` connections.
Must not know: which commands are sent; `protocol` and `feeds` do, for both twins.
Invariant: each method means what its name means in `synchronous`; the same tests run against both.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal, Self

from contracts import Heartbeat, Rejection, SignalRequest, SignalVector, StreamNames
from worker.client import feeds, protocol
from worker.client.feeds import Delivery, Feed, RefusedEntry
from worker.client.protocol import Execute, Operation, Pause, Result, Step
from worker.client.synchronous import BACKOFF_MAX_SECONDS
from worker.errors import WorkerError
from worker.retry import Outage
from worker.transport.client import connect_async


class AsyncRunner:
    """Runs the steps of operations over connections of its own."""

    def __init__(self, url: str, name: str, *, block_ms: int = 0) -> None:
        """Connect on first use."""
        self._commands = connect_async(url, name)
        self._reader = connect_async(url, f"{name}:reader", block_ms=block_ms) if block_ms else self._commands
        self.stop = threading.Event()

    async def run(self, operation: Operation[Result]) -> Result:
        """Return what the operation returns; errors of the server are raised inside it first."""
        try:
            step = next(operation)
            while True:
                try:
                    reply = await self._do(step)
                except WorkerError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # typeshed leaves the value of StopIteration untyped

    async def aclose(self) -> None:
        """Close the connections."""
        await self._commands.aclose()
        await self._reader.aclose()

    async def _do(self, step: Step) -> Any:  # noqa: ANN401 - replies have every shape
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Execute):
            client = self._reader if step.blocking else self._commands
            return await client.execute_command(*step.command)
        async with self._commands.pipeline(transaction=False) as pipe:
            for command in step.commands:
                pipe.execute_command(*command)
            return await pipe.execute()


class _Closing(ABC):
    """An `async with` block that closes."""

    @abstractmethod
    async def aclose(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncSignalClient(_Closing):
    """A producer's connection for one event loop; see `SignalClient` for what each method promises."""

    def __init__(self, redis_url: str, *, namespace: str = "signals", partition: str = "") -> None:
        """Connect on first use; requests go to the stream of the partition, if one is named."""
        self._url, self.names = redis_url, StreamNames(namespace, partition)
        self._runner = AsyncRunner(redis_url, "signal-client")

    async def aclose(self) -> None:
        """Close the connection."""
        await self._runner.aclose()

    async def submit(
        self,
        strategy: str,
        symbols: Sequence[str] | None = None,
        *,
        as_of: date | datetime | str | None = None,
        request_id: str | None = None,
        **options: object,
    ) -> str:
        """Send a request; see `SignalClient.submit`."""
        request = protocol.new_request(strategy, symbols, as_of=as_of, request_id=request_id, **options)
        return await self._runner.run(protocol.submit(self.names, request))

    async def submit_many(self, requests: Iterable[SignalRequest | Mapping[str, Any]]) -> list[str]:
        """Send many requests in few round trips; see `SignalClient.submit_many`."""
        return await self._runner.run(protocol.submit_many(self.names, requests))

    async def outcome(self, request_id: str) -> SignalVector | Rejection | None:
        """Return the outcome of a request; see `SignalClient.outcome`."""
        return await self._runner.run(protocol.outcome(self.names, request_id))

    async def result(self, request_id: str, *, timeout: float) -> SignalVector | Rejection:  # noqa: ASYNC109 - the twin's signature
        """Wait for the outcome of a request; see `SignalClient.result`."""
        return await self._runner.run(protocol.result(self.names, request_id, timeout))

    async def workers(self) -> list[Heartbeat]:
        """Return the heartbeat of every living worker; see `SignalClient.workers`."""
        return await self._runner.run(protocol.workers(self.names))

    def signals(
        self,
        from_id: str = "0",
        *,
        group: str | None = None,
        consumer: str = "gateway",
        block_ms: int = 2000,
        claim_after_ms: int | None = None,
        outages: Literal["wait", "raise"] = "wait",
    ) -> "AsyncSignalFeed":
        """Return a feed of the vectors on the results stream; see `SignalClient.signals`."""
        feed = Feed(
            names=self.names,
            group=group,
            consumer=consumer,
            from_id=from_id,
            block_ms=block_ms,
            claim_after_ms=claim_after_ms,
        )
        runner = AsyncRunner(self._url, f"signals:{group or 'alone'}", block_ms=block_ms)
        return AsyncSignalFeed(feed, runner, patient=outages == "wait")


class AsyncSignalFeed(_Closing):
    """Vectors as they come, for one task; see `SignalFeed` for what each method promises."""

    def __init__(self, feed: Feed, runner: AsyncRunner, *, patient: bool) -> None:
        """Take the feed's state and what runs its operations."""
        self._feed, self._runner, self._patient = feed, runner, patient
        self._outage = Outage("results")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._runner.aclose()

    @property
    def position(self) -> str:
        """Entry id of the last vector read."""
        return self._feed.position

    @property
    def refused(self) -> tuple[RefusedEntry, ...]:
        """The last entries that were no vectors."""
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
        """End the iteration after what was read; cancelling its task ends it at once, and loses nothing."""
        self._runner.stop.set()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """Yield vectors until stopped; what was read and not yielded is handed out again."""
        while not self._runner.stop.is_set():
            batch = deque(await self.read())
            try:
                while batch and not self._runner.stop.is_set():
                    yield batch.popleft()
            finally:
                self.release(*batch)

    async def read(self, count: int = 100) -> list[Delivery]:
        """Return vectors, waiting for the first; see `SignalFeed.read`."""
        return await self._run(lambda: feeds.read(self._feed, count))

    async def ack(self, *deliveries: Delivery) -> None:
        """Acknowledge that vectors were dealt with; see `SignalFeed.ack`."""
        entry_ids = [delivery.entry_id for delivery in deliveries]
        await self._run(lambda: feeds.acknowledge(self._feed, *entry_ids))

    def release(self, *deliveries: Delivery) -> None:
        """Let vectors that were not dealt with be handed out again by the next read."""
        for delivery in deliveries:
            feeds.release(self._feed, delivery.entry_id)

    async def _run(self, operation: Callable[[], Operation[Result]]) -> Result:
        if not self._patient:
            return await self._runner.run(operation())
        stopped = self._runner.stop.is_set
        return await self._runner.run(
            protocol.retrying(operation, outage=self._outage, stopped=stopped, max_seconds=BACKOFF_MAX_SECONDS)
        )
