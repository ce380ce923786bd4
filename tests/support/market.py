"""Builders of bars, panels and snapshots for tests.

Owns: random walks that look like daily bars, the raw frames and snapshots made of them, the way to the shared bars.
Must not know: how the code under test works.
Invariant: the same arguments give the same bars; every built bar is one that an import accepts.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from strategies.expressions.feature_sets import feature_set
from strategies.market.bars import FloatArray, Panel, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.importing import ImportOptions, import_bars
from strategies.market.readers import RawBars
from strategies.market.snapshots import SnapshotRef, find_snapshot

FIRST = date(2013, 1, 2)
RUN_DATE = date(2030, 1, 2)
_US500 = Path(__file__).resolve().parents[2] / "../shared/data/us500"


@cache
def xnys() -> SessionCalendar:
    """Return the calendar that built bars stand on."""
    return SessionCalendar("XNYS")


def sessions_from(first: date, count: int) -> SessionArray:
    """Return `count` sessions of the calendar, the first at or after `first`."""
    sessions = xnys().sessions
    start = int(np.searchsorted(sessions, np.datetime64(first, "D")))
    return sessions[start : start + count]


def make_bars(
    *, sessions: int = 90, first: date = FIRST, price: float = 100.0, seed: int = 0, vwap: bool = False
) -> pd.DataFrame:
    """Return raw daily bars of one symbol: date, open, high, low, close, volume, and vwap if asked; all believable."""
    rng = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(rng.normal(0, 0.01, sessions)))
    opening = close * np.exp(rng.normal(0, 0.003, sessions))
    high = np.maximum(opening, close) * (1 + rng.uniform(0, 0.01, sessions))
    low = np.minimum(opening, close) * (1 - rng.uniform(0, 0.01, sessions))
    frame = pd.DataFrame(
        {
            "date": sessions_from(first, sessions).astype("datetime64[s]"),
            "open": opening,
            "high": high,
            "low": low,
            "close": close,
            "volume": rng.integers(1_000, 1_000_000, sessions).astype(np.float64),
        }
    )
    return frame.assign(vwap=(high + low + close) / 3) if vwap else frame


def make_panel(
    symbols: Sequence[str] = ("AAPL", "IBM", "MSFT"),
    *,
    sessions: int = 90,
    first: date = FIRST,
    seed: int = 0,
    vwap: bool = False,
    starts: Mapping[str, int] | None = None,
) -> Panel:
    """Return a panel of built bars; `starts` gives a symbol's first session where it is listed late."""
    names = tuple(sorted(symbols))
    frames = [make_bars(sessions=sessions, first=first, seed=seed + row, vwap=vwap) for row in range(len(names))]
    listed = np.array([(starts or {}).get(name, 0) for name in names], dtype=np.int64)
    columns = ("open", "high", "low", "close", "volume", *(("vwap",) if vwap else ()))
    fields = {name: _field(frames, name, listed) for name in columns}
    return Panel(
        symbols=names,
        sessions=sessions_from(first, sessions),
        fields=MappingProxyType(fields),
        first=listed,
        last=np.full(len(names), sessions - 1, dtype=np.int64),
        snapshot_id=f"{seed:064x}",
    )


def load_kernels() -> None:
    """Load the machine code of the kernels, or compile it into its cache."""
    panel = make_panel(sessions=70)
    feature_set("alpha158").evaluate(panel.window(panel.symbols, panel.sessions[-1].astype(object), 61))


def _field(frames: Sequence[pd.DataFrame], name: str, listed: np.ndarray) -> FloatArray:
    values: FloatArray = np.stack([frame[name].to_numpy() for frame in frames])
    values[np.arange(values.shape[1]) < listed[:, None]] = np.nan
    values.setflags(write=False)
    return values


def write_raw(folder: Path, bars: Mapping[str, pd.DataFrame]) -> Path:
    """Write a CSV file a symbol, as a vendor would, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for symbol, frame in bars.items():
        frame.to_csv(folder / f"{symbol}.csv", index=False)
    return folder


def write_snapshot(
    data_dir: Path,
    bars: Mapping[str, pd.DataFrame] | None = None,
    *,
    run_date: date = RUN_DATE,
    options: ImportOptions | None = None,
) -> SnapshotRef:
    """Import raw bars (default: three built symbols) into a data directory and return the snapshot."""
    if bars is None:
        bars = {symbol: make_bars(seed=seed) for seed, symbol in enumerate(("AAPL", "IBM", "MSFT"))}
    source = write_raw(data_dir.parent / f"{data_dir.name}-raw-{run_date}", bars)
    report = import_bars(source, data_dir, run_date=run_date, options=options)
    return find_snapshot(data_dir, report.run_date.isoformat())


def has_us500() -> bool:
    """Return whether the shared daily bars of 505 US symbols are here."""
    return _US500.is_dir()


def us500() -> Path:
    """Return the folder of the shared daily bars of 505 US symbols; skip the test where it is absent."""
    if not has_us500():
        pytest.skip("the shared bars of 505 symbols are not here")
    return _US500.resolve()


def raw_rows(frame: pd.DataFrame, symbol: str = "AAPL", *, adjustment: str = "none") -> RawBars:
    """Return built bars as rows that were read from a file of that symbol."""
    return RawBars(
        symbol=symbol,
        dates=frame["date"].to_numpy().astype("datetime64[D]"),
        values={name: frame[name].to_numpy(dtype=float) for name in frame.columns if name != "date"},
        rows=np.arange(1, len(frame) + 1),
        adjustment=adjustment,
        file=f"{symbol}.csv",
    )
