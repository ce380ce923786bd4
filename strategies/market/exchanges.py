"""Exchanges: which calendar a source's dates are of.

Owns: the comparison of dates with the sessions of every known calendar, and the sentences about it.
Must not know: files, prices.
Invariant: a hint names shares that were counted; it changes nothing.
"""

from datetime import date

import numpy as np

from strategies.errors import DataError, StrategyError
from strategies.market.bars import SessionArray
from strategies.market.calendar import SessionCalendar, known_calendars

#: Share of a calendar's sessions without a bar of any symbol from which an import remarks on it.
_EMPTY_SHARE = 0.05
#: Fewest dates that say anything.
_FEWEST = 20
#: Calendars of futures and of everything, which fit any dates.
_TOO_WIDE = ("24/7", "24/5", "us_futures", "CMES", "IEPA")


def fits(dates: SessionArray) -> list[tuple[str, float, float]]:
    """Return code, share of the dates that are sessions, share of the sessions that are dates; best first."""
    first, last = (day.astype(object) for day in (dates[0], dates[-1]))
    found = []
    for name in known_calendars():
        if name in _TOO_WIDE:
            continue
        try:
            sessions = SessionCalendar(name, first, last).sessions
        except (DataError, StrategyError):
            continue  # it does not cover these days
        common = np.isin(dates, sessions).sum()
        found.append((name, float(common / len(dates)), float(common / max(len(sessions), 1))))
    return sorted(found, key=lambda fit: (-(fit[1] + fit[2]), fit[0]))


def foreign_hint(dates: SessionArray, calendar: SessionCalendar) -> str:
    """Return which exchange dates seem to be of, in one sentence."""
    inside = float(calendar.contains(dates).mean())
    best = fits(dates)
    wrong = f"{inside:.0%} of the dates are sessions of {calendar.name}"
    if best and best[0][1] > inside:
        also = [name for name, share, covered in best[1:4] if (share, covered) == best[0][1:]]
        others = f" (and of {', '.join(also)})" if also else ""
        hint = f"{best[0][1]:.0%} of the dates are sessions of {best[0][0]}{others}: --calendar {best[0][0]}"
        if best[0][1] > 0.97:  # noqa: PLR2004 - a few special sessions
            return f"{wrong}, {hint}"
        return f"{wrong}, {hint}; or make a calendar of the dates: --calendar-from-data NAME"
    return f"{wrong}, no known calendar fits better: make one of the dates with --calendar-from-data NAME"


def sessions_without_bars(dates: SessionArray, calendar: SessionCalendar) -> str:
    """Return a remark if many sessions between the first date and the last have no bar of any symbol."""
    covered = dates[(dates >= np.datetime64(calendar.first)) & (dates <= np.datetime64(calendar.last))]
    if len(covered) < _FEWEST:
        return ""
    first: date = covered[0].astype(object)
    last: date = covered[-1].astype(object)
    sessions = calendar.sessions_between(first, last)
    empty = len(sessions) - int(np.isin(sessions, covered).sum())
    if empty <= _EMPTY_SHARE * len(sessions):
        return ""
    best = [fit for fit in fits(covered) if fit[1] > 0.97 and fit[2] > 0.97]  # noqa: PLR2004 - a few special sessions
    hint = f"; {best[0][1]:.0%} of the dates are sessions of {best[0][0]}" if best else ""
    return (
        f"{empty} of {len(sessions)} sessions of {calendar.name} have no bar of any symbol, so labels are missing{hint}"
    )
