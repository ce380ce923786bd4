"""What a worker knows of itself: the parts that heartbeat and metrics tell of.

Owns: the list of these parts.
Must not know: how any of it is told.
Invariant: reading a fact asks no server and takes no lock that the work needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contracts import StandingCandidate
from worker.fleet.drift import DriftWatch
from worker.fleet.health import Liveness, Readiness
from worker.fleet.janitor import Janitor
from worker.retry import Outage
from worker.serving.intake import RequestStream
from worker.serving.leases import Leases
from worker.serving.shadow import Shadows
from worker.serving.slots import Slots
from worker.telemetry import Counters


@dataclass(slots=True)
class Backlog:
    """The group's backlog when the heartbeat last asked; absent where the server cannot say."""

    lag: int | None = None
    pending: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The parts of one worker that know something worth telling."""

    worker: str
    code_version: str
    counters: Counters
    stream: RequestStream
    leases: Leases
    slots: Slots
    shadows: Shadows
    #: What stands with the versions in testing.
    candidates: Callable[[], tuple[StandingCandidate, ...]]
    #: What is known of how far the bars that serve lie from those of training.
    drift: DriftWatch
    janitor: Janitor
    backlog: Backlog
    #: Control events so far that could not be read.
    malformed_control_events: Callable[[], int]
    #: Name of a connection to its outages; `requests` is the hot path's.
    outages: Mapping[str, Outage]
    liveness: Liveness
    readiness: Readiness
