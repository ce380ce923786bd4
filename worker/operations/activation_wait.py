"""Whether an activation is served: waiting until every living worker serves it, or until one refuses it.

Owns: which workers are waited for, and what each of them made of the activation.
Must not know: how heartbeats are read, how the outcome is shown.
Invariant: `served` is true only where every living worker that is configured for the strategy states the activation in
its own heartbeat; what is not known counts as not served.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from contracts import Heartbeat, WorkerState
from worker.registry.models import Activation, ActiveModel

#: Pause between two looks, in seconds.
LOOK_SECONDS = 0.2
#: Time for which nobody may publish, or no worker live, before the wait ends, in seconds: one may just be starting.
GRACE_SECONDS = 10.0


class ActivationState(Protocol):
    """What is looked at while waiting; each call may raise `StreamUnavailable` or `RegistryUnavailable`."""

    def living(self) -> Mapping[str, Heartbeat | None]:
        """Return worker to its heartbeat; None: it is silent, or cannot be read."""

    def refusals(self) -> Mapping[str, str]:
        """Return worker to the reason for which it announced that it cannot serve the activation."""

    def active(self) -> ActiveModel | None:
        """Return the strategy's active version."""

    def led(self) -> bool:
        """Return whether somebody publishes the registry's changes."""

    def failure(self) -> Activation | None:
        """Return the change by which the version was failed since, if it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationOutcome:
    """What became of an activation."""

    #: Workers that serve it, by name.
    served_by: tuple[str, ...] = ()
    #: Worker to why it does not, as far as it is known.
    differing: Mapping[str, str] = field(default_factory=dict)
    #: Those of them that announced that they cannot serve it.
    refusals: frozenset[str] = frozenset()
    #: Why it will not be served, whatever workers do; empty: it may be yet.
    refused: str = ""
    #: Whether nobody published the change.
    unpublished: bool = False

    @property
    def served(self) -> bool:
        """Whether every living worker serves it, one at least."""
        return bool(self.served_by) and not self.differing and not self.refused


def await_serving(wanted: ActiveModel, state: ActivationState, *, timeout: float) -> ActivationOutcome:
    """Return what became of an activation: served, refused, or neither within the time.

    Args:
        wanted: As the registry returned it.
        state: What is looked at.
        timeout: Longest wait, in seconds.

    Raises:
        WorkerError: A server is unavailable.
    """
    began = led_until = time.monotonic()
    while True:
        now = time.monotonic()
        refused, refusals = _overruled(wanted, state), state.refusals()
        served, differing = _divided(wanted, state.living(), refusals)
        led_until = now if state.led() else led_until
        unpublished = bool(differing) and now - led_until > GRACE_SECONDS
        settled = differing.keys() <= refusals.keys() if served or differing else now - began > GRACE_SECONDS
        if refused or unpublished or settled or now - began >= timeout:
            return ActivationOutcome(
                served_by=served,
                differing=differing,
                refusals=frozenset(refusals),
                refused=refused,
                unpublished=unpublished,
            )
        time.sleep(LOOK_SECONDS)


def _overruled(wanted: ActiveModel, state: ActivationState) -> str:
    """Return what the registry states against the activation by now; empty: nothing."""
    active = state.active()
    if active is not None and (active.version, active.activation) == (wanted.version, wanted.activation):
        return ""
    now = f"{active.version} is active, activation {active.activation}" if active else "no version is active"
    failure = state.failure()
    if failure is not None and failure.activation > wanted.activation:
        return f"{wanted.version} was refused by {failure.actor} ({failure.reason}); {now}"
    return f"another change replaced it: {now}"


def _divided(
    wanted: ActiveModel, living: Mapping[str, Heartbeat | None], refusals: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    served: list[str] = []
    differing: dict[str, str] = {}
    for worker, beat in sorted(living.items()):
        if beat is None:
            differing[worker] = "silent"
        elif beat.strategies and wanted.strategy not in beat.strategies.split(","):
            continue
        elif beat.state is WorkerState.DRAINING:
            continue  # it reads no request any more
        elif _serves(beat, wanted):
            served.append(worker)
        else:
            differing[worker] = refusals.get(worker) or _instead(beat, wanted.strategy)
    return tuple(served), differing


def _serves(beat: Heartbeat, wanted: ActiveModel) -> bool:
    stated = (wanted.strategy, wanted.version, wanted.activation)
    return any((one.strategy, one.version, one.activation) == stated for one in beat.serving)


def _instead(beat: Heartbeat, strategy: str) -> str:
    serving = [f"serves {one.version} #{one.activation}" for one in beat.serving if one.strategy == strategy]
    return ", ".join([beat.state.value, *(serving or ["serves nothing of it"]), *filter(None, [beat.reason])])
