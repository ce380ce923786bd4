"""What is measured on: a snapshot of real bars where there are some, else of generated ones of the same shape.

Owns: the generated bars, windows of any number of symbols.
Must not know: what is measured.
Invariant: the same shape gives the same bars.
"""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from strategies.market.bars import Panel, Window
from strategies.market.calendar import SessionCalendar
from strategies.market.importing import import_bars
from strategies.market.snapshots import latest_snapshot, load_panel

#: Shape of the real bars: symbols, sessions.
SYMBOLS, SESSIONS = 505, 1259
RUN_DATE = date(2026, 1, 2)
_FIRST = np.datetime64("2013-02-08")


def prepare_snapshot(source: Path | None, data_dir: Path) -> str:
    """Import a folder of raw bars, or generated ones, and say what they are.

    Raises:
        DataError: The folder cannot be imported.
    """
    generated = source is None
    if source is None:
        source = write_bars(data_dir.parent / "raw", SYMBOLS, SESSIONS)
    import_bars(source, data_dir, run_date=RUN_DATE)
    return "generated bars" if generated else "real daily bars"


def write_bars(folder: Path, symbols: int, sessions: int) -> Path:
    """Write random walks that look like daily bars, a Parquet file a symbol, and return the folder."""
    folder.mkdir(parents=True)
    calendar = SessionCalendar("XNYS").sessions
    days = calendar[np.searchsorted(calendar, _FIRST) :][:sessions].astype("datetime64[s]")
    for number in range(symbols):
        _walk(number, days).to_parquet(folder / f"S{number:05d}.parquet", index=False)
    return folder


def panel_of(data_dir: Path) -> Panel:
    """Return the snapshot's panel."""
    snapshot = latest_snapshot(data_dir)
    return load_panel(snapshot, SessionCalendar(snapshot.calendar))


def window_of(panel: Panel, symbols: int, lookback: int) -> Window:
    """Return the panel's last window with this many symbols, its own ones over and over."""
    known = min(symbols, len(panel.symbols))
    as_of = panel.sessions[-1].astype(object)
    return panel.window(panel.symbols[:known], as_of, lookback).take(np.arange(symbols) % known)


def _walk(seed: int, days: np.ndarray) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = np.round(50 * np.exp(np.cumsum(rng.normal(0, 0.015, len(days)))), 4)
    opening = np.round(close * np.exp(rng.normal(0, 0.004, len(days))), 4)
    return pd.DataFrame(
        {
            "date": days,
            "open": opening,
            "high": np.round(np.maximum(opening, close) * (1 + rng.uniform(0, 0.01, len(days))), 4),
            "low": np.round(np.minimum(opening, close) * (1 - rng.uniform(0, 0.01, len(days))), 4),
            "close": close,
            "volume": rng.integers(10_000, 10_000_000, len(days)).astype(np.float64),
        }
    )
