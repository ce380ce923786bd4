from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import AsOfBeforeData, StaleSnapshot, UnknownSymbols
from tests.support.market import make_panel

PANEL = make_panel(("A", "B", "C"), sessions=90, vwap=True, starts={"B": 40})


def day(column):
    return PANEL.sessions[column].astype(object)


def test_window_ends_at_the_as_of_session_and_looks_back_no_further():
    window = PANEL.window(["C", "A"], day(70), 61)

    assert window.symbols == ("C", "A")
    assert window.as_of == day(70)
    np.testing.assert_array_equal(window.sessions, PANEL.sessions[10:71])
    np.testing.assert_array_equal(window.fields["close"], PANEL.fields["close"][[2, 0], 10:71])
    assert set(window.fields) == set(PANEL.fields)


def test_window_of_a_closed_day_ends_at_the_session_before():
    sunday = date(2013, 2, 3)

    assert PANEL.window(["A"], sunday, 5).as_of == date(2013, 2, 1)


def test_window_at_the_start_of_the_panel_is_shorter():
    assert PANEL.window(["A"], day(3), 61).fields["close"].shape == (1, 4)


def test_first_row_of_a_late_listing_is_told_within_the_window():
    assert PANEL.window(["A", "B"], day(70), 61).first.tolist() == [0, 30]
    assert PANEL.window(["B"], day(20), 10).first.tolist() == [10]
    assert PANEL.window(["B"], day(89), 10).first.tolist() == [0]


def test_windows_cannot_be_written_to():
    window = PANEL.window(["A"], day(70), 5)

    with pytest.raises(ValueError, match="read-only"):
        window.fields["close"][0, 0] = 1.0
    with pytest.raises(TypeError):
        window.fields["close"] = window.fields["open"]


def test_rows_of_unknown_symbols_are_refused_by_name():
    with pytest.raises(UnknownSymbols, match="unknown symbols X, Y: the snapshot has 3 symbols"):
        PANEL.rows(["A", "X", "Y"])


def test_as_of_outside_the_panel_is_refused():
    with pytest.raises(AsOfBeforeData, match="2013-01-01 lies before"):
        PANEL.window(["A"], date(2013, 1, 1), 5)
    with pytest.raises(StaleSnapshot, match="bars end at 2013-05-10"):
        PANEL.window(["A"], date(2013, 5, 11), 5)


@settings(deadline=None)
@given(st.integers(0, 89), st.integers(1, 120), st.permutations(["A", "B", "C"]), st.lists(st.integers(0, 2)))
def test_taking_rows_of_a_window_equals_asking_for_those_symbols(column, lookback, symbols, rows):
    taken = PANEL.window(symbols, day(column), lookback).take(np.array(rows, dtype=np.int64))

    asked = PANEL.window([symbols[row] for row in rows], day(column), lookback)
    assert taken.symbols == asked.symbols
    np.testing.assert_array_equal(taken.first, asked.first)
    for name, values in asked.fields.items():
        np.testing.assert_array_equal(taken.fields[name], values)
