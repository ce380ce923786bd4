"""Trace context of requests: into logs, rejections and, where wanted, spans.

Owns: the two W3C fields of an entry, and the span of its processing.
Must not know: how an outcome comes about.
Invariant: without a trace exporter nothing of OpenTelemetry is imported; a malformed trace costs no request.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from contracts import Rejection, SignalVector

Pairs = Sequence[tuple[bytes, bytes]]
#: Takes the outcome of the span's request; not called where there is none.
Finish = Callable[[SignalVector | Rejection], None]
#: Entry id and fields to the context in which the entry is processed.
Tracing = Callable[[str, Pairs], AbstractContextManager[Finish]]

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_BYTES = 512


def trace_fields(pairs: Pairs) -> dict[str, str]:
    """Return an entry's `traceparent` and `tracestate` as far as they are ones, whatever else it holds."""
    given = dict(pairs)
    parent, state = given.get(b"traceparent", b""), given.get(b"tracestate", b"")
    if not _TRACEPARENT.fullmatch(parent):
        return {}
    found = {"traceparent": parent.decode()}
    if 0 < len(state) <= _TRACESTATE_BYTES and state.isascii():
        found["tracestate"] = state.decode()
    return found


def trace_id(traceparent: str | None) -> dict[str, str]:
    """Return the log field of a trace, none where there is no trace."""
    return {"trace_id": traceparent[3:35]} if traceparent else {}


def no_tracing(_entry_id: str, _pairs: Pairs) -> AbstractContextManager[Finish]:
    """Trace nothing."""
    return nullcontext(_ignore)


def _ignore(_outcome: SignalVector | Rejection) -> None:
    """Keep no outcome."""
