"""Whether the fleet serves what the registry states.

Owns: the comparison of living workers with the registry's active versions.
Must not know: where heartbeats and the registry are read, how the comparison is shown.
Invariant: pure; a worker is compared in every strategy that it serves or that it should serve.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from contracts import Heartbeat, ServedModel, StandingCandidate
from worker.registry.models import ActiveModel


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """What one worker serves of one strategy, beside what it should serve."""

    worker: str
    state: str
    #: Empty: the worker serves nothing, and there is nothing that it should serve.
    strategy: str
    #: None: nothing of it is served.
    version: str | None
    activation: int | None
    since: datetime | None
    proven: bool | None
    #: Whether the registry has not confirmed it since the worker started.
    cached: bool
    snapshot_id: str
    #: The registry's; None: no version is active.
    active_version: str | None
    active_activation: int | None
    #: None: the registry could not be asked.
    equal: bool | None
    #: Why the worker cannot answer everything, as it states itself.
    reason: str
    #: Versions in testing of the strategy, as the worker sees them.
    candidates: tuple[StandingCandidate, ...] = ()


def fleet_status(beats: Sequence[Heartbeat], active: Mapping[str, ActiveModel] | None) -> list[FleetStatus]:
    """Return what every living worker serves of every strategy, by worker and strategy.

    Args:
        beats: Heartbeats of the living workers.
        active: Strategy to its active version; None where the registry is away.
    """
    found = [status for beat in beats for status in _of_worker(beat, active)]
    return sorted(found, key=lambda status: (status.worker, status.strategy))


def _of_worker(beat: Heartbeat, active: Mapping[str, ActiveModel] | None) -> Iterator[FleetStatus]:
    serving = {model.strategy: model for model in beat.serving or _parsed(beat.models)}
    configured = set(beat.strategies.split(",")) if beat.strategies else None
    wanted = {strategy for strategy in active or () if configured is None or strategy in configured}
    for strategy in serving.keys() | wanted | (configured or set()) or {""}:
        model, should = serving.get(strategy), (active or {}).get(strategy)
        yield FleetStatus(
            worker=beat.worker,
            state=beat.state.value,
            strategy=strategy,
            version=model.version if model else None,
            activation=model.activation if model else None,
            since=model.since if model else None,
            proven=model.proven if model else None,
            cached=bool(model and model.cached),
            snapshot_id=beat.snapshot_id,
            active_version=should.version if should else None,
            active_activation=should.activation if should else None,
            equal=None if active is None else _identity(model) == _identity(should),
            reason=beat.reason,
            candidates=tuple(one for one in beat.candidates if one.strategy == strategy),
        )


def _identity(model: ServedModel | ActiveModel | None) -> tuple[str, int] | None:
    return None if model is None else (model.version, model.activation)


def _parsed(models: str) -> Iterator[ServedModel]:
    """Yield what a worker of an earlier release states: `strategy=version#activation`, comma-separated."""
    for part in filter(None, models.split(",")):
        strategy, _, rest = part.partition("=")
        version, _, activation = rest.partition("#")
        yield ServedModel(strategy=strategy, version=version, activation=int(activation))
