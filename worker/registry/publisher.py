"""The registry publisher: announces on the control stream what changed in the registry.

Owns: the order of publishing and marking, who publishes while several run, waiting out either server.
Must not know: what a worker does with an event.
Invariant: an event is marked after it was published, so a publisher killed at any point repeats rather than forgets;
workers know a repeated event by its activation number.
"""

import select
import socket
import time
from dataclasses import dataclass
from typing import Self

import structlog

from contracts.streams import StreamNames
from worker.errors import RegistryUnavailable, StreamUnavailable
from worker.registry.outbox import Outbox, OutboxEvent
from worker.registry.postgres import RegistryOutage
from worker.registry.requirements import RegistryRole, require_registry
from worker.retry import Outage, backoff
from worker.transport.client import Client, connect
from worker.transport.requirements import StreamRole, require_stream_server

#: Longest pause after the first failed try, in seconds.
FIRST_PAUSE_SECONDS = 0.1
_FORGET_EVERY_SECONDS = 3600.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherOptions:
    """How a publisher waits and what it keeps."""

    #: Longest time between two looks at the outbox: what a lost notification costs.
    poll_seconds: float = 5.0
    #: Longest wait between two tries to reach an unavailable server.
    backoff_max_seconds: float = 5.0
    #: Approximate length at which the control stream is cut.
    control_maxlen: int = 10_000
    #: Days for which published events stay in the outbox.
    keep_days: int = 30


class Publisher:
    """Relays the outbox until it is stopped; of several, one publishes and the others wait."""

    def __init__(
        self, database_url: str, redis_url: str, names: StreamNames, options: PublisherOptions | None = None
    ) -> None:
        """Take where the servers are; nothing is connected before `run`."""
        self._database_url, self._names = database_url, names
        self._options = options or PublisherOptions()
        self._stream: Client = connect(redis_url, "publisher")
        self._registry_outage, self._stream_outage = RegistryOutage(), Outage("publisher")
        #: Tries that failed since the last that did not.
        self._failures = 0
        # A socket, not an Event: it wakes a wait on the database's socket, and a signal handler may write to it.
        self._wake, self._alarm = socket.socketpair()
        self._stopped = False
        self._role = ""
        #: Whether both servers were found to be enough for a publisher.
        self._registry_enough = self._stream_enough = False
        self._forget_due = 0.0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what `run` used."""
        self.close()

    def stop(self) -> None:
        """Let `run` return after the current event; safe in a signal handler and from any thread."""
        self._stopped = True
        self._alarm.send(b"!")

    def close(self) -> None:
        """Close the connections; the publisher cannot run again."""
        self._stream.close()
        self._wake.close()
        self._alarm.close()

    def run(self) -> None:
        """Publish until stopped, however long either server is unavailable.

        Raises:
            SettingsError: A server or a login is not enough for a publisher; nothing was published.
        """
        while not self._stopped:
            try:
                if not self._registry_enough:
                    require_registry(self._database_url, RegistryRole.PUBLISHER)
                    self._registry_enough = True
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
            if not self._stream_enough:
                require_stream_server(self._stream, self._names, StreamRole.PUBLISHER)
                self._stream_enough = True
            self._stream.ping()
            self._say("active" if outbox.lead() else "standby")
            if outbox.leads:
                self._relay(outbox)
        except StreamUnavailable as error:
            self._stream_outage.away(error)
            # A server that was demoted keeps its connections; the next try asks anew where the primary is.
            self._stream.connection_pool.disconnect()
            outbox.release_lead()
            self._pause()
            return
        self._stream_outage.back()
        self._failures = 0
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
        flat = [text for pair in event.fields().items() for text in pair]
        self._stream.execute_command(
            "XADD", self._names.control, "MAXLEN", "~", self._options.control_maxlen, "*", *flat
        )
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
        self._failures += 1
        longest = self._options.backoff_max_seconds
        select.select([self._wake], [], [], backoff(self._failures, first=FIRST_PAUSE_SECONDS, longest=longest))
