"""The registry publisher: tells the workers on the control stream what changed in the registry.

Owns: the order of publishing and marking, who publishes while several run, waiting out either server.
Must not know: what a worker does with an event.
Invariant: an event is marked after it was published, so a publisher killed at any point repeats rather than forgets;
workers know a repeated event by its activation number.
"""

import random
import select
import socket
import time
from dataclasses import dataclass
from typing import Self

import structlog
from redis.typing import EncodableT, FieldT

from contracts.streams import StreamNames
from worker.errors import RegistryUnavailable, StreamUnavailable
from worker.registry.outbox import Outbox, OutboxEvent
from worker.registry.postgres import Outage as RegistryOutage
from worker.retry import Outage
from worker.transport.client import Client, connect, translated

_FORGET_EVERY_SECONDS = 3600.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherOptions:
    """How a publisher waits and what it keeps."""

    #: Longest time between two looks at the outbox: what a lost notification costs.
    poll_seconds: float = 5.0
    #: Longest wait between two tries to reach a server that is away.
    backoff_max_seconds: float = 5.0
    #: Approximate length at which the control stream is cut.
    control_maxlen: int = 10_000
    #: Days for which published events stay in the outbox.
    keep_days: int = 30


class Publisher:
    """Relays the outbox until it is stopped; of several, one publishes and the others stand by."""

    def __init__(
        self, database_url: str, redis_url: str, names: StreamNames, options: PublisherOptions | None = None
    ) -> None:
        """Take where the servers are; nothing is connected before `run`."""
        self._database_url, self._names = database_url, names
        self._options = options or PublisherOptions()
        self._stream: Client = connect(redis_url, "publisher")
        self._registry_outage, self._stream_outage = RegistryOutage(), Outage("publisher")
        self._backoff = _Backoff(self._options.backoff_max_seconds)
        # A socket, not an Event: it wakes a wait on the database's socket, and a signal handler may write to it.
        self._wake, self._alarm = socket.socketpair()
        self._stopped = False
        self._role = ""
        self._forget_due = 0.0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what `run` used."""
        self.close()

    def stop(self) -> None:
        """Let `run` return after the event at hand; safe in a signal handler and from any thread."""
        self._stopped = True
        self._alarm.send(b"!")

    def close(self) -> None:
        """Close the connections; the publisher cannot run again."""
        self._stream.close()
        self._wake.close()
        self._alarm.close()

    def run(self) -> None:
        """Publish until stopped, however long either server is away."""
        while not self._stopped:
            try:
                with Outbox(self._database_url) as outbox:
                    self._registry_outage.back()
                    while not self._stopped:
                        self._turn(outbox)
            except RegistryUnavailable as error:
                self._registry_outage.away(error)
                self._pause()
        _log.info("publisher_stopped")

    def _turn(self, outbox: Outbox) -> None:
        outbox.check()
        try:
            # Who cannot reach the streams does not keep the lead from one who can.
            with translated():
                self._stream.ping()
            self._say("active" if outbox.lead() else "standby")
            if outbox.leads:
                self._relay(outbox)
        except StreamUnavailable as error:
            self._stream_outage.away(error)
            # A server that was demoted keeps its connections; the next try asks anew where the primary is.
            self._stream.connection_pool.disconnect()
            outbox.stand_down()
            self._pause()
            return
        self._stream_outage.back()
        self._backoff.reset()
        outbox.wait(self._wake, self._options.poll_seconds)

    def _relay(self, outbox: Outbox) -> None:
        while not self._stopped and (events := outbox.pending()):
            for event in events:
                self._publish(event)
                outbox.mark(event)
                if self._stopped:
                    break
        if time.monotonic() >= self._forget_due:
            outbox.forget(self._options.keep_days)
            self._forget_due = time.monotonic() + _FORGET_EVERY_SECONDS

    def _publish(self, event: OutboxEvent) -> None:
        fields: dict[FieldT, EncodableT] = dict(event.fields().items())
        with translated():
            self._stream.xadd(self._names.control, fields, maxlen=self._options.control_maxlen, approximate=True)
        _log.info(
            "registry_event_published",
            type=event.type,
            strategy=event.strategy,
            version=event.version,
            activation=event.activation,
        )

    def _say(self, role: str) -> None:
        if role != self._role:
            self._role = role
            _log.info("publisher_role", role=role)

    def _pause(self) -> None:
        select.select([self._wake], [], [], self._backoff.next_seconds())


class _Backoff:
    """Pauses that double up to a limit, with jitter, so that many clients do not return at once."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._random = random.SystemRandom()
        self._tries = 0

    def next_seconds(self) -> float:
        limit = min(self._max_seconds, 0.1 * 2 ** min(self._tries, 20))
        self._tries += 1
        return self._random.uniform(limit / 2, limit)

    def reset(self) -> None:
        self._tries = 0
