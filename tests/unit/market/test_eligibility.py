"""Eligibility: how old the last bar may be, how many sessions a symbol was listed."""

import numpy as np
import pytest

from strategies.errors import HistoryTooShort, StaleSymbols
from strategies.market.bars import Window
from strategies.market.eligibility import eligibility

LOOKBACK, SESSIONS = 4, 6


def window_of(**closes):
    """Closes of six sessions a symbol; `.` = no bar. `first` is the session of the first bar."""
    rows = np.array([[np.nan if bar == "." else 1.0 for bar in bars] for bars in closes.values()])
    present = ~np.isnan(rows)
    first = np.where(present.any(axis=1), present.argmax(axis=1), SESSIONS)
    return Window(
        symbols=tuple(closes),
        sessions=np.arange(SESSIONS).astype("datetime64[D]"),
        fields={"close": rows},
        first=first.astype(np.int64),
    )


def rules(stale_after_sessions=1, **closes):
    return eligibility(window_of(**closes), LOOKBACK, stale_after_sessions=stale_after_sessions)


def test_bar_on_the_as_of_session_with_full_history_is_eligible():
    found = rules(A="xxxxxx", B="..xxxx", C="x.xxxx")

    assert found.eligible.tolist() == [True, True, True]
    assert (found.stale, found.short) == ({}, {})


@pytest.mark.parametrize(
    ("bars", "allowed", "stale"),
    [("xxxxx.", 0, {"A": 1}), ("xxxxx.", 1, {}), ("xxxx..", 1, {"A": 2}), ("xxxx..", 2, {}), ("x.....", 4, {"A": 5})],
)
def test_last_bar_may_be_as_old_as_the_rule_allows(bars, allowed, stale):
    found = rules(allowed, A=bars)

    assert found.stale == stale
    assert found.eligible.tolist() == [not stale]
    assert found.short == {}


@pytest.mark.parametrize(("bars", "short"), [("..xxxx", {}), ("...xxx", {"A": 3}), (".....x", {"A": 1})])
def test_symbol_needs_to_be_listed_for_the_lookback(bars, short):
    found = rules(A=bars)

    assert found.short == short
    assert found.eligible.tolist() == [not short]


def test_symbol_not_listed_yet_is_short_and_not_stale():
    found = rules(0, A="xxxxxx", NEW="......")

    assert (found.stale, found.short) == ({}, {"NEW": 0})
    assert found.eligible.tolist() == [True, False]


def test_listed_symbol_without_a_bar_in_the_window_is_stale():
    window = window_of(A="......", B="xxxxxx")
    gone = Window(
        symbols=window.symbols, sessions=window.sessions, fields=window.fields, first=np.array([-9, -9], dtype=np.int64)
    )

    found = eligibility(gone, LOOKBACK, stale_after_sessions=5)

    assert found.stale == {"A": SESSIONS}
    assert found.eligible.tolist() == [False, True]


def test_stale_symbol_is_not_named_short_as_well():
    found = rules(0, A="...xx.")

    assert (found.stale, found.short) == ({"A": 1}, {})


def test_every_symbol_eligible_raises_nothing():
    rules(A="xxxxxx").require_all(stale_after_sessions=1, lookback=LOOKBACK)


def test_old_bars_are_named_before_short_histories():
    found = rules(0, A="xxxxx.", B=".....x")

    with pytest.raises(StaleSymbols, match=r"A \(1\); at most 0 allowed"):
        found.require_all(stale_after_sessions=0, lookback=LOOKBACK)


def test_short_history_is_named_with_the_lookback():
    with pytest.raises(HistoryTooShort, match=r"B \(1\); lookback is 4"):
        rules(0, A="xxxxxx", B=".....x").require_all(stale_after_sessions=0, lookback=LOOKBACK)


def test_symbol_listed_on_the_as_of_session_without_a_bar_is_stale():
    window = window_of(A="......")
    listed = Window(
        symbols=("A",), sessions=window.sessions, fields=window.fields, first=np.array([SESSIONS - 1], dtype=np.int64)
    )

    assert eligibility(listed, LOOKBACK, stale_after_sessions=5).stale == {"A": SESSIONS}
