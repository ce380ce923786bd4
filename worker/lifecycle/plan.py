"""What must change so that a worker serves what the registry states.

Owns: the comparison of what is desired with what serves.
Must not know: where either comes from, how a change is made.
Invariant: pure; two equal states need no change, and what was rejected before is not tried again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from worker.registry.models import ActiveModel, CandidateModel
from worker.serving.slots import ActiveBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What the registry states, of the strategies that this worker is configured for."""

    #: Strategy to its active version.
    active: Mapping[str, ActiveModel]
    #: Strategy to its versions in testing, of all strategies.
    candidates: Mapping[str, tuple[CandidateModel, ...]]
    #: Every strategy that has a version.
    strategies: frozenset[str]
    #: Strategies without an active version whose serving version was taken out of service.
    withdrawn: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedVersion:
    """A version that did not prove itself here."""

    version: str
    activation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The changes, in the order in which they are made."""

    #: Strategies that serve no longer.
    remove: tuple[str, ...] = ()
    #: Versions to load, verify and swap in.
    activate: tuple[ActiveModel, ...] = ()
    #: Versions that were rejected before and are not tried again, one sentence each.
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a plan."""

    #: Whether the registry could be asked.
    registry_reached: bool
    #: What could not be done, one sentence each.
    errors: tuple[str, ...] = ()
    #: Whether a version is refused here that others may serve, so that another look may find it sound.
    refused_here: bool = False


def diff(desired: Desired, serving: Mapping[str, ActiveBundle], rejected: Mapping[str, RejectedVersion]) -> Plan:
    """Return what must change.

    Args:
        desired: What the registry states.
        serving: Strategy to what serves it.
        rejected: Strategy to the version that was rejected last.
    """
    # A registry that lost its last commits, in a failover, gives their numbers to other versions: both must be equal.
    changed = [model for model in desired.active.values() if _identity(model) != _serving(serving.get(model.strategy))]
    known = {model.strategy: rejected[model.strategy] for model in changed if _was_rejected(model, rejected)}
    return Plan(
        remove=tuple(sorted(desired.withdrawn & serving.keys())),
        activate=tuple(model for model in changed if model.strategy not in known),
        errors=tuple(f"{name} {each.version} was refused before: {each.reason}" for name, each in known.items()),
    )


def _was_rejected(model: ActiveModel, rejected: Mapping[str, RejectedVersion]) -> bool:
    before = rejected.get(model.strategy)
    return before is not None and (before.version, before.activation) == _identity(model)


def _identity(model: ActiveModel) -> tuple[str, int]:
    return model.version, model.activation


def _serving(active: ActiveBundle | None) -> tuple[str, int] | None:
    return None if active is None else (active.bundle.version, active.activation)
