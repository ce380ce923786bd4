"""Spans of OpenTelemetry for requests that are answered; imported only where a trace exporter is set.

Owns: the span `process signals:requests`, its attributes and its parent, and the export in the background.
Must not know: where spans go; the exporter is found by its registered name and reads its own `OTEL_…` variables.
Invariant: an unavailable collector costs spans, never a request and never a worker's shutdown.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import entry_points

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contracts import GROUP, Rejection, SignalVector
from worker.errors import SettingsError
from worker.tracing import Finish, Pairs, trace_fields

#: Where exporters register.
_EXPORTERS = "opentelemetry_traces_exporter"
#: Time that the last spans have when a worker leaves, in seconds.
FLUSH_SECONDS = 2.0


def find_exporter(name: str) -> SpanExporter:
    """Return the installed exporter of this name: `console`, `otlp_proto_http`, ….

    Raises:
        SettingsError: None is installed under this name.
    """
    installed = entry_points(group=_EXPORTERS)
    for entry in installed.select(name=name):
        exporter: SpanExporter = entry.load()()
        return exporter
    names = ", ".join(sorted({entry.name for entry in installed})) or "none"
    raise SettingsError(f"trace_exporter was {name!r}, installed are: {names}")


class Spans:
    """Makes and exports the spans of one worker."""

    def __init__(self, exporter: SpanExporter, *, stream: str, worker: str, version: str) -> None:
        """Take what exports spans; it runs on a thread of its own."""
        resource = Resource.create(
            {"service.name": "signal-worker", "service.version": version, "service.instance.id": worker}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("signal_worker", version)
        self._stream, self._propagator = stream, TraceContextTextMapPropagator()

    def process(self, entry_id: str, pairs: Pairs) -> AbstractContextManager[Finish]:
        """Return the span of one entry's processing, the producer's span being its parent."""
        return self._span(entry_id, pairs)

    @contextmanager
    def _span(self, entry_id: str, pairs: Pairs) -> Iterator[Finish]:
        attributes = {
            "messaging.system": "redis",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": self._stream,
            "messaging.consumer.group.name": GROUP,
            "messaging.message.id": entry_id,
        }
        with self._tracer.start_as_current_span(
            f"process {self._stream}",
            context=self._propagator.extract(trace_fields(pairs)),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
        ) as span:
            finished = _Outcome(span)
            yield finished
            if not finished.known:
                span.set_status(StatusCode.ERROR, "no outcome: given back")

    def close(self) -> None:
        """Send what is left, as far as that is quick."""
        flush = threading.Thread(target=self._provider.shutdown, name="flush-spans", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)


class _Outcome:
    """Notes an outcome on its span."""

    def __init__(self, span: Span) -> None:
        self._span, self.known = span, False

    def __call__(self, outcome: SignalVector | Rejection) -> None:
        self.known = True
        self._span.set_attribute("messaging.message.conversation_id", outcome.request_id)
        if isinstance(outcome, Rejection):
            self._span.set_attribute("signal_worker.outcome", outcome.code.value)
            return
        self._span.set_attribute("signal_worker.outcome", "answered")
        self._span.set_attribute("signal_worker.strategy", outcome.strategy)
        self._span.set_attribute("signal_worker.model_version", outcome.model_version)
