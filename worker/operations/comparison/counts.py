"""What became of everything that was looked at on the way to pairs.

Owns: the counts, and the sentence for each.
Must not know: where answers are found, how they are compared.
Invariant: whatever is left out of a comparison is counted under the reason that it was left out for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass(slots=True, kw_only=True)
class Counts:
    """How many were left out, and why; 0 everywhere: nothing was."""

    #: Entries of the streams and of their archive that were looked at.
    read: int = 0
    #: Entries that are no vector by the contract, or state a digest that is not that of their weights.
    no_vector: int = 0
    #: Vectors that answer probes.
    probes: int = 0
    #: Vectors of other strategies and versions.
    of_others: int = 0
    #: Further vectors of one version for one request that are equal to the first.
    duplicates: int = 0
    #: Requests to which one version has two different vectors.
    contradictions: int = 0
    #: Requests that the left version alone answered.
    left_alone: int = 0
    #: Requests that the right version alone answered.
    right_alone: int = 0
    #: Pairs older than the most that were asked for.
    older: int = 0
    #: Pairs with a vector of another bundle than the one registered.
    of_another_bundle: int = 0
    #: Pairs whose vectors are as of different sessions.
    of_other_sessions: int = 0
    #: Pairs whose vectors were computed from different snapshots.
    of_other_bars: int = 0
    #: Sessions on which a version could not answer.
    unanswered: int = 0

    def sentences(self) -> Iterator[str]:
        """Yield one line for each reason for which something was left out."""
        for one in fields(self):
            if (count := getattr(self, one.name)) and one.name in _REASONS:
                yield f"{count} {_REASONS[one.name]}"


_REASONS = {
    "no_vector": "entries are no vector, left out",
    "probes": "answers to probes left out",
    "duplicates": "equal vectors for a request counted once",
    "contradictions": "requests left out, as one version has two different vectors for each",
    "left_alone": "requests answered by the left version alone",
    "right_alone": "requests answered by the right version alone",
    "older": "older pairs left out",
    "of_another_bundle": "pairs left out, as a vector is of another bundle than the one registered",
    "of_other_sessions": "pairs left out, as their vectors are as of different sessions",
    "of_other_bars": "pairs left out, as their vectors were computed from different snapshots",
    "unanswered": "sessions left out, as a version could not answer",
}
