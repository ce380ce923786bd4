from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from strategies.errors import ExpressionError
from strategies.expressions.feature_sets import define, feature_set
from strategies.market.bars import Panel, Window
from tests.support.rough_panels import plain_panel, rough_panel


def last_session(panel: Panel, *columns: str) -> np.ndarray:
    features = define("test", [(f"c{place}", text) for place, text in enumerate(columns)])
    return features.evaluate(panel.window(panel.symbols, panel.sessions[-1].astype(object), features.lookback))


def test_one_bar_has_values_only_where_one_bar_suffices():
    panel = plain_panel([[float("nan"), 10.0]], first=[1])

    values = last_session(
        panel, "Mean($close, 5)", "IdxMax($close, 5)", "Rank($close, 5)", "Mean($close > Ref($close, 1), 5)",
        "Std($close, 5)", "Slope($close, 5)", "Ref($close, 1)", "Corr($close, $open, 5)",
    )  # fmt: skip

    np.testing.assert_array_equal(values[0], [10.0, 1.0, 1.0, 0.0, np.nan, np.nan, np.nan, np.nan])


def test_rows_before_the_first_bar_do_not_exist():
    late = plain_panel([[np.nan, np.nan, 5.0, 4.0]], first=[2])
    missing = plain_panel([[np.nan, np.nan, 5.0, 4.0]], first=[0])
    columns = ("IdxMin($close, 4)", "Mean($close > 4.5, 4)", "WMA($close, 4)")

    assert last_session(late, *columns)[0].tolist() == [2.0, 0.5, np.float32((5 * 1 + 4 * 2) / 3 / 2)]
    assert last_session(missing, *columns)[0].tolist() == [1.0, 0.25, np.float32((5 * 3 + 4 * 4) / 10 / 2)]


def test_bars_before_the_first_are_never_read():
    panel = plain_panel([[1e9, 1e9, 5.0, 4.0]], first=[2])

    assert last_session(panel, "Max($close, 4)", "Sum($close, 4)")[0].tolist() == [5.0, 9.0]


def test_symbols_without_any_bar_are_nan_but_for_comparisons():
    panel = plain_panel([[float("nan")] * 4, [1.0, 2.0, 3.0, 4.0]])

    values = last_session(
        panel, "Mean($close, 3)", "Sum($close > 1, 3)", "Count($close, 3)", "Quantile($close, 3, 0.5)"
    )

    np.testing.assert_array_equal(values, [[np.nan, 0.0, 0.0, np.nan], [3.0, 3.0, 3.0, 3.0]])


def test_no_symbols_give_an_empty_answer():
    panel = rough_panel(1)
    window = panel.window([], date(2024, 3, 1), 61)

    assert feature_set("alpha158").evaluate(window).shape == (0, 158)
    assert feature_set("alpha158").evaluate_range(panel, date(2024, 3, 1), date(2024, 3, 2), []).shape == (2, 0, 158)


def test_a_range_without_sessions_is_empty():
    panel = rough_panel(1)

    assert feature_set("alpha158").evaluate_range(panel, date(2024, 3, 2), date(2024, 3, 1)).shape == (0, 6, 158)


def test_duplicate_symbols_get_the_same_values():
    panel = rough_panel(1)
    window = panel.window(["S000", "S000"], date(2024, 3, 1), 61)

    left, right = feature_set("alpha158").evaluate(window, threads=2)

    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_price_scale_hardly_moves_ratios(scale):
    panel = rough_panel(4, symbols=1, roughness=0.0)
    scaled = {name: values * (scale if name != "volume" else 1.0) for name, values in panel.fields.items()}
    window = Window(symbols=panel.symbols, sessions=panel.sessions, fields=scaled, first=panel.first)
    features = define(
        "ratios", [("a", "Std($close, 20)/$close"), ("b", "Slope($close, 20)/$close"), ("c", "$high/$low")]
    )

    values = features.evaluate(window)

    original = Window(symbols=panel.symbols, sessions=panel.sessions, fields=panel.fields, first=panel.first)
    np.testing.assert_allclose(values, features.evaluate(original), rtol=1e-5, atol=1e-8)


def test_strided_and_narrow_arrays_are_read_like_any_other():
    panel = rough_panel(6)
    window = panel.window(panel.symbols, date(2024, 3, 1), 61)
    strided = {name: np.asfortranarray(values.astype(np.float32)) for name, values in window.fields.items()}
    other = Window(symbols=window.symbols, sessions=window.sessions, fields=strided, first=window.first)

    values = feature_set("alpha158").evaluate(other)

    np.testing.assert_array_equal(values, feature_set("alpha158").evaluate(window))


@settings(deadline=None, max_examples=40)
@given(
    close=arrays.arrays(np.float64, (3, 70), elements=st.floats(width=32)),
    volume=arrays.arrays(np.float64, (3, 70), elements=st.floats(width=32)),
    first=arrays.arrays(np.int64, 3, elements=st.integers(0, 70)),
)
def test_no_bars_crash_or_warn(close, volume, first):
    fields = {"open": close, "high": close, "low": close, "close": close[::-1].copy(), "volume": volume}
    sessions = np.datetime64("2024-01-01") + np.arange(70, dtype="timedelta64[D]")
    window = Window(symbols=("A", "B", "C"), sessions=sessions, fields=fields, first=first)

    assert feature_set("alpha158").evaluate(window).shape == (3, 158)
    assert np.isnan(feature_set("alpha158").evaluate(window)[first == 70]).all()


def test_too_many_operations_are_refused_before_layout():
    columns = [(f"C{i}", "+".join(f"$close*{i}.{k}" for k in range(1, 60))) for i in range(60)]

    with pytest.raises(ExpressionError, match="more than 5000 distinct operations"):
        define("heavy", columns)
