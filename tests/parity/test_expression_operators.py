"""Every operator against Qlib's own, on bars with holes, ties, constants, zeros and infinities.

Tolerances: element-wise results are bit for bit, but for logarithms and powers (NumPy's float32 ones are off by a few
units in the last place, and differ between processors). Windows are compared at float32 rounding of the input's scale,
since Qlib's running sums drift and ours do not.
"""

import numpy as np
import pytest

from strategies.expressions.feature_sets import define, feature_set, label
from strategies.market.bars import Panel
from tests.support.qlib_oracle import qlib_panel
from tests.support.rough_panels import plain_panel, rough_panel

pytestmark = pytest.mark.filterwarnings("ignore")  # Qlib's own, of NumPy and pandas

EXACT = [
    "$close + $open", "$close - 2", "2 - $close", "3 * $volume", "$close / $volume", "1 / $volume", "$close ** 2",
    "$close ** 0.5", "Abs($close - $open)", "Sign($close - $open)", "Sign(Mean($close, 3) - $close)",
    "Greater($open, $close)", "Less($close, Mean($close, 4))", "Greater($close - Ref($close, 1), 0)",
    "$close > Ref($close, 1)", "$close >= $open", "$close < 50.1", "50 <= $close", "$close == Ref($close, 1)",
    "$close != $open", "And($close > $open, $volume > 1e6)", "($close > $open) | ($close > Ref($close, 1))",
    "Not($close > $open)", "If($close > $open, $high, 0.1)", "If($close - $open, $high, 1)", "If($close > $open, 1, 0)",
    "Ref($close, 1)", "Ref($close, 30)", "Delta($close, 5)", "Ref(Mean($close, 3), 2)", "Ref($close > $open, 2)",
    "($close > $open) + 1", "($close > $open) * 0.5", "($close > $open) + ($close > Ref($close, 1))",
    "($close > $open) * ($close > Ref($close, 1))", "($close > $open) / 3", "($close > $open) * $close",
    "(($close > $open) + 1) * $close", "Max($close, 7)", "Min($close, 7)", "IdxMax($close, 9)", "IdxMin($low, 9)",
    "Rank($close, 12)", "Rank($close, 3)", "Count($volume, 6)", "Quantile($close, 10, 0.8)", "Quantile($close, 7, 0)",
    "Quantile($close, 7, 1)", "Med($close, 6)", "Mean($close > Ref($close, 1), 8)", "Sum($close > $open, 5)",
    "Mean($close, 1)", "Max($close > $open, 4)", "IdxMax($close > $open, 4)", "Rank($close > $open, 5)",
    "0.1 + $close * 3.3 / $open - 1e-12", "$close * 1e39", "$volume * 1e-44 * $volume",
]  # fmt: skip
NEAR = [
    "Log($close)", "Log($volume + 1)", "Log(Mean($volume, 3))", "Log($close > $open)", "$close ** 1.7", "$close ** -1",
    "2 ** ($close / $open)", "$close ** ($open / $high)", "Mean($close, 5) / $close", "Sum($volume, 9)",
    "Mean(Std($close, 4), 6)", "EMA($close, 3)", "EMA($close, 0.4)", "EMA(Mean($close, 3), 5)", "WMA($close, 7)",
    "WMA(Ref($volume, 3), 2)", "Mad($close, 8)", "Mad($volume, 3)",
]  # fmt: skip
#: Spread by nature: their error in Qlib is that of differences between large sums.
SPREADS = [
    "Std($close, 5)", "Var($close, 12)", "Std($volume, 30)", "Slope($close, 9)", "Resi($close, 9)", "Resi($close, 2)",
    "Cov($close, $open, 8)", "Std(Mean($close, 3), 6)", "Slope(Std($close, 5), 6)",
]  # fmt: skip
RATIOS = [
    "Rsquare($close, 9)", "Rsquare($close, 30)", "Corr($close, $open, 7)", "Corr($close, Log($volume + 1), 20)",
    "Corr($close / Ref($close, 1), Log($volume / Ref($volume, 1) + 1), 10)", "Skew($close, 9)", "Kurt($close, 9)",
]  # fmt: skip


def ours(expression: str, panel: Panel, **options: object) -> np.ndarray:
    days = panel.sessions.astype(object)
    return define("one", [("column", expression)], **options).evaluate_range(panel, days[0], days[-1])[:, :, 0]


@pytest.mark.parametrize("expression", EXACT)
def test_exact_operators_equal_qlib_bit_for_bit(expression):
    panel = rough_panel(21)

    np.testing.assert_array_equal(ours(expression, panel), qlib_panel(expression, panel))


@pytest.mark.parametrize("expression", NEAR)
def test_summing_operators_equal_qlib_within_float32_rounding(expression):
    panel = rough_panel(22)

    np.testing.assert_allclose(ours(expression, panel), qlib_panel(expression, panel), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("expression", SPREADS)
def test_spread_operators_equal_qlib_within_rounding_of_inputs(expression):
    panel = _without_infinity(rough_panel(23))

    for symbol, (mine, theirs) in enumerate(
        zip(ours(expression, panel).T, qlib_panel(expression, panel).T, strict=True)
    ):
        scale = np.nanmax(np.abs(panel.fields["volume" if "volume" in expression else "close"][symbol]))
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-9 * scale)


@pytest.mark.parametrize("expression", RATIOS)
def test_ratio_operators_equal_qlib_within_its_cancellation(expression):
    panel = _without_infinity(rough_panel(24))

    np.testing.assert_allclose(ours(expression, panel), qlib_panel(expression, panel), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "expression",
    ["Mean($close, 0)", "Std($close, 0)", "Max($close, 0)", "IdxMax($close, 0)", "Rank($close, 0)", "Med($close, 0)",
     "Slope($close, 0)", "Rsquare($open, 0)", "Resi($close, 0)", "EMA($close, 0)", "WMA($close, 0)",
     "Count($close, 0)", "Cov($close, $open, 0)", "Quantile($close, 0, 0.3)"],
)  # fmt: skip
def test_expanding_windows_equal_qlib_on_shorter_histories(expression):
    panel = _without_infinity(rough_panel(25, sessions=60, symbols=4))

    mine = ours(expression, panel, expanding=60)

    np.testing.assert_allclose(mine, qlib_panel(expression, panel), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("operator", ["Slope", "Rsquare", "Resi"])
def test_an_infinity_spoils_only_windows_it_is_in(operator):
    panel = plain_panel([[1.0, 2.0, np.inf, 4.0, 5.0, 7.0, 8.0, 9.5]])
    expression = f"{operator}($close, 3)"

    mine, theirs = ours(expression, panel)[:, 0], qlib_panel(expression, panel)[:, 0]

    assert np.isnan(theirs[2:]).all()
    assert np.isnan(mine[2:5]).all()
    assert np.isfinite(mine[5:]).all()


def test_constant_windows_have_a_spread_of_exactly_zero():
    panel = plain_panel([[500.0, 3.0] + [0.1] * 8])

    for expression in ("Std($close, 5)", "Var($close, 5)", "Mad($close, 5)", "Slope($close, 5)", "Resi($close, 5)"):
        assert ours(expression, panel)[6:, 0].tolist() == [0.0] * 4


def test_correlation_has_no_value_below_an_absolute_spread():
    panel = plain_panel([[1.0, 1.00002, 1.0, 1.00002], [1.0, 1.0001, 1.0, 1.0001]])
    panel.fields["open"][:] = [1.0, 2.0, 1.5, 3.0]

    for expression in ("Corr($close, $open, 4)", "Rsquare($close, 4)"):
        mine = ours(expression, panel)
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(qlib_panel(expression, panel)))
        assert np.isnan(mine[-1, 0])
        assert np.isfinite(mine[-1, 1])


@pytest.mark.parametrize("name", ["alpha158", "alpha360"])
def test_shipped_features_equal_qlib_on_ordinary_bars(name):
    panel, features = rough_panel(26, sessions=130, symbols=2), feature_set(name)
    days = panel.sessions.astype(object)

    mine = features.evaluate_range(panel, days[0], days[-1])

    for place, expression in enumerate(features.expressions):
        theirs = qlib_panel(expression, panel)
        np.testing.assert_allclose(mine[:, :, place], theirs, rtol=1e-4, atol=1e-5, err_msg=features.names[place])


def test_labels_look_ahead_as_qlib_does():
    panel, expression = rough_panel(27), "Ref($close, -2)/Ref($close, -1)-1"
    days = panel.sessions.astype(object)

    mine = label(expression).evaluate_range(panel, days[0], days[-1])

    np.testing.assert_array_equal(mine, qlib_panel(expression, panel))
    assert np.isnan(mine[-2:]).all()


def test_windows_of_future_rows_equal_qlib():
    panel, expression = rough_panel(28), "Ref(Mean($close > $open, 4), -3) + Mean(Ref($close, -2), 3)"
    days = panel.sessions.astype(object)

    mine = label(expression).evaluate_range(panel, days[0], days[-1])

    np.testing.assert_allclose(mine, qlib_panel(expression, panel), rtol=1e-6)


def _without_infinity(panel: Panel) -> Panel:
    for values in panel.fields.values():
        values[np.isinf(values)] = np.nan
    return panel
