"""The wire: requests, signal vectors, rejections, control events, heartbeats."""

from contracts.control import ControlEvent, ControlType, FleetEvent, FleetEventType
from contracts.errors import ContractError
from contracts.heartbeats import Heartbeat, ServedModel, StandingCandidate, WorkerState
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
    "Rejection",
    "RejectionCode",
    "ServedAs",
    "ServedModel",
    "Signal",
    "SignalRequest",
    "SignalVector",
    "StandingCandidate",
    "StreamNames",
    "WorkerState",
    "weights_digest",
]
