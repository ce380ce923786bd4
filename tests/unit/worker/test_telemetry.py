from contracts import RejectionCode
from tests.support.wire import make_rejection, make_vector
from worker.telemetry import Counters
from worker.transport.scripts import CommitStatus


def test_counters_distinguish_outcomes():
    counters = Counters()

    counters.count(make_vector(), CommitStatus.COMMITTED, 1.0)
    counters.count(make_rejection(code=RejectionCode.STALE_SYMBOL), CommitStatus.COMMITTED, 1.0)
    counters.count(make_vector(), CommitStatus.DUPLICATE, 1.0)

    assert (counters.answered, counters.rejected, counters.dropped) == (1, 1, 1)
    assert counters.codes == {"stale_symbol": 1}


def test_latency_needs_two_answers_and_keeps_the_last_thousand():
    counters = Counters()
    counters.count(make_vector(), CommitStatus.COMMITTED, 500.0)
    assert counters.latency_ms() is None

    for _ in range(1000):
        counters.count(make_vector(), CommitStatus.COMMITTED, 2.0)

    assert counters.latency_ms() == (2.0, 2.0)
