"""Adjustment of raw bars for splits and dividends.

Owns: the factor, and what it does to prices and volume.
Must not know: files, calendars, quarantine.
Invariant: open, high, low, close and vwap of a row are multiplied by one and the same factor, so that their order
never changes; volume is divided by it, so that close times volume stays what was traded.
"""

from collections.abc import Mapping

import numpy as np

from strategies.market.bars import FIELDS, FloatArray

PRICES = ("open", "high", "low", "close")


def factor_of(values: Mapping[str, FloatArray], adjustment: str) -> FloatArray:
    """Return what each row's raw prices are multiplied by, `[rows]`.

    Args:
        values: Field to raw values `[rows]`.
        adjustment: `adj_close` (the factor is adjusted close / close), `factor` (a column says it) or `none` (1).

    Returns:
        The factors; NaN where a value is missing or the raw close is 0.

    Source: Qlib, `scripts/data_collector/base.py` and "data structure" in its documentation: adjusted price = price
    times factor, adjusted volume = volume / factor.
    """
    close = values["close"]
    if adjustment == "none":
        return np.ones_like(close)
    if adjustment == "factor":
        return values["factor"]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(close != 0, values["adj_close"] / close, np.nan)


def adjust(values: Mapping[str, FloatArray], factor: FloatArray) -> dict[str, FloatArray]:
    """Return adjusted open, high, low, close, volume, and vwap where the raw bars have it, each `[rows]`."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        adjusted = {name: values[name] * factor for name in (*PRICES, "vwap") if name in values}
        adjusted["volume"] = values["volume"] / factor
    order = (*FIELDS, "vwap")
    return {name: adjusted[name] for name in order if name in adjusted}
