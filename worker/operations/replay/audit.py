"""Many vectors judged one after the other, and what became of them.

Owns: the finding on each vector, the order that spares loading, the tally.
Must not know: where vectors are found, how findings are shown.
Invariant: every vector that was drawn ends in exactly one finding.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from worker.operations.replay.lineage import LineageResolver, NotReproducible, surroundings
from worker.operations.replay.published import Published
from worker.operations.replay.verdict import Difference, recompute


class ReplayOutcome(StrEnum):
    """What a replay showed."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    #: A bundle or snapshot is missing, so nothing is known.
    NOT_REPRODUCIBLE = "not reproducible"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFinding:
    """What became of one vector."""

    published: Published
    outcome: ReplayOutcome
    differences: tuple[Difference, ...] = ()
    #: What else is not as it was, or what is missing; one sentence each.
    notes: tuple[str, ...] = ()


def replay(published: Published, lineage: LineageResolver, code_version: str) -> ReplayFinding:
    """Compute one published vector again from its lineage, and return what came out."""
    vector = published.vector
    try:
        bundle, unproven = lineage.bundle(vector)
        panel, calendar = lineage.bars(vector)
    except NotReproducible as error:
        return ReplayFinding(published=published, outcome=ReplayOutcome.NOT_REPRODUCIBLE, notes=(str(error),))
    verdict = recompute(vector, bundle, panel, calendar)
    return ReplayFinding(
        published=published,
        outcome=ReplayOutcome.IDENTICAL if verdict.identical else ReplayOutcome.DIFFERENT,
        differences=verdict.differences,
        notes=(*filter(None, [unproven]), *surroundings(vector, bundle, code_version)),
    )


def audit(vectors: Iterable[Published], lineage: LineageResolver, code_version: str) -> Iterator[ReplayFinding]:
    """Yield the finding on each vector, those of one bundle and snapshot after another, so that each loads once."""
    yield from (replay(one, lineage, code_version) for one in sorted(vectors, key=_materials))


def tally(findings: Iterable[ReplayFinding]) -> Counter[tuple[str, str, str, ReplayOutcome]]:
    """Return how often each outcome came of each strategy, version and snapshot."""
    return Counter(
        (vector.strategy, vector.model_version, vector.snapshot_id, finding.outcome)
        for finding in findings
        for vector in [finding.published.vector]
    )


def _materials(published: Published) -> tuple[str, str, str, str]:
    vector = published.vector
    return vector.snapshot_id, vector.strategy, vector.model_version, published.entry_id
