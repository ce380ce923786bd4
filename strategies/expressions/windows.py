"""Rolling kernels: every value computed from its own window alone, from the newest row back to the oldest.

Owns: one pass and one set of results for each family of windows.
Must not know: expressions, columns, sessions; a row is `lanes` neighbouring values (symbols), lag `j` lies `j * lanes`
before it.
Invariant: a longer window continues the pass of a shorter one, so results of several lengths share it and still have
the bits each would have alone. Sums run on differences to the newest valid value, which is inside every window: their
error stays near `N` ulp of float64, and a constant window is exact (Std 0).
"""

import numpy as np

from strategies.expressions.kernels import Values, compiled

#: Values per strip: the accumulators of the widest family stay in the first-level cache.
STRIP = 256
K1, K2, K3, K4, K5, K6, K7 = STRIP, 2 * STRIP, 3 * STRIP, 4 * STRIP, 5 * STRIP, 6 * STRIP, 7 * STRIP
#: Room for the accumulators of any family but ORDER, in values.
ACCUMULATORS = 8 * STRIP

#: Least values of Skew and Kurt.
SKEW_LEAST, KURT_LEAST = 3.0, 4.0

SUM, COUNT, MEAN, VAR, STD, SLOPE, RSQUARE, RESI, MAX, IDXMAX, MIN, IDXMIN = range(12)
CORR, COV, SKEW, KURT, MAD, QUANTILE, MED, RANK, WMA, EMA = range(12, 22)


@compiled
def sums_lag(x: Values, acc: Values) -> None:
    """Add one lag to: number of finite values, their sum, number of values that are not NaN."""
    for i in range(x.size):
        v = x[i]
        finite = abs(v) < np.inf
        acc[i] += 1.0 if finite else 0.0
        acc[i + K1] += v if finite else 0.0
        acc[i + K2] += 0.0 if np.isnan(v) else 1.0


@compiled
def sums_result(kind: int, acc: Values, out: Values) -> None:
    """Write Sum (NaN for an empty window) or Count (infinities count, as in pandas)."""
    for i in range(out.size):
        if kind == SUM:
            out[i] = acc[i + K1] if acc[i] > 0.0 else np.nan
        else:
            out[i] = acc[i + K2]


@compiled
def moments_lag(x: Values, acc: Values) -> None:
    """Add one lag to: finite values, newest of them, sum and sum of squares of the differences to it, plain sum."""
    for i in range(x.size):
        v = x[i]
        finite = abs(v) < np.inf
        newest = v if finite & (acc[i] == 0.0) else acc[i + K1]
        difference = v - newest if finite else 0.0
        acc[i] += 1.0 if finite else 0.0
        acc[i + K1] = newest
        acc[i + K2] += difference
        acc[i + K3] += difference * difference
        acc[i + K4] += v if finite else 0.0


@compiled
def moments_result(kind: int, acc: Values, out: Values) -> None:
    """Write Mean, or Var and Std with one degree of freedom taken off (NaN for one value).

    Mean is the plain sum over the count: the share of days that went up less the share that went down must be exactly
    zero where they are equal, since trees split at zero.
    """
    if kind == MEAN:
        for i in range(out.size):
            mean = acc[i + K4] / acc[i]
            out[i] = acc[i + K1] if (acc[i + K3] == 0.0) & (acc[i] > 0.0) else mean
    else:
        for i in range(out.size):
            n, total = acc[i], acc[i + K2]
            variance = (acc[i + K3] - total * total / n) / (n - 1.0)
            variance = variance if n > 1.0 else np.nan
            out[i] = np.sqrt(variance) if kind == STD else variance


@compiled
def trend_lag(x: Values, lag: float, acc: Values) -> None:
    """Add one lag to the sums of a regression on time; an infinity makes every sum NaN, as long as it is inside."""
    for i in range(x.size):
        v = x[i]
        valid = not np.isnan(v)
        newest = v if valid & (acc[i] == 0.0) else acc[i + K1]
        difference = v - newest if valid else 0.0
        time = lag if valid else 0.0
        acc[i] += 1.0 if valid else 0.0
        acc[i + K1] = newest
        acc[i + K2] += time
        acc[i + K3] += time * time
        acc[i + K4] += difference
        acc[i + K5] += difference * difference
        acc[i + K6] += lag * difference


@compiled
def trend_result(kind: int, newest: Values, acc: Values, out: Values) -> None:
    """Write Slope, Rsquare (before its guard) or Resi, the residual of the newest row; NaN below two values."""
    for i in range(out.size):
        n, lags, total = acc[i], acc[i + K2], acc[i + K4]
        across = lags * total - n * acc[i + K6]
        time_spread = n * acc[i + K3] - lags * lags
        slope = across / time_spread
        if kind == SLOPE:
            out[i] = slope
        elif kind == RESI:
            out[i] = (newest[i] - acc[i + K1]) - (total / n + slope * (lags / n))
        else:
            out[i] = across * across / (time_spread * (n * acc[i + K5] - total * total))


@compiled
def peaks_lag(x: Values, ages: Values, sign: float, lag: float, acc: Values) -> None:
    """Add one lag to: greatest `sign * x`, the oldest lag that has it, the oldest existing row without a value."""
    for i in range(x.size):
        v = sign * x[i]
        finite = abs(v) < np.inf
        best = acc[i]
        better = finite & ((v >= best) | np.isnan(best))
        acc[i] = v if better else best
        acc[i + K1] = lag if better else acc[i + K1]
        acc[i + K2] = lag if (not finite) & (ages[i] >= lag) else acc[i + K2]


@compiled
def peaks_result(kind: int, window: int, ages: Values, acc: Values, out: Values) -> None:
    """Write the extreme, or its place counted from the oldest existing row (1-based); a missing bar wins the place."""
    sign = -1.0 if (kind == MIN) | (kind == IDXMIN) else 1.0
    if (kind == MAX) | (kind == MIN):
        for i in range(out.size):
            out[i] = sign * acc[i]
    else:
        for i in range(out.size):
            oldest = min(window - 1.0, ages[i])
            lag = acc[i + K2] if acc[i + K2] >= 0.0 else acc[i + K1]
            out[i] = np.nan if np.isnan(acc[i]) else oldest - lag + 1.0


@compiled
def ranks_lag(x: Values, newest: Values, acc: Values) -> None:
    """Add one lag to: finite values, those below the newest row, those equal to it."""
    for i in range(x.size):
        v = x[i]
        acc[i] += 1.0 if abs(v) < np.inf else 0.0
        acc[i + K1] += 1.0 if (v < newest[i]) & (abs(v) < np.inf) else 0.0
        acc[i + K2] += 1.0 if v == newest[i] else 0.0


@compiled
def ranks_result(newest: Values, acc: Values, out: Values) -> None:
    """Write the share of the newest row's rank, ties averaged; NaN where the newest row has no finite value."""
    for i in range(out.size):
        rank = acc[i + K1] + (acc[i + K2] + 1.0) * 0.5
        out[i] = rank / acc[i] if abs(newest[i]) < np.inf else np.nan


@compiled
def pairs_lag(x: Values, y: Values, acc: Values) -> None:
    """Add one lag to the sums of pairs of which both sides are finite."""
    for i in range(x.size):
        both = (abs(x[i]) < np.inf) & (abs(y[i]) < np.inf)
        fresh = both & (acc[i] == 0.0)
        newest_x = x[i] if fresh else acc[i + K1]
        newest_y = y[i] if fresh else acc[i + K2]
        dx = x[i] - newest_x if both else 0.0
        dy = y[i] - newest_y if both else 0.0
        acc[i] += 1.0 if both else 0.0
        acc[i + K1] = newest_x
        acc[i + K2] = newest_y
        acc[i + K3] += dx
        acc[i + K4] += dy
        acc[i + K5] += dx * dx
        acc[i + K6] += dy * dy
        acc[i + K7] += dx * dy


@compiled
def pairs_result(kind: int, acc: Values, out: Values) -> None:
    """Write Corr (before its guard; NaN where a side is constant) or Cov with one degree of freedom taken off."""
    for i in range(out.size):
        n, sx, sy = acc[i], acc[i + K3], acc[i + K4]
        xy = acc[i + K7] - sx * sy / n
        xx = acc[i + K5] - sx * sx / n
        yy = acc[i + K6] - sy * sy / n
        if kind == CORR:
            out[i] = xy / (np.sqrt(xx) * np.sqrt(yy))
        else:
            out[i] = xy / (n - 1.0) if n > 1.0 else np.nan


@compiled
def shape_lag(x: Values, acc: Values) -> None:
    """Add one lag to the central moments; the mean stands in the first two accumulators, from a pass before."""
    for i in range(x.size):
        v = x[i]
        difference = v - acc[i + K1] if abs(v) < np.inf else 0.0
        square = difference * difference
        acc[i + K2] += square
        acc[i + K3] += square * difference
        acc[i + K4] += square * square
        acc[i + K5] += abs(difference)


@compiled
def shape_result(kind: int, acc: Values, out: Values) -> None:
    """Write Skew (from 3 values on), Kurt (from 4 values on; both NaN in a constant window) or Mad."""
    for i in range(out.size):
        n = acc[i]
        m2 = acc[i + K2] / n
        if kind == MAD:
            out[i] = acc[i + K5] / n
        elif kind == SKEW:
            skew = np.sqrt(n * (n - 1.0)) / (n - 2.0) * (acc[i + K3] / n) / (m2 * np.sqrt(m2))
            out[i] = skew if n >= SKEW_LEAST else np.nan
        else:
            ratio = (n + 1.0) * (acc[i + K4] / n) / (m2 * m2) - 3.0 * (n - 1.0)
            out[i] = (n - 1.0) / ((n - 2.0) * (n - 3.0)) * ratio if n >= KURT_LEAST else np.nan


@compiled
def weighted_lag(x: Values, ages: Values, window: int, lag: float, acc: Values) -> None:
    """Add one lag to: finite values, sum of value times (existing rows of the window less the lag)."""
    for i in range(x.size):
        v = x[i]
        finite = abs(v) < np.inf
        rows = min(window - 1.0, ages[i]) + 1.0
        acc[i] += 1.0 if finite else 0.0
        acc[i + K1] += (rows - lag) * v if finite else 0.0


@compiled
def weighted_result(window: int, ages: Values, acc: Values, out: Values) -> None:
    """Write Qlib's WMA: the mean (not the sum) of the weighted values, weights normed over all rows."""
    for i in range(out.size):
        rows = min(window - 1.0, ages[i]) + 1.0
        out[i] = acc[i + K1] / (rows * (rows + 1.0) * 0.5) / acc[i]


@compiled
def decay_lag(x: Values, weight: float, acc: Values) -> None:
    """Add one lag to: sum of the weights of finite values, their weighted sum, their number."""
    for i in range(x.size):
        finite = abs(x[i]) < np.inf
        acc[i] += weight if finite else 0.0
        acc[i + K1] += weight * x[i] if finite else 0.0
        acc[i + K2] += 1.0 if finite else 0.0


@compiled
def span_decay_lag(x: Values, ages: Values, window: int, lag: float, acc: Values) -> None:
    """Add one lag of Qlib's expanding EMA: weights `(1 - 2 / (1 + rows)) ** lag`, normed over all existing rows."""
    for i in range(x.size):
        rows = min(window - 1.0, ages[i]) + 1.0
        weight = 1.0 if lag == 0.0 else acc[i + K3] * (1.0 - 2.0 / (1.0 + rows))
        acc[i + K3] = weight
        acc[i] += weight if lag < rows else 0.0
        acc[i + K1] += weight * x[i] if abs(x[i]) < np.inf else 0.0
        acc[i + K2] += 1.0 if abs(x[i]) < np.inf else 0.0


@compiled
def decay_result(acc: Values, out: Values) -> None:
    """Write the weighted mean, NaN where no value had a weight."""
    for i in range(out.size):
        out[i] = acc[i + K1] / acc[i] if acc[i + K2] > 0.0 else np.nan
