"""Neighbours: what a row's bar says beside the bars before it.

Owns: moves, price levels, unit mix-ups, moves that look like splits, spikes, repeats.
Must not know: files, dates' formats, the rules of a single row.
Invariant: a row is judged by itself and rows before it alone, in the order of the calendar; the one exception is a
unit mix-up at the start of a file, which only the rows after it can show.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from strategies.market.bars import BoolArray, FloatArray, IntArray
from strategies.market.rules import Rules
from strategies.market.volumes import MEDIAN_BARS, other_unit

#: Names of the rules here, in the order of the table.
NAMES = ("price_spike", "repeated_bar", "volume_unit", "unit_mixup", "split_like", "unexplained_move")
#: New shares for old ones that companies choose, and their inverses.
SPLITS = np.array([1.2, 1.25, 4 / 3, 1.5, 5 / 3, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50])
_LOG_SPLITS = np.log(np.concatenate((SPLITS, 1 / SPLITS)))
#: Smallest split that is looked for without a column of splits: below it real days do the same.
_SMALLEST = np.log(1.24)
#: Split from which no day's own move is as large, unless the volume shows it.
_PLAIN = np.log(1.4)
#: How far the nearer one of open and close, and the other one, may be from the ratio: below a plain split and from it
#: on. The nearer one is `split_tolerance` below it.
_NEARER_PLAIN, _OTHER_PRICE, _OTHER_PLAIN = 0.12, 0.08, 0.12
#: Least and largest volume, over what the ratio makes of the usual one: below a plain split and from it on. Where a
#: share really lost a third overnight, 11 to 32 times as many changed hands.
_VOLUMES, _VOLUMES_PLAIN = (np.log(1 / 2.5), np.log(2.5)), (np.log(1 / 5), np.log(8.0))
#: Rows of another unit that show that those before them, at the start of a file, are the wrong ones.
_START_ROWS = 60
#: Ratio from which a new level is nobody's price move, and must be settled.
_LARGE_LEVEL = 3.0
_UNITS = np.log(np.array([100.0, 1000.0, 0.01, 0.001]))
#: Bars before a row that it may repeat.
_REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One symbol's placed rows in the order of the calendar; each array `[rows]`, prices adjusted."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    #: Rows that a rule of a single row has flagged.
    flagged: BoolArray
    #: Rows whose move somebody has confirmed.
    confirmed: BoolArray


def judge_neighbours(series: Series, rules: Rules) -> tuple[dict[str, BoolArray], IntArray]:
    """Return rule to the rows that fail it, and the first rows of levels that a split-like move led to.

    A close is compared with the last accepted one. A row beyond the bound is flagged; the row after it is accepted if
    it is near the last accepted close (the flagged one was a bad print) or near the flagged one (the level has
    shifted). So a bad print costs its own row, a spin-off one row. A step of 100 or 1,000 is never a level.
    """
    with np.errstate(all="ignore"):
        flags = {name: np.zeros(len(series.close), bool) for name in NAMES}
        flags["repeated_bar"] = _repeats(series, rules)
        flags["volume_unit"] = other_unit(series.volume, series.close, series.confirmed) & ~series.flagged
        walk = _Walk(series, rules, flags)
        walk.run(0)
        if walk.starts_in_other_unit():
            walk.restart()
    return flags, np.array(walk.shifted, dtype=np.int64)


class _Walk:
    """The rows one after the other, as far as they need a look."""

    def __init__(self, series: Series, rules: Rules, flags: Mapping[str, BoolArray]) -> None:
        self._series, self._rules, self._flags = series, rules, flags
        self._bad = series.flagged | flags["repeated_bar"] | flags["volume_unit"]
        self._given = self._bad.copy()
        self._bad |= _own_spikes(series, rules)  # looked at again with the close before
        self.shifted: list[int] = []
        self._look = self._interesting()

    def run(self, start: int) -> None:
        """Judge every row from a position on that differs from the row before it in a way that matters."""
        reference, doubted, doubt = -1 if start == 0 else start - 1, np.nan, ""
        look = np.flatnonzero(self._look[start:]) + start
        position, at = start, 0
        extra = False
        while True:
            if not extra:
                while at < len(look) and look[at] < position:
                    at += 1
                if at == len(look):
                    return
                position = int(look[at])
                if position and not self._bad[position - 1]:
                    reference, doubted, doubt = position - 1, np.nan, ""
            elif position >= len(self._bad):
                return
            reason = self._judged(position, reference, doubted, doubt)
            if reason == "level":
                before = self._series.close[reference]
                if doubt == "split_like" or abs(np.log(doubted / before)) > np.log(_LARGE_LEVEL):
                    self.shifted.append(position)
                reason = ""
            if reason:
                doubted, doubt = (self._series.close[position], reason) if reason != "given" else (doubted, doubt)
            else:
                reference, doubted, doubt = position, np.nan, ""
            extra = bool(reason)
            position += 1

    def starts_in_other_unit(self) -> bool:
        """Return whether most rows are of another unit than the first ones: then those are the wrong ones."""
        mixed = self._flags["unit_mixup"]
        return int(mixed.sum()) > max(int((~self._bad).sum()), _START_ROWS)

    def restart(self) -> None:
        """Take the level of the later rows as the right one."""
        first = int(np.flatnonzero(self._flags["unit_mixup"])[0])
        before = ~self._given[:first]
        for name in ("unit_mixup", "split_like", "unexplained_move"):
            self._flags[name][:] = False
        self._bad[first:] = self._given[first:] | _own_spikes(self._series, self._rules)[first:]
        self._flags["unit_mixup"][:first] = before
        self._bad[:first] = True
        self._look = self._interesting()
        self.shifted.clear()
        self._look[first] = False
        self.run(first + 1)

    def _interesting(self) -> BoolArray:
        close = self._series.close
        moves = np.abs(np.log(close[1:] / close[:-1]))
        look = self._bad.copy()
        bound = min(np.log1p(self._rules.max_move), -np.log1p(-min(self._rules.max_move, 0.999999)), _SMALLEST - 0.1)
        look[1:] |= ~(moves <= bound)
        look[1:] |= self._bad[:-1]
        return look

    def _judged(self, row: int, reference: int, doubted: float, doubt: str) -> str:
        """Return why a row is not accepted: `given` for what is flagged anyway; `level` for an accepted new level."""
        series, rules = self._series, self._rules
        close = series.close[row]
        before = series.close[reference] if reference >= 0 else np.nan
        given = bool(self._given[row])
        if not given and self._spiked(row, before):
            given = self._flags["price_spike"][row] = True
        self._bad[row] = given
        reason = ""
        if reference >= 0 and not series.confirmed[row]:
            if not given and self._at_level(close, before, doubted, doubt):
                return "level"
            reason = self._in_unit(close, before, doubted, doubt) or self._moved(row, reference)
            if reason == "back":
                return ""
        if reason and (not given or abs(close / before - 1) > rules.max_move):
            self._flags[reason][row] = self._bad[row] = True
            return "given" if given else reason
        return "given" if given else ""

    def _spiked(self, row: int, before: float) -> bool:
        series, limit = self._series, self._rules.max_spike
        top, bottom = np.fmax(series.close[row], before), np.fmin(series.close[row], before)
        highest, lowest = max(series.high[row], series.open[row]), min(series.low[row], series.open[row])
        return bool(highest > top * (1 + limit) or lowest < bottom * (1 - limit))

    def _at_level(self, close: float, before: float, doubted: float, doubt: str) -> bool:
        """Return whether a close confirms the doubted one before it as a new level."""
        if np.isnan(doubted) or doubt == "unit_mixup":
            return False
        if abs(close / doubted - 1) > self._rules.max_move:
            return False
        if doubt != "split_like" and abs(np.log(doubted / before)) > np.log(self._rules.max_level):
            return False
        near_doubted = abs(np.log(close / doubted)) < abs(np.log(close / before))
        return bool(near_doubted or abs(close / before - 1) > self._rules.max_move)

    def _in_unit(self, close: float, before: float, doubted: float, doubt: str) -> str:
        """Return `unit_mixup` for a close near the one before it of another unit, `back` for the step out of that unit.

        In a long block of another unit prices move on, so that the last accepted close is no measure any more.
        """
        if doubt != "unit_mixup":
            return ""
        step, into = np.log(close / doubted), np.log(doubted / before)
        near = np.abs(step - _UNITS) < np.log1p(self._rules.unit_tolerance)
        if step * into < 0 and near.any():
            return "back"
        most = self._rules.max_move
        return "unit_mixup" if abs(close / doubted - 1) <= most < abs(close / before - 1) else ""

    def _moved(self, row: int, reference: int) -> str:
        series, rules = self._series, self._rules
        move = np.log(series.close[row] / series.close[reference])
        if (np.abs(move - _UNITS) < np.log1p(rules.unit_tolerance)).any():
            return "unit_mixup"
        if abs(move) > _SMALLEST - _OTHER_PRICE and self._split_like(row, reference, move):
            return "split_like"
        return "unexplained_move" if abs(np.expm1(move)) > rules.max_move else ""

    def _split_like(self, row: int, reference: int, move: float) -> bool:
        series, tolerance = self._series, np.log1p(self._rules.split_tolerance)
        if not series.high[row] > series.low[row]:
            return False
        gap = np.log(series.open[row] / series.close[reference])
        one, other = np.abs(gap - _LOG_SPLITS), np.abs(move - _LOG_SPLITS)
        start = max(0, reference + 1 - MEDIAN_BARS)
        usual = np.median(series.volume[start : reference + 1])
        volume = np.log(series.volume[row] / usual) if usual > 0 and series.volume[row] > 0 else np.nan
        plain = np.abs(_LOG_SPLITS) >= _PLAIN
        alike = np.minimum(one, other) <= np.where(plain, max(_NEARER_PLAIN, tolerance), tolerance)
        alike &= np.maximum(one, other) <= np.where(plain, _OTHER_PLAIN, _OTHER_PRICE)
        least, most = (np.where(plain, *both) for both in zip(_VOLUMES_PLAIN, _VOLUMES, strict=True))
        alike &= (least <= volume + _LOG_SPLITS) & (volume + _LOG_SPLITS <= most)
        return bool((alike & (np.sign(move) == np.sign(_LOG_SPLITS)) & (np.abs(_LOG_SPLITS) >= _SMALLEST)).any())


def _own_spikes(series: Series, rules: Rules) -> BoolArray:
    limit = rules.max_spike
    highest, lowest = np.fmax(series.high, series.open), np.fmin(series.low, series.open)
    spikes: BoolArray = (highest > series.close * (1 + limit)) | (lowest < series.close * (1 - limit))
    return spikes


def _repeats(series: Series, rules: Rules) -> BoolArray:
    """Return rows whose prices and volume are those of one of the bars before; bars without a range may repeat."""
    repeated = np.zeros(len(series.close), bool)
    ranged = series.high > series.low
    for back in range(1, min(_REPEATS, len(repeated) - 1) + 1):
        same = series.close[back:] == series.close[:-back]
        if not same.any():
            continue
        for values in (series.open, series.high, series.low):
            same &= values[back:] == values[:-back]
        volume, earlier = series.volume[back:], series.volume[:-back]
        repeated[back:] |= same & (np.abs(volume - earlier) <= rules.repeat_tolerance * earlier)
    repeats: BoolArray = repeated & ranged & ~series.flagged
    return repeats
