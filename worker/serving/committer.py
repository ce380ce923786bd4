"""The one place where outcomes are committed.

Owns: the commit: append, remember and acknowledge as one script on the server; a nack where there is no outcome.
Must not know: how outcomes come about.
Invariant: at most one outcome a request id within the time it is remembered, whatever crashes or is repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import structlog

from contracts import GROUP, Purpose, Rejection, ServedAs, SignalVector, StreamNames
from contracts.codec import encode
from worker.errors import DeadlineExceeded, GroupVanished
from worker.retry import RetryPolicy
from worker.serving.failpoints import Failpoint, Step
from worker.serving.intake import Intake
from worker.serving.outcomes import Answered, Commit, Duplicate, Elsewhere, Left, Outcome, Publication, Rejected
from worker.serving.rejections import rejection_of
from worker.serving.request_stream import Entry
from worker.transport.client import Client
from worker.transport.scripts import CommitOutcome, CommitStatus

_log = structlog.get_logger()

#: Fields that a producer may set anew each time it sends the same request.
TRANSPORT_FIELDS = frozenset({b"request_id", b"deadline", b"traceparent", b"tracestate"})


#: Approximate length at which the stream of probes is cut: whoever asks reads the answer at once.
PROBES_KEPT = 10_000
_PURPOSE = b"purpose"
_TO_TRADE = (_PURPOSE, Purpose.TRADE.encode())


def request_fingerprint(entry: Entry) -> str:
    """Return the digest of what an entry asks: equal for a request that its producer sent again."""
    # To trade is what a request without a purpose asks.
    question = sorted(pair for pair in entry.pairs if pair[0] not in TRANSPORT_FIELDS and pair != _TO_TRADE)
    return sha256(b"".join(b"%d:%s" % (len(text), text) for pair in question for text in pair)).hexdigest()


class Results:
    """Publishes outcomes of one consumer."""

    def __init__(self, commands: Client, names: StreamNames, consumer: str, *, dedupe_seconds: int) -> None:
        """Take a connection that does not block."""
        self._commands, self._names = commands, names
        self._consumer, self._dedupe_ms = consumer, dedupe_seconds * 1000

    def server_time(self) -> datetime:
        """Return the instant by the server's clock, by which deadlines are kept.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        return self._commands.server_time()

    def publish(self, entry: Entry, publication: Publication, *, deadline_ms: int | None = None) -> Commit:
        """Publish a vector or a rejection, remember its request id and acknowledge its entry.

        Idempotent: after a lost reply the second call returns `duplicate`.

        Raises:
            StreamUnavailable: The server did not do it, or its reply was lost.
            ValueError: A shadow vector, which is never traded and so never published among the results.
        """
        if isinstance(publication, SignalVector) and publication.served_as is ServedAs.SHADOW:
            raise ValueError(
                f"the vector of {publication.request_id} by {publication.model_version} is a shadow vector"
            )
        return self._commit(entry, publication.request_id, publication, deadline_ms)

    def acknowledge_answered(self, entry: Entry, request_id: str) -> Commit:
        """Acknowledge an entry whose request id has an outcome already; one that has none is left as it is (`open`).

        Raises:
            StreamUnavailable: The server did not do it, or its reply was lost.
        """
        return self._commit(entry, request_id, None, None)

    def _commit(
        self, entry: Entry, request_id: str, publication: Publication | None, deadline_ms: int | None
    ) -> Commit:
        rejected = isinstance(publication, Rejection)
        probe = isinstance(publication, SignalVector) and publication.purpose is Purpose.PROBE
        status, outcome_id = self._commands.run(
            CommitOutcome(
                requests=self._names.requests,
                outcomes=self._stream_of(publication),
                request=self._names.request(request_id),
                group=GROUP,
                consumer=self._consumer,
                entry_id=entry.id,
                state="rejected" if rejected else "done",
                remember_ms=self._dedupe_ms,
                deadline_ms="" if deadline_ms is None else deadline_ms,
                fingerprint=request_fingerprint(entry),
                purpose=purpose_of(entry),
                most=PROBES_KEPT if probe else "",
                outcome=[text for pair in encode(publication).items() for text in pair] if publication else (),
            )
        )
        return Commit(status, outcome_id)

    def _stream_of(self, publication: Publication | None) -> str:
        if isinstance(publication, Rejection):
            return self._names.rejections
        probe = publication is not None and publication.purpose is Purpose.PROBE
        return self._names.probes if probe else self._names.results


def purpose_of(entry: Entry) -> str:
    """Return the purpose that an entry states, to be remembered; what is no purpose counts as none stated."""
    stated = next((value.decode(errors="replace") for name, value in entry.pairs if name == _PURPOSE), "")
    return stated if stated in set(Purpose) else Purpose.TRADE.value


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an outcome."""

    #: What was published or dropped; None where there was nothing to publish.
    publication: Publication | None = None
    #: None: the entry was nacked.
    commit: Commit | None = None


class Committer:
    """Commits the outcomes of one consumer, however long the server is unavailable."""

    def __init__(
        self,
        results: Results,
        intake: Intake,
        retry: RetryPolicy,
        *,
        worker: str,
        clock: Callable[[], datetime],
        failpoint: Failpoint,
    ) -> None:
        """Take every part from the composition root; `retry` ends when the worker is forced to stop."""
        self._results, self._intake, self._retry = results, intake, retry
        self._worker, self._clock, self._failpoint = worker, clock, failpoint

    def commit(self, entry: Entry, outcome: Outcome) -> Receipt:
        """Publish and acknowledge, or nack, or leave to another worker.

        Raises:
            StreamUnavailable: The server was unavailable when the worker was forced to stop.
        """
        if isinstance(outcome, Left):
            self._intake.nack(entry, tried=True, error=outcome.error)
            return Receipt()
        if isinstance(outcome, Duplicate):
            return Receipt(commit=outcome.commit)
        if isinstance(outcome, Elsewhere):
            left = self._intake.leave(entry, heir=outcome.heir, patient=outcome.patient)
            return Receipt() if left or outcome.rejection is None else self._publish(entry, outcome.rejection)
        receipt = (
            self._publish(entry, outcome.rejection)
            if isinstance(outcome, Rejected)
            else self._publish_in_time(entry, outcome)
        )
        self._failpoint(Step.COMMITTED)
        return receipt

    def acknowledge_answered(self, entry: Entry, request_id: str) -> Commit:
        """Acknowledge an entry whose request id has an outcome already."""
        return self._retry.call(lambda: self._results.acknowledge_answered(entry, request_id))

    def last_error(self, entry: Entry) -> str:
        """Return the last error that processing an entry raised."""
        return self._intake.last_error(entry)

    def server_time(self) -> datetime:
        """Return the instant by the server's clock."""
        return self._retry.call(self._results.server_time)

    def _publish_in_time(self, entry: Entry, answered: Answered) -> Receipt:
        """Publish a vector, or a rejection where it comes after its deadline."""
        receipt = self._publish(entry, answered.vector, answered.deadline_ms)
        if receipt.commit is None or receipt.commit.status is not CommitStatus.LATE:
            return receipt
        late = DeadlineExceeded(f"the deadline {answered.deadline_ms} ms passed before the vector could be published")
        return self._publish(entry, rejection_of(entry, late, worker=self._worker, now=self._clock()))

    def _publish(self, entry: Entry, publication: Publication, deadline_ms: int | None = None) -> Receipt:
        def publish() -> Commit:
            try:
                return self._results.publish(entry, publication, deadline_ms=deadline_ms)
            except GroupVanished as error:
                # The entry is delivered again from the new group; whoever reads it then commits.
                self._intake.recreate_group(error)
                return Commit(CommitStatus.FENCED, "")

        commit = self._retry.call(publish)
        _log.debug("outcome_committed", entry=entry.id, status=commit.status.value, outcome=commit.outcome_id)
        return Receipt(publication, commit)
