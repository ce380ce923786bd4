from datetime import date

import numpy as np
import pytest

from strategies.market.actions import understand, with_splits
from tests.support.market import make_bars

N = 40


def frame_of(*, cents=True):
    bars = make_bars(sessions=N)
    return bars.assign(close=bars["close"].round(2)) if cents else bars


def actions(frame, asked="auto", following=None, decided=""):
    values = {name: frame[name].to_numpy(dtype=float) for name in frame.columns if name != "date"}
    dates = frame["date"].to_numpy().astype("datetime64[D]")
    following = np.ones(len(frame), bool) if following is None else following
    return understand(dates, values, asked, following, decided=decided)


def raw_with_split(at, ratio, *, column=None):
    """Return raw bars that fall by a ratio at a row, and the column that states it."""
    frame = frame_of()
    for name in ("open", "high", "low", "close"):
        frame.loc[at:, name] = (frame.loc[at:, name] / ratio).round(4)
    frame["split"] = 0.0
    frame.loc[at, "split"] = ratio if column is None else column
    return frame


@pytest.mark.parametrize("ratio", [2.0, 1.5, 1.25, 3.0, 10.0, 0.1, 0.5, 1 / 30, 1.2])
def test_split_that_the_prices_show_is_applied_to_the_rows_before_it(ratio):
    found = actions(raw_with_split(20, ratio))

    np.testing.assert_allclose(found.factor[:20], 1 / ratio, rtol=1e-12)
    np.testing.assert_array_equal(found.factor[20:], 1.0)
    assert (found.used, found.contradicting.any()) == ("actions", False)


@pytest.mark.parametrize("ratio", [2.0, 1.5, 0.1])
def test_split_that_is_in_the_prices_already_is_not_applied_again(ratio):
    frame = frame_of().assign(split=0.0)
    frame.loc[20, "split"] = ratio

    found = actions(frame)

    np.testing.assert_array_equal(found.factor, 1.0)
    assert not found.contradicting.any()


def test_split_that_neither_way_explains_the_move_is_named_with_its_row():
    found = actions(raw_with_split(20, 4.0, column=20.0))

    assert np.flatnonzero(found.contradicting).tolist() == [20]


@pytest.mark.parametrize("none", [0.0, 1.0, np.nan])
def test_column_without_an_event_changes_nothing(none):
    np.testing.assert_array_equal(actions(frame_of().assign(split=none, dividend=0.0)).factor, 1.0)


def test_dividend_multiplies_the_rows_before_the_ex_day():
    frame = frame_of().assign(dividend=0.0)
    frame.loc[[10, 30], "dividend"] = [2.0, 1.0]

    factor = actions(frame).factor

    late, early = 1 - 1.0 / frame["close"][29], 1 - 2.0 / frame["close"][9]
    np.testing.assert_allclose(factor, [*[late * early] * 10, *[late] * 20, *[1.0] * 10], rtol=1e-12)


def test_split_and_dividend_work_together():
    frame = raw_with_split(20, 2.0).assign(dividend=0.0)
    frame.loc[30, "dividend"] = 0.5

    factor = actions(frame).factor

    paid = 1 - 0.5 / frame["close"][29]
    np.testing.assert_allclose(factor, [*[paid / 2] * 20, *[paid] * 10, *[1.0] * 10], rtol=1e-12)


def test_prices_that_are_adjusted_for_dividends_already_are_kept():
    frame = frame_of().assign(dividend=0.0)
    frame.loc[30, "dividend"] = 1.0
    frame.loc[:29, "close"] *= 1 - 1.0 / frame["close"][29]

    np.testing.assert_array_equal(actions(frame).factor, 1.0)


def test_dividend_above_the_price_is_named():
    frame = frame_of().assign(dividend=0.0)
    frame.loc[30, "dividend"] = 1e4

    assert np.flatnonzero(actions(frame).contradicting).tolist() == [30]


def with_preclose(frame, steps):
    before = frame["close"].shift(1).fillna(frame["close"][0])
    frame = frame.assign(preclose=before)
    for row, step in steps.items():
        frame.loc[row, "preclose"] = before[row] * step
    return frame


@pytest.mark.parametrize("ratio", [2.0, 1.5, 1.1, 0.1])
def test_previous_close_that_differs_from_the_close_before_adjusts(ratio):
    frame = raw_with_split(20, ratio).drop(columns="split")

    found = actions(with_preclose(frame, {20: 1 / ratio}))

    np.testing.assert_allclose(found.factor[:20], 1 / ratio, rtol=1e-9)
    assert not found.contradicting.any()


def test_previous_close_after_a_missing_session_says_nothing():
    frame = with_preclose(frame_of(), {20: 0.97})
    following = np.ones(N, bool)
    following[20] = False

    np.testing.assert_array_equal(actions(frame, following=following).factor, 1.0)


def test_previous_close_that_no_price_follows_is_named():
    found = actions(with_preclose(frame_of(), {20: 0.5}))

    assert np.flatnonzero(found.contradicting).tolist() == [20]
    np.testing.assert_array_equal(found.factor, 1.0)


def test_split_and_previous_close_that_differ_are_named():
    frame = with_preclose(raw_with_split(20, 2.0), {20: 1 / 3})

    assert np.flatnonzero(actions(frame).contradicting).tolist() == [20]
    assert not actions(with_preclose(raw_with_split(20, 2.0), {20: 1 / 2})).contradicting.any()


def test_previous_close_of_a_vendor_that_never_adjusts_it_says_nothing():
    frame = with_preclose(raw_with_split(20, 2.0), {})

    found = actions(frame)

    np.testing.assert_allclose(found.factor[:20], 0.5)
    assert not found.contradicting.any()


def with_factor(frame, steps):
    """Return a factor column that falls by each step, from its row on backwards."""
    factor = np.ones(N)
    for row, step in steps.items():
        factor[:row] *= step
    return frame.assign(factor=factor)


def test_factor_beside_prices_as_paid_is_applied():
    frame = with_factor(raw_with_split(20, 2.0).drop(columns="split"), {20: 0.5, 30: 0.99})

    found = actions(frame)

    assert found.used == "factor"
    np.testing.assert_array_equal(found.multiplier, frame["factor"])


@pytest.mark.parametrize("steps", [{20: 0.5}, {20: 0.5, 30: 0.99}, {30: 0.99}, {10: 0.98, 30: 0.99}])
def test_factor_beside_prices_that_are_adjusted_already_is_noticed(steps):
    frame = with_factor(frame_of(), steps)
    adjusted = frame.assign(close=frame["close"] * frame["factor"] * 0.0123)
    if 20 in steps:
        adjusted = frame.assign(close=frame["close"] * 1.0)  # the price shows no split

    found = actions(adjusted.assign(factor=adjusted["factor"] * (1.0 if 20 in steps else 0.0123)))

    assert found.used == "adjusted"
    np.testing.assert_array_equal(found.multiplier, 1.0)
    assert found.factor[0] != found.factor[-1]


def test_adjusted_close_and_factor_that_agree_are_used():
    frame = with_factor(raw_with_split(20, 2.0).drop(columns="split"), {20: 0.5})
    frame["adj_close"] = frame["close"] * frame["factor"] * 3

    found = actions(frame)

    assert found.used == "adj_close"
    assert not found.contradicting.any()


def test_adjusted_close_and_factor_that_differ_are_named_with_the_row():
    frame = with_factor(raw_with_split(20, 2.0).drop(columns="split"), {20: 0.5})
    frame["adj_close"] = frame["close"] * frame["factor"]
    frame.loc[:9, "adj_close"] *= 0.9

    assert np.flatnonzero(actions(frame).contradicting).tolist() == [10]


def test_factor_beside_an_adjusted_close_that_moves_as_the_close_means_adjusted_prices():
    frame = with_factor(frame_of(), {30: 0.99})
    frame["adj_close"] = frame["close"] * 7

    assert actions(frame).used == "adjusted"


def test_split_that_the_adjusted_close_lacks_is_named():
    frame = raw_with_split(20, 2.0)
    frame["adj_close"] = frame["close"]

    assert np.flatnonzero(actions(frame).contradicting).tolist() == [20]


def test_dividends_that_the_adjusted_close_holds_agree_with_it():
    frame = frame_of().assign(dividend=0.0, split=0.0)
    frame.loc[20, "dividend"] = 1.5
    # Prices are adjusted for this split already, as Yahoo's are.
    frame.loc[30, "split"] = 2.0
    frame["adj_close"] = frame["close"]
    frame.loc[:19, "adj_close"] *= 1 - 1.5 / frame["close"][19]

    found = actions(frame)

    assert found.used == "adj_close"
    assert not found.contradicting.any()


def test_stated_split_is_applied_before_its_day():
    frame = frame_of()
    dates = frame["date"].to_numpy().astype("datetime64[D]")
    day: date = dates[20].astype(object)

    found = with_splits(actions(frame, "none"), dates, [(day, 4.0)])

    np.testing.assert_array_equal(found.multiplier, [*[0.25] * 20, *[1.0] * 20])


def test_rows_may_be_in_any_order_of_time():
    frame = raw_with_split(20, 2.0)

    backwards = actions(frame.iloc[::-1].reset_index(drop=True))

    np.testing.assert_allclose(backwards.factor[::-1], actions(frame).factor)
