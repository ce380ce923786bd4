"""The composition root: builds the parts of one worker from its settings.

Owns: which parts there are, and which connection belongs to which thread.
Must not know: what any part does, in which order they start and stop.
Invariant: every part is handed what it needs when it is made; nothing is connected, read or started here but the
exchange's sessions.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

from contracts import StreamNames
from strategies.models.machine_proof import prove_machine
from worker.clock import utc_now
from worker.embedded import Endpoints
from worker.errors import RegistryUnavailable, SettingsError
from worker.events import Events
from worker.fleet.drift import DriftThread, DriftWatch
from worker.fleet.health import Conditions, Liveness, Readiness
from worker.fleet.heartbeat import HeartbeatThread
from worker.fleet.janitor import Janitor, JanitorThread, retentions
from worker.fleet.liveness_pipe import LivenessPipe
from worker.fleet.status import Backlog, WorkerStatus
from worker.fleet.watchdog import EntriesInFlight, ShutdownWatchdog
from worker.lifecycle.candidates import Candidates
from worker.lifecycle.control import ControlListener
from worker.lifecycle.failure_reporter import FailureReporter, PeerHeartbeats
from worker.lifecycle.loader import ModelSources, sources_of
from worker.lifecycle.reconciler import Reconciler
from worker.lifecycle.refusals import Machine, Refusals
from worker.registry.registry import Registry
from worker.registry.requirements import RegistryRole, require_registry
from worker.retry import Outage, RetryPolicy
from worker.runtime import code_version
from worker.service import Service
from worker.serving.committer import Committer, Results
from worker.serving.consumer import Consumer
from worker.serving.deadlines import Deadlines
from worker.serving.failpoints import failpoints
from worker.serving.gate import Gate
from worker.serving.intake import Intake, limits_of
from worker.serving.leases import Leases
from worker.serving.peers import Peers
from worker.serving.processor import Answerer, Processor, WorkerIdentity
from worker.serving.request_stream import RequestStream
from worker.serving.rules import rules_of
from worker.serving.shadow import Shadower, Shadows, ShadowThread
from worker.serving.slots import Slots
from worker.settings import Settings
from worker.shutdown import Shutdown
from worker.telemetry import Counters, Pulse
from worker.tracing import Tracing, no_tracing
from worker.transport.client import Client, connect
from worker.transport.requirements import StreamRole, require_stream_server

#: Connections whose outages are counted apart.
_OUTAGES = ("requests", "control", "heartbeat", "leases", "janitor", "shadow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One worker, built and not started."""

    names: StreamNames
    shutdown: Shutdown
    #: Looks once whether both servers and their logins are enough for a worker; waits for the stream server.
    require_servers: Callable[[], None]
    #: Set once the worker can answer.
    ready: threading.Event
    control: ControlListener
    machine: Machine
    stream: RequestStream
    intake: Intake
    consumer: Consumer
    events: Events
    heartbeat: HeartbeatThread
    status: WorkerStatus
    #: Nacks what is in flight, for the main thread.
    entries_in_flight: EntriesInFlight
    #: Started first and stopped last, in this order and against it: they outlive the work.
    guards: tuple[Service, ...]
    #: Started once the worker can answer.
    loops: tuple[Service, ...]


def build(settings: Settings, endpoints: Endpoints, name: str, stack: ExitStack, *, pipe: int | None = None) -> Parts:
    """Return a worker's parts; their connections close with the stack.

    Args:
        settings: Of the environment and the command line.
        endpoints: Where the servers are.
        name: Of this worker.
        stack: Closes what was opened.
        pipe: Descriptor of the supervisor's pipe, where there is a supervisor.

    Raises:
        SettingsError: The calendar, the failpoints or the trace exporter cannot be as they are set.
    """
    return _Builder(settings, endpoints, name, stack).build(pipe)


class _Builder:
    """Makes the parts, those first that others are made of."""

    def __init__(self, settings: Settings, endpoints: Endpoints, name: str, stack: ExitStack) -> None:
        self._settings, self._endpoints, self._name, self._stack = settings, endpoints, name, stack
        self._names, self._rules = StreamNames(settings.namespace, settings.partition), rules_of(settings)
        self._shutdown = Shutdown(settings.shutdown_timeout_seconds)
        self._ready, self._paused, self._registry_unavailable = (threading.Event() for _ in range(3))
        self._slots, self._counters = Slots(settings.strategies), Counters()
        self._refusals, self._machine = Refusals(), Machine(prove_machine)
        self._peers = Peers(self._names, name, self._slots)
        self._shadows = Shadows(self._slots, share=settings.shadow_share, size=settings.shadow_queue)
        self._outages = {connection: Outage(connection) for connection in _OUTAGES}
        self._pulse, self._heartbeat_pulse = Pulse(), Pulse()
        self._commands, self._heart = self._connect("commands"), self._connect("heartbeat")
        self._control_commands = self._connect("control")
        self._leases = Leases(self._heart, self._names, name)

    def build(self, pipe: int | None) -> Parts:
        stream, sources = self._stream(), sources_of(self._settings, self._rules.calendar)
        intake = self._intake(stream)
        candidates = Candidates(self._slots, self._shadows, sources, limit=self._settings.shadow_candidates)
        reconciler = self._reconciler(sources, candidates)
        control, janitor, settings = self._control(reconciler), self._janitor(), self._settings
        drift = DriftWatch(self._slots, sessions=settings.drift_sessions, alarm_psi=settings.drift_alarm_psi)
        status = self._status(stream, candidates, reconciler, control, janitor, drift)
        heartbeat = self._heartbeat(status)
        guards: tuple[Service, ...] = (
            ShutdownWatchdog(self._entries_in_flight("departure", intake), self._shutdown),
            heartbeat,
        )
        if pipe is not None:
            guards = (LivenessPipe(pipe, status.liveness, self._shutdown), *guards)
        return Parts(
            names=self._names,
            shutdown=self._shutdown,
            require_servers=self._require_servers,
            ready=self._ready,
            control=control,
            machine=self._machine,
            stream=stream,
            intake=intake,
            consumer=self._consumer(intake),
            events=self._events(self._commands),
            heartbeat=heartbeat,
            status=status,
            entries_in_flight=self._entries_in_flight("hand-back", intake),
            guards=guards,
            loops=(
                control,
                self._shadow(candidates),
                JanitorThread(
                    janitor,
                    self._retry("janitor"),
                    self._shutdown,
                    interval_seconds=settings.janitor_interval_seconds,
                ),
                DriftThread(drift, self._shutdown),
            ),
        )

    def _require_servers(self) -> None:
        """Look once, after the stream server answers; a worker may start while the registry is unavailable.

        Raises:
            SettingsError: A server or a login is not enough.
            StreamUnavailable: The worker is to stop, and the server still does not answer.
        """
        self._retry("control").call(
            lambda: require_stream_server(self._control_commands, self._names, StreamRole.WORKER)
        )
        with suppress(RegistryUnavailable):
            require_registry(self._endpoints.database_url, RegistryRole.WORKER)

    def _connect(self, role: str, block_ms: int = 0) -> Client:
        client = connect(self._endpoints.redis_url, f"{self._name}:{role}", block_ms=block_ms)
        self._stack.callback(client.close)
        return client

    def _events(self, commands: Client) -> Events:
        return Events(commands, self._names, self._name)

    def _retry(self, outage: str, *, until: threading.Event | None = None, pulse: Pulse | None = None) -> RetryPolicy:
        stop = until or self._shutdown.stopping
        return RetryPolicy(stop, self._outages[outage], self._settings.backoff_max_seconds, pulse=pulse)

    def _inflight_retry(self) -> RetryPolicy:
        return self._retry("requests", until=self._shutdown.forced, pulse=self._pulse)

    def _stream(self) -> RequestStream:
        reader = self._connect("reader", self._settings.block_ms)
        return RequestStream(reader, self._commands, self._names, self._name, lease_ms=self._settings.lease_ms)

    def _intake(self, stream: RequestStream) -> Intake:
        return Intake(
            stream,
            self._leases,
            self._names,
            limits_of(self._settings),
            retry=self._retry("requests", pulse=self._pulse),
            inflight_retry=self._inflight_retry(),
            shutdown=self._shutdown,
            paused=self._paused,
            may_read=self._gate().open,
            counters=self._counters,
            pulse=self._pulse,
        )

    def _gate(self) -> Gate:
        deadlines = Deadlines(
            self._commands,
            self._names,
            self._name,
            limits_of(self._settings),
            dedupe_seconds=self._settings.dedupe_seconds,
            clock=utc_now,
        )
        retry = self._retry("requests", pulse=self._pulse)
        return Gate(self._slots, self._paused, self._events(self._commands), deadlines, self._peers, retry=retry)

    def _consumer(self, intake: Intake) -> Consumer:
        settings, failpoint = self._settings, failpoints(self._settings.failpoints)
        results = Results(self._commands, self._names, self._name, dedupe_seconds=settings.dedupe_seconds)
        committer = Committer(
            results, intake, self._inflight_retry(), worker=self._name, clock=utc_now, failpoint=failpoint
        )
        identity = WorkerIdentity(worker=self._name, code_version=code_version())
        answerer = Answerer(identity, self._slots, self._rules, shadows=self._shadows, counters=self._counters)
        processor = Processor(
            self._name,
            answerer,
            committer,
            limits_of(settings),
            peers=self._peers,
            clock=utc_now,
            failpoint=failpoint,
        )
        return Consumer(
            intake,
            processor,
            committer,
            shadows=self._shadows,
            counters=self._counters,
            clock=utc_now,
            tracing=self._tracing(),
        )

    def _tracing(self) -> Tracing:
        exporter, stream = self._settings.trace_exporter, self._names.requests
        tracing, close = open_tracing(exporter, stream=stream, worker=self._name, version=code_version())
        self._stack.callback(close)
        return tracing

    def _reporter(self, commands: Client, registry: Registry) -> FailureReporter:
        peers = PeerHeartbeats(commands, self._names, self._name)
        return FailureReporter(registry, self._events(commands), peers, refusals=self._refusals, machine=self._machine)

    def _registry(self, name: str) -> Registry:
        registry = Registry(self._endpoints.database_url, name=name)
        self._stack.callback(registry.close)
        return registry

    def _reconciler(self, sources: ModelSources, candidates: Candidates) -> Reconciler:
        registry = self._registry("signal-worker")
        return Reconciler(
            registry,
            self._slots,
            self._events(self._control_commands),
            sources=sources,
            candidates=candidates,
            reporter=self._reporter(self._control_commands, registry),
            refusals=self._refusals,
            registry_unavailable=self._registry_unavailable,
        )

    def _control(self, reconciler: Reconciler) -> ControlListener:
        settings = self._settings
        return ControlListener(
            worker=self._name,
            names=self._names,
            reader=self._connect("listener", settings.block_ms),
            reconciler=reconciler,
            events=self._events(self._control_commands),
            paused=self._paused,
            retry=self._retry("control"),
            shutdown=self._shutdown,
            reconcile_seconds=settings.reconcile_seconds,
            block_ms=settings.block_ms,
        )

    def _shadow(self, candidates: Candidates) -> ShadowThread:
        commands = self._connect("shadow")
        shadower = Shadower(
            self._shadows,
            self._slots,
            self._rules,
            commands=commands,
            names=self._names,
            outage=self._outages["shadow"],
        )
        reporter = self._reporter(commands, self._registry("signal-worker candidates"))
        return ShadowThread(
            self._shadows,
            shadower,
            verify_next=partial(candidates.verify_next, reporter, self._events(commands)),
            busy=self._leases.busy,
            shutdown=self._shutdown,
        )

    def _janitor(self) -> Janitor:
        settings, commands = self._settings, self._connect("janitor")
        return Janitor(
            commands,
            self._names,
            self._name,
            retentions=retentions(self._names, settings.retention_hours),
            events=self._events(commands),
            interval_seconds=settings.janitor_interval_seconds,
        )

    def _status(
        self,
        stream: RequestStream,
        candidates: Candidates,
        reconciler: Reconciler,
        control: ControlListener,
        janitor: Janitor,
        drift: DriftWatch,
    ) -> WorkerStatus:
        conditions = Conditions(
            started=self._ready,
            paused=self._paused,
            draining=self._shutdown.draining,
            registry_unavailable=self._registry_unavailable,
            strategies=self._settings.strategies,
            snapshots=reconciler,
            refused=self._refusals.reason,
        )
        hung_after = self._settings.hung_after_seconds
        # The heart rests between two beats, which may be further apart than a loop may be still.
        rests = hung_after + self._settings.heartbeat_seconds
        pulses = {"consumer": (self._pulse, hung_after), "heartbeat": (self._heartbeat_pulse, rests)}
        return WorkerStatus(
            worker=self._name,
            code_version=code_version(),
            counters=self._counters,
            stream=stream,
            leases=self._leases,
            slots=self._slots,
            shadows=self._shadows,
            candidates=candidates.status,
            refused=self._refusals.listed,
            drift=drift,
            janitor=janitor,
            backlog=Backlog(),
            control=control,
            outages=self._outages,
            liveness=Liveness(pulses, self._shutdown.deaths),
            readiness=Readiness(self._slots, self._rules, self._outages["requests"], conditions, utc_now),
        )

    def _heartbeat(self, status: WorkerStatus) -> HeartbeatThread:
        return HeartbeatThread(
            status,
            self._names,
            self._heart,
            peers=self._peers,
            clock=utc_now,
            pulse=self._heartbeat_pulse,
            shutdown=self._shutdown,
            beat_seconds=self._settings.heartbeat_seconds,
            lease_ms=self._settings.lease_ms,
        )

    def _entries_in_flight(self, role: str, intake: Intake) -> EntriesInFlight:
        lease_ms = self._settings.lease_ms
        return EntriesInFlight(self._connect(role), self._names, self._name, lease_ms=lease_ms, intake=intake)


def open_tracing(exporter: str, *, stream: str, worker: str, version: str) -> tuple[Tracing, Callable[[], None]]:
    """Return what traces each entry, and what to call at the end; without an exporter no OpenTelemetry is imported.

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
