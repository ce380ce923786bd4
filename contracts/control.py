"""Hints to workers, and what workers did.

Owns: `ControlEvent` (control stream) and `FleetEvent` (events stream).
Must not know: how a worker acts on them.
Invariant: an event only says that something changed; the registry is the truth, so unknown extra fields are harmless.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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


class ControlEvent(BaseModel):
    """One entry of the control stream: `XADD signals:control * type reload strategy alpha_baseline`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: ControlType
    #: Absent: every strategy.
    strategy: Strategy | None = None
    version: Version | None = None
    #: Number of the activation the event tells of.
    activation: Annotated[int, Field(ge=0)] | None = None
    #: Absent: every worker.
    worker: str | None = None
    by: str | None = None
    reason: Sentence | None = None


class FleetEventType(StrEnum):
    """What a worker did."""

    STARTED = "worker.started"
    DRAINED = "worker.drained"
    PAUSED = "worker.paused"
    RESUMED = "worker.resumed"
    PONG = "worker.pong"
    MODEL_LOADED = "models.loaded"
    MODEL_FAILED = "models.failed"
    MODEL_REMOVED = "models.removed"
    SNAPSHOT_LOADED = "snapshot.loaded"
    SNAPSHOT_FAILED = "snapshot.failed"
    #: A group keeps entries of a stream older than its retention; they are not cut.
    GROUP_BEHIND = "group.behind"
    GROUP_CAUGHT_UP = "group.caught_up"
    #: A consumer that held nothing and beat no more was taken out of the group.
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
    reason: Sentence | None = None
