"""The log line of each entry that was done with.

Owns: which facts of an entry and its outcome are logged, and at which level.
Must not know: how an outcome comes about, who counts it.
Invariant: one line an entry, which names its request id, its delivery and its trace.
"""

import structlog

from contracts import Rejection
from worker.serving.committer import Commit, Outcome
from worker.serving.intake import Entry
from worker.tracing import trace_id
from worker.transport.scripts import CommitStatus

_log = structlog.get_logger()


def log_published(entry: Entry, outcome: Outcome, total_ms: float) -> None:
    """Log what was published, and the time from reading the entry until then."""
    known = _known(entry, outcome.request_id, outcome.traceparent)
    if isinstance(outcome, Rejection):
        _log.info("request_rejected", code=outcome.code.value, reason=outcome.reason, total_ms=total_ms, **known)
        return
    _log.info(
        "request_answered",
        strategy=outcome.strategy,
        model_version=outcome.model_version,
        served_as=outcome.served_as.value,
        as_of=outcome.as_of.isoformat(),
        symbols=len(outcome.weights),
        queue_ms=outcome.queue_ms,
        compute_ms=outcome.compute_ms,
        total_ms=total_ms,
        **known,
    )


def log_dropped(entry: Entry, request_id: str, commit: Commit, traceparent: str | None) -> None:
    """Log why nothing was published; a request id that two producers took is a warning."""
    known = _known(entry, request_id, traceparent)
    if commit.status is CommitStatus.CONFLICT:
        _log.warning("request_id_taken_twice", outcome=commit.outcome_id, **known)
    else:
        _log.info("outcome_dropped", status=commit.status.value, outcome=commit.outcome_id, **known)


def _known(entry: Entry, request_id: str, traceparent: str | None) -> dict[str, object]:
    return {"request_id": request_id, "entry": entry.id, "deliveries": entry.deliveries, **trace_id(traceparent)}
