"""Corporate actions: what a vendor's columns say of splits and dividends, and which factor follows.

Owns: the understanding of adjusted closes, factors, splits, dividends and previous closes, in any combination.
Must not know: files, calendars' names, snapshots.
Invariant: of columns that agree one is used, rows on which they contradict each other or the price are named; what
was used is stated. Source of the back-adjusted factor: CRSP, as Yahoo describes it: a split n:m divides the closes
before it by n/m, a dividend D multiplies them by 1 - D / (the close before).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from strategies.market.adjustment import factor_of
from strategies.market.bars import BoolArray, FloatArray, IntArray, SessionArray

#: Step from which a split is decisive: a day's own move does not hide it.
_BIG = 0.1
#: How far a move may be from what a split says, in logarithms.
_FAR = 0.3
#: How near two statements of one step must be, in logarithms and as a part of the step.
_NEAR, _NEAR_PART = 2e-3, 0.25
#: Steps that a column of previous closes may state at most, as a number and a share.
_MANY, _OFTEN = 5, 0.2
#: Share of closes that must be whole cents to be prices as they were paid.
_ON_TICK, _OFF_TICK = 0.9, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """What follows from a symbol's columns."""

    #: What raw prices are multiplied by, `[rows]`.
    multiplier: FloatArray
    #: What the snapshot states as factor, `[rows]`: the multiplier, or the vendor's where prices are adjusted already.
    factor: FloatArray
    #: One of `ADJUSTMENTS` but `auto`.
    used: str
    #: Rows whose columns contradict each other or the price, `[rows]`.
    contradicting: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """One symbol's rows in order of time, and what each says of the step from the row before; `[rows - 1]` each."""

    rows: IntArray
    close: FloatArray
    #: Logarithm of the close over the close before.
    move: FloatArray
    #: Logarithm of what the close before is multiplied by; 0: nothing happened.
    split: FloatArray
    dividend: FloatArray
    #: NaN where the row before is not the session before.
    preclose: FloatArray


def understand(
    dates: SessionArray, values: Mapping[str, FloatArray], asked: str, following: BoolArray, *, decided: str = ""
) -> Adjustment:
    """Return the adjustment of one symbol's rows.

    Args:
        dates: `[rows]`.
        values: Field to raw values `[rows]`.
        asked: One of `ADJUSTMENTS`.
        following: Whether, in the order of time, a row is of the session after the row before it, `[rows]`; in the
            order of the rows.
        decided: What other symbols of the source showed: `adjusted` or nothing.
    """
    none = np.zeros(len(dates), bool)
    if asked in {"none", "adj_close", "factor"}:
        factor = factor_of(values, asked)
        return Adjustment(multiplier=factor, factor=factor, used=asked, contradicting=none)
    if asked == "adjusted":
        return _adjusted(values, none)
    steps = _steps(dates, values, following)
    if len(steps.rows) < 2:  # noqa: PLR2004 - a step has two ends
        return _fallback(values, none)
    columns = [name for name in ("adj_close", "factor") if name in values and asked == "auto"]
    if not columns:
        return _by_actions(steps, none)
    return _by_columns(values, steps, columns, none, decided)


def with_splits(adjustment: Adjustment, dates: SessionArray, splits: Sequence[tuple[date, float]]) -> Adjustment:
    """Return the adjustment with splits that somebody has stated: new shares for one old share, from a date on."""
    multiplier, factor = adjustment.multiplier.copy(), adjustment.factor.copy()
    for day, ratio in splits:
        before = dates < np.datetime64(day, "D")
        multiplier[before] /= ratio
        factor[before] /= ratio
    return Adjustment(
        multiplier=multiplier, factor=factor, used=adjustment.used, contradicting=adjustment.contradicting
    )


def _adjusted(values: Mapping[str, FloatArray], none: BoolArray) -> Adjustment:
    ones = np.ones(len(none))
    return Adjustment(multiplier=ones, factor=values.get("factor", ones), used="adjusted", contradicting=none)


def _fallback(values: Mapping[str, FloatArray], none: BoolArray) -> Adjustment:
    used = next((name for name in ("adj_close", "factor") if name in values), "actions")
    factor = factor_of(values, used if used != "actions" else "none")
    return Adjustment(multiplier=factor, factor=factor, used=used, contradicting=none)


def _steps(dates: SessionArray, values: Mapping[str, FloatArray], following: BoolArray) -> _Steps:
    usable = np.flatnonzero(~np.isnat(dates) & (values["close"] > 0))
    order = usable[np.argsort(dates[usable], kind="stable")]
    first = np.concatenate(([True], dates[order][1:] != dates[order][:-1]))[: len(order)]
    rows = order[first]
    close = values["close"][rows]
    with np.errstate(all="ignore"):
        split = _column(values, "split", rows)
        split = -np.log(np.where((split > 0) & np.isfinite(split), split, 1.0))
        paid = _column(values, "dividend", rows)
        paid = np.where((paid > 0) & np.isfinite(paid), paid, 0.0)[1:]
        return _Steps(
            rows=rows,
            close=close,
            move=np.log(close[1:] / close[:-1]),
            split=split[1:],
            dividend=np.log(np.where(paid < close[:-1], 1 - paid / close[:-1], np.nan)),
            preclose=np.where(following[rows][1:], np.log(_column(values, "preclose", rows)[1:] / close[:-1]), np.nan),
        )


def _column(values: Mapping[str, FloatArray], name: str, rows: IntArray) -> FloatArray:
    return values[name][rows] if name in values else np.full(len(rows), np.nan)


def _split_steps(steps: _Steps, *, raw: bool) -> tuple[FloatArray, BoolArray]:
    """Return the splits that the prices still show, and those that contradict the move.

    Each big split is decided by its own move: either the price fell by it, or it was adjusted for already. Small ones
    follow the big ones of the symbol, else `raw`.
    """
    happened, big = steps.split != 0, np.abs(steps.split) > _BIG
    shown, hidden = np.abs(steps.move - steps.split), np.abs(steps.move)
    in_prices = shown < hidden
    if big.any():
        raw = bool(in_prices[big].mean() >= 0.5)  # noqa: PLR2004 - the majority
    applied = np.where(big, in_prices, happened & raw)
    far = big & (np.minimum(shown, hidden) > _FAR)
    return np.where(applied & ~far, steps.split, 0.0), far


def _by_actions(steps: _Steps, none: BoolArray) -> Adjustment:
    splits, far = _split_steps(steps, raw=True)
    dividends = np.where(np.isnan(steps.dividend), 0.0, steps.dividend)
    if _adjusted_for_dividends(steps, dividends):
        dividends = np.zeros_like(dividends)
    total = splits + dividends
    stated = steps.preclose
    informative = _informative(stated, 1e-4)  # beyond the rounding of a price
    known = (steps.split != 0) | (steps.dividend != 0)
    differ = informative & known & ~_near(stated, total)
    torn = informative & ~known & (np.abs(stated) > _BIG) & (np.abs(steps.move - stated) > _FAR)
    bad = far | differ | torn | np.isnan(steps.dividend)
    total = np.where(informative & ~known, stated, total)
    total = np.where(bad, 0.0, total)
    factor = np.ones(len(none))
    factor[steps.rows[:-1]] = np.exp(np.cumsum(total[::-1])[::-1])
    factor = _spread(factor, steps, len(none))
    return Adjustment(multiplier=factor, factor=factor, used="actions", contradicting=_at(none, steps, bad))


def _spread(factor: FloatArray, steps: _Steps, count: int) -> FloatArray:
    """Return the factors, with 1 at rows that have no place in time."""
    spread = np.ones(count)
    spread[steps.rows] = factor[steps.rows]
    return spread


def _by_columns(
    values: Mapping[str, FloatArray], steps: _Steps, columns: Sequence[str], none: BoolArray, decided: str
) -> Adjustment:
    stated = {name: _stated(factor_of(values, name)[steps.rows]) for name in columns}
    used = columns[0]
    bad = np.zeros(len(steps.move), bool)
    if len(columns) > 1:
        varying = [name for name in columns if (np.abs(stated[name]) > _NEAR).any()]
        if varying == ["factor"]:
            # The adjusted close moves as the close does, so the closes are adjusted already.
            return _adjusted(values, none)
        if varying == columns:
            bad = ~(_near(stated["factor"], stated["adj_close"]) | np.isnan(stated["factor"] + stated["adj_close"]))
    if used == "factor" and (
        decided == "adjusted" or _adjusted_already(values["factor"][steps.rows], stated[used], steps)
    ):
        return _adjusted(values, none)
    bad |= _contradicted(stated[used], steps)
    factor = factor_of(values, used)
    return Adjustment(multiplier=factor, factor=factor, used=used, contradicting=_at(none, steps, bad))


def _contradicted(stated: FloatArray, steps: _Steps) -> BoolArray:
    """Return the steps at which splits, dividends or previous closes say something else than the factor."""
    splits, far = _split_steps(steps, raw=False)
    expected = splits + np.where(np.isnan(steps.dividend), 0.0, steps.dividend)
    known = (splits != 0) | (steps.dividend != 0)
    bad = far | (known & ~_near(stated, expected)) | np.isnan(steps.dividend)
    informative = _informative(steps.preclose, _NEAR)
    contradicted: BoolArray = bad | (informative & ~_near(stated, steps.preclose))
    return contradicted & ~np.isnan(stated)


def _adjusted_already(factor: FloatArray, stated: FloatArray, steps: _Steps) -> bool:
    """Return whether prices beside a factor are adjusted by it already, as in Qlib's normalised files."""
    if not (np.abs(stated) > 1e-6).any():  # noqa: PLR2004 - a constant factor changes no ratio of prices
        return False
    big = np.abs(stated) > _BIG
    if big.any():
        return bool((np.abs(steps.move[big]) < np.abs(steps.move[big] - stated[big])).mean() > 0.5)  # noqa: PLR2004
    if _on_tick(steps.close) >= _ON_TICK:
        return False
    with np.errstate(all="ignore"):
        return _on_tick(steps.close / factor) >= _OFF_TICK or abs(steps.close[0] - 1) < 1e-6  # noqa: PLR2004 - Qlib's first close


def _adjusted_for_dividends(steps: _Steps, dividends: FloatArray) -> bool:
    """Return whether closes before the last dividend are no prices that were ever paid, and those after it are."""
    paid = np.flatnonzero(dividends)
    if not len(paid):
        return False
    before, after = steps.close[: paid[-1] + 1], steps.close[paid[-1] + 1 :]
    return _on_tick(before) < 1 - _OFF_TICK + 0.15 and _on_tick(after) >= _ON_TICK


def _on_tick(prices: FloatArray) -> float:
    """Return the share of prices that are whole cents, to a tenth of one."""
    cents = prices[np.isfinite(prices)] * 100
    return float((np.abs(cents - np.round(cents)) < np.maximum(0.1, cents * 1e-7)).mean()) if len(cents) else 0.0


def _stated(factor: FloatArray) -> FloatArray:
    with np.errstate(all="ignore"):
        return np.log(factor[:-1] / factor[1:])


def _informative(preclose: FloatArray, least: float) -> BoolArray:
    """Return the steps at which a previous close is another than the close before; none if it mostly is.

    A column that differs on a fifth of the days holds something else.
    """
    informative: BoolArray = ~np.isnan(preclose) & (np.abs(preclose) > least)
    often = informative.sum() >= _MANY and informative.mean() > _OFTEN
    return np.zeros_like(informative) if often else informative


def _near(one: FloatArray, other: FloatArray) -> BoolArray:
    near: BoolArray = np.abs(one - other) <= _NEAR + _NEAR_PART * np.abs(other)
    return near


def _at(none: BoolArray, steps: _Steps, bad: BoolArray) -> BoolArray:
    rows = none.copy()
    rows[steps.rows[1:][bad]] = True
    return rows
