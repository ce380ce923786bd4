"""Alpha158 over a T1 snapshot, as research code asks for it.

Owns: the data frame of features, named and indexed as Qlib's handlers do it.
Must not know: models, requests; Qlib itself is not needed.
Invariant: the values are those of the engine that training and serving use, bit for bit.
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from strategies.errors import DataError, TrainingError
from strategies.expressions.feature_sets import FeatureSet, feature_set
from strategies.market.bars import Float32Array, Panel
from strategies.market.snapshots import latest_snapshot, load_panel
from strategies.models.manifest import VwapStandIn
from strategies.models.processors import ProcessorKind, apply_processors, fit_processors

Day = date | str


def get_alpha158_features(
    symbols: Sequence[str],
    start_date: Day,
    end_date: Day,
    fit_start_date: Day | None = None,
    fit_end_date: Day | None = None,
    data_dir: Path | str = "data",
    *,
    vwap_stand_in: VwapStandIn | None = None,
    processors: Sequence[ProcessorKind] = (),
) -> pd.DataFrame:
    """Return the 158 features of the latest snapshot, float32, named as Qlib names them (KMID ... VSUMD60).

    The index is (datetime, instrument), ascending. A symbol has a row for each session from its first bar to its
    last; on a missing bar in between the row is there and mostly NaN, as in Qlib. Values are raw: Qlib's Alpha158
    normalises no feature, so `fit_start_date` and `fit_end_date` have an effect only where `processors` are asked for.

    Bars of T1 need not have a vwap, and Alpha158 has one feature of it (VWAP0). By default it is the bars' own where
    they carry one, else (high + low + close) / 3 in all bars alike.

    Args:
        symbols: As in the snapshot.
        start_date: First day, a session or not.
        end_date: Last day, included; sessions after the snapshot's last one have no rows.
        fit_start_date: First day of the period that processors are fitted on.
        fit_end_date: Last day of that period.
        data_dir: Folder above `adjusted/`.
        vwap_stand_in: `typical_price`, `close` or `none`, the bars' own.
        processors: Applied in order, fitted on the fit period of these symbols; see `fit_processors`.

    Raises:
        SnapshotNotFound: There is no snapshot below the data directory.
        UnknownSymbols: The snapshot lacks one of the symbols.
        DataError: There is no session of the snapshot between the two days.
        ExpressionError: `vwap_stand_in` is `none` and the snapshot has no vwap.
        TrainingError: Processors were asked for without a fit period.
    """
    snapshot = latest_snapshot(Path(data_dir))
    panel = load_panel(snapshot, snapshot.open_calendar(), symbols=symbols)
    features = feature_set("alpha158", vwap_stand_in=vwap_stand_in or ("none" if panel.has_vwap else "typical_price"))
    values, index = _rows(panel, features, start_date, end_date)
    if processors:
        if fit_start_date is None or fit_end_date is None:
            raise TrainingError(f"processors {', '.join(processors)} need a fit_start_date and a fit_end_date")
        fit_rows, _ = _rows(panel, features, fit_start_date, fit_end_date)
        values = apply_processors(fit_processors(processors, fit_rows), values)
    return pd.DataFrame(values, index=index, columns=list(features.names))


def _rows(panel: Panel, features: FeatureSet, start: Day, end: Day) -> tuple[Float32Array, pd.MultiIndex]:
    """Rows that exist, `[rows, features]`, and their index."""
    within = (panel.sessions >= np.datetime64(start, "D")) & (panel.sessions <= np.datetime64(end, "D"))
    at = np.flatnonzero(within)
    if not len(at):
        raise DataError(f"no session between {start} and {end}: bars run {panel.sessions[0]} to {panel.sessions[-1]}")
    days = panel.sessions[at]
    values = features.evaluate_range(panel, days[0].astype(object), days[-1].astype(object))
    exists = _alive(panel, at)
    session, symbol = np.nonzero(exists)
    index = pd.MultiIndex.from_arrays(
        [days[session].astype("datetime64[ns]"), np.array(panel.symbols, dtype=object)[symbol]],
        names=["datetime", "instrument"],
    )
    return values[exists], index


def _alive(panel: Panel, sessions: NDArray[np.intp]) -> NDArray[np.bool_]:
    column = sessions[:, None]
    alive: NDArray[np.bool_] = (column >= panel.first[None, :]) & (column <= panel.last[None, :])
    return alive
