"""What others' checks find in a frame of bars: Qlib's data health check, yfinance's price repair.

Owns: the way from our frames to theirs, and what counts as found.
Must not know: which rows are wrong, our own rules.
Invariant: their own code is called wherever it is here; what is not here is named as such.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from strategies.market.bars import BoolArray

PRICES = ["open", "high", "low", "close"]
#: Whether a frame is named, as Qlib does it.
Health = Callable[[pd.DataFrame], bool]
#: The rows of a frame whose prices are changed, `[rows]`.
Repair = Callable[[pd.DataFrame], BoolArray]


def health_check(script: Path | None) -> Health:
    """Return Qlib's data health check for one frame.

    Args:
        script: `scripts/check_data_health.py` of a checkout of Qlib, which its wheel lacks; None: the same comparisons
            with the same limits are made here.
    """
    return _health_by_its_rules if script is None else _health_by_its_class(script)


def _health_by_its_rules(frame: pd.DataFrame) -> bool:
    """Source: Qlib, `scripts/check_data_health.py`: missing values, price steps above 0.5, volume steps above 3."""
    if frame[[*PRICES, "volume"]].isna().to_numpy().any():
        return True
    steps = frame[[*PRICES, "volume"]].pct_change(fill_method=None).abs().max()
    return bool((steps[PRICES] > 0.5).any() or steps["volume"] > 3)


def _health_by_its_class(script: Path) -> Health:
    spec = importlib.util.spec_from_file_location("check_data_health", script)
    if spec is None or spec.loader is None:
        raise ValueError(f"{script} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def names(frame: pd.DataFrame) -> bool:
        checker: Any = object.__new__(module.DataHealthChecker)  # its constructor reads files
        dated = frame.assign(symbol="A").set_index(["symbol", "date"])
        checker.data, checker.missing_data_num = {"A": dated}, 0
        checker.large_step_threshold_price, checker.large_step_threshold_volume = 0.5, 3
        return checker.check_missing_data() is not None or checker.check_large_step_changes() is not None

    return names


def price_repair() -> Repair | None:
    """Return the price repair of yfinance for one frame; None: it is not installed.

    Its blocks and single rows wrong by 100 and its splits are repaired; what it asks Yahoo for, finer bars of doubtful
    days, is not here, so that its repair of missing rows and zeros has nothing to repair them with.
    """
    if importlib.util.find_spec("yfinance") is None:
        return None
    from yfinance.scrapers.history import PriceHistory  # noqa: PLC0415 - it may be absent

    class Offline(PriceHistory):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self.ticker, self._history_metadata = "A", {"currency": "USD"}

        def _reconstruct_intervals_batch(self, df: pd.DataFrame, *_given: object, **_more: object) -> pd.DataFrame:
            return df

    def changed(frame: pd.DataFrame) -> BoolArray:
        zone = "America/New_York"
        named = frame.rename(columns={name: name.title() for name in frame.columns}).set_index("Date")
        named.index = pd.DatetimeIndex(named.index).tz_localize(zone)
        raw = named.copy()
        raw["Adj Close"], raw["Dividends"], raw["Stock Splits"] = named["Close"], 0.0, 0.0
        history: Any = Offline()
        fixed = history._fix_unit_mixups(raw.copy(), "1d", zone, prepost=False)
        fixed = history._fix_bad_stock_splits(fixed, "1d", zone)
        fixed = history._fix_zeroes(fixed, "1d", zone, prepost=False)
        columns = [name.title() for name in PRICES]
        differs = (fixed.reindex(raw.index)[columns] != raw[columns]) & raw[columns].notna()
        found: BoolArray = np.asarray(differs.any(axis=1))
        return found

    return changed
