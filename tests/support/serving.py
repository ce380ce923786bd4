"""A consumer on a real server with a real small model, for tests of the hot path."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from weakref import WeakSet

import lightgbm as lgb
import numpy as np
from redis import ConnectionPool

from contracts import GROUP, FleetEvent, Rejection, SignalVector, StreamNames
from contracts.codec import decode
from strategies.construction import Construction
from strategies.expressions.feature_sets import feature_set
from strategies.market.bars import Panel
from strategies.models.bundle import ALPHA158_LABEL, Bundle
from worker.retry import Outage, RetryPolicy
from worker.serving.committer import Committer, Results
from worker.serving.consumer import Consumer
from worker.serving.failpoints import Failpoint, Step, failpoints
from worker.serving.intake import Intake, Limits
from worker.serving.leases import Leases
from worker.serving.peers import Peers
from worker.serving.pipeline import ServingRules
from worker.serving.processor import Answerer, Processor, WorkerIdentity
from worker.serving.request_stream import Entry, RequestStream
from worker.serving.shadow import Shadows
from worker.serving.slots import ActiveBundle, Slots
from worker.shutdown import Shutdown
from worker.telemetry import Counters, Pulse
from worker.tracing import Finish, Pairs, Tracing, no_tracing
from worker.transport.client import Client, connect, pairs_of, text_of

#: Well after the close of the last session that the builders make.
NOW = datetime(2013, 3, 2, 12, 0, tzinfo=UTC)


#: Pools of connections of the classes below, until they are collected; some outlive their client.
_opened: "WeakSet[ConnectionPool]" = WeakSet()


def open_client(url: str, role: str, *, block_ms: int = 0) -> Client:
    """Return a client as the worker's parts use one; `close_clients` closes it."""
    client = connect(url, role, block_ms=block_ms)
    _opened.add(client.connection_pool)
    return client


def put_hash(client: Client, key: str, fields: Mapping[str, str]) -> None:
    """Write a hash as the worker's parts leave theirs: with an expiry."""
    client.hset(key, mapping=dict(fields))  # type: ignore[arg-type]  # the driver's dict is invariant
    client.expire(key, 600)


def close_clients() -> None:
    """Close the connections of every client that `open_client` returned; a longer-lived one connects again."""
    for pool in list(_opened):
        pool.disconnect()


class Streams:
    """The streams of one namespace as a test writes and reads them."""

    def __init__(self, url: str, namespace: str) -> None:
        self.names = StreamNames(namespace)
        self.client: Client = open_client(url, "test")

    def add(self, fields: Mapping[bytes | str, bytes | str], *, times: int = 1) -> list[str]:
        """Add a request as a producer would, and return the entry ids."""
        flat = [text for pair in fields.items() for text in pair]
        return [self.client.execute_command("XADD", self.names.requests, "*", *flat).decode() for _ in range(times)]

    def results(self) -> list[SignalVector]:
        """Return every vector."""
        return list(self.each_result())

    def rejections(self) -> list[Rejection]:
        """Return every rejection."""
        return list(self.each_rejection())

    def events(self, control_id: str | None = None) -> list[FleetEvent]:
        """Return what workers did, all of it or what answered one control event."""
        events = [decode(FleetEvent, pairs) for pairs in self._entries(self.names.events)]
        return [event for event in events if control_id in {None, event.control_id}]

    def control(self, kind: str) -> str:
        """Add a control event and return its id."""
        return text_of(self.client.xadd(self.names.control, {"type": kind}))

    def each_result(self) -> Iterator[SignalVector]:
        """Yield every vector; a long stream is read in pieces."""
        return (decode(SignalVector, pairs) for pairs in self._entries(self.names.results))

    def each_rejection(self) -> Iterator[Rejection]:
        """Yield every rejection; a long stream is read in pieces."""
        return (decode(Rejection, pairs) for pairs in self._entries(self.names.rejections))

    def pending(self) -> int:
        """Return how many entries are delivered and not acknowledged."""
        return int(self.client.xpending(self.names.requests, GROUP)["pending"])

    def deliveries(self) -> dict[str, int]:
        """Return entry id to delivery count of what is pending."""
        rows: Any = self.client.xpending_range(self.names.requests, GROUP, min="-", max="+", count=1000)
        return {row["message_id"].decode(): row["times_delivered"] for row in rows}

    def _entries(self, stream: str) -> Iterator[tuple[tuple[bytes, bytes], ...]]:
        start = "-"
        while rows := self.client.execute_command("XRANGE", stream, start, "+", "COUNT", 1000):
            yield from (pairs_of(flat) for _, flat in rows)
            start = f"({rows[-1][0].decode()}"


def make_limits(**changes: float) -> Limits:
    """Return limits that let a test run fast."""
    values: dict[str, float] = {
        "batch_count": 16,
        "block_ms": 50,
        "lease_ms": 300,
        "claim_interval_ms": 50,
        "max_deliveries": 5,
        "max_entry_bytes": 262_144,
        "max_symbols": 5000,
        "retry_pause_ms": 10,
    }
    return Limits(**{**values, **changes})  # type: ignore[arg-type]  # ints and floats as the fields want them


def make_active(universe: Sequence[str] = (), *, seed: int = 0, activation: int = 1) -> ActiveBundle:
    """Return a small, really trained Alpha158 model as the slot of a strategy holds it; never proven, never saved."""
    rng = np.random.default_rng(seed)
    features = feature_set("alpha158")
    rows = rng.normal(size=(400, len(features.names)))
    data = lgb.Dataset(rows, rows[:, :5].sum(axis=1) * 0.01, feature_name=list(features.names))
    parameters = {"verbosity": -1, "seed": seed, "num_threads": 1, "deterministic": True, "num_leaves": 7}
    booster = lgb.train(parameters, data, num_boost_round=10)
    digest = sha256(booster.model_to_string().encode()).hexdigest()
    bundle = Bundle(
        strategy="alpha_baseline",
        version=f"v{seed + 1}",
        model_sha256=digest,
        bundle_sha256=digest,
        feature_set=features,
        label=ALPHA158_LABEL,
        prediction_kind="return",
        vwap_stand_in="typical_price",
        construction=Construction(),
        calendar="XNYS",
        universe=tuple(universe),
        proven=False,
        manifest=None,
        processors=(),
        booster=booster,
    )
    return ActiveBundle(bundle=bundle, activation=activation, since=NOW)


class Bench:
    """One consumer, built as the composition root builds it, with clock and failpoint chosen by the test."""

    def __init__(  # noqa: PLR0913 - each is a choice of some test
        self,
        url: str,
        names: StreamNames,
        rules: ServingRules,
        *,
        name: str = "w1",
        limits: Limits | None = None,
        served: tuple[str, ...] = (),
        grace_seconds: float = 5.0,
        stream: RequestStream | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.names, self.rules, self.limits = names, rules, limits or make_limits()
        self.shutdown, self.paused = Shutdown(grace_seconds), threading.Event()
        commands = open_client(url, f"{name}:commands")
        self.stream = stream or RequestStream(
            open_client(url, f"{name}:reader", block_ms=self.limits.block_ms),
            commands,
            names,
            name,
            lease_ms=self.limits.lease_ms,
        )
        self.leases = Leases(open_client(url, f"{name}:heartbeat"), names, name)
        self.results = Results(commands, names, name, dedupe_seconds=3600)
        self.slots, self.counters, self.outage = Slots(served), Counters(), Outage("requests")
        self.shadows = Shadows(self.slots, share=1.0, size=8)
        self.pulse, self.now = pulse or Pulse(), NOW
        self._tracing: Tracing = no_tracing
        #: Called at each step of an entry.
        self.failpoint: Failpoint = failpoints("")
        inflight_retry = RetryPolicy(self.shutdown.forced, self.outage, 0.2, pulse=self.pulse)
        self.intake = Intake(
            self.stream,
            self.leases,
            names,
            self.limits,
            retry=RetryPolicy(self.shutdown.stopping, self.outage, 0.2, pulse=self.pulse),
            inflight_retry=inflight_retry,
            shutdown=self.shutdown,
            paused=self.paused,
            may_read=lambda: not self.paused.is_set(),
            counters=self.counters,
            pulse=self.pulse,
        )
        self.committer = Committer(
            self.results, self.intake, inflight_retry, worker=name, clock=self._clock, failpoint=self._failpoint
        )
        self.answerer = Answerer(
            WorkerIdentity(worker=name, code_version="test"),
            self.slots,
            rules,
            shadows=self.shadows,
            counters=self.counters,
        )
        self.peers = Peers(names, name, self.slots)
        self.processor = Processor(
            name,
            self.answerer,
            self.committer,
            self.limits,
            peers=self.peers,
            clock=self._clock,
            failpoint=self._failpoint,
        )
        self.consumer = Consumer(
            self.intake,
            self.processor,
            self.committer,
            shadows=self.shadows,
            counters=self.counters,
            clock=self._clock,
            tracing=self._trace,
        )

    def run_once(self) -> None:
        """Process what can be read now, without waiting for more: what is pending, what is overdue, what is new."""
        self.stream.ensure_group()
        in_flight = self.leases.in_flight() | self.intake.nacked.keys()
        for entry in self.stream.recover(in_flight):
            self.take([entry])
        while claimed := self.stream.claim():
            self.take([claimed])
        while entries := self.intake.read_new(1):
            self.take(entries)

    def take(self, entries: Sequence[Entry]) -> None:
        """Process these entries as the intake yields them."""
        for entry in self.intake.admit(entries):
            self.consumer.handle(entry)

    def trace(self, tracing: Tracing) -> None:
        """Have entries traced from now on."""
        self._tracing = tracing

    def _trace(self, entry_id: str, pairs: Pairs) -> AbstractContextManager[Finish]:
        return self._tracing(entry_id, pairs)

    def _clock(self) -> datetime:
        return self.now

    def _failpoint(self, step: Step) -> None:
        self.failpoint(step)

    def serve(self, panel: Panel | None, active: Sequence[ActiveBundle], *, known: Sequence[str] = ()) -> None:
        """Let a snapshot and bundles serve."""
        if panel is not None:
            self.slots.put_panel(panel)
        for one in active:
            self.slots.put(one)
        self.slots.set_registered(frozenset([*known, *(one.bundle.strategy for one in active)]))
