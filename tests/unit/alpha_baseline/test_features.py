"""The research door to Alpha158: Qlib's names and index, the engine's own bits."""

import numpy as np
import pandas as pd
import pytest

from strategies.alpha_baseline.features import get_alpha158_features
from strategies.errors import DataError, ExpressionError, SnapshotNotFound, TrainingError, UnknownSymbols
from strategies.expressions.feature_sets import feature_set
from strategies.market.snapshots import load_panel
from tests.support.market import make_bars, write_snapshot, xnys

PERIOD = ("2013-04-01", "2013-05-03")


@pytest.fixture
def snapshot(tmp_path):
    late = make_bars(seed=2, sessions=30, first=pd.Timestamp("2013-04-10").date())
    return write_snapshot(
        tmp_path / "data", {"AAPL": make_bars(sessions=100), "IBM": make_bars(seed=1, sessions=100), "NEW": late}
    )


@pytest.fixture
def data_dir(snapshot):
    return snapshot.path.parents[1]


def test_frame_is_named_and_indexed_as_by_qlib(data_dir):
    frame = get_alpha158_features(["IBM", "AAPL"], *PERIOD, data_dir=data_dir)

    assert list(frame.columns) == list(feature_set("alpha158").names)
    assert list(frame.columns[:3]) == ["KMID", "KLEN", "KMID2"]
    assert frame.index.names == ["datetime", "instrument"]
    assert frame.index.is_monotonic_increasing
    assert set(frame.dtypes) == {np.dtype("float32")}
    assert frame.index[0] == (pd.Timestamp("2013-04-01"), "AAPL")
    assert frame.index[-1] == (pd.Timestamp("2013-05-03"), "IBM")


def test_each_row_is_what_serving_computes_from_a_window(snapshot, data_dir):
    frame = get_alpha158_features(["AAPL", "NEW"], *PERIOD, data_dir=data_dir)
    panel, features = load_panel(snapshot, xnys()), feature_set("alpha158")

    for (day, symbol), row in list(frame.iterrows())[::7]:
        window = panel.window([symbol], day.date(), features.lookback)
        assert features.evaluate(window)[0].tobytes() == row.to_numpy().tobytes()


def test_symbol_has_rows_between_its_first_and_last_bar(data_dir):
    frame = get_alpha158_features(["AAPL", "NEW"], "2013-01-01", "2020-01-01", data_dir=data_dir)

    days = frame.xs("NEW", level="instrument").index
    assert (days[0], len(days)) == (pd.Timestamp("2013-04-10"), 30)
    assert len(frame.xs("AAPL", level="instrument")) == 100


def test_fit_dates_change_nothing_without_processors(data_dir):
    plain = get_alpha158_features(["AAPL"], *PERIOD, data_dir=data_dir)
    fitted = get_alpha158_features(["AAPL"], *PERIOD, "2013-01-02", "2013-03-28", data_dir)

    pd.testing.assert_frame_equal(plain, fitted)


def test_processors_are_fitted_on_the_fit_period(data_dir):
    fit = ("2013-03-01", "2013-03-28")

    scored = get_alpha158_features(["AAPL", "IBM"], *fit, *fit, data_dir, processors=["zscore"])

    assert np.allclose(scored["KMID"].mean(), 0, atol=1e-5)
    assert np.allclose(scored["KMID"].std(ddof=0), 1, atol=1e-4)


def test_processors_without_a_fit_period_are_refused(data_dir):
    with pytest.raises(TrainingError, match="need a fit_start_date"):
        get_alpha158_features(["AAPL"], *PERIOD, data_dir=data_dir, processors=["zscore"])


@pytest.mark.parametrize(
    ("symbols", "period", "options", "error"),
    [
        (["TSLA"], PERIOD, {}, UnknownSymbols),
        (["AAPL"], ("2020-01-01", "2020-02-01"), {}, DataError),
        (["AAPL"], PERIOD, {"vwap_stand_in": "none"}, ExpressionError),
        (["AAPL"], PERIOD, {"vwap_stand_in": "open"}, ExpressionError),
    ],
)
def test_question_without_an_answer_is_refused(data_dir, symbols, period, options, error):
    with pytest.raises(error):
        get_alpha158_features(symbols, *period, data_dir=data_dir, **options)


def test_folder_without_a_snapshot_is_refused(tmp_path):
    with pytest.raises(SnapshotNotFound):
        get_alpha158_features(["AAPL"], *PERIOD, data_dir=tmp_path)


def test_stand_in_for_vwap_changes_one_column(data_dir):
    typical = get_alpha158_features(["AAPL"], *PERIOD, data_dir=data_dir)
    close = get_alpha158_features(["AAPL"], *PERIOD, data_dir=data_dir, vwap_stand_in="close")

    changed = [name for name in typical.columns if not typical[name].equals(close[name])]
    assert changed == ["VWAP0"]
    assert (close["VWAP0"] == 1).all()


def test_vwap_of_the_bars_is_used_where_they_carry_one(tmp_path):
    bars = {name: make_bars(seed=seed, sessions=120, vwap=True) for seed, name in enumerate(("A", "B"))}
    for frame in bars.values():
        frame["vwap"] = frame["low"] * 0.25 + frame["high"] * 0.75
    write_snapshot(tmp_path / "data", bars)

    frame = get_alpha158_features(["A"], "2013-03-01", "2013-03-28", data_dir=tmp_path / "data")

    own = bars["A"].set_index("date").loc["2013-03-01":"2013-03-28"]
    np.testing.assert_allclose(frame["VWAP0"].to_numpy(), (own["vwap"] / own["close"]).to_numpy(), rtol=1e-6)
    typical = get_alpha158_features(
        ["A"], "2013-03-01", "2013-03-28", data_dir=tmp_path / "data", vwap_stand_in="typical_price"
    )
    assert (typical["VWAP0"] != frame["VWAP0"]).all()
