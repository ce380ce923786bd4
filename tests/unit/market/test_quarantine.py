from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.market.adjustment import adjust, factor_of
from strategies.market.quarantine import REASONS, Rules, Suspects, judge, reason_texts
from tests.support.market import make_bars, xnys

RUN_DATE = date(2020, 1, 2)


def verdict(frame, *, rules=None, symbol="AAPL", adjustment="none", run_date=RUN_DATE):
    """Return row number to its reasons."""
    raw = {name: frame[name].to_numpy(dtype=float) for name in frame.columns if name != "date"}
    factor = factor_of(raw, adjustment)
    suspects = Suspects(
        symbol=symbol,
        dates=frame["date"].to_numpy().astype("datetime64[D]"),
        raw=raw,
        adjusted=adjust(raw, factor),
        factor=factor,
    )
    flags = judge(suspects, xnys(), run_date, rules or Rules())
    return {row: reason_texts(flags, [row])[0] for row in range(len(frame)) if reason_texts(flags, [row])[0]}


def with_closes(closes):
    """Return flat bars at these closes."""
    frame = make_bars(sessions=len(closes))
    for name in ("open", "high", "low", "close"):
        frame[name] = np.asarray(closes, dtype=float)
    return frame


def test_believable_bars_are_all_accepted():
    assert verdict(make_bars(sessions=300, vwap=True)) == {}


@pytest.mark.parametrize(
    ("column", "value", "reasons"),
    [
        ("open", np.nan, "missing_price"),
        ("close", np.nan, "missing_price"),
        ("low", 0.0, "non_positive_price"),
        ("close", -1.0, "non_positive_price;close_outside_range"),
        ("volume", np.nan, "missing_volume"),
        ("volume", -1.0, "negative_volume"),
        ("vwap", 0.0, "non_positive_vwap"),
        ("open", 1e6, "open_outside_range"),
        ("close", 140.0, "close_outside_range"),
        ("close", 1000.0, "close_outside_range;unexplained_move"),
        ("high", 1e39, "adjusted_out_of_bounds"),
        ("volume", 1e39, "adjusted_out_of_bounds"),
        ("high", 1.0, "high_below_low;open_outside_range;close_outside_range"),
        ("date", np.datetime64("NaT", "D"), "missing_date"),
        ("date", np.datetime64("2013-01-05"), "not_a_session"),
        ("date", np.datetime64("1989-12-29"), "outside_calendar"),
        ("date", np.datetime64("2020-01-03"), "after_run_date"),
        ("date", np.datetime64("2099-01-05"), "after_run_date;outside_calendar"),
    ],
)
def test_one_untrue_value_quarantines_its_row_alone(column, value, reasons):
    frame = make_bars(sessions=20, vwap=True)
    frame.loc[7, column] = value

    assert verdict(frame) == {7: reasons}


def test_absent_vwap_and_zero_volume_are_no_reason():
    frame = make_bars(sessions=20, vwap=True)
    frame.loc[3, "vwap"] = np.nan
    frame.loc[4, "volume"] = 0

    assert verdict(frame) == {}


def test_rounding_outside_the_range_is_forgiven():
    frame = make_bars(sessions=20)
    frame.loc[7, "close"] = frame.loc[7, "high"] * (1 + 6e-8)
    frame.loc[8, "open"] = frame.loc[8, "low"] * (1 - 1e-5)

    assert verdict(frame) == {8: "open_outside_range"}


def test_identical_repeats_leave_the_first_row():
    frame = make_bars(sessions=10)
    frame.loc[[5, 6]] = frame.loc[[4, 4]].to_numpy()

    assert verdict(frame) == {5: "duplicate_date", 6: "duplicate_date"}


def test_identical_repeats_with_holes_are_still_identical():
    frame = make_bars(sessions=10, vwap=True)
    frame.loc[4, "vwap"] = np.nan
    frame.loc[5] = frame.loc[4].to_numpy()

    assert verdict(frame) == {5: "duplicate_date"}


def test_conflicting_rows_of_one_date_all_go():
    frame = make_bars(sessions=10)
    frame.loc[[5, 6], "date"] = frame.loc[4, "date"]
    frame.loc[5] = frame.loc[4].to_numpy()

    assert verdict(frame) == dict.fromkeys((4, 5, 6), "conflicting_date")


def test_misplaced_row_costs_no_other_row():
    frame = make_bars(sessions=30)
    moved = [*range(5), 25, *range(5, 25), *range(26, 30)]

    assert verdict(frame.iloc[moved].reset_index(drop=True)) == {5: "out_of_order"}


def test_file_that_descends_from_start_to_end_is_in_order():
    assert verdict(make_bars(sessions=30).iloc[::-1].reset_index(drop=True)) == {}


def test_wrong_date_far_ahead_does_not_make_the_rest_unsorted():
    frame = make_bars(sessions=30)
    frame.loc[3, "date"] = np.datetime64("2019-12-31")

    assert verdict(frame) == {3: "out_of_order"}


def test_bad_print_costs_its_row_and_not_the_next():
    assert verdict(with_closes([10, 10, 31, 10.1, 10.2])) == {2: "unexplained_move"}


def test_level_shift_costs_one_row_and_not_the_history():
    assert verdict(with_closes([100, 101, 43, 42, 44, 43])) == {2: "unexplained_move"}


def test_two_bad_prints_in_a_row_at_different_levels_both_go():
    assert verdict(with_closes([10, 31, 90, 10, 11])) == {1: "unexplained_move", 2: "unexplained_move"}


def test_bad_print_that_returned_confirms_no_later_one():
    assert verdict(with_closes([10, 31, 10.1, 31, 10])) == {1: "unexplained_move", 3: "unexplained_move"}


def test_level_shift_in_a_descending_file_costs_its_first_session():
    frame = with_closes([100, 101, 43, 42, 44]).iloc[::-1].reset_index(drop=True)

    assert verdict(frame) == {2: "unexplained_move"}


def test_quarantined_row_is_no_reference_for_the_next():
    frame = with_closes([100, 140, 200, 100])
    frame.loc[1, "volume"] = -1.0

    assert verdict(frame) == {1: "negative_volume", 2: "unexplained_move"}


def test_move_of_exactly_the_bound_is_accepted():
    assert verdict(with_closes([100, 150, 75])) == {}
    assert verdict(with_closes([100, 150.001])) == {1: "unexplained_move"}


def test_confirmed_move_is_accepted():
    frame = with_closes([10, 31, 32])
    session = frame["date"][1].date()

    assert verdict(frame, rules=Rules(confirmed_moves=frozenset({("AAPL", session)}))) == {}
    assert verdict(frame, rules=Rules(confirmed_moves=frozenset({("IBM", session)}))) == {1: "unexplained_move"}


def test_split_is_explained_by_its_factor_step():
    frame = with_closes([700, 700, 100, 100])
    frame["factor"] = [1 / 7, 1 / 7, 1, 1]

    assert verdict(frame, adjustment="factor") == {}
    assert verdict(frame, adjustment="none") == {2: "unexplained_move"}


def test_factor_step_that_no_price_follows_is_an_unexplained_move():
    frame = with_closes([100, 100, 100, 100])
    frame["factor"] = [1, 1, 0.1, 0.1]

    assert verdict(frame, adjustment="factor") == {2: "unexplained_move"}


@pytest.mark.parametrize(
    ("factor", "reason"),
    [
        (np.nan, "missing_factor"),
        (0.0, "non_positive_factor"),
        (-1.0, "non_positive_factor"),
        (1e308, "adjusted_out_of_bounds"),
    ],
)
def test_factor_that_cannot_be_true_quarantines_its_row(factor, reason):
    frame = make_bars(sessions=10)
    frame["factor"] = 1.0
    frame.loc[4, "factor"] = factor

    assert reason in verdict(frame, adjustment="factor")[4].split(";")
    assert set(verdict(frame, adjustment="factor")) == {4}


def test_missing_adjusted_close_is_a_missing_factor():
    frame = make_bars(sessions=10).assign(adj_close=lambda bars: bars["close"] / 2)
    frame.loc[4, "adj_close"] = np.nan

    assert verdict(frame, adjustment="adj_close") == {4: "missing_factor"}


def test_adjustment_moves_prices_together_and_volume_the_other_way():
    frame = make_bars(sessions=50).assign(adj_close=lambda bars: bars["close"] * 0.37)
    raw = {name: frame[name].to_numpy() for name in frame.columns if name != "date"}

    adjusted = adjust(raw, factor_of(raw, "adj_close"))

    np.testing.assert_allclose(adjusted["close"], raw["adj_close"], rtol=1e-15)
    np.testing.assert_allclose(adjusted["open"] / raw["open"], adjusted["close"] / raw["close"], rtol=1e-15)
    np.testing.assert_allclose(adjusted["close"] * adjusted["volume"], raw["close"] * raw["volume"], rtol=1e-14)


#: Closes with jumps, bad prints and holes in any order.
closes = st.lists(
    st.one_of(st.floats(90, 110), st.sampled_from([1.0, 20.0, 45.0, 300.0, np.nan, 0.0, -5.0])), min_size=2, max_size=40
)


@settings(deadline=None)
@given(closes, st.integers(1, 39))
def test_judging_a_row_never_uses_later_rows(values, cut):
    frame = with_closes(values)

    whole = verdict(frame)

    assert verdict(frame.head(cut)) == {row: reason for row, reason in whole.items() if row < cut}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.sampled_from([1.0, 2.0])), min_size=1, max_size=30))
def test_accepted_dates_are_unique_and_ordered_and_one_reason_is_known(rows):
    sessions = make_bars(sessions=26)["date"].to_numpy()
    frame = with_closes([price for _, price in rows]).assign(date=sessions[[at for at, _ in rows]])

    found = verdict(frame, rules=Rules(max_move=10))

    kept = frame.drop(index=list(found))["date"]
    assert kept.is_unique
    assert kept.is_monotonic_increasing or kept.is_monotonic_decreasing
    assert {reason for text in found.values() for reason in text.split(";")} <= set(REASONS)


positive = st.floats(1e-3, 1e6)


@settings(deadline=None)
@given(st.lists(st.tuples(positive, positive, positive, positive, st.floats(1e-6, 1e6)), min_size=1, max_size=20))
def test_accepted_bars_stay_inside_their_range_after_adjustment(rows):
    frame = make_bars(sessions=len(rows))
    frame[["open", "high", "low", "close", "factor"]] = np.array(rows)
    found = verdict(frame, adjustment="factor", rules=Rules(range_tolerance=0.0, max_move=1e300))

    raw = {name: frame[name].to_numpy() for name in frame.columns if name != "date"}
    bars = {name: np.delete(values, list(found)) for name, values in adjust(raw, raw["factor"]).items()}

    for name in ("open", "close"):
        assert (bars["low"] <= bars[name]).all()
        assert (bars[name] <= bars["high"]).all()
