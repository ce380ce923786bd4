"""What a worker knows of itself: the parts that heartbeat and metrics show.

Owns: the list of these parts.
Must not know: how any of it is shown.
Invariant: reading a fact asks no server and takes no lock that the work needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contracts import RefusedModel, StandingCandidate
from worker.fleet.drift import DriftWatch
from worker.fleet.health import Liveness, Readiness
from worker.fleet.janitor import Janitor
from worker.lifecycle.control import ControlListener
from worker.retry import Outage
from worker.serving.leases import Leases
from worker.serving.request_stream import RequestStream
from worker.serving.shadow import Shadows
from worker.serving.slots import Slots
from worker.telemetry import Counters


@dataclass(slots=True)
class Backlog:
    """The group's backlog when the heartbeat last asked; absent where the server does not know it."""

    lag: int | None = None
    pending: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """The parts of one worker that know something worth showing."""

    worker: str
    code_version: str
    counters: Counters
    stream: RequestStream
    leases: Leases
    slots: Slots
    shadows: Shadows
    #: State of the versions in testing.
    candidates: Callable[[], tuple[StandingCandidate, ...]]
    #: Versions that it wants and refuses.
    refused: Callable[[], tuple[RefusedModel, ...]]
    #: How far the bars that serve are from those of training.
    drift: DriftWatch
    janitor: Janitor
    backlog: Backlog
    control: ControlListener
    #: Name of a connection to its outages; `requests` is the hot path's.
    outages: Mapping[str, Outage]
    liveness: Liveness
    readiness: Readiness
