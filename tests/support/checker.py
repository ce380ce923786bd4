"""The judge of a run: reads the streams alone and says what became of every accepted request.

Owns: what each request id should have become, and the comparison with what stands on the streams.
Must not know: workers, faults.
Invariant: it trusts no counter and no log, only entries.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from contracts import weights_digest
from tests.support.serving import Streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the streams say of a run."""

    requests: int
    answered: int
    rejected: int
    #: Request ids without an outcome.
    lost: tuple[str, ...]
    #: Request ids with more than one outcome, on one stream or on both.
    doubled: tuple[str, ...]
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


def check(streams: Streams, expected: Mapping[str, str]) -> Verdict:
    """Compare the streams with what each request id should have become.

    Args:
        streams: Where the run happened; nothing may be running there any more.
        expected: Request id to the SHA-256 of its weights, or to its rejection code.
    """
    # The digest is made anew: what a vector states of itself is no proof.
    found = [(vector.request_id, weights_digest(vector.weights)) for vector in streams.each_result()]
    answered = len(found)
    found += [(rejection.request_id, rejection.code.value) for rejection in streams.each_rejection()]
    times = Counter(request_id for request_id, _ in found)
    return Verdict(
        requests=len(expected),
        answered=answered,
        rejected=len(found) - answered,
        lost=tuple(request_id for request_id in expected if request_id not in times),
        doubled=tuple(request_id for request_id, count in times.items() if count > 1),
        wrong=tuple(request_id for request_id, was in found if expected.get(request_id, was) != was),
        strange=tuple(request_id for request_id in times if request_id not in expected),
        pending=streams.pending(),
    )
