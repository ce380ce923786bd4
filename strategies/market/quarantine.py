"""Quarantine: which rows of raw bars cannot be true, and why.

Owns: the rules of a single row and of rows of one date; `neighbours` owns those of rows beside each other.
Must not know: files, folders, how a row is stored.
Invariant: whether a row's values are accepted depends on rows of the same or earlier dates alone, so that history is
cleaned by what was known on each day; no row is repaired. The one exception is a unit mix-up at a file's start.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np

from strategies.market.adjustment import PRICES
from strategies.market.bars import BoolArray, FloatArray, IntArray, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.neighbours import Series, judge_neighbours
from strategies.market.rules import REASONS, Rules

#: Reasons that leave a row without a place of its own on the calendar.
_PLACELESS = (*REASONS[: REASONS.index("missing_price")],)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """One symbol's rows before judgement."""

    symbol: str
    #: `[rows]`, in the order of the file; NaT where there is none.
    dates: SessionArray
    #: Field to values as read, `[rows]`.
    raw: Mapping[str, FloatArray]
    #: Field to adjusted values, `[rows]`.
    adjusted: Mapping[str, FloatArray]
    #: `[rows]`.
    factor: FloatArray
    #: Rows with a cell that could not be read, `[rows]`; None: there is none.
    unreadable: BoolArray | None = None
    #: Rows whose columns of corporate actions contradict each other, `[rows]`; None: there is none.
    contradicting: BoolArray | None = None
    #: Last session that had closed by the clock of the import; None: it is not known.
    closed_until: date | None = None
    #: Rows after the end of the symbol's life, `[rows]`; None: there is none.
    ended: BoolArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the rules say of one symbol's rows."""

    #: Reason to the rows it holds for, `[rows]`, for every reason that holds at least once.
    flags: dict[str, BoolArray]
    #: Sessions at which a new price level began that looks like a split nobody has settled.
    unsettled: tuple[date, ...]


__all__ = ["REASONS", "Judgement", "Rules", "Suspects", "judge", "judge_rows", "reason_texts"]


def judge(rows: Suspects, calendar: SessionCalendar, run_date: date, rules: Rules) -> dict[str, BoolArray]:
    """Return reason to the rows it holds for, `[rows]`, for every reason that holds at least once."""
    return judge_rows(rows, calendar, run_date, rules).flags


def judge_rows(rows: Suspects, calendar: SessionCalendar, run_date: date, rules: Rules) -> Judgement:
    """Return what the rules say of a symbol's rows.

    Dates: a row is out of order if it is not among the most rows that can be kept in ascending order; a file that
    descends from start to end is in order. Rows of one date that agree in every value are duplicates but for the
    first; where they differ nothing says which is true, so all of them are in conflict.
    """
    count = len(rows.dates)
    nothing = np.zeros(count, bool)
    unreadable = nothing if rows.unreadable is None else rows.unreadable
    flags = {"unreadable_cell": unreadable} | _date_flags(rows, calendar, run_date, unreadable)
    flags["life_ended"] = nothing if rows.ended is None else rows.ended
    flags |= _repeat_flags(rows.dates, rows.raw)
    flags["out_of_order"] = _out_of_order(rows.dates, ~_any(flags, count))
    flags |= {name: flag & ~unreadable for name, flag in _value_flags(rows.raw, rows.factor, rows.adjusted).items()}
    flags["contradicting_actions"] = nothing if rows.contradicting is None else rows.contradicting
    flags |= _range_flags(rows.raw, rules.range_tolerance)
    unsettled = _neighbours(rows, flags, rules)
    found = {reason: flags[reason] for reason in REASONS if flags[reason].any()}
    return Judgement(flags=found, unsettled=unsettled)


def reason_texts(flags: Mapping[str, BoolArray], rows: IntArray) -> list[str]:
    """Return all reasons of each of these rows, joined by semicolons."""
    return [";".join(reason for reason, flag in flags.items() if flag[row]) for row in rows]


def _date_flags(
    rows: Suspects, calendar: SessionCalendar, run_date: date, unreadable: BoolArray
) -> dict[str, BoolArray]:
    dates = rows.dates
    missing: BoolArray = np.isnat(dates)
    early: BoolArray = dates < np.datetime64(calendar.first, "D")
    late: BoolArray = dates > np.datetime64(calendar.last, "D")
    after: BoolArray = dates > np.datetime64(run_date, "D")
    session = calendar.contains(dates)
    open_yet = session & (dates > np.datetime64(rows.closed_until or date.max, "D"))
    return {
        "missing_date": missing & ~unreadable,
        "after_run_date": after,
        "not_closed": open_yet & ~after,
        "outside_calendar": early | late,
        "not_a_session": ~(missing | early | late | session),
    }


def _repeat_flags(dates: SessionArray, values: Mapping[str, FloatArray]) -> dict[str, BoolArray]:
    duplicate, conflicting = np.zeros(len(dates), bool), np.zeros(len(dates), bool)
    known = np.flatnonzero(~np.isnat(dates))
    order = known[np.argsort(dates[known], kind="stable")]
    opens = np.concatenate(([True], dates[order][1:] != dates[order][:-1]))[: len(order)]
    group = np.cumsum(opens) - 1
    first = order[opens][group]
    torn = np.zeros(int(opens.sum()), bool)
    for column in values.values():
        one, other = column[order], column[first]
        torn[group[(one != other) & ~(np.isnan(one) & np.isnan(other))]] = True
    conflicting[order] = torn[group]
    duplicate[order] = ~opens & ~torn[group]
    return {"duplicate_date": duplicate, "conflicting_date": conflicting}


def _out_of_order(dates: SessionArray, placed: BoolArray) -> BoolArray:
    out = np.zeros(len(dates), bool)
    rows = np.flatnonzero(placed)
    days = dates[rows].astype(np.int64)
    steps = np.diff(days)
    if (steps > 0).all() or (steps < 0).all():
        return out
    out[rows] = True
    out[rows[_longest_ascent(days)]] = False
    return out


def _longest_ascent(days: IntArray) -> list[int]:
    """Return the positions of a longest strictly ascending subsequence.

    Source: Fredman (1975), "On computing the length of longest increasing subsequences" (patience sorting).
    """
    tails: list[int] = []
    tail_positions: list[int] = []
    previous: list[int] = []
    for position, day in enumerate(days.tolist()):
        length = bisect_left(tails, day)
        previous.append(tail_positions[length - 1] if length else -1)
        if length == len(tails):
            tails.append(day)
            tail_positions.append(position)
        else:
            tails[length], tail_positions[length] = day, position
    ascent, position = [], tail_positions[-1]
    while position >= 0:
        ascent.append(position)
        position = previous[position]
    return ascent[::-1]


def _value_flags(
    raw: Mapping[str, FloatArray], factor: FloatArray, adjusted: Mapping[str, FloatArray]
) -> dict[str, BoolArray]:
    prices = np.stack([raw[name] for name in PRICES])
    missing: BoolArray = np.logical_or.reduce(np.isnan(prices))
    non_positive: BoolArray = np.logical_or.reduce(prices <= 0)
    sound = ~missing & ~non_positive & (raw["volume"] >= 0) & (factor > 0)
    # As the engine reads them: what float32 cannot hold would be infinite, or 0, in every feature.
    with np.errstate(over="ignore", under="ignore"):
        outcome = np.stack([adjusted[name] for name in PRICES]).astype(np.float32)
        volume = adjusted["volume"].astype(np.float32)
    bounded = np.isfinite(outcome).all(axis=0) & (outcome > 0).all(axis=0) & np.isfinite(volume)
    # With no close there is no factor to miss; the missing price says it all.
    priced = raw["close"] > 0
    return {
        "missing_price": missing,
        "non_positive_price": non_positive,
        "missing_volume": np.isnan(raw["volume"]),
        "negative_volume": raw["volume"] < 0,
        "missing_factor": priced & np.isnan(factor),
        "non_positive_factor": factor <= 0,
        "adjusted_out_of_bounds": sound & ~bounded,
        "non_positive_vwap": raw.get("vwap", np.ones_like(factor)) <= 0,
    }


def _range_flags(raw: Mapping[str, FloatArray], tolerance: float) -> dict[str, BoolArray]:
    """Judge raw prices; a row's one positive factor keeps their order, so the same holds after adjustment."""
    # Comparisons with NaN are false: a missing price is its own reason, not also a range of its own.
    inverted: BoolArray = np.less(raw["high"], raw["low"])
    return {
        "high_below_low": inverted,
        "open_outside_range": _outside(raw, "open", tolerance),
        "close_outside_range": _outside(raw, "close", tolerance),
    }


def _outside(values: Mapping[str, FloatArray], name: str, tolerance: float) -> BoolArray:
    above = values[name] > values["high"] * (1 + tolerance)
    below = values[name] < values["low"] * (1 - tolerance)
    outside: BoolArray = above | below
    return outside


def _neighbours(rows: Suspects, flags: dict[str, BoolArray], rules: Rules) -> tuple[date, ...]:
    """Add the flags of rows that disagree with those before them; return where unsettled levels begin."""
    close, count = rows.adjusted["close"], len(rows.dates)
    placed = ~_any({reason: flags[reason] for reason in _PLACELESS}, count) & (close > 0) & np.isfinite(close)
    order = np.flatnonzero(placed)[np.argsort(rows.dates[placed], kind="stable")]
    series = Series(
        **{name: rows.adjusted[name][order] for name in (*PRICES, "volume")},
        flagged=_any(flags, count)[order],
        confirmed=_confirmed(rows, rules)[order],
    )
    found, levels = judge_neighbours(series, rules)
    for reason, flag in found.items():
        flags[reason] = np.zeros(count, bool)
        flags[reason][order] = flag
    return tuple(rows.dates[order[levels]].astype(object).tolist())


def _confirmed(rows: Suspects, rules: Rules) -> BoolArray:
    days = [np.datetime64(day, "D") for symbol, day in rules.confirmed_moves if symbol == rows.symbol]
    if not days:
        return np.zeros(len(rows.dates), bool)
    return np.isin(rows.dates, np.array(days, dtype="datetime64[D]"))


def _any(flags: Mapping[str, BoolArray], count: int) -> BoolArray:
    together = np.zeros(count, bool)
    for flag in flags.values():
        together |= flag
    return together
