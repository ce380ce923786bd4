"""Which symbols may be priced at an as-of session.

Owns: the staleness rule and the history rule.
Must not know: requests, policies, codes on the wire.
Invariant: a symbol is eligible or named with a reason; nothing is ever filled.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.errors import HistoryTooShort, StaleSymbols
from strategies.market.bars import IntArray, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """What the rules say of each symbol of a window."""

    #: Whether the symbol may be priced, `[symbols]`.
    eligible: NDArray[np.bool_]
    #: Symbol to sessions by which its last bar lies behind the as-of session; the lookback where it has none at all.
    stale: dict[str, int]
    #: Symbol to bars up to the as-of session, where they are fewer than the lookback.
    short: dict[str, int]

    def require_all(self, *, stale_after_sessions: int, lookback: int) -> None:
        """Do nothing if every symbol is eligible.

        Raises:
            StaleSymbols: Some bars are too old.
            HistoryTooShort: Some symbols have too few bars.
        """
        if self.stale:
            raise StaleSymbols(self.stale, stale_after_sessions)
        if self.short:
            raise HistoryTooShort(self.short, lookback)


def eligibility(window: Window, lookback: int, *, stale_after_sessions: int) -> Eligibility:
    """Apply the staleness and the history rule to every symbol of a window.

    Args:
        window: Bars up to the as-of session, at least `lookback` sessions where the panel has them.
        lookback: Sessions the feature set looks back, the as-of session included.
        stale_after_sessions: Sessions by which the last bar may lie behind the as-of session.

    A symbol has history enough if it was listed at least `lookback` sessions up to the as-of session; missing bars
    inside its life stay NaN, as in Qlib, and do not count against it.
    """
    sessions = window.sessions.size
    present = ~np.isnan(window.fields["close"])
    behind = np.where(present.any(axis=1), present[:, ::-1].argmax(axis=1), sessions)
    listed = _listed(window, lookback)
    # A symbol whose first bar lies ahead is not stale: it was not listed yet.
    unlisted = listed <= 0
    stale = ~unlisted & (behind > stale_after_sessions)
    short = ~stale & (listed < lookback)
    return Eligibility(
        eligible=~stale & ~short,
        stale={window.symbols[row]: int(behind[row]) for row in np.flatnonzero(stale)},
        short={window.symbols[row]: int(listed[row]) for row in np.flatnonzero(short)},
    )


def _listed(window: Window, lookback: int) -> IntArray:
    listed: IntArray = np.minimum(window.sessions.size - window.first, lookback)
    return listed
