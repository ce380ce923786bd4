"""Many vectors judged one after the other, and what became of them.

Owns: the finding on each vector, the order that spares loading, the tally.
Must not know: where vectors are found, how findings are shown.
Invariant: every vector that was drawn ends in exactly one finding.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from worker.operations.replay.errors import NotReproducible
from worker.operations.replay.lineage import Lineage, surroundings
from worker.operations.replay.published import Published
from worker.operations.replay.verdict import Difference, recompute


class Outcome(StrEnum):
    """What a replay showed."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    #: A bundle or snapshot is missing, so nothing can be said.
    NOT_REPRODUCIBLE = "not reproducible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one vector."""

    published: Published
    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    #: What else is not as it was, or what is missing; one sentence each.
    notes: tuple[str, ...] = ()


def replay(published: Published, lineage: Lineage, code_version: str) -> Finding:
    """Compute one published vector again from its lineage, and say what came out."""
    vector = published.vector
    try:
        bundle, unproven = lineage.bundle(vector)
        panel, calendar = lineage.bars(vector)
    except NotReproducible as error:
        return Finding(published=published, outcome=Outcome.NOT_REPRODUCIBLE, notes=(str(error),))
    verdict = recompute(vector, bundle, panel, calendar)
    return Finding(
        published=published,
        outcome=Outcome.IDENTICAL if verdict.identical else Outcome.DIFFERENT,
        differences=verdict.differences,
        notes=(*filter(None, [unproven]), *surroundings(vector, bundle, code_version)),
    )


def audit(vectors: Iterable[Published], lineage: Lineage, code_version: str) -> Iterator[Finding]:
    """Yield the finding on each vector, those of one bundle and snapshot after another, so that each loads once."""
    yield from (replay(one, lineage, code_version) for one in sorted(vectors, key=_materials))


def tally(findings: Iterable[Finding]) -> Counter[tuple[str, str, str, Outcome]]:
    """Return how often each outcome came of each strategy, version and snapshot."""
    return Counter(
        (vector.strategy, vector.model_version, vector.snapshot_id, finding.outcome)
        for finding in findings
        for vector in [finding.published.vector]
    )


def _materials(published: Published) -> tuple[str, str, str, str]:
    vector = published.vector
    return vector.snapshot_id, vector.strategy, vector.model_version, published.entry_id
