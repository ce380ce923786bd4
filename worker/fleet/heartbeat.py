"""The heartbeat thread: renews leases, shows that the worker lives.

Owns: the worker's hash on the server and the rhythm of lease renewal.
Must not know: how requests are answered.
Invariant: it does no computing and outlives the work: leases are renewed until the last commit.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime

import structlog

from contracts import GROUP, Heartbeat, ServedModel, StreamNames
from contracts.codec import encode
from worker.errors import StreamUnavailable
from worker.fleet.facts import heartbeat_fields, listed
from worker.fleet.status import WorkerStatus
from worker.retry import Outage
from worker.service import Service
from worker.serving.peers import Peers
from worker.serving.slots import Slots
from worker.shutdown import Shutdown
from worker.telemetry import Pulse
from worker.transport.client import Client

#: Pause between two looks at the other workers' heartbeats, in seconds.
_PEERS_SECONDS = 1.0

_log = structlog.get_logger()


class HeartbeatThread(Service):
    """Beats and renews for one worker until it is stopped, after the last commit."""

    def __init__(  # noqa: PLR0913 - the composition root hands in every part; none is optional
        self,
        status: WorkerStatus,
        names: StreamNames,
        commands: Client,
        *,
        peers: Peers,
        clock: Callable[[], datetime],
        pulse: Pulse,
        shutdown: Shutdown,
        beat_seconds: float,
        lease_ms: int,
    ) -> None:
        """Take every part from the composition root; the connection belongs to this thread from now on."""
        super().__init__("heartbeat", shutdown)
        self._status, self._key, self._requests = status, names.worker(status.worker), names.requests
        self._commands, self._clock, self._peers = commands, clock, peers
        self._partition = names.partition
        self._beat_seconds, self._renew_seconds = beat_seconds, lease_ms / 3000
        self._started_at = clock()
        # Apart from the beat's: a full server renews leases and refuses beats, which is not a change at each turn.
        self._outage, self._renewals = status.outages["heartbeat"], status.outages["leases"]
        self._end, self._wake = threading.Event(), threading.Event()
        #: Set once the heartbeat that somebody waits for was tried.
        self._wanted: threading.Event | None = None
        self._pulse, self._changed = pulse, threading.Event()
        status.slots.watch(self._note_change)

    def serve(self) -> None:
        """Beat until stopped."""
        next_beat = 0.0
        while True:
            self._pulse.beat()
            self._wake.wait(min(self._renew_seconds, self._beat_seconds, _PEERS_SECONDS) if next_beat else 0.0)
            self._wake.clear()
            ending = self._end.is_set()
            self._quietly(self._status.leases.renew, self._renewals)
            with suppress(StreamUnavailable):  # the renewal before it and the beat after it report an outage
                self._peers.refresh(self._commands)
            wanted, self._wanted = self._wanted, None
            if wanted is not None or self._changed.is_set() or time.monotonic() >= next_beat:
                self._changed.clear()
                self._quietly(self._beat, self._outage)
                next_beat = time.monotonic() + self._beat_seconds
            if wanted is not None:
                wanted.set()
            if ending:
                self._quietly(self._farewell, self._outage)
                return

    def _note_change(self) -> None:
        """State at once that what serves has changed: other workers decide by it who answers."""
        self._changed.set()
        self._wake.set()

    def stop(self) -> None:
        """Stop beating, after the last commit."""
        self._end.set()
        self._wake.set()

    def beat_now(self) -> None:
        """Return once a heartbeat of what is true now was sent, or the worker stops."""
        self._wanted = wanted = threading.Event()
        self._wake.set()
        while not wanted.wait(0.1) and not self._shutdown.stopping.is_set():
            pass

    def _quietly(self, act: Callable[[], None], outage: Outage) -> None:
        try:
            act()
        except StreamUnavailable as error:
            outage.away(error)
        else:
            outage.back()

    def _beat(self) -> None:
        self._look_at_backlog()
        fields = encode(self._heartbeat())
        with self._commands.pipeline(transaction=True) as pipe:
            pipe.delete(self._key)
            pipe.hset(self._key, mapping=fields)  # type: ignore[arg-type]  # the driver's dict is invariant
            pipe.pexpire(self._key, int(self._beat_seconds * 6000))
            pipe.execute()
        _log.debug("heartbeat_sent", state=fields.get("state"), lag=fields.get("lag"), pending=fields.get("pending"))

    def _farewell(self) -> None:
        self._commands.delete(self._key)

    def _heartbeat(self) -> Heartbeat:
        status = self._status
        return Heartbeat.model_validate(
            {
                "worker": status.worker,
                "state": status.readiness.state(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started_at": self._started_at,
                "beaten_at": self._clock(),
                "code_version": status.code_version,
                "partition": self._partition,
                "reason": "; ".join(_reasons(status)),
                **heartbeat_fields(status),
                **_service(status),
                **_durations(status),
                **_connections(status),
            }
        )

    def _look_at_backlog(self) -> None:
        groups = self._commands.xinfo_groups(self._requests) if self._commands.exists(self._requests) else []
        backlog = self._status.backlog
        backlog.lag = backlog.pending = None
        for group in groups:
            if group["name"] in {GROUP, GROUP.encode()}:
                backlog.lag, backlog.pending = group.get("lag"), group["pending"]


def _reasons(status: WorkerStatus) -> Iterator[str]:
    yield from (reason.sentence for reason in (*status.liveness.reasons(), *status.readiness.reasons()))
    yield from _cached(status.slots)


def _service(status: WorkerStatus) -> dict[str, object]:
    """Return what the worker serves with."""
    slots, panel = status.slots, status.slots.panel
    active, drift = sorted(slots.active.items()), sorted(status.drift.reports.items())
    return {
        "models": ",".join(f"{name}={one.bundle.version}#{one.activation}" for name, one in active),
        "serving": _serving(slots),
        "candidates": status.candidates(),
        "refused": status.refused(),
        "strategies": ",".join(slots.served),
        "loading": ",".join(sorted(slots.loading)),
        "snapshot_id": panel.snapshot_id if panel else "",
        "snapshot_last_session": str(panel.sessions[-1]) if panel else "",
        "snapshot_order": slots.snapshot_order,
        "drift": ",".join(f"{name}={report.prediction.psi:.4f}" for name, report in drift),
    }


def _durations(status: WorkerStatus) -> dict[str, object]:
    """Return how long requests took, as median and 99th percentile."""
    counters, latency = status.counters, status.counters.latency_ms()
    return {
        "p50_ms": latency[0] if latency else None,
        "p99_ms": latency[1] if latency else None,
        "stages": ",".join(f"{stage}={p50}/{p99}" for stage, (p50, p99) in counters.stages_ms().items()),
    }


def _connections(status: WorkerStatus) -> dict[str, object]:
    """Return what befell the other connections, and the groups that delay the janitor."""
    counts = {
        f"{connection}:{reason}": count
        for connection, outage in status.outages.items()
        for reason, count in dict(outage.reasons).items()
        if connection != "requests"
    }
    behind = ",".join(sorted(f"{stream}|{group}" for stream, group in status.janitor.behind))
    return {"other_outages": listed(counts), "groups_behind": behind}


def _serving(slots: Slots) -> tuple[ServedModel, ...]:
    return tuple(
        ServedModel(
            strategy=strategy,
            version=active.bundle.version,
            activation=active.activation,
            since=active.since,
            proven=active.bundle.proven,
            cached=active.cached,
        )
        for strategy, active in sorted(slots.active.items())
    )


def _cached(slots: Slots) -> Iterator[str]:
    cached = sorted(strategy for strategy, active in slots.active.items() if active.cached)
    if cached:
        yield f"{', '.join(cached)} from the local cache: the registry has not answered since the start"
