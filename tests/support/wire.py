"""Builders of what goes over the wire; a test names only what it is about."""

from datetime import UTC, date, datetime

from contracts import Excluded, Rejection, RejectionCode, Signal, SignalVector, weights_digest

SIGNALS = (
    Signal(symbol="AAPL", predicted_return=0.1 + 0.2, rank=1, target_weight=1.0),
    Signal(symbol="BRK.B", predicted_return=-1e-17, rank=2, target_weight=-1.0),
)


def make_vector(**changes: object) -> SignalVector:
    """Return a vector of two symbols."""
    values: dict[str, object] = {
        "request_id": "r-1",
        "strategy": "alpha_baseline",
        "model_version": "v1",
        "model_sha256": "a" * 64,
        "activation": 3,
        "proven": True,
        "feature_set": "alpha158",
        "feature_set_sha256": "b" * 64,
        "snapshot_id": "c" * 64,
        "as_of": date(2013, 2, 1),
        "generated_at": datetime(2013, 2, 1, 22, tzinfo=UTC),
        "valid_until": datetime(2013, 2, 4, 21, tzinfo=UTC),
        "prediction_kind": "return",
        "horizon": "close of T+1 to close of T+2",
        "requested_top_n": 3,
        "requested_bottom_n": 3,
        "used_top_n": 1,
        "used_bottom_n": 1,
        "weights_sha256": weights_digest(SIGNALS),
        "weights": SIGNALS,
        "excluded": (Excluded(symbol="FB", code="history_too_short", reason="[12 bars]"),),
        "worker": "w",
        "code_version": "0.2.0",
        "queue_ms": 0.25,
        "compute_ms": 1.5,
    }
    return SignalVector.model_validate({**values, **changes})


def make_rejection(**changes: object) -> Rejection:
    """Return a rejection of a misspelt field."""
    values: dict[str, object] = {
        "request_id": "r-1",
        "code": RejectionCode.UNKNOWN_FIELD,
        "reason": "[symbol]",
        "entry_id": "1700000000000-0",
        "rejected_at": datetime(2013, 2, 1, tzinfo=UTC),
        "worker": "w",
        "fields": {"symbol": "{AAPL"},
    }
    return Rejection.model_validate({**values, **changes})
