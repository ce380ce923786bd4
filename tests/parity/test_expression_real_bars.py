import numpy as np
import pandas as pd
import pytest

from strategies.expressions.feature_sets import feature_set
from strategies.market.bars import FIELDS, Panel
from tests.support.market import us500

#: Late listings, missing bars and ordinary symbols.
SYMBOLS = [
    "AAPL",
    "ALLE",
    "APTV",
    "BHF",
    "DHR",
    "DXC",
    "ES",
    "EVHC",
    "FTV",
    "HPE",
    "INFO",
    "KHC",
    "NWSA",
    "PYPL",
    "O",
    "X",
]


@pytest.fixture(scope="module")
def panel() -> Panel:
    folder = us500()
    known = [symbol for symbol in SYMBOLS if (folder / f"{symbol}.parquet").exists()]
    frames = {symbol: pd.read_parquet(folder / f"{symbol}.parquet").set_index("date") for symbol in sorted(known)}
    days = frames["AAPL"].index
    fields = {
        name: np.stack([frame[name].reindex(days).to_numpy(float) for frame in frames.values()]) for name in FIELDS
    }
    exists = ~np.isnan(fields["close"])
    return Panel(
        symbols=tuple(frames),
        sessions=days.to_numpy().astype("datetime64[D]"),
        fields=fields,
        first=exists.argmax(axis=1),
        last=exists.shape[1] - 1 - exists[:, ::-1].argmax(axis=1),
        snapshot_id="us500",
    )


@pytest.mark.parametrize("name", ["alpha158", "alpha360"])
def test_real_sessions_alone_equal_their_backfill(panel, name):
    features, days = feature_set(name), panel.sessions.astype(object)
    shuffled = panel.symbols[::-2] + panel.symbols[::3]

    backfill = features.evaluate_range(panel, days[0], days[-1], threads=2)

    for session in [0, 1, 59, 60, 61, *range(100, days.size, 97)]:
        alone = features.evaluate(panel.window(shuffled, days[session], features.lookback))
        np.testing.assert_array_equal(alone, backfill[session, panel.rows(shuffled)])
