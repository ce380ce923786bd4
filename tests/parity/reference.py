"""An independent reference of the expressions: plain NumPy, one symbol at a time, every window on its own.

Owns: evaluating an expression's text as Python, as Qlib does, with operators each written from its definition.
Must not know: the engine under test, Qlib, pandas' rolling sums.
Invariant: windows are float64, centred on their own mean (two passes), and see their own rows alone. `exact` computes
all else in float64 too; without it, bars and element-wise arithmetic are float32 as in Qlib.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.market.bars import Float32Array

Array = NDArray[Any]
#: Absolute, see `Rsquare` and `Corr` of `qlib.data.ops`.
FLAT = 2e-5


class _Series:
    """Values of one symbol's existing rows, with Python's operators."""

    def __init__(self, values: Array, key: str, memory: "dict[str, _Series]") -> None:
        self.values, self.key, self.memory = values, key, memory

    def to(self, key: str, compute: Callable[[], Array]) -> "_Series":
        if key not in self.memory:
            self.memory[key] = _Series(compute(), key, self.memory)
        return self.memory[key]

    def pair(self, sign: str, other: object, function: Callable[..., Array], *, swap: bool = False) -> "_Series":
        value = other.values if isinstance(other, _Series) else other
        name = other.key if isinstance(other, _Series) else repr(other)
        key = f"({name}{sign}{self.key})" if swap else f"({self.key}{sign}{name})"
        return self.to(key, lambda: function(value, self.values) if swap else function(self.values, value))

    def __add__(self, other: object) -> "_Series":
        return self.pair("+", other, operator.add)

    def __sub__(self, other: object) -> "_Series":
        return self.pair("-", other, operator.sub)

    def __mul__(self, other: object) -> "_Series":
        return self.pair("*", other, operator.mul)

    def __rmul__(self, other: object) -> "_Series":
        return self.pair("*", other, operator.mul, swap=True)

    def __truediv__(self, other: object) -> "_Series":
        return self.pair("/", other, operator.truediv)

    def __gt__(self, other: object) -> "_Series":
        return self.pair(">", other, operator.gt)

    def __lt__(self, other: object) -> "_Series":
        return self.pair("<", other, operator.lt)


def reference(expressions: Sequence[str], bars: Mapping[str, NDArray[np.float64]], *, exact: bool) -> Float32Array:
    """Return the expressions on one symbol's rows from its first bar on, `[rows, expressions]`.

    Args:
        expressions: In Qlib's language; the operators of Alpha158 and Alpha360 are known.
        bars: Field to values `[rows]`; rounded to float32 first, as Qlib stores them.
        exact: Compute everything in float64.
    """
    memory: dict[str, _Series] = {}
    stored = {
        name: values.astype(np.float32).astype(np.float64 if exact else np.float32) for name, values in bars.items()
    }
    names: dict[str, object] = dict(_OPERATORS)
    names["Feature"] = lambda name: _Series(stored[name], name, memory)
    with np.errstate(all="ignore"):
        columns = [eval(_code(text), {"__builtins__": {}}, names).values for text in expressions]  # noqa: S307 - shipped text
        return np.stack([column.astype(np.float32) for column in columns], axis=1)


@lru_cache(maxsize=4096)
def _code(expression: str) -> CodeType:
    return compile(re.sub(r"\$(\w+)", r'Feature("\1")', expression), expression, "eval")


def _windows(values: Array, length: int) -> NDArray[np.float64]:
    """Return the window of each row, oldest first, `[rows, length]`; NaN where a value is missing or infinite."""
    finite = values.astype(np.float64)
    finite[~np.isfinite(finite)] = np.nan
    padded = np.concatenate([np.full(length - 1, np.nan), finite])
    windows: NDArray[np.float64] = np.lib.stride_tricks.sliding_window_view(padded, length)
    return windows


def _count(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    count: NDArray[np.float64] = np.isfinite(windows).sum(axis=1).astype(np.float64)
    return count


def _mean(values: Array, length: int) -> Array:
    windows = _windows(values, length)
    mean: Array = np.nansum(windows, axis=1) / _count(windows)
    return mean


def _sum(values: Array, length: int) -> Array:
    windows = _windows(values, length)
    return np.where(_count(windows) > 0, np.nansum(windows, axis=1), np.nan)


def _std(values: Array, length: int) -> Array:
    windows = _windows(values, length)
    count = _count(windows)
    centred = windows - (np.nansum(windows, axis=1) / count)[:, None]
    return np.where(count > 1, np.sqrt(np.nansum(centred**2, axis=1) / (count - 1)), np.nan)


def _extreme(best: Callable[..., Array]) -> Callable[[Array, int], Array]:
    def extreme(values: Array, length: int) -> Array:
        windows = _windows(values, length)
        known = _count(windows) > 0
        filled = np.where(known[:, None], windows, 0.0)
        return np.where(known, best(filled, axis=1), np.nan)

    return extreme


def _place(best: Callable[..., Array]) -> Callable[[Array, int], Array]:
    def place(values: Array, length: int) -> Array:
        windows = _windows(values, length)
        rows = np.arange(len(values))
        absent = np.maximum(length - 1 - rows, 0)  # rows of the window that lie before the first bar
        order = np.arange(length) >= absent[:, None]
        # Rows that do not exist must not win, missing bars must: argmax and argmin take the first NaN.
        losing = -np.inf if best is np.argmax else np.inf
        found = best(np.where(order, windows, losing), axis=1)
        return np.where(_count(windows) > 0, found - absent + 1.0, np.nan)

    return place


def _rank(values: Array, length: int) -> Array:
    windows = _windows(values, length)
    newest = windows[:, -1:]
    rank = (windows < newest).sum(axis=1) + ((windows == newest).sum(axis=1) + 1) / 2
    return np.where(np.isfinite(newest[:, 0]), rank / _count(windows), np.nan)


def _quantile(values: Array, length: int, share: float) -> Array:
    windows = np.sort(_windows(values, length), axis=1)  # NaN last
    count = _count(windows)
    place = share * np.maximum(count - 1, 0)
    below = np.floor(place).astype(int)
    rows = np.arange(len(windows))
    low, high = windows[rows, below], windows[rows, np.minimum(below + 1, length - 1)]
    between: Array = low + (high - low) * (place - below)
    return np.where(place == below, low, between)


def _regression(values: Array, length: int) -> tuple[Array, ...]:
    """Return slope, R squared and the newest row's residual, with time and values centred on the rows that count."""
    windows = _windows(values, length)
    present, count = np.isfinite(windows), _count(windows)
    time = np.where(present, np.arange(1.0, length + 1), np.nan)
    mean_time, mean = np.nansum(time, axis=1) / count, np.nansum(windows, axis=1) / count
    across = time - mean_time[:, None]
    up = windows - mean[:, None]
    spread = np.nansum(across**2, axis=1)
    slope = np.nansum(across * up, axis=1) / spread
    share = np.nansum(across * up, axis=1) ** 2 / (spread * np.nansum(up**2, axis=1))
    residual = up[:, -1] - slope * (length - mean_time)
    alone = count < 2
    return tuple(np.where(alone, np.nan, each) for each in (slope, share, residual))


def _corr(left: Array, right: Array, length: int) -> Array:
    x, y = _windows(left, length), _windows(right, length)
    both = np.isfinite(x) & np.isfinite(y)
    count = both.sum(axis=1)
    x, y = np.where(both, x, np.nan), np.where(both, y, np.nan)
    x = x - (np.nansum(x, axis=1) / count)[:, None]
    y = y - (np.nansum(y, axis=1) / count)[:, None]
    corr = np.nansum(x * y, axis=1) / np.sqrt(np.nansum(x**2, axis=1) * np.nansum(y**2, axis=1))
    flat = (_std(left, length) <= FLAT) | (_std(right, length) <= FLAT)
    return np.where(flat | (count < 2), np.nan, corr)


def _shift(values: Array, rows: int) -> Array:
    past = np.full(len(values), np.nan, values.dtype)
    past[rows:] = values[: max(len(values) - rows, 0)]
    return past


def _log(values: Array) -> Array:
    # NumPy's float32 logarithm may be off by some units in the last place; this one is rounded once.
    return np.log(values.astype(np.float64)).astype(values.dtype)


def _of_one(name: str, function: Callable[..., Array]) -> Callable[..., _Series]:
    def call(series: _Series, *parameters: float) -> _Series:
        key = f"{name}({','.join([series.key, *map(repr, parameters)])})"
        return series.to(key, lambda: function(series.values, *parameters))

    return call


def _of_two(name: str, function: Callable[..., Array]) -> Callable[..., _Series]:
    def call(left: _Series, right: object, *parameters: float) -> _Series:
        value = right.values if isinstance(right, _Series) else right
        other = right.key if isinstance(right, _Series) else repr(right)
        key = f"{name}({','.join([left.key, other, *map(repr, parameters)])})"
        return left.to(key, lambda: function(left.values, value, *parameters))

    return call


_OPERATORS: dict[str, Callable[..., _Series]] = {
    "Abs": _of_one("Abs", np.abs),
    "Log": _of_one("Log", _log),
    "Ref": _of_one("Ref", _shift),
    "Mean": _of_one("Mean", _mean),
    "Sum": _of_one("Sum", _sum),
    "Std": _of_one("Std", _std),
    "Max": _of_one("Max", _extreme(np.nanmax)),
    "Min": _of_one("Min", _extreme(np.nanmin)),
    "IdxMax": _of_one("IdxMax", _place(np.argmax)),
    "IdxMin": _of_one("IdxMin", _place(np.argmin)),
    "Rank": _of_one("Rank", _rank),
    "Quantile": _of_one("Quantile", _quantile),
    "Slope": _of_one("Slope", lambda values, length: _regression(values, length)[0]),
    "Rsquare": _of_one(
        "Rsquare", lambda values, length: np.where(_std(values, length) <= FLAT, np.nan, _regression(values, length)[1])
    ),
    "Resi": _of_one("Resi", lambda values, length: _regression(values, length)[2]),
    "Corr": _of_two("Corr", _corr),
    "Greater": _of_two("Greater", np.maximum),
    "Less": _of_two("Less", np.minimum),
}
