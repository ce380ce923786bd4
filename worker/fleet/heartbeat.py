"""The heartbeat thread: renews leases, says that the worker lives.

Owns: the worker's hash on the server and the rhythm of lease renewal.
Must not know: how requests are answered.
Invariant: it does no computing and outlives the work: leases are renewed until the last commit.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

import structlog

from contracts import GROUP, Heartbeat, ServedModel, StreamNames
from contracts.codec import encode
from worker.errors import StreamUnavailable
from worker.fleet.status import Facts
from worker.retry import Outage
from worker.serving.slots import Slots
from worker.telemetry import Pulse
from worker.transport.client import Client, translated

_log = structlog.get_logger()


class HeartbeatThread(threading.Thread):
    """Beats and renews for one worker until told to end."""

    def __init__(
        self,
        facts: Facts,
        names: StreamNames,
        commands: Client,
        *,
        clock: Callable[[], datetime],
        beat_seconds: float,
        lease_ms: int,
    ) -> None:
        """Take every part from the composition root; the connection belongs to this thread from now on."""
        super().__init__(name="heartbeat", daemon=True)
        self._facts, self._key, self._requests = facts, names.worker(facts.worker), names.requests
        self._commands, self._clock = commands, clock
        self._beat_seconds, self._renew_seconds = beat_seconds, lease_ms / 3000
        self._started_at = clock()
        # Apart from the beat's: a full server renews leases and refuses beats, which is not a change at each turn.
        self._outage, self._renewals = facts.outages["heartbeat"], facts.outages["leases"]
        self._end, self._wake = threading.Event(), threading.Event()
        #: Set once the heartbeat that somebody waits for was tried.
        self._wanted: threading.Event | None = None
        self.pulse = Pulse()
        self.error: Exception | None = None

    def run(self) -> None:
        """Beat until told to end."""
        next_beat = 0.0
        try:
            while True:
                self.pulse.beat()
                self._wake.wait(min(self._renew_seconds, self._beat_seconds) if next_beat else 0.0)
                self._wake.clear()
                ending = self._end.is_set()
                self._quietly(self._facts.leases.renew, self._renewals)
                wanted, self._wanted = self._wanted, None
                if wanted is not None or time.monotonic() >= next_beat:
                    self._quietly(self._beat, self._outage)
                    next_beat = time.monotonic() + self._beat_seconds
                if wanted is not None:
                    wanted.set()
                if ending:
                    self._quietly(self._farewell, self._outage)
                    return
        except Exception as error:  # noqa: BLE001 - a thread's loop
            # Told to the main thread, which ends the process: without renewal others would take the work away.
            _log.exception("heartbeat_thread_died")
            self.error = error

    def end(self) -> None:
        """Stop beating, after the last commit."""
        self._end.set()
        self._wake.set()
        self.join()

    def beat_now(self, stop: threading.Event) -> None:
        """Return once a heartbeat of what is true now was sent, or the worker is stopped."""
        self._wanted = wanted = threading.Event()
        self._wake.set()
        while not wanted.wait(0.1) and self.error is None and not stop.is_set():
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
        with translated(), self._commands.pipeline(transaction=True) as pipe:
            pipe.delete(self._key)
            pipe.hset(self._key, mapping=fields)  # type: ignore[arg-type]  # the driver's dict is invariant
            pipe.pexpire(self._key, int(self._beat_seconds * 6000))
            pipe.execute()

    def _farewell(self) -> None:
        with translated():
            self._commands.delete(self._key)

    def _heartbeat(self) -> Heartbeat:
        facts = self._facts
        return Heartbeat.model_validate(
            {
                "worker": facts.worker,
                "state": facts.readiness.state(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started_at": self._started_at,
                "beaten_at": self._clock(),
                "code_version": facts.code_version,
                "reason": "; ".join(_reasons(facts)),
                **_service(facts),
                **_counts(facts),
                **_streams(facts),
            }
        )

    def _look_at_backlog(self) -> None:
        with translated():
            groups = self._commands.xinfo_groups(self._requests) if self._commands.exists(self._requests) else []
        backlog = self._facts.backlog
        backlog.lag = backlog.pending = None
        for group in groups:
            if group["name"] in {GROUP, GROUP.encode()}:
                backlog.lag, backlog.pending = group.get("lag"), group["pending"]


def _reasons(facts: Facts) -> Iterator[str]:
    yield from (reason.sentence for reason in (*facts.liveness.reasons(), *facts.readiness.reasons()))
    yield from _cached(facts.slots)


def _service(facts: Facts) -> dict[str, object]:
    """Return what the worker serves with."""
    slots, panel = facts.slots, facts.slots.panel
    active, drift = sorted(slots.active.items()), sorted(facts.drift.reports.items())
    return {
        "models": ",".join(f"{name}={one.bundle.version}#{one.activation}" for name, one in active),
        "serving": _serving(slots),
        "candidates": facts.candidates(),
        "shadows": _listed(facts.shadows.counts),
        "strategies": ",".join(slots.served),
        "snapshot_id": panel.snapshot_id if panel else "",
        "snapshot_last_session": str(panel.sessions[-1]) if panel else "",
        "drift": ",".join(f"{name}={report.prediction.psi:.4f}" for name, report in drift),
    }


def _counts(facts: Facts) -> dict[str, object]:
    """Return what became of the requests."""
    counters, latency = facts.counters, facts.counters.latency_ms()
    return {
        "in_flight": len(facts.leases.held()),
        "answered": counters.answered,
        "rejected": counters.rejected,
        "dropped": counters.dropped,
        "drops": _listed(counters.drops),
        "failures": counters.failed,
        "canary_fallbacks": counters.canary_fallbacks,
        "parts": _listed(counters.parts),
        "codes": _listed(counters.codes),
        "deliveries": _listed(counters.deliveries),
        "p50_ms": latency[0] if latency else None,
        "p99_ms": latency[1] if latency else None,
        "stages": ",".join(f"{stage}={p50}/{p99}" for stage, (p50, p99) in counters.stages_ms().items()),
    }


def _streams(facts: Facts) -> dict[str, object]:
    """Return what befell the streams and the connections to them."""
    outage, backlog, janitor = facts.outages["requests"], facts.backlog, facts.janitor
    return {
        "lease_losses": facts.leases.lost,
        "trimmed_pending": facts.stream.trimmed_pending,
        "reconnects": outage.count,
        "outages": _listed(outage.reasons),
        "other_outages": _listed(
            {
                f"{connection}:{reason}": count
                for connection, one in facts.outages.items()
                for reason, count in dict(one.reasons).items()
                if one is not outage
            }
        ),
        "malformed_control_events": facts.malformed_control_events(),
        "trimmed": sum(janitor.trimmed.copy().values()),
        "removed_consumers": janitor.removed,
        "groups_behind": ",".join(sorted(f"{stream}|{group}" for stream, group in janitor.behind)),
        "lag": backlog.lag,
        "pending": backlog.pending,
    }


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


def _listed(counts: Mapping[str, int]) -> str:
    return ",".join(f"{name}={count}" for name, count in sorted(dict(counts).items()) if count)
