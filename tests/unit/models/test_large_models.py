"""A model far larger than any that is trained here: what the limits allow, they also let through."""

from datetime import UTC, datetime

import pytest

from contracts import SignalRequest
from strategies.market.calendar import SessionCalendar
from strategies.models.bundle_files import SIZE_LIMITS
from strategies.models.bundle_store import load_bundle
from tests.benchmarks.swap import save_large_bundle
from tests.support.models import SYMBOLS, make_bundle, make_training_panel
from worker.serving.pipeline import DeliveryRecord, ServingRules, compute, signal_vector
from worker.serving.slots import ActiveBundle

LARGE_BYTES = 200_000_000
NOW = datetime(2020, 1, 1, tzinfo=UTC)


def serve(bundle):
    """The vector that a worker publishes of the last session that the bundle learnt from."""
    panel = make_training_panel(starts={"ORCL": 100})
    as_of = panel.sessions[-1].astype(object)
    rules = ServingRules(calendar=SessionCalendar("XNYS", first=panel.sessions[0].astype(object), last=NOW.date()))
    delivery = DeliveryRecord(worker="w", code_version="1", queue_ms=0, compute_ms=0, deliveries=1)
    request = SignalRequest(request_id="r", strategy=bundle.strategy, symbols=SYMBOLS, as_of=as_of)
    active = ActiveBundle(bundle=bundle, activation=1, since=NOW)
    return signal_vector(compute(request, active, panel, rules, NOW), delivery, rules, NOW)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_model_of_200_megabytes_proves_itself_and_serves(tmp_path):
    path = save_large_bundle(tmp_path, make_bundle(tmp_path), "large", size_bytes=LARGE_BYTES)
    size = (path / "model.txt").stat().st_size

    bundle = load_bundle(path)
    vector = serve(bundle)

    assert 0.95 * LARGE_BYTES < size < SIZE_LIMITS["model.txt"]
    assert bundle.proven
    assert (vector.model_version, vector.proven, len(vector.weights)) == ("large", True, len(SYMBOLS))
