"""The life sign of one worker.

Owns: `Heartbeat` and what it lists, the fields of `signals:worker:<name>`.
Must not know: how the numbers are gathered.
Invariant: flat text, so that `HGETALL signals:worker:<name>` is readable.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from contracts.fields import Instant, Partition, Strategy, Version
from contracts.signals import ServedAs


class WorkerState(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    SERVING = "serving"
    #: A model or the bars are missing: it reads no request.
    UNREADY = "unready"
    PAUSED = "paused"
    #: The stream server is unavailable.
    WAITING = "waiting"
    DRAINING = "draining"


class ServedModel(BaseModel):
    """What serves one strategy on one worker."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    strategy: Strategy
    version: Version
    activation: Annotated[int, Field(ge=0)]
    #: Instant from which it serves on this worker; absent from workers of earlier releases.
    since: Instant | None = None
    #: Whether it reproduced its golden sample here.
    proven: bool | None = None
    #: Whether the registry has not confirmed it since the worker started: it is what proved itself here last.
    cached: bool = False


class StandingCandidate(BaseModel):
    """A version in testing, as one worker sees it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    strategy: Strategy
    version: Version
    #: `canary` or `shadow`.
    part: ServedAs
    #: Of the requests that it answers as a canary, or that it computes in the shadow.
    share: Annotated[float, Field(ge=0, le=1)]
    #: Instant from which it computes on this worker; absent: it does not.
    since: Instant | None = None
    #: Whether it reproduced its golden sample here; absent where it does not compute.
    proven: bool | None = None
    #: Why it does not compute here.
    reason: str = ""


class RefusedModel(BaseModel):
    """A version that one worker wants and refuses."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    strategy: Strategy
    version: Version
    #: Whether its golden sample came out otherwise there, which a second worker must confirm before it counts.
    golden: bool = False
    reason: str = ""


class Heartbeat(BaseModel):
    """One worker's state, written every few seconds, gone when it stops writing."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    worker: str
    state: WorkerState
    host: str
    pid: int
    started_at: Instant
    beaten_at: Instant
    code_version: str
    #: `strategy=version#activation`, comma-separated.
    models: str = ""
    #: The same with all that is known of each, as JSON.
    serving: tuple[ServedModel, ...] = ()
    #: Versions in testing, as JSON.
    candidates: tuple[StandingCandidate, ...] = ()
    #: Versions that it wants and refuses, as JSON.
    refused: tuple[RefusedModel, ...] = ()
    #: What became of requests offered to be shadowed, `published=7,dropped=2`.
    shadows: str = ""
    #: Vectors published by the part of the model, `active=90,canary=10`.
    parts: str = ""
    #: Strategies whose active version is being loaded, comma-separated.
    loading: str = ""
    #: Request stream that it reads; empty: that of no partition.
    partition: Partition = ""
    #: Strategies the worker is configured for, comma-separated; empty: all.
    strategies: str = ""
    snapshot_id: str = ""
    snapshot_last_session: str = ""
    #: Of two snapshots the newer one has the later text; empty: none serves.
    snapshot_order: str = ""
    #: Entries read and not yet answered.
    in_flight: Annotated[int, Field(ge=0)] = 0
    answered: Annotated[int, Field(ge=0)] = 0
    rejected: Annotated[int, Field(ge=0)] = 0
    #: Outcomes that another worker had already published, or whose lease was lost.
    dropped: Annotated[int, Field(ge=0)] = 0
    #: The same by status, `duplicate=2,fenced=1`.
    drops: str = ""
    #: Entries whose processing raised and that were nacked.
    failures: Annotated[int, Field(ge=0)] = 0
    #: Requests of a canary's share that the active version answered.
    canary_fallbacks: Annotated[int, Field(ge=0)] = 0
    #: Entries not answered here, `given=7,waiting=1`: to a worker that can, or until one can.
    left: str = ""
    #: Rejections by code, `stale_symbol=2,unknown_symbol=1`.
    codes: str = ""
    #: Entries read, `new=7,own=1,claimed=2`.
    deliveries: str = ""
    #: Entries in flight that another worker claimed.
    lease_losses: Annotated[int, Field(ge=0)] = 0
    #: Requests cut from their stream while pending, which no worker can answer.
    trimmed_pending: Annotated[int, Field(ge=0)] = 0
    #: How often the hot path lost the stream server, and with which errors.
    reconnects: Annotated[int, Field(ge=0)] = 0
    outages: str = ""
    #: The same of the other connections, `control:ConnectionError=1`.
    other_outages: str = ""
    #: Control events that could not be read.
    malformed_control_events: Annotated[int, Field(ge=0)] = 0
    #: Entries this worker cut from streams past their retention.
    trimmed: Annotated[int, Field(ge=0)] = 0
    #: Dead consumers this worker removed.
    removed_consumers: Annotated[int, Field(ge=0)] = 0
    #: Groups that delay the trimming of a stream, `stream|group`, from the worker that is the janitor.
    groups_behind: str = ""
    #: Entries of the group not yet delivered; absent where the server does not know.
    lag: int | None = None
    pending: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    #: Median and 99th percentile of each stage of the last published outcomes, in milliseconds: `queue=0.4/1.3`.
    stages: str = ""
    #: PSI of the prediction on recent bars against the training rows, `strategy=psi`, comma-separated; where measured.
    drift: str = ""
    #: Why the worker cannot answer everything.
    reason: str = ""
