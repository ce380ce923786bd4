"""The judge of a run: reads the streams alone and says what became of every accepted request.

Owns: what each request id should have become, and the comparison with what stood on the streams.
Must not know: workers, faults.
Invariant: it trusts no counter and no log, only entries; what a server lost again counts as seen by those who read it.
A request without an outcome is lost, unless it was seen to be on its server before a fault and not after it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from contracts import GROUP, Rejection, SignalVector, weights_digest
from contracts.codec import decode
from contracts.entry_ids import EntryId
from tests.support.serving import Streams
from worker.transport.client import pairs_of

#: Entries asked for at once.
_PIECE = 1000
#: More than any group has delivered and not acknowledged.
_ALL_PENDING = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the streams say of a run."""

    requests: int
    answered: int
    rejected: int
    #: Request ids without an outcome, and those that had none when nothing was left to make one of.
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
    """Every outcome that ever stood on the streams, in the order of reading, and every request that was forgotten."""

    def __init__(self, streams: Streams, expected: Mapping[str, str]) -> None:
        """Take what each request id should become; whoever asks adds to it."""
        self._streams, self._expected = streams, expected
        self._last = {streams.names.results: "0-0", streams.names.rejections: "0-0"}
        #: Request id to what it became; as many as there were entries.
        self._seen: dict[str, list[str]] = {}
        #: Request id to place of its outcome, of those that the server still has.
        self._known: dict[str, tuple[str, str]] = {}
        #: Each outcome taken down: request id and place.
        self._taken: set[tuple[str, str, str]] = set()
        self._lost: set[str] = set()
        #: Request ids that a server had and then had not, without an outcome.
        self._forgotten: set[str] = set()
        self._doubled: set[str] = set()
        self._repeated: set[str] = set()
        self._answered = 0

    def read(self) -> None:
        """Take down what is new."""
        for stream, last in self.tail():
            for rows in self._pieces(stream, last):
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
            self._taken.add((request_id, stream, entry_id))
            self._last[stream] = entry_id

    def tail(self) -> list[tuple[str, str]]:
        """Return each stream with the last entry taken down."""
        return list(self._last.items())

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Note which requests and outcomes the server forgets by what is done within."""
        due = self.judge()
        yield
        # In this order: a request that is gone since it was answered has an outcome by the time outcomes are read.
        standing, _ = self._requests()
        self._recount()
        self._forgotten.update(due.intersection(self.unanswered()) - standing)

    def judge(self) -> set[str]:
        """Note as lost, for good, what has no outcome although no server forgot it and nobody has yet to answer it.

        Returns:
            The request ids that somebody has yet to answer, or had when this began.
        """
        _, due = self._requests()
        self.read()
        self._lost.update(set(self.unanswered()) - due - self._forgotten)
        return due

    def unanswered(self) -> list[str]:
        """Return the request ids that have no outcome."""
        return [request_id for request_id in self._expected if request_id not in self._seen]

    def excused(self) -> list[str]:
        """Return the request ids that have no outcome since a server forgot them."""
        return [request_id for request_id in self.unanswered() if request_id in self._forgotten]

    def verdict(self) -> Verdict:
        """Compare what was taken down with what each request id should have become."""
        expected = self._expected
        return Verdict(
            requests=len(expected),
            answered=self._answered,
            rejected=sum(len(outcomes) for outcomes in self._seen.values()) - self._answered,
            lost=tuple(sorted(self._lost.union(self.unanswered()))),
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

    def _requests(self) -> tuple[set[str], set[str]]:
        """Return the request ids on the stream of requests, and those of them that are unread or unacknowledged."""
        requests = self._streams.names.requests
        with self._streams.client.pipeline(transaction=True) as pipe:
            pipe.execute_command("XRANGE", requests, "-", "+")  # type: ignore[no-untyped-call]  # the driver's border
            pipe.xinfo_groups(requests)
            pipe.xpending_range(requests, GROUP, min="-", max="+", count=_ALL_PENDING)
            rows, groups, pending = pipe.execute(raise_on_error=False)
        if isinstance(rows, Exception):
            raise rows
        # The other two are errors where the stream or its group is missing: then nothing was read.
        read = {} if isinstance(pending, Exception) else {row["message_id"]: row for row in pending}
        last = groups[0]["last-delivered-id"] if isinstance(groups, list) and groups else b"0-0"
        ids = {entry_id: dict(pairs_of(flat))[b"request_id"].decode() for entry_id, flat in rows}
        due = {ids[entry_id] for entry_id in ids if entry_id in read or EntryId.parse(entry_id) > EntryId.parse(last)}
        return set(ids.values()), due

    def _recount(self) -> None:
        """Take down what stands on the server now, which may be less, more and other than what stood there before."""
        self._known = {}
        for stream in self._last:
            self._last[stream] = "0-0"
            for rows in self._pieces(stream, "0-0"):
                self._recognise(stream, rows)

    def _recognise(self, stream: str, rows: Iterable[Any]) -> None:
        for raw_id, flat in rows:
            request_id, entry_id = dict(pairs_of(flat))[b"request_id"].decode(), raw_id.decode()
            if (request_id, stream, entry_id) in self._taken:
                if request_id in self._known:
                    self._doubled.add(request_id)
                self._known[request_id] = (stream, entry_id)
                self._last[stream] = entry_id
            else:
                self.take(stream, [(raw_id, flat)])

    def _pieces(self, stream: str, last: str) -> Iterator[Any]:
        while rows := self._streams.client.execute_command("XRANGE", stream, f"({last}", "+", "COUNT", _PIECE):
            yield rows
            last = rows[-1][0].decode()

    def _outcome(self, stream: str, flat: Any) -> tuple[str, str]:
        if stream == self._streams.names.results:
            vector = decode(SignalVector, pairs_of(flat))
            self._answered += 1
            # The digest is made anew: what a vector states of itself is no proof.
            return vector.request_id, weights_digest(vector.weights)
        rejection = decode(Rejection, pairs_of(flat))
        return rejection.request_id, rejection.code.value
