"""The reference model and golden sample by which a machine proves itself: `python -m tests.support.machine_sample`.

Owns: the bars, the model and the rows of `strategies/models/machine/`, and writing them there.
Must not know: what a machine does that does not reproduce them.
Invariant: the same libraries write the same bytes; they are written anew only where the engine's features change.
"""

from functools import cache
from pathlib import Path
from types import MappingProxyType

import lightgbm as lgb
import numpy as np

from strategies.expressions.feature_sets import feature_set
from strategies.market.bars import FloatArray, Panel
from strategies.models.bundle import Scorer
from strategies.models.golden import MIN_ROWS, choose_rows, take_golden
from strategies.models.machine_proof import FOLDER, GOLDEN, STAND_IN
from strategies.models.model_check import PROBES, REFERENCE_MODEL, REFERENCE_OUTPUTS, probe
from strategies.models.tables import encode_golden
from tests.support.market import FIRST, sessions_from

SYMBOLS, SESSIONS = 12, 130
#: Of a symbol: its first session, so that short histories are among the rows.
_STARTS = np.array([0] * 8 + [60, 90, 110, 125], dtype=np.int64)


def machine_files() -> dict[str, bytes]:
    """Return the content of every file by its name."""
    scorer, panel = _scorer(), _panel()
    block = np.stack(
        [
            scorer.feature_set.evaluate(
                panel.window(panel.symbols, session.astype(object), scorer.feature_set.lookback)
            )
            for session in panel.sessions
        ]
    )  # [sessions, symbols, features]
    listed = np.arange(SESSIONS)[:, None] - panel.first[None, :] + 1
    rows = choose_rows(block, listed, seed=0, most=MIN_ROWS)
    cells = [(panel.symbols[symbol], panel.sessions[session].astype(object)) for session, symbol in rows]
    golden = take_golden(scorer, panel, cells, block[rows[:, 0], rows[:, 1]])
    outputs = "".join(f"{value.hex()}\n" for value in probe(scorer.booster).tolist())
    return {
        REFERENCE_MODEL.name: scorer.booster.model_to_string().encode("ascii"),
        REFERENCE_OUTPUTS.name: outputs.encode("ascii"),
        GOLDEN.name: encode_golden(golden, scorer.feature_set.names),
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in machine_files().items():
        (FOLDER / name).write_bytes(content)
        print(f"{Path(FOLDER.name) / name}: {len(content)} bytes")  # noqa: T201 - a command of developers
    print(f"{len(PROBES)} probes, {MIN_ROWS} rows")  # noqa: T201


@cache
def _panel() -> Panel:
    """Bars in cents, so that they are small on disk, with a learnable answer to the return before."""
    rng = np.random.default_rng(158)
    returns = rng.normal(0, 0.015, (SYMBOLS, SESSIONS))
    for session in range(2, SESSIONS):
        returns[:, session] -= 0.7 * returns[:, session - 2]
    close = np.round(50.0 * np.exp(np.cumsum(returns, axis=1)), 2)
    opening = np.round(close * np.exp(rng.normal(0, 0.003, close.shape)), 2)
    fields: dict[str, FloatArray] = {
        "open": opening,
        "high": np.round(np.maximum(opening, close) * (1 + rng.uniform(0, 0.01, close.shape)), 2),
        "low": np.round(np.minimum(opening, close) * (1 - rng.uniform(0, 0.01, close.shape)), 2),
        "close": close,
        "volume": 100.0 * rng.integers(10, 10_000, close.shape).astype(np.float64),
    }
    for values in fields.values():
        values[np.arange(SESSIONS) < _STARTS[:, None]] = np.nan
        values.setflags(write=False)
    return Panel(
        symbols=tuple(f"S{number:02d}" for number in range(SYMBOLS)),
        sessions=sessions_from(FIRST, SESSIONS),
        fields=MappingProxyType(fields),
        first=_STARTS,
        last=np.full(SYMBOLS, SESSIONS - 1, dtype=np.int64),
        snapshot_id="0" * 64,
    )


@cache
def _scorer() -> Scorer:
    panel, features = _panel(), feature_set("alpha158", vwap_stand_in=STAND_IN)
    ends = [session.astype(object) for session in panel.sessions[100:-1]]
    rows = np.concatenate([features.evaluate(panel.window(panel.symbols[:8], end, features.lookback)) for end in ends])
    close = panel.fields["close"][:8, 100:]
    labels = (close[:, 1:] / close[:, :-1] - 1).T.ravel()
    parameters = {"objective": "regression", "num_leaves": 8, "num_threads": 1, "verbosity": -1, "seed": 1}
    data = lgb.Dataset(rows, labels, feature_name=list(features.names))
    return Scorer(feature_set=features, processors=(), booster=lgb.train(parameters, data, num_boost_round=20))


if __name__ == "__main__":
    main()
