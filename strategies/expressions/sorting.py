"""Rolling order statistics: windows kept sorted by exchanging neighbours, which has no rounding and no branches.

Owns: the sorted strip and what is read off it, quantiles and the median.
Must not know: expressions, columns, sessions.
Invariant: values without a finite number are pushed in as +inf and lie behind the finite ones, which are counted.
"""

import numpy as np

from strategies.expressions.kernels import Values, compiled

#: Values per strip: 60 sorted rows of it stay in the first-level cache.
SORT_STRIP = 64


@compiled
def insert_lag(x: Values, rows: int, counts: Values, carried: Values, ordered: Values) -> None:
    """Insert one lag into the `rows` ascending rows of `ordered`, and count its finite values."""
    size = x.size
    for i in range(size):
        finite = abs(x[i]) < np.inf
        counts[i] += 1.0 if finite else 0.0
        carried[i] = x[i] if finite else np.inf
    for row in range(rows):
        held = ordered[row * SORT_STRIP : row * SORT_STRIP + size]
        for i in range(size):
            low = min(held[i], carried[i])
            high = max(held[i], carried[i])
            held[i] = low
            carried[i] = high
    newest = ordered[rows * SORT_STRIP : rows * SORT_STRIP + size]
    for i in range(size):
        newest[i] = carried[i]


@compiled
def quantile_result(share: float, counts: Values, ordered: Values, out: Values) -> None:
    """Write the quantile, interpolated linearly between neighbours with the arithmetic of pandas."""
    for i in range(out.size):
        place = share * (counts[i] - 1.0)
        below = int(place)
        if counts[i] == 0.0:
            out[i] = np.nan
        elif place == below:
            out[i] = ordered[below * SORT_STRIP + i]
        else:
            low = ordered[below * SORT_STRIP + i]
            out[i] = low + (ordered[(below + 1) * SORT_STRIP + i] - low) * (place - below)


@compiled
def median_result(counts: Values, ordered: Values, out: Values) -> None:
    """Write the middle value, or the mean of the middle two."""
    for i in range(out.size):
        count = int(counts[i])
        middle = count // 2
        if count == 0:
            out[i] = np.nan
        elif count % 2 == 1:
            out[i] = ordered[middle * SORT_STRIP + i]
        else:
            out[i] = (ordered[middle * SORT_STRIP + i] + ordered[(middle - 1) * SORT_STRIP + i]) / 2.0
