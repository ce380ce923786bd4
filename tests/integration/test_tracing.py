import subprocess
import sys
import threading
from datetime import date

import pytest
import structlog
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from strategies.market.calendar import SessionCalendar
from tests.support.market import make_panel
from tests.support.serving import Bench, make_active
from worker.build import open_tracing
from worker.errors import SettingsError
from worker.serving.failpoints import failpoints
from worker.serving.pipeline import ServingRules
from worker.spans import Spans

SYMBOLS = ("AAPL", "IBM", "MSFT")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL,IBM", "as_of": "2013-02-01"}


@pytest.fixture
def bench(valkey_url, streams):
    rules = ServingRules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))
    made = Bench(valkey_url, streams.names, rules)
    made.serve(make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5)), [make_active(SYMBOLS)])
    return made


def test_trace_context_is_carried_to_the_vector_and_the_log(bench, streams):
    streams.add(REQUEST | TRACE)

    with structlog.testing.capture_logs() as lines:
        bench.run_once()

    (vector,) = streams.results()
    assert (vector.traceparent, vector.tracestate) == (TRACE["traceparent"], TRACE["tracestate"])
    assert [line["trace_id"] for line in lines if line["event"] == "request_answered"] == [TRACE_ID]


def test_trace_context_is_carried_to_the_rejection_too(bench, streams):
    streams.add(REQUEST | TRACE | {"symbols": "NOBODY"})
    streams.add(TRACE)

    with structlog.testing.capture_logs() as lines:
        bench.run_once()

    assert [rejection.traceparent for rejection in streams.rejections()] == [TRACE["traceparent"]] * 2
    assert [rejection.tracestate for rejection in streams.rejections()] == [TRACE["tracestate"]] * 2
    assert [line["trace_id"] for line in lines if line["event"] == "request_rejected"] == [TRACE_ID] * 2


def test_request_without_a_trace_logs_none(bench, streams):
    streams.add(REQUEST)

    with structlog.testing.capture_logs() as lines:
        bench.run_once()

    assert not any("trace_id" in line for line in lines)
    assert streams.results()[0].traceparent is None


def test_stages_of_published_outcomes_are_measured(bench, streams):
    streams.add(REQUEST, times=3)

    bench.run_once()

    assert {name: sum(stage.counts) for name, stage in bench.counters.stages.items()} == {
        "queue": 3,
        "compute": 3,
        "commit": 3,
    }
    assert bench.counters.deliveries["new"] == 3


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def spans(bench, streams, exporter):
    made = Spans(exporter, stream=streams.names.requests, worker="w1", version="1.0")
    bench.trace(made.process)
    yield made
    made.close()


def test_span_has_the_producer_as_its_parent(bench, streams, spans, exporter):
    (entry,) = streams.add(REQUEST | TRACE)

    bench.run_once()
    spans.close()

    (span,) = exporter.get_finished_spans()
    assert span.name == f"process {streams.names.requests}"
    assert span.kind is SpanKind.CONSUMER
    assert format(span.context.trace_id, "032x") == TRACE_ID
    assert format(span.parent.span_id, "016x") == "b7ad6b7169203331"
    assert span.context.trace_state.get("vendor") == "1"
    assert span.attributes["messaging.message.id"] == entry
    assert span.attributes["messaging.destination.name"] == streams.names.requests
    assert span.attributes["signal_worker.outcome"] == "answered"
    assert span.attributes["signal_worker.strategy"] == "alpha_baseline"


def test_span_of_a_rejection_names_its_code(bench, streams, spans, exporter):
    streams.add(REQUEST | {"symbols": "NOBODY"})

    bench.run_once()
    spans.close()

    (span,) = exporter.get_finished_spans()
    assert span.attributes["signal_worker.outcome"] == "unknown_symbol"
    assert span.parent is None
    assert span.status.is_ok


def test_span_without_an_outcome_is_an_error(bench, streams, spans, exporter):
    bench.failpoint = failpoints("seed=1,computed=raise@1")
    streams.add(REQUEST)

    bench.run_once()
    spans.close()

    assert not exporter.get_finished_spans()[0].status.is_ok


def test_exporter_that_hangs_delays_neither_work_nor_shutdown(bench, streams):
    class Hanging(SpanExporter):
        def export(self, _spans) -> SpanExportResult:
            hung.set()
            go_on.wait(30)
            return SpanExportResult.FAILURE

    hung, go_on = threading.Event(), threading.Event()
    made = Spans(Hanging(), stream=streams.names.requests, worker="w1", version="1.0")
    bench.trace(made.process)
    streams.add(REQUEST)

    bench.run_once()
    made.close()

    assert hung.is_set()
    assert not go_on.is_set()
    assert len(streams.results()) == 1
    go_on.set()


def test_exporter_that_is_not_installed_is_refused_by_name():
    with pytest.raises(SettingsError, match=r"trace_exporter was 'nowhere', installed are: .*console"):
        open_tracing("nowhere", stream="s", worker="w", version="1")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_no_span_is_loaded_without_an_exporter():
    code = "import sys, worker.app; print('worker.spans' in sys.modules, 'opentelemetry.sdk.trace' in sys.modules)"

    assert run_python(code) == "False False"


def test_worker_needs_no_opentelemetry_until_it_traces():
    code = """
import sys
sys.modules["opentelemetry"] = None
import worker.app
from worker.errors import SettingsError
from worker.build import open_tracing
try:
    open_tracing("console", stream="s", worker="w", version="1")
except SettingsError as error:
    print(error)
"""

    assert "is not installed: signal-worker[otel]" in run_python(code)
