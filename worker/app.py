"""The composition root: builds one worker from its settings and runs it.

Owns: which parts there are, which connection belongs to which thread, the order of starting and stopping.
Must not know: what any part does.
Invariant: the process ends when told to (0), when a thread of it dies (1), or when its settings cannot be (2).
"""

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import metadata

import structlog

from contracts import FleetEventType, StreamNames
from worker.clock import utc_now
from worker.embedded import Endpoints
from worker.errors import SettingsError, StreamUnavailable
from worker.events import Events
from worker.fleet.drift import DriftThread, DriftWatch
from worker.fleet.health import Conditions, Liveness, Readiness
from worker.fleet.health_port import HealthPort, pages
from worker.fleet.heartbeat import HeartbeatThread
from worker.fleet.janitor import Janitor, JanitorThread, retentions
from worker.fleet.liveness_pipe import Lifeline
from worker.fleet.metrics import metrics_registry
from worker.fleet.os_signals import hearing
from worker.fleet.status import Backlog, Facts
from worker.fleet.watchdog import Departure, HandBack, Orders
from worker.lifecycle.candidates import Candidates
from worker.lifecycle.control import ControlListener
from worker.lifecycle.failure_reporter import Refusals
from worker.lifecycle.loader import Sources
from worker.lifecycle.peer_heartbeats import Witnesses
from worker.lifecycle.reconciler import Reconciler
from worker.parts import limits_of, rules_of, sources_of
from worker.registry.registry import Registry
from worker.retry import Outage, Patience
from worker.serving.committer import Results
from worker.serving.consumer import Consumer
from worker.serving.failpoints import failpoints
from worker.serving.intake import RequestStream
from worker.serving.leases import Leases
from worker.serving.processor import Answers, Identity
from worker.serving.shadow import Shadower, Shadows, ShadowThread
from worker.serving.slots import Slots
from worker.settings import Settings
from worker.telemetry import Counters, Pulse
from worker.tracing import Tracing, no_tracing
from worker.transport.client import Client, connect

#: Connections whose outages are told apart.
_OUTAGES = ("requests", "control", "heartbeat", "leases", "janitor", "shadow")

_log = structlog.get_logger()


def code_version() -> str:
    """Return the version of this code."""
    return metadata.version("signal-worker")


def open_tracing(exporter: str, *, stream: str, worker: str, version: str) -> tuple[Tracing, Callable[[], None]]:
    """Return what traces each entry, and what to call at the end.

    Args:
        exporter: Registered name of the exporter; empty: nothing is traced.
        stream: Key of the requests.
        worker: Name of the worker.
        version: Version of the code.

    Raises:
        SettingsError: OpenTelemetry or the exporter is not installed.
    """
    if not exporter:
        return no_tracing, lambda: None
    try:
        from worker.spans import Spans, find_exporter  # noqa: PLC0415 - an extra, not a dependency
    except ModuleNotFoundError as error:
        sentence = f"trace_exporter was {exporter!r}, but {error.name} is not installed: signal-worker[otel]"
        raise SettingsError(sentence) from error
    spans = Spans(find_exporter(exporter), stream=stream, worker=worker, version=version)
    return spans.process, spans.close


class Worker:
    """One worker process: a consumer on the main thread, a control thread, a heartbeat thread."""

    def __init__(self, settings: Settings, endpoints: Endpoints, *, lifeline: int | None = None) -> None:
        """Build every part; nothing is connected before `run`.

        Args:
            settings: What the operator wants.
            endpoints: Where the servers are.
            lifeline: Pipe to the supervisor, where there is one.
        """
        self._settings, self._endpoints = settings, endpoints
        self.name = settings.worker_name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._names = StreamNames(settings.namespace)
        self._stop, self._leaving, self._leave_now = threading.Event(), threading.Event(), threading.Event()
        self._ready = threading.Event()
        self._drained_by: str | None = None
        self._stack = ExitStack()
        self._slots = Slots(settings.strategies)
        self._shadows = Shadows(self._slots, share=settings.shadow_share, size=settings.shadow_queue)
        self._counters, self._pulse = Counters(), Pulse()
        self._outages = {name: Outage(name) for name in _OUTAGES}
        self._rules = rules_of(settings)
        commands = self._connect("commands")
        self._stream = RequestStream(
            self._connect("reader", settings.block_ms), commands, self._names, self.name, lease_ms=settings.lease_ms
        )
        heart = self._connect("heartbeat")
        self._leases = Leases(heart, self._names, self.name)
        self._results = Results(commands, self._names, self.name, dedupe_seconds=settings.dedupe_seconds)
        self._events = Events(commands, self._names, self.name)
        self._consumer = self._make_consumer()
        sources = sources_of(settings, self._rules.calendar)
        self._candidates = Candidates(self._slots, self._shadows, sources, limit=settings.shadow_candidates)
        self._control = self._make_control(sources)
        self._shadow = self._make_shadow()
        self._janitor = self._make_janitor()
        drift = DriftWatch(self._slots, sessions=settings.drift_sessions, alarm_psi=settings.drift_alarm_psi)
        self._drift = DriftThread(drift, self._stop)
        self._facts = self._make_facts()
        self._heartbeat = HeartbeatThread(
            self._facts,
            self._names,
            heart,
            clock=utc_now,
            beat_seconds=settings.heartbeat_seconds,
            lease_ms=settings.lease_ms,
        )
        self._departure = self._make_departure()
        self._lifeline = Lifeline(lifeline, self._facts.liveness, self.stop) if lifeline is not None else None

    def run(self) -> int:
        """Serve until told to stop.

        Returns:
            The exit code: 0 after a stop, 1 if a thread died.

        Raises:
            SettingsError: The health port cannot be listened on.
        """
        with self._stack, self._signals():
            self._open_health_port()
            if self._lifeline is not None:
                self._lifeline.start()
            self._departure.start()
            self._heartbeat.start()
            try:
                self._serve()
            except StreamUnavailable as error:
                # Told to stop, and the server was away until the time was up.
                _log.warning("stopped_while_server_away", reason=error.reason, handed_back=self._hand_back())
            finally:
                self._stop.set()
                self._heartbeat.end()
                self._departure.left()
            return 1 if self._dead_thread() else 0

    def _hand_back(self) -> int:
        """Try once to give back what is still in hand; what the server does not take waits for its lease."""
        try:
            return self._make_hand_back("hand-back")()
        except StreamUnavailable:
            return 0

    def stop(self) -> None:
        """Stop reading, finish or give back what was read, leave."""
        if not self._stop.is_set():
            self._consumer.finish_until = time.monotonic() + self._settings.shutdown_timeout_seconds
        self._leaving.set()
        self._stop.set()

    def _drain(self, control_id: str) -> None:
        self._drained_by = control_id
        self.stop()

    def _serve(self) -> None:
        self._control.begin()
        if self._stop.is_set():
            return
        self._consumer.join_group()
        self._ready.set()
        self._heartbeat.beat_now(self._stop)
        # After what it states: whoever reads it may ask the health port, the heartbeat and the group at once.
        self._events.say(FleetEventType.STARTED)
        self._control.start()
        self._shadow.start()
        self._janitor.start()
        self._drift.start()
        watch = threading.Thread(target=self._watch, name="watch", daemon=True)
        watch.start()
        self._consumer.run(self._stop)
        self._stream.leave()
        self._events.say(FleetEventType.DRAINED, control_id=self._drained_by)
        self._control.join()
        self._shadow.join()
        self._janitor.join()
        self._drift.join()

    def _watch(self) -> None:
        """Stop the worker when a thread of it died."""
        while not self._stop.wait(0.5):
            if self._dead_thread():
                self._stop.set()

    def _dead_thread(self) -> bool:
        return any(error is not None for error in self._deaths().values())

    def _deaths(self) -> Mapping[str, Exception | None]:
        return {thread.name: thread.error for thread in (self._control, self._heartbeat, self._janitor, self._drift)}

    def _connect(self, role: str, block_ms: int = 0) -> Client:
        client = connect(self._endpoints.redis_url, f"{self.name}:{role}", block_ms=block_ms)
        self._stack.callback(client.close)
        return client

    def _patience(self, outage: Outage) -> Patience:
        return Patience(self._stop, outage, self._settings.backoff_max_seconds)

    def _make_consumer(self) -> Consumer:
        settings = self._settings
        tracing, end_tracing = open_tracing(
            settings.trace_exporter, stream=self._names.requests, worker=self.name, version=code_version()
        )
        self._stack.callback(end_tracing)
        identity = Identity(worker=self.name, code_version=code_version())
        return Consumer(
            worker=self.name,
            names=self._names,
            stream=self._stream,
            results=self._results,
            leases=self._leases,
            answers=Answers(identity, self._slots, self._rules, shadows=self._shadows, counters=self._counters),
            shadows=self._shadows,
            limits=limits_of(settings),
            counters=self._counters,
            patience=self._patience(self._outages["requests"]),
            patience_in_hand=Patience(self._leave_now, self._outages["requests"], settings.backoff_max_seconds),
            leave_now=self._leave_now,
            clock=utc_now,
            reach=failpoints(settings.failpoints),
            pulse=self._pulse,
            tracing=tracing,
        )

    def _make_departure(self) -> Departure:
        orders = Orders(stop=self._stop, leave_now=self._leave_now)
        limit = self._settings.shutdown_timeout_seconds
        return Departure(self._make_hand_back("departure"), orders, limit_seconds=limit)

    def _make_hand_back(self, role: str) -> HandBack:
        return HandBack(
            self._connect(role),
            self._names,
            self.name,
            lease_ms=self._settings.lease_ms,
            in_work=lambda: self._consumer.in_work,
        )

    def _make_shadow(self) -> ShadowThread:
        commands = self._connect("shadow")
        events = Events(commands, self._names, self.name)
        registry = Registry(self._endpoints.database_url, name="signal-worker candidates")
        self._stack.callback(registry.close)
        refusals = Refusals(registry, events, Witnesses(commands, self._names, self.name))
        return ShadowThread(
            self._shadows,
            Shadower(
                self._shadows,
                self._slots,
                self._rules,
                commands=commands,
                names=self._names,
                outage=self._outages["shadow"],
            ),
            tend=lambda: self._candidates.tend(refusals, events),
            busy=lambda: bool(self._leases.held()),
            stop=self._stop,
        )

    def _make_control(self, sources: Sources) -> ControlListener:
        settings = self._settings
        commands = self._connect("control")
        events = Events(commands, self._names, self.name)
        registry = Registry(self._endpoints.database_url)
        self._stack.callback(registry.close)
        refusals = Refusals(registry, events, Witnesses(commands, self._names, self.name))
        self._reconciler = Reconciler(
            registry, self._slots, events, sources=sources, candidates=self._candidates, refusals=refusals
        )
        return ControlListener(
            worker=self.name,
            names=self._names,
            reader=self._connect("listener", settings.block_ms),
            reconciler=self._reconciler,
            events=events,
            paused=self._consumer.paused,
            patience=self._patience(self._outages["control"]),
            stop=self._stop,
            reconcile_seconds=settings.reconcile_seconds,
            block_ms=settings.block_ms,
            on_drain=self._drain,
        )

    def _make_janitor(self) -> JanitorThread:
        settings, commands = self._settings, self._connect("janitor")
        interval = settings.janitor_interval_seconds
        janitor = Janitor(
            commands,
            self._names,
            self.name,
            retentions=retentions(self._names, settings.retention_hours),
            events=Events(commands, self._names, self.name),
            interval_seconds=interval,
        )
        return JanitorThread(janitor, self._patience(self._outages["janitor"]), self._stop, interval_seconds=interval)

    def _make_facts(self) -> Facts:
        conditions = Conditions(
            started=self._ready,
            paused=self._consumer.paused,
            leaving=self._leaving,
            registry_away=lambda: self._reconciler.registry_away,
            snapshot_refused=lambda: self._reconciler.snapshot_refused,
            strategies=self._settings.strategies,
        )
        return Facts(
            worker=self.name,
            code_version=code_version(),
            counters=self._counters,
            stream=self._stream,
            leases=self._leases,
            slots=self._slots,
            shadows=self._shadows,
            candidates=self._candidates.standing,
            drift=self._drift.watch,
            janitor=self._janitor.janitor,
            backlog=Backlog(),
            malformed_control_events=lambda: self._control.malformed,
            outages=self._outages,
            liveness=self._make_liveness(),
            readiness=Readiness(self._slots, self._rules, self._outages["requests"], conditions, utc_now),
        )

    def _make_liveness(self) -> Liveness:
        hung_after = self._settings.hung_after_seconds
        # The heart rests between two beats, which may be further apart than a loop may be still.
        rests = hung_after + self._settings.heartbeat_seconds
        return Liveness(
            lambda: {"consumer": (self._pulse, hung_after), "heartbeat": (self._heartbeat.pulse, rests)},
            self._deaths,
        )

    def _open_health_port(self) -> None:
        """Listen for probes, if wanted.

        Raises:
            SettingsError: The address cannot be listened on.
        """
        settings, facts = self._settings, self._facts
        if settings.health_port:
            answers = pages(facts.liveness, facts.readiness, metrics_registry(facts), remarks=facts.readiness.remarks)
            port = HealthPort(settings.health_host, settings.health_port, answers)
            self._stack.callback(port.close)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT, at once on a second one; only the main thread may ask for that."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        told_before = threading.Event()

        def told(number: signal.Signals) -> None:
            if told_before.is_set():
                self._leave_now.set()
            told_before.set()
            self.stop()
            _log.info("stop_signal", signal=number.name)

        with hearing(told):
            yield
