"""The one place where outcomes are published.

Owns: the commit: append, remember and acknowledge as one script on the server.
Must not know: how outcomes come about.
Invariant: at most one outcome a request id within the time it is remembered, whatever crashes or is said twice.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from contracts import GROUP, Rejection, ServedAs, SignalVector, StreamNames
from contracts.codec import encode
from worker.serving.intake import Entry
from worker.transport.client import Client, say, translated
from worker.transport.scripts import CommitStatus, script

Outcome = SignalVector | Rejection
#: Fields that a producer may set anew each time it sends the same request.
_OF_THE_SENDING = frozenset({b"request_id", b"deadline", b"traceparent", b"tracestate"})


@dataclass(frozen=True, slots=True)
class Commit:
    """The server's answer to a commit."""

    status: CommitStatus
    #: Entry id of the outcome; empty where there is none.
    outcome_id: str


def asked_sha256(entry: Entry) -> str:
    """Return the digest of what an entry asks: equal for a request that its producer sent again."""
    asked = sorted(pair for pair in entry.pairs if pair[0] not in _OF_THE_SENDING)
    return sha256(b"".join(b"%d:%s" % (len(text), text) for pair in asked for text in pair)).hexdigest()


class Results:
    """Publishes outcomes of one consumer."""

    def __init__(self, commands: Client, names: StreamNames, consumer: str, *, dedupe_seconds: int) -> None:
        """Take a connection that does not block."""
        self._commands, self._commit = commands, script(commands, "commit_outcome")
        self._names, self._consumer, self._dedupe_ms = names, consumer, dedupe_seconds * 1000

    def server_time(self) -> datetime:
        """Return the instant by the server's clock, by which deadlines are kept.

        Raises:
            StreamUnavailable: The server is away.
        """
        with translated():
            seconds, microseconds = say(self._commands, "TIME")
        return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(microseconds))

    def commit(self, entry: Entry, outcome: Outcome, *, deadline_ms: int | None = None) -> Commit:
        """Publish an outcome, remember its request id and acknowledge its entry.

        May be said twice: after a lost reply the second call answers `duplicate`.

        Raises:
            StreamUnavailable: The server did not do it, or its reply was lost.
            ValueError: A shadow vector, which is never traded and so never stands among the results.
        """
        if isinstance(outcome, SignalVector) and outcome.served_as is ServedAs.SHADOW:
            raise ValueError(f"the vector of {outcome.request_id} by {outcome.model_version} is a shadow vector")
        return self._settle(entry, outcome.request_id, outcome, deadline_ms)

    def acknowledge_answered(self, entry: Entry, request_id: str) -> Commit:
        """Acknowledge an entry whose request id has an outcome already; one that has none is left as it is (`open`).

        Raises:
            StreamUnavailable: The server did not do it, or its reply was lost.
        """
        return self._settle(entry, request_id, None, None)

    def _settle(self, entry: Entry, request_id: str, outcome: Outcome | None, deadline_ms: int | None) -> Commit:
        rejected = isinstance(outcome, Rejection)
        stream = self._names.rejections if rejected else self._names.results
        flat = [text for pair in encode(outcome).items() for text in pair] if outcome else ()
        with translated():
            status, outcome_id = self._commit(
                keys=[self._names.requests, stream, self._names.request(request_id)],
                args=[
                    GROUP,
                    self._consumer,
                    entry.id,
                    "rejected" if rejected else "done",
                    self._dedupe_ms,
                    "" if deadline_ms is None else deadline_ms,
                    asked_sha256(entry),
                    *flat,
                ],
            )
        return Commit(CommitStatus(status.decode()), outcome_id.decode())
