"""The log line of each entry that was done with.

Owns: which facts of an entry and its outcome are logged, and at which level.
Must not know: how an outcome comes about, who counts it.
Invariant: one line an entry, which names its request id, its delivery and its trace.
"""

import structlog

from contracts import Rejection
from worker.serving.outcomes import Commit, Publication
from worker.serving.request_stream import Entry
from worker.tracing import trace_id
from worker.transport.scripts import CommitStatus

_log = structlog.get_logger()


def log_published(entry: Entry, publication: Publication, total_ms: float) -> None:
    """Log what was published, and the time from reading the entry until then."""
    known = _known(entry, publication.request_id, publication.traceparent)
    if isinstance(publication, Rejection):
        _log.info(
            "request_rejected", code=publication.code.value, reason=publication.reason, total_ms=total_ms, **known
        )
        return
    _log.info(
        "request_answered",
        strategy=publication.strategy,
        model_version=publication.model_version,
        served_as=publication.served_as.value,
        as_of=publication.as_of.isoformat(),
        symbols=len(publication.weights),
        queue_ms=publication.queue_ms,
        compute_ms=publication.compute_ms,
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
