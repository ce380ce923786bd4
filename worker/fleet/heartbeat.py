"""The heartbeat thread: renews leases, says that the worker lives.

Owns: the worker's hash on the server and the rhythm of lease renewal.
Must not know: how requests are answered.
Invariant: it does no computing and outlives the work: leases are renewed until the last commit.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime

import structlog

from contracts import GROUP, Heartbeat, StreamNames, WorkerState
from contracts.codec import encode
from worker.errors import StreamUnavailable
from worker.server import Client, Outage, translated
from worker.serving.leases import Leases
from worker.serving.slots import Slots
from worker.telemetry import Counters

_log = structlog.get_logger()


class HeartbeatThread(threading.Thread):
    """Beats and renews for one worker until told to end."""

    def __init__(  # noqa: PLR0913 - the composition root hands in every part; none is optional
        self,
        *,
        worker: str,
        code_version: str,
        names: StreamNames,
        commands: Client,
        leases: Leases,
        slots: Slots,
        counters: Counters,
        outage: Outage,
        state: Callable[[], tuple[WorkerState, str]],
        clock: Callable[[], datetime],
        beat_seconds: float,
        lease_ms: int,
    ) -> None:
        """Take every part from the composition root; the connection belongs to this thread from now on."""
        super().__init__(name="heartbeat", daemon=True)
        self._worker, self._code_version, self._names, self._commands = worker, code_version, names, commands
        self._leases, self._slots, self._counters, self._outage = leases, slots, counters, outage
        self._state, self._clock = state, clock
        self._beat_seconds, self._renew_seconds = beat_seconds, lease_ms / 3000
        self._started_at = clock()
        # Apart from the beat's: a full server renews leases and refuses beats, which is not a change at each turn.
        self._renewals = Outage("leases")
        self._end = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Beat until told to end."""
        next_beat = 0.0
        try:
            while True:
                ending = self._end.wait(min(self._renew_seconds, self._beat_seconds) if next_beat else 0.0)
                self._quietly(self._leases.renew, self._renewals)
                if time.monotonic() >= next_beat:
                    self._quietly(self._beat, self._outage)
                    next_beat = time.monotonic() + self._beat_seconds
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
        self.join()

    def _quietly(self, act: Callable[[], None], outage: Outage) -> None:
        try:
            act()
        except StreamUnavailable as error:
            outage.away(error)
        else:
            outage.back()

    def _beat(self) -> None:
        fields = encode(self._heartbeat())
        key = self._names.worker(self._worker)
        with translated(), self._commands.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.hset(key, mapping=fields)  # type: ignore[arg-type]  # the driver's dict is invariant
            pipe.pexpire(key, int(self._beat_seconds * 6000))
            pipe.execute()

    def _farewell(self) -> None:
        with translated():
            self._commands.delete(self._names.worker(self._worker))

    def _heartbeat(self) -> Heartbeat:
        state, reason = self._state()
        panel, latency = self._slots.panel, self._counters.latency_ms()
        lag, pending = self._backlog()
        return Heartbeat(
            worker=self._worker,
            state=state,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            beaten_at=self._clock(),
            code_version=self._code_version,
            models=",".join(
                f"{name}={active.bundle.version}#{active.activation}"
                for name, active in sorted(self._slots.active.items())
            ),
            snapshot_id=panel.snapshot_id if panel else "",
            snapshot_last_session=str(panel.sessions[-1]) if panel else "",
            in_flight=len(self._leases.held()),
            answered=self._counters.answered,
            rejected=self._counters.rejected,
            dropped=self._counters.dropped,
            reconnects=self._outage.count,
            lag=lag,
            pending=pending,
            p50_ms=latency[0] if latency else None,
            p99_ms=latency[1] if latency else None,
            reason=reason,
        )

    def _backlog(self) -> tuple[int | None, int | None]:
        with translated():
            if not self._commands.exists(self._names.requests):
                return None, None
            groups = self._commands.xinfo_groups(self._names.requests)
        for group in groups:
            if group["name"] in {GROUP, GROUP.encode()}:
                return group.get("lag"), group["pending"]
        return None, None
