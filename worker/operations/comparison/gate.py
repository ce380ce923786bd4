"""The gate before a version serves: what evidence must show, and whether it does.

Owns: the criteria, and the sentence that names what a promotion is based on.
Must not know: where evidence comes from, how versions are activated.
Invariant: what was not measured is not met; a gate passes only if every criterion is met.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from strategies.analysis.comparison import Comparison
from strategies.analysis.outcomes import LabelStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionLimits:
    """What is asked of a candidate."""

    #: Least number of sessions whose realised rank IC is known.
    sessions: int
    #: Of the candidate, mean over those sessions.
    min_rank_ic: float
    #: With the active version, mean over all sessions.
    min_agreement: float
    #: Of the candidate, from one as-of to the next; None: any.
    max_turnover: float | None = None
    #: Of the candidate: most of its book that equal predictions may leave to the alphabet, 0 to 1; None: any.
    max_tied_share: float | None = None
    #: Median compute time of the candidate over that of the active version; None: any.
    max_latency_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidacy:
    """The version that is to serve, in its present state."""

    status: str
    #: Why it did not prove itself here; empty: it did.
    unproven: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One thing that is asked of a candidate."""

    name: str
    value: str
    limit: str
    holds: bool

    def __str__(self) -> str:
        """Return it in one clause."""
        return f"{self.name} {self.value}, asked {self.limit}"


def evaluate(comparison: Comparison, candidacy: Candidacy, limits: PromotionLimits) -> tuple[Criterion, ...]:
    """Return every criterion that was asked for; the candidate is the comparison's right version."""
    total, similarity = comparison.right, comparison.similarity
    known = total.sessions.get(LabelStatus.KNOWN, 0)
    found = [
        Criterion(
            name="status",
            value=candidacy.status,
            limit="testing or inactive",
            holds=candidacy.status in {"testing", "inactive"},
        ),
        Criterion(
            name="proof", value=candidacy.unproven or "proven", limit="proven here", holds=not candidacy.unproven
        ),
        Criterion(
            name="sessions with evidence",
            value=str(known),
            limit=f"at least {limits.sessions}",
            holds=known >= limits.sessions,
        ),
        _at_least("rank IC", total.rank_ic, limits.min_rank_ic),
        _at_least("agreement", similarity.agreement, limits.min_agreement),
    ]
    if limits.max_turnover is not None:
        found.append(_at_most("turnover", total.turnover, limits.max_turnover))
    if limits.max_tied_share is not None:
        found.append(_at_most("share of the book on ties", total.tied_share, limits.max_tied_share))
    if limits.max_latency_ratio is not None:
        found.append(_at_most("latency ratio", latency_ratio(comparison), limits.max_latency_ratio))
    return tuple(found)


def latency_ratio(comparison: Comparison) -> float:
    """Return the right version's median compute time over the left one's; NaN = not measured."""
    left, right = comparison.left.compute_ms_p50, comparison.right.compute_ms_p50
    return right / left if left > 0 else float("nan")


def reason(criteria: Sequence[Criterion], basis: str) -> str:
    """Return what a promotion is based on, for the history."""
    return f"promoted on {basis}: " + "; ".join(map(str, criteria))


def _at_least(name: str, value: float, limit: float) -> Criterion:
    return Criterion(name=name, value=_text(value), limit=f"at least {limit:g}", holds=value >= limit)


def _at_most(name: str, value: float, limit: float) -> Criterion:
    return Criterion(name=name, value=_text(value), limit=f"at most {limit:g}", holds=value <= limit)


def _text(value: float) -> str:
    # Rounded to 4 digits, a value just below its limit would read as the limit itself.
    return f"{value:.6g}" if math.isfinite(value) else "not measured"
