"""Qlib's own operators on series made up in memory: the oracle of the expression engine.

Owns: evaluating an expression's text with `qlib.data.ops`, one symbol at a time.
Must not know: the engine under test.
Invariant: bars enter as float32 and results leave as float32, as through Qlib's file storage and data provider.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from qlib.data import ops
from qlib.data.base import Feature
from qlib.data.cache import H
from qlib.utils import parse_field

from strategies.market.bars import Panel

_SYMBOLS = itertools.count()


def qlib_series(expression: str, bars: Mapping[str, NDArray[np.float64]]) -> pd.Series:
    """Return what Qlib makes of an expression on one symbol's existing rows, in the type Qlib gives it."""
    stored = {name: pd.Series(values.astype(np.float32)) for name, values in bars.items()}

    class Stored(Feature):  # type: ignore[misc]  # qlib has no types
        def _load_internal(self, *_: object) -> pd.Series:
            return stored[self._name]

    names = {operator.__name__: operator for operator in ops.OpsList} | {"Stored": Stored}
    source = parse_field(expression).replace("Operators.", "").replace("Feature(", "Stored(")
    tree = eval(source, {"__builtins__": {}}, names)  # noqa: S307 - the tests' own text, evaluated as Qlib does
    length = len(next(iter(bars.values())))
    # Qlib caches by symbol, so that each evaluation needs a symbol of its own.
    result: pd.Series = tree.load(f"S{next(_SYMBOLS)}", 0, max(length - 1, 0), "day")
    H["f"].clear()
    return result


def qlib_values(expression: str, bars: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """Return what Qlib's provider hands out for an expression on one symbol's existing rows."""
    with np.errstate(all="ignore"):
        values: NDArray[np.float32] = qlib_series(expression, bars).astype(np.float32).to_numpy()
    return values


def qlib_panel(expression: str, panel: Panel) -> NDArray[np.float32]:
    """Return an expression over a panel, `[sessions, symbols]`; NaN before a symbol's first bar, as Qlib has no row."""
    out = np.full((panel.sessions.size, len(panel.symbols)), np.nan, np.float32)
    for row, first in enumerate(panel.first):
        bars = {name: values[row, first:] for name, values in panel.fields.items()}
        if panel.sessions.size > first:
            out[first:, row] = qlib_values(expression, bars)
    return out


def qlib_type(expression: str, panel: Panel) -> str:
    """Return the NumPy type that Qlib gives an expression, or `refused` where Qlib or NumPy below it has none."""
    bars = {name: np.abs(values[0]) for name, values in panel.fields.items()}
    try:
        with np.errstate(all="ignore"):
            return str(qlib_series(expression, bars).dtype)
    except (TypeError, NotImplementedError):
        return "refused"
