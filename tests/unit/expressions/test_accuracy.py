"""Windows against plain NumPy in extended precision, on hard inputs: large offsets, outliers, tiny spreads."""

from collections.abc import Callable

import numpy as np
import pytest

from strategies.expressions.feature_sets import define
from tests.support.rough_panels import plain_panel

LENGTH = 20


def slope(x: np.ndarray) -> np.longdouble:
    time = np.arange(x.size, dtype=np.longdouble) - np.longdouble(x.size - 1) / 2
    return (time * (x - x.mean())).sum() / (time * time).sum()


def correlation(x: np.ndarray, y: np.ndarray) -> np.longdouble:
    dx, dy = x - x.mean(), y - y.mean()
    return (dx * dy).sum() / np.sqrt((dx * dx).sum() * (dy * dy).sum())


def skewness(x: np.ndarray) -> np.longdouble:
    n, d = np.longdouble(x.size), x - x.mean()
    return np.sqrt(n * (n - 1)) / (n - 2) * (d**3).mean() / (d**2).mean() ** np.longdouble(1.5)


def kurtosis(x: np.ndarray) -> np.longdouble:
    n, d = np.longdouble(x.size), x - x.mean()
    return (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (d**4).mean() / (d**2).mean() ** 2 - 3 * (n - 1))


REFERENCES: dict[str, Callable[[np.ndarray], np.longdouble]] = {
    "Mean": np.mean,
    "Sum": np.sum,
    "Var": lambda x: x.var(ddof=1),
    "Std": lambda x: x.std(ddof=1),
    "Slope": slope,
    "Rsquare": lambda x: correlation(x, np.arange(x.size, dtype=np.longdouble)) ** 2,
    "Mad": lambda x: np.abs(x - x.mean()).mean(),
    "Skew": skewness,
    "Kurt": kurtosis,
}


def hard_series(kind: str) -> np.ndarray:
    random = np.random.default_rng(8)
    noise = random.normal(0, 1, 80)
    series = {
        "offset": 1e6 + noise,
        "outlier": np.where(np.arange(80) == 70, 1e7, 1 + 0.01 * noise),
        "newest outlier": np.where(np.arange(80) % 7 == 2, -1e7, noise),
        "volumes": random.integers(1, 10**9, 80),
        "steps": np.repeat(np.arange(16.0), 5) * 0.01 + 3e4,
    }[kind]
    return series.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("kind", ["offset", "outlier", "newest outlier", "volumes", "steps"])
@pytest.mark.parametrize("operator", REFERENCES)
def test_windows_are_exact_to_float32_on_hard_inputs(operator, kind):
    series = hard_series(kind)
    panel = plain_panel([series.tolist()])
    days = panel.sessions.astype(object)

    values = define("one", [("c", f"{operator}($close, {LENGTH})")]).evaluate_range(panel, days[0], days[-1])[:, 0, 0]

    extended = series.astype(np.longdouble)
    expected = [float(REFERENCES[operator](extended[stop - LENGTH : stop])) for stop in range(LENGTH, 81)]
    np.testing.assert_allclose(values[LENGTH - 1 :], expected, rtol=2e-7, atol=1e-10)


def test_the_logarithm_is_exact_to_float64_rounding():
    random = np.random.default_rng(3)
    inputs = np.concatenate(
        [np.exp(random.uniform(-80, 80, 4000)), 1 + random.normal(0, 1e-3, 4000), [1e-45, 3e38, 1.0, 2.0, 0.5]]
    )
    inputs = inputs.astype(np.float32).astype(np.float64)
    panel = plain_panel([[value] for value in inputs])
    columns = [("narrow", "Log($close)"), ("scaled", "Log($close) * 1073741824 * 1e-9")]

    narrow, wide = (
        define("log", columns, precision=precision).evaluate(
            panel.window(panel.symbols, panel.sessions[0].astype(object), 1)
        )
        for precision in ("qlib", "float64")
    )

    expected = np.log(inputs.astype(np.longdouble))
    np.testing.assert_array_equal(narrow[:, 0], expected.astype(np.float32))
    np.testing.assert_allclose(wide[:, 1], expected * 1.073741824, rtol=1.2e-7)


def test_logarithms_of_what_has_none_are_as_numpys():
    panel = plain_panel([[0.0], [-1.0], [np.inf], [-np.inf], [np.nan]])

    values = define("log", [("c", "Log($close)")]).evaluate(
        panel.window(panel.symbols, panel.sessions[0].astype(object), 1)
    )

    np.testing.assert_array_equal(values[:, 0], [-np.inf, np.nan, np.inf, np.nan, np.nan])


def test_balanced_days_up_and_down_differ_by_exactly_zero():
    panel = plain_panel([[1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0]])
    days = panel.sessions.astype(object)
    expression = "Mean($close > Ref($close, 1), 6) - Mean($close < Ref($close, 1), 6)"

    values = define("c", [("c", expression)]).evaluate_range(panel, days[-1], days[-1])

    assert values.tolist() == [[[0.0]]]


def test_an_ema_leaves_out_less_than_float32_resolves():
    close = np.where(np.arange(400) < 290, 1e3, 1.0)
    panel = plain_panel([close.tolist()])
    features = define("ema", [("span", "EMA($close, 12)"), ("decay", "EMA($close, 0.2)")])
    days = panel.sessions.astype(object)

    values = features.evaluate_range(panel, days[-1], days[-1])[0, 0]

    expected = [np.average(close[::-1], weights=(1 - decay) ** np.arange(400.0)) for decay in (2 / 13, 0.2)]
    assert features.lookback == 111
    np.testing.assert_allclose(values, expected, rtol=1.2e-5)
