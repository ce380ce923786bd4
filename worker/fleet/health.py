"""Whether a worker lives, and whether it can answer.

Owns: the reasons why not, each with a code and a sentence.
Must not know: who asks (HTTP, the heartbeat, the supervisor's pipe).
Invariant: an unavailable server makes a worker unready and never dead: a restart would not bring the server back.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts import WorkerState
from strategies.suggestions import did_you_mean
from worker.retry import Outage
from worker.serving.pipeline import ServingRules
from worker.serving.slots import Slots
from worker.telemetry import Pulse


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is not so."""

    code: str
    sentence: str


class Snapshots(Protocol):
    """What loads snapshots."""

    #: Why the newest snapshot is not served; empty: it is.
    snapshot_refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the life of a worker has reached; set by others, looked at here."""

    started: threading.Event
    paused: threading.Event
    draining: threading.Event
    #: Set while the registry is unavailable.
    registry_unavailable: threading.Event
    #: Strategies that must have a model; none: at least one strategy has.
    strategies: tuple[str, ...] = ()
    #: Knows why the newest snapshot is not served.
    snapshots: Snapshots | None = None
    #: Strategy to why versions of it are refused here; empty: none is.
    refused: Callable[[str], str] = lambda _: ""

    @property
    def snapshot_refused(self) -> str:
        """Why the newest snapshot is not served; empty: it is."""
        return "" if self.snapshots is None else self.snapshots.snapshot_refused


class Liveness:
    """Whether the loops of a worker make progress and its threads live."""

    def __init__(self, pulses: Mapping[str, tuple[Pulse, float]], deaths: Mapping[str, Exception]) -> None:
        """Take the loops and the threads.

        Args:
            pulses: Name of a loop to its pulse and the seconds that it may be still.
            deaths: Name of a thread to what it died of.
        """
        self._pulses, self._deaths = pulses, deaths

    def reasons(self) -> tuple[Reason, ...]:
        """Return why the worker should be restarted; nothing if it lives."""
        return (*self._dead(), *self._hung())

    def _dead(self) -> Iterator[Reason]:
        for name, error in dict(self._deaths).items():
            yield Reason("thread_died", f"the {name} thread died of {type(error).__name__}: {error}")

    def _hung(self) -> Iterator[Reason]:
        for name, (pulse, limit) in self._pulses.items():
            still = pulse.still_seconds()
            if still > limit:
                yield Reason("hung", f"the {name} loop made no progress for {still:.1f} s, limit {limit:g} s")


class Readiness:
    """Whether a worker can answer requests now."""

    def __init__(
        self, slots: Slots, rules: ServingRules, outage: Outage, conditions: Conditions, clock: Callable[[], datetime]
    ) -> None:
        """Take what serving depends on."""
        self._slots, self._rules, self._outage = slots, rules, outage
        self._conditions, self._clock = conditions, clock

    def reasons(self) -> tuple[Reason, ...]:
        """Return why it cannot answer every request; nothing if it can."""
        return (*self._life(), *self._models(), *self._snapshot())

    def remarks(self) -> tuple[Reason, ...]:
        """Return what somebody should look at although the worker answers requests."""
        return tuple(self._refused())

    def state(self) -> WorkerState:
        """Return what the worker is doing."""
        conditions = self._conditions
        if conditions.draining.is_set():
            return WorkerState.DRAINING
        if self._outage.lasting:
            return WorkerState.WAITING
        if not conditions.started.is_set():
            return WorkerState.STARTING
        if conditions.paused.is_set():
            return WorkerState.PAUSED
        return WorkerState.UNREADY if self._slots.unable() else WorkerState.SERVING

    def _life(self) -> Iterator[Reason]:
        conditions = self._conditions
        if conditions.draining.is_set():
            yield Reason("draining", "the worker was told to leave")
        if self._outage.lasting:
            yield Reason("server_away", "the stream server is away")
        if not conditions.started.is_set():
            if conditions.registry_unavailable.is_set():
                yield Reason("registry_never_reached", "the model registry has not answered since the worker started")
            else:
                yield Reason("starting", "models and bars are being loaded")
        if conditions.paused.is_set():
            yield Reason("paused", "paused by a control event")

    def _refused(self) -> Iterator[Reason]:
        snapshot = self._conditions.snapshot_refused
        if snapshot and self._slots.panel is not None:
            yield Reason("snapshot_refused", snapshot)
        for strategy in self._slots.active:
            if refused := self._conditions.refused(strategy):
                yield Reason("model_refused", f"{strategy} {refused}")

    def _models(self) -> Iterator[Reason]:
        active, registered = self._slots.active, self._slots.registered
        wanted = self._conditions.strategies or tuple(sorted(registered or ()))
        missing = [strategy for strategy in wanted if strategy not in active]
        if active and not self._conditions.strategies:
            return  # it serves what has an active version; what does not load here, others may serve
        for strategy in missing:
            if registered is not None and strategy not in registered:
                near = did_you_mean(strategy, tuple(sorted(registered)))
                yield Reason(
                    "unknown_strategy", f"SIGNALS_STRATEGIES has {strategy}, which the registry does not know{near}"
                )
            else:
                refused = self._conditions.refused(strategy)
                yield Reason("no_model", f"no model is active of {strategy}{refused and '; '}{refused}")
        if not active and not missing:
            yield Reason("no_model", "no model is active")

    def _snapshot(self) -> Iterator[Reason]:
        panel, rules = self._slots.panel, self._rules
        if panel is None:
            refused = self._conditions.snapshot_refused
            yield Reason("missing_snapshot", f"no snapshot of bars is loaded{refused and '; '}{refused}")
            return
        if rules.default_as_of == "snapshot":
            return  # the snapshot decides which session is requested, so that it cannot be late
        last = panel.sessions[-1].astype(object)
        complete = rules.calendar.last_complete_session(self._clock(), settle_minutes=rules.settle_minutes)
        if complete > last:
            behind = len(rules.calendar.sessions_between(last, complete)) - 1
            yield Reason("stale_snapshot", f"the snapshot ends on {last}, {behind} sessions behind {complete}")
