"""The wire: requests, signal vectors, rejections, control events, heartbeats."""

from contracts.control import ControlEvent, ControlType, FleetEvent, FleetEventType
from contracts.errors import ContractError
from contracts.fields import Purpose
from contracts.heartbeats import Heartbeat, RefusedModel, ServedModel, StandingCandidate, WorkerState
from contracts.rejections import Rejection, RejectionCode
from contracts.requests import IneligiblePolicy, SignalRequest
from contracts.signals import (
    Contribution,
    Excluded,
    Explanation,
    PredictionKind,
    ServedAs,
    Signal,
    SignalVector,
    UniverseKind,
    universe_digest,
    weights_digest,
)
from contracts.streams import GROUP, StreamNames

__all__ = [
    "GROUP",
    "ContractError",
    "Contribution",
    "ControlEvent",
    "ControlType",
    "Excluded",
    "Explanation",
    "FleetEvent",
    "FleetEventType",
    "Heartbeat",
    "IneligiblePolicy",
    "PredictionKind",
    "Purpose",
    "RefusedModel",
    "Rejection",
    "RejectionCode",
    "ServedAs",
    "ServedModel",
    "Signal",
    "SignalRequest",
    "SignalVector",
    "StandingCandidate",
    "StreamNames",
    "UniverseKind",
    "WorkerState",
    "universe_digest",
    "weights_digest",
]
