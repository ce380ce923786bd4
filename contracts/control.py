"""Control events for workers, and events about workers.

Owns: `ControlEvent` (control stream) and `FleetEvent` (events stream).
Must not know: how a worker acts on them.
Invariant: an event only states that something changed; the registry is the truth, so unknown extra fields are harmless.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from contracts.fields import Instant, Sentence, Strategy, Version


class ControlType(StrEnum):
    """What changed, or what a worker should do."""

    RELOAD = "reload"
    MODEL_ACTIVATED = "model.activated"
    MODEL_DEACTIVATED = "model.deactivated"
    MODEL_FAILED = "model.failed"
    DATA_REFRESHED = "data.refreshed"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    PING = "ping"


#: What a worker cannot do for a part of what it serves.
OF_WHOLE_WORKERS = frozenset({ControlType.PAUSE, ControlType.RESUME, ControlType.DRAIN, ControlType.DATA_REFRESHED})


class ControlEvent(BaseModel):
    """One entry of the control stream: `XADD signals:control * type reload strategy alpha_baseline`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: ControlType
    #: Absent: every strategy. Workers that do not serve it ignore the event.
    strategy: Strategy | None = None
    version: Version | None = None
    #: Number of the activation that the event is about.
    activation: Annotated[int, Field(ge=0)] | None = None
    #: Absent: every worker.
    worker: str | None = None
    by: str | None = None
    reason: Sentence | None = None

    @model_validator(mode="after")
    def _of_whole_workers(self) -> Self:
        # A worker reads requests of all its strategies from one stream.
        if self.strategy is not None and self.type in OF_WHOLE_WORKERS:
            raise PydanticCustomError(
                "strategy_of_whole_worker",
                "is about whole workers, it takes no strategy; name a worker",
            )
        return self


class FleetEventType(StrEnum):
    """What a worker did."""

    STARTED = "worker.started"
    DRAINED = "worker.drained"
    PAUSED = "worker.paused"
    RESUMED = "worker.resumed"
    PONG = "worker.pong"
    #: It reads no request, for a model or the bars are missing; the reason names which.
    UNREADY = "worker.unready"
    READY = "worker.ready"
    #: Reply to every control event that makes a worker reconcile, whether or not anything changed.
    RECONCILED = "worker.reconciled"
    MODEL_LOADED = "models.loaded"
    MODEL_FAILED = "models.failed"
    MODEL_REMOVED = "models.removed"
    #: A version in testing was verified, and computes beside the active one from now on.
    CANDIDATE_LOADED = "candidates.loaded"
    #: A version in testing raised as a canary, and no longer computes on this worker.
    CANDIDATE_DROPPED = "candidates.dropped"
    SNAPSHOT_LOADED = "snapshot.loaded"
    SNAPSHOT_FAILED = "snapshot.failed"
    #: A group keeps entries of a stream older than its retention; they are not cut.
    GROUP_BEHIND = "group.behind"
    GROUP_CAUGHT_UP = "group.caught_up"
    #: A consumer without pending entries or heartbeat was removed from the group.
    CONSUMER_REMOVED = "consumer.removed"


class FleetEvent(BaseModel):
    """One entry of the events stream."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: FleetEventType
    worker: str
    at: Instant
    strategy: Strategy | None = None
    version: Version | None = None
    activation: int | None = None
    snapshot_id: str | None = None
    #: How long it took.
    duration_ms: float | None = None
    #: Entry id of the control event that was answered.
    control_id: str | None = None
    #: Why it did not, or not wholly.
    reason: Sentence | None = None


#: With which event a living worker answers a control event addressed to it, its `control_id` being that event's id.
ANSWERS: Mapping[ControlType, FleetEventType] = MappingProxyType(
    {
        ControlType.RELOAD: FleetEventType.RECONCILED,
        ControlType.MODEL_ACTIVATED: FleetEventType.RECONCILED,
        ControlType.MODEL_DEACTIVATED: FleetEventType.RECONCILED,
        ControlType.MODEL_FAILED: FleetEventType.RECONCILED,
        ControlType.DATA_REFRESHED: FleetEventType.RECONCILED,
        ControlType.PAUSE: FleetEventType.PAUSED,
        ControlType.RESUME: FleetEventType.RESUMED,
        ControlType.DRAIN: FleetEventType.DRAINED,
        ControlType.PING: FleetEventType.PONG,
    }
)
