from datetime import date

import pytest
import structlog

from strategies.market.calendar import SessionCalendar
from tests.support.market import make_panel
from tests.support.serving import Bench, Streams, make_active
from worker.serving.pipeline import Rules

SYMBOLS = ("AAPL", "IBM", "MSFT")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL,IBM", "as_of": "2013-02-01"}


@pytest.fixture
def streams(valkey_url, namespace):
    return Streams(valkey_url, namespace)


@pytest.fixture
def bench(valkey_url, streams):
    rules = Rules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))
    made = Bench(valkey_url, streams.names, rules)
    made.serve(make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5)), [make_active(SYMBOLS)])
    return made


def test_trace_context_is_carried_to_the_vector_and_the_log(bench, streams):
    streams.add(REQUEST | TRACE)

    with structlog.testing.capture_logs() as lines:
        bench.consumer.run_once()

    (vector,) = streams.results()
    assert (vector.traceparent, vector.tracestate) == (TRACE["traceparent"], TRACE["tracestate"])
    assert [line["trace_id"] for line in lines if line["event"] == "request_answered"] == [TRACE_ID]


def test_trace_context_is_carried_to_the_rejection_too(bench, streams):
    streams.add(REQUEST | TRACE | {"symbols": "NOBODY"})
    streams.add(TRACE)

    with structlog.testing.capture_logs() as lines:
        bench.consumer.run_once()

    assert [rejection.traceparent for rejection in streams.rejections()] == [TRACE["traceparent"]] * 2
    assert [rejection.tracestate for rejection in streams.rejections()] == [TRACE["tracestate"]] * 2
    assert [line["trace_id"] for line in lines if line["event"] == "request_rejected"] == [TRACE_ID] * 2


def test_request_without_a_trace_logs_none(bench, streams):
    streams.add(REQUEST)

    with structlog.testing.capture_logs() as lines:
        bench.consumer.run_once()

    assert not any("trace_id" in line for line in lines)
    assert streams.results()[0].traceparent is None


def test_stages_of_published_outcomes_are_measured(bench, streams):
    streams.add(REQUEST, times=3)

    bench.consumer.run_once()

    assert {name: sum(stage.counts) for name, stage in bench.counters.stages.items()} == {
        "queue": 3,
        "compute": 3,
        "commit": 3,
    }
    assert bench.counters.deliveries["new"] == 3
