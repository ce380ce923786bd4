"""Volumes: rows whose volume is of another unit, as in lots of 100 shares since a date.

Owns: where such a block begins, which rows belong to it, where it ends.
Must not know: files, dates, other rules.
Invariant: a row is judged by itself and rows before it alone.
"""

from collections.abc import Iterator

import numpy as np

from strategies.market.bars import BoolArray, FloatArray, IntArray

#: Bars before a row whose median is the usual volume, and those whose spread counts, less the last few: a block may
#: have begun on a busy day, which hides it.
MEDIAN_BARS, SPREAD_BARS, RECENT_BARS = 20, 80, 5
_UNITS = np.log(np.array([100.0, 1000.0]))
#: Ratio to the usual volume, upwards and downwards, from which a block may begin; beyond the last one it is something
#: else. The busiest days of a sound share have some 20 times the usual volume, the quietest ones a third of it.
_UP, _DOWN, _FARTHEST = np.log(59.0), np.log(12.0), np.log(4000.0)
#: How near to the usual volume a row may come, upwards and downwards, and how many standard deviations of the volume's
#: logarithm it must be beyond: in a block that has begun, in one of 3 rows, in one of 20.
_YOUNG, _SURE, _OLD = (
    (np.log(19.5), np.log(4.0), 4.0),
    (np.log(15.0), np.log(2.5), 2.5),
    (np.log(5.0), np.log(1.8), 1.2),
)
#: Standard deviations to begin a block, and to be held back although no other row of it was seen.
_BEGINS, _ALONE, _LEAST_SPREAD = 5.0, 10.0, 0.25
#: Rows of a block after which one that looks like its end may be a busy day.
_SURE_ROWS = 3
#: How far a block must begin, as a multiple of the farthest volume on its side: some volumes are no bell.
_FARTHER = 1.5


def other_unit(volume: FloatArray, close: FloatArray, confirmed: BoolArray) -> BoolArray:
    """Return the rows whose volume is 100 or 1,000 times the usual one, or a part of it, `[rows]`.

    A block of such rows is compared with the bars before it, and from its 20th row on with its own, however long it
    is. Rows without a volume neither belong to a block nor end it.

    Args:
        volume: Shares, `[rows]`.
        close: `[rows]`.
        confirmed: Rows that somebody has found right, `[rows]`.
    """
    rows = np.flatnonzero(volume > 0)
    found = np.zeros(len(volume), bool)
    if len(rows) > MEDIAN_BARS:
        scan = _Scan(volume[rows], close[rows], confirmed[rows])
        scan.run()
        found[rows] = scan.found
    return found


class _Scan:
    """The rows with a volume, one block after the other."""

    def __init__(self, volume: FloatArray, close: FloatArray, confirmed: BoolArray) -> None:
        self._volume, self._close, self._confirmed = np.log(volume), np.log(close), confirmed
        self.found = np.zeros(len(volume), bool)
        # What somebody has multiplied by 100 ends in two zeros.
        self._no_multiple = (volume == np.floor(volume)) & (volume % 100 != 0)

    def run(self) -> None:
        at = 0
        for row, usual in self._candidates():
            if row >= at:
                at = row + MEDIAN_BARS if self._confirmed[row] else self._follow(row, usual)

    def _candidates(self) -> Iterator[tuple[int, float]]:
        """Return rows with which a block may begin, and the usual volume there."""
        before = _windows(self._volume)
        # A median is within its window: only rows so far from the window's ends need one.
        later = self._volume[MEDIAN_BARS:]
        rows = np.flatnonzero((later - before.min(axis=1) >= _UP) | (before.max(axis=1) - later >= _DOWN))
        usual = _medians(before[rows])
        ratios = later[rows] - usual
        rows += MEDIAN_BARS
        up = (ratios >= _UP) & (ratios <= _FARTHEST) & ~self._no_multiple[rows]
        down = (ratios >= -_FARTHEST) & (ratios <= -_DOWN)
        # The shares of a split are traded in its ratio.
        moves = self._close[rows] - _medians(_windows(self._close)[rows - MEDIAN_BARS])
        split = np.abs(moves + ratios) < np.abs(ratios) / 2
        chosen = (up | down) & ~split
        chosen[chosen] = self._far(rows[chosen], ratios[chosen])
        return zip(rows[chosen].tolist(), usual[chosen].tolist(), strict=True)

    def _far(self, rows: IntArray, ratios: FloatArray) -> BoolArray:
        """Return whether rows are beyond every volume of the calm bars before them; those near the start may be."""
        far = np.ones(len(rows), bool)
        late = rows >= SPREAD_BARS
        if late.any():
            length = SPREAD_BARS - RECENT_BARS
            calm = np.lib.stride_tricks.sliding_window_view(self._volume, length)[rows[late] - SPREAD_BARS]
            sign = np.sign(ratios[late])[:, None]
            # As `_follow` decides, for many rows at once.
            farthest = (sign * (calm - np.median(calm, axis=1, keepdims=True))).max(axis=1)
            spread = np.maximum(np.std(calm, axis=1), _LEAST_SPREAD)
            far[late] = np.abs(ratios[late]) > np.maximum(_BEGINS * spread, _FARTHER * farthest) * (1 - 1e-9)
        return far

    def _follow(self, row: int, usual: float) -> int:
        """Mark the block that begins with a row, and those that go on with it; return the row to look on from."""
        calm = self._volume[max(0, row - SPREAD_BARS) : row - RECENT_BARS]
        spread = max(float(np.std(calm)), _LEAST_SPREAD)
        ratio = self._volume[row] - usual
        farthest = float(np.max(np.sign(ratio) * (calm - np.median(calm))))
        if abs(ratio) <= max(_BEGINS * spread, _FARTHER * farthest):
            return row + 1
        # The row before may have been too busy to begin the block.
        second = np.sign(ratio) * (self._volume[row - 1] - usual) >= _YOUNG[2] * spread
        start, first = row, 0 if second or self._alone(row, usual, spread) else 1
        while True:
            end, usual = self._end(start, usual, np.sign(ratio), spread)
            self.found[start + first : end] = True
            if end < row + _SURE_ROWS:
                return max(end, row + 1)
            if self._confirmed[end : end + 1].any():
                return end + MEDIAN_BARS
            # A day of many trades may look like the end: the rows after it show whether it was.
            after = self._belongs(slice(end, end + MEDIAN_BARS), usual, np.sign(ratio), spread)
            if not after.any():
                return end + MEDIAN_BARS
            start, first = end + int(np.argmax(after)), 0

    def _end(self, start: int, usual: float, sign: float, spread: float) -> tuple[int, float]:
        """Return the row after a block, and what the usual volume has become by then."""
        volume = self._volume[start:]
        usually = np.full(len(volume), usual)
        if len(volume) > MEDIAN_BARS:
            own = _medians(_windows(volume))
            step = own[0] - usual
            usually[MEDIAN_BARS:] = own - sign * _UNITS[np.argmin(np.abs(abs(step) - _UNITS))]
        belongs = self._belongs(slice(start, None), usually, sign, spread)
        if not self._alone(start, usual, spread):
            # One row may be a day's own; the next one must show as much for both to be of another unit.
            belongs[1:2] &= sign * (volume[1:2] - usual) >= _BEGINS * spread
        for rows, limits in ((_SURE_ROWS, _SURE), (MEDIAN_BARS, _OLD)):
            belongs[rows:] = self._belongs(slice(start + rows, None), usually[rows:], sign, spread, limits)
        length = len(belongs) if belongs.all() else int(np.argmin(belongs))
        return start + length, float(usually[min(length, len(usually) - 1)])

    def _alone(self, row: int, usual: float, spread: float) -> bool:
        """Return whether a row is so far from the usual volume that it needs no other one beside it."""
        return bool(abs(self._volume[row] - usual) > _ALONE * spread)

    def _belongs(
        self,
        rows: slice,
        usual: FloatArray | float,
        sign: float,
        spread: float,
        limits: tuple[float, float, float] = _YOUNG,
    ) -> BoolArray:
        up, down, spreads = limits
        least = max(up if sign > 0 else down, spreads * spread)
        belongs: BoolArray = (sign * (self._volume[rows] - usual) >= least) & ~self._confirmed[rows]
        return belongs


def _windows(values: FloatArray) -> FloatArray:
    """Return the bars before each one that has enough of them, `[rows - MEDIAN_BARS, MEDIAN_BARS]`."""
    windows: FloatArray = np.lib.stride_tricks.sliding_window_view(values[:-1], MEDIAN_BARS)
    return windows


def _medians(windows: FloatArray) -> FloatArray:
    middle = np.sort(windows, axis=1)[:, MEDIAN_BARS // 2 - 1 : MEDIAN_BARS // 2 + 1]
    medians: FloatArray = middle.mean(axis=1)
    return medians
