"""The judge of a run: reads the streams alone and says what became of every accepted request.

Owns: what each request id should have become, and the comparison with what stood on the streams.
Must not know: workers, faults.
Invariant: it trusts no counter and no log, only entries; what a server lost again counts as seen by those who read it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contracts import Rejection, SignalVector, weights_digest
from contracts.codec import decode
from tests.support.serving import Streams
from worker.server import pairs_of, say

#: Entries asked for at once.
_PIECE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the streams say of a run."""

    requests: int
    answered: int
    rejected: int
    #: Request ids without an outcome.
    lost: tuple[str, ...]
    #: Request ids with more than one outcome, though the server knew of the first.
    doubled: tuple[str, ...]
    #: Request ids with an equal outcome once more, after a server had lost the first: no script can rule that out.
    repeated: tuple[str, ...]
    #: Request ids whose outcome is not the one computed directly.
    wrong: tuple[str, ...]
    #: Request ids with an outcome that nobody asked for.
    strange: tuple[str, ...]
    #: Entries delivered and not acknowledged.
    pending: int

    @property
    def holds(self) -> bool:
        """Whether each request has exactly the one outcome it should have."""
        return not (self.lost or self.doubled or self.wrong or self.strange or self.pending)

    def __str__(self) -> str:
        faults = {name: len(getattr(self, name)) for name in ("lost", "doubled", "wrong", "strange")}
        examples = {name: getattr(self, name)[:3] for name in faults if getattr(self, name)}
        counts = f"{self.requests} requests, {self.answered} answered, {self.rejected} rejected"
        return f"{counts}, {faults}, {examples}, pending {self.pending}"


class Ledger:
    """Every outcome that ever stood on the streams, in the order of reading."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._last = {streams.names.results: "0-0", streams.names.rejections: "0-0"}
        #: Request id to what it became; as many as there were entries.
        self._seen: dict[str, list[str]] = {}
        #: Request id to place of its outcome, of those that the server still has.
        self._known: dict[str, tuple[str, str]] = {}
        self._doubled: set[str] = set()
        self._repeated: set[str] = set()
        self._answered = 0

    def read(self) -> None:
        """Take down what is new."""
        for stream in self._last:
            while rows := say(self._streams.client, "XRANGE", stream, f"({self._last[stream]}", "+", "COUNT", _PIECE):
                self.take(stream, rows)

    def take(self, stream: str, rows: Iterable[Any]) -> None:
        """Take down these entries of a stream."""
        for raw_id, flat in rows:
            entry_id = raw_id.decode()
            request_id, outcome = self._outcome(stream, flat)
            if request_id in self._known:
                self._doubled.add(request_id)
            elif request_id in self._seen:
                self._repeated.add(request_id)
            self._seen.setdefault(request_id, []).append(outcome)
            self._known[request_id] = (stream, entry_id)
            self._last[stream] = entry_id

    def tail(self) -> list[tuple[str, str]]:
        """Return each stream with the last entry taken down."""
        return list(self._last.items())

    def forget_after(self, kept: Mapping[str, str]) -> None:
        """Note that the server lost what came after these entries of its streams; others saw it all the same."""
        self._known = {
            request_id: (stream, entry_id)
            for request_id, (stream, entry_id) in self._known.items()
            if _place(entry_id) <= _place(kept[stream])
        }

    def unanswered(self, expected: Iterable[str]) -> list[str]:
        """Return the request ids that have no outcome."""
        return [request_id for request_id in expected if request_id not in self._seen]

    def verdict(self, expected: Mapping[str, str]) -> Verdict:
        """Compare what was taken down with what each request id should have become."""
        return Verdict(
            requests=len(expected),
            answered=self._answered,
            rejected=sum(len(outcomes) for outcomes in self._seen.values()) - self._answered,
            lost=tuple(self.unanswered(expected)),
            doubled=tuple(sorted(self._doubled)),
            repeated=tuple(sorted(self._repeated)),
            wrong=tuple(
                request_id
                for request_id, outcomes in self._seen.items()
                if set(outcomes) != {expected.get(request_id, outcomes[0])}
            ),
            strange=tuple(request_id for request_id in self._seen if request_id not in expected),
            pending=self._streams.pending(),
        )

    def _outcome(self, stream: str, flat: Any) -> tuple[str, str]:
        if stream == self._streams.names.results:
            vector = decode(SignalVector, pairs_of(flat))
            self._answered += 1
            # The digest is made anew: what a vector states of itself is no proof.
            return vector.request_id, weights_digest(vector.weights)
        rejection = decode(Rejection, pairs_of(flat))
        return rejection.request_id, rejection.code.value


def _place(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
