"""Every operator against Qlib's own, on other hostile bars than the recorded ones."""

import numpy as np
import pytest

from strategies.expressions.feature_sets import define, feature_set, label
from strategies.market.bars import Panel
from tests.parity.expressions import EXACT, EXPANDING, NEAR, RATIOS, SPREADS
from tests.support.qlib_oracle import qlib_panel
from tests.support.rough_panels import plain_panel, rough_panel

pytestmark = pytest.mark.filterwarnings("ignore")  # Qlib's own, of NumPy and pandas


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


@pytest.mark.parametrize("expression", EXPANDING)
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
