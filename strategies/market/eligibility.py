"""Which symbols may be priced at an as-of session.

Owns: the rules of staleness, tradability, unsettled steps and history.
Must not know: requests, policies, codes on the wire.
Invariant: a symbol is eligible or named with a reason; nothing is ever filled.
"""

from dataclasses import dataclass
from datetime import date
from math import ceil

import numpy as np
from numpy.typing import NDArray

from strategies.errors import HeldBack, HistoryTooShort, NotTradable, StaleSymbols
from strategies.market.bars import BoolArray, IntArray, Window

#: Share of the lookback's sessions on which a symbol must have a bar. A window of 61 sessions may lack 12: two weeks
#: of a halt and a few bad rows. With fewer, most features of the longest windows are made of a handful of bars, which
#: is why a new listing must wait for the whole lookback.
MIN_BARS_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """What the rules say of each symbol of a window."""

    #: Whether the symbol may be priced, `[symbols]`.
    eligible: NDArray[np.bool_]
    #: Symbol to sessions by which its last bar is behind the as-of session; the lookback where it has none at all.
    stale: dict[str, int]
    #: Symbol to bars up to the as-of session, where they are fewer than the lookback.
    short: dict[str, int]
    #: Symbol to bars inside the lookback, where they are too few.
    sparse: dict[str, int]
    #: Symbols that did not trade on their last session.
    untradable: tuple[str, ...]
    #: Symbol to the session of the latest unsettled step inside the lookback.
    unsettled: dict[str, date]
    #: Bars that a symbol needs inside the lookback.
    needed: int

    def require_all(self, *, stale_after_sessions: int, lookback: int) -> None:
        """Do nothing if every symbol is eligible.

        Raises:
            StaleSymbols: Some bars are too old.
            NotTradable: Some symbols did not trade.
            HeldBack: Some symbols have an unsettled step.
            HistoryTooShort: Some symbols have too few sessions since their first bar, or bars inside the lookback.
        """
        if self.stale:
            raise StaleSymbols(self.stale, stale_after_sessions)
        if self.untradable:
            raise NotTradable(self.untradable)
        if self.unsettled:
            raise HeldBack(self.unsettled)
        if self.short:
            raise HistoryTooShort(self.short, lookback)
        if self.sparse:
            raise HistoryTooShort(self.sparse, lookback, needed=self.needed)


def eligibility(
    window: Window,
    lookback: int,
    *,
    stale_after_sessions: int,
    min_bars_share: float = MIN_BARS_SHARE,
    tradable_only: bool = True,
) -> Eligibility:
    """Apply the rules to every symbol of a window.

    Args:
        window: Bars up to the as-of session, at least `lookback` sessions where the panel has them.
        lookback: Sessions the feature set looks back, the as-of session included.
        stale_after_sessions: Sessions by which the last bar may be behind the as-of session.
        min_bars_share: Share of the lookback's sessions on which a symbol must have a bar.
        tradable_only: Whether symbols that did not trade, and unsettled ones, are left out.

    A symbol has history enough if it was listed at least `lookback` sessions up to the as-of session and has bars on
    `min_bars_share` of them; missing bars stay NaN, as in Qlib. It did not trade if the vendor marks its last bar as
    halted, or if that bar and the one before it have volume 0 and no range, at one price: however a vendor spells a
    halt, it is no price to trade at.
    """
    sessions = window.sessions.size
    present = ~np.isnan(window.fields["close"])
    behind = np.where(present.any(axis=1), present[:, ::-1].argmax(axis=1), sessions)
    listed = _listed(window, lookback)
    # A symbol whose first bar is ahead is not stale: it was not listed yet.
    unlisted = listed <= 0
    stale = ~unlisted & (behind > stale_after_sessions)
    short = ~stale & (listed < lookback)
    bars = present[:, -lookback:].sum(axis=1)
    # Sessions after the last bar are what `stale_after_sessions` is about.
    needed = np.array([bars_needed(max(lookback - late, 0), min_bars_share) for late in behind.tolist()])
    sparse = ~stale & ~short & (bars < needed)
    idle = _idle(window, present) & ~stale & ~unlisted & tradable_only
    steps = _latest_step(window)
    unsettled = (steps >= 0) & ~stale & ~unlisted & tradable_only
    return Eligibility(
        eligible=~(stale | short | sparse | idle | unsettled),
        stale={window.symbols[row]: int(behind[row]) for row in np.flatnonzero(stale)},
        short={window.symbols[row]: int(listed[row]) for row in np.flatnonzero(short)},
        sparse={window.symbols[row]: int(bars[row]) for row in np.flatnonzero(sparse)},
        untradable=tuple(window.symbols[row] for row in np.flatnonzero(idle)),
        unsettled={
            window.symbols[row]: window.sessions[steps[row]].astype(object) for row in np.flatnonzero(unsettled)
        },
        needed=bars_needed(lookback, min_bars_share),
    )


def bars_needed(lookback: int, share: float) -> int:
    """Return the bars that a symbol needs inside a lookback."""
    # 0.8 of 5 is 4, though 0.8 * 5 may be a little more.
    return ceil(lookback * share - 1e-9)


def _listed(window: Window, lookback: int) -> IntArray:
    listed: IntArray = np.minimum(window.sessions.size - window.first, lookback)
    return listed


def _idle(window: Window, present: BoolArray) -> BoolArray:
    """Return the symbols whose last bar was no trade, `[symbols]`."""
    rows = np.arange(len(window.symbols))
    last = window.sessions.size - 1 - present[:, ::-1].argmax(axis=1)
    halted = window.marks.get("halted")
    idle: BoolArray = np.zeros(len(rows), bool) if halted is None else halted[rows, last].copy()
    if "volume" not in window.fields:
        return idle
    still = window.fields["volume"][rows, last] == 0
    for row in np.flatnonzero(still & present.any(axis=1)):
        before = np.flatnonzero(present[row, : last[row]])
        if len(before):
            idle[row] |= _same_still_bar(window, int(row), int(last[row]), int(before[-1]))
    return idle


def _same_still_bar(window: Window, row: int, last: int, before: int) -> bool:
    fields = window.fields
    if fields["volume"][row, before] != 0 or fields["close"][row, last] != fields["close"][row, before]:
        return False
    return all(
        fields[name][row, at] == fields["close"][row, at] for name in ("open", "high", "low") for at in (last, before)
    )


def _latest_step(window: Window) -> IntArray:
    """Return the position of each symbol's latest unsettled step; -1: there is none."""
    marked = window.marks.get("unsettled")
    if marked is None or not marked.any():
        return np.full(len(window.symbols), -1, dtype=np.int64)
    latest: IntArray = np.where(marked.any(axis=1), window.sessions.size - 1 - marked[:, ::-1].argmax(axis=1), -1)
    return latest
