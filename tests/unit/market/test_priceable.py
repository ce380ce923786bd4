from dataclasses import replace
from datetime import date
from types import MappingProxyType

import numpy as np
import pytest

from strategies.errors import HeldBack, HistoryTooShort, NotTradable
from strategies.market.eligibility import bars_needed, eligibility
from tests.support.market import make_panel

LOOKBACK = 61


def window(changes=(), marks=None):
    panel = make_panel(("A", "B", "C"), sessions=90)
    fields = {name: values.copy() for name, values in panel.fields.items()}
    for name, row, columns, value in changes:
        for one in fields if name == "all" else (name,):
            fields[one][row, columns] = value
    marked = {name: np.zeros((3, 90), bool) for name in marks or ()}
    for name, (row, column) in (marks or {}).items():
        marked[name][row, column] = True
    changed = replace(panel, fields=MappingProxyType(fields), marks=marked)
    return changed.window(("A", "B", "C"), panel.sessions[-1].astype(object), LOOKBACK)


def of(changes=(), marks=None, **options):
    return eligibility(window(changes, marks), LOOKBACK, stale_after_sessions=0, **options)


def test_a_life_with_few_bars_inside_the_lookback_is_no_history():
    found = of([("all", 1, slice(30, 89), np.nan)])

    assert found.sparse == {"B": 2}
    assert found.eligible.tolist() == [True, False, True]
    with pytest.raises(HistoryTooShort, match=r"too few bars in the last 61 sessions: B \(2\); at least 49 are needed"):
        found.require_all(stale_after_sessions=0, lookback=LOOKBACK)


@pytest.mark.parametrize(("missing", "eligible"), [(12, True), (13, False)])
def test_bars_inside_the_lookback_may_be_missing_up_to_a_fifth(missing, eligible):
    assert of([("all", 1, slice(40, 40 + missing), np.nan)]).eligible[1] == eligible


def test_share_of_bars_is_a_setting():
    sparse = [("all", 1, slice(30, 89), np.nan)]

    assert of(sparse, min_bars_share=0.0).eligible.all()
    assert bars_needed(5, 0.8) == 4
    assert bars_needed(61, 1.0) == 61


def halted(first, volume=0.0):
    flat = [(name, 1, slice(first, 90), 50.0) for name in ("open", "high", "low", "close")]
    return [*flat, ("volume", 1, slice(first, 90), volume)]


@pytest.mark.parametrize("first", [88, 40, 10])
def test_still_bars_of_no_volume_are_not_tradable(first):
    found = of(halted(first))

    assert found.untradable == ("B",)
    assert found.eligible.tolist() == [True, False, True]
    with pytest.raises(NotTradable, match="B"):
        found.require_all(stale_after_sessions=0, lookback=LOOKBACK)
    assert of(halted(first), tradable_only=False).eligible.all()


def test_halt_with_a_session_without_a_bar_is_one_too():
    assert of([*halted(80), ("all", 1, slice(85, 88), np.nan)]).untradable == ("B",)


def test_one_still_bar_a_traded_one_and_one_with_a_range_are_tradable():
    assert of(halted(89)).untradable == ()
    assert of(halted(80, volume=5.0)).untradable == ()
    assert of([*halted(80), ("high", 1, 89, 51.0)]).untradable == ()
    assert of([*halted(80), ("close", 1, 89, 49.0), ("low", 1, 89, 49.0)]).untradable == ()


def test_flag_of_the_vendor_counts_on_the_last_bar_alone():
    assert of(marks={"halted": (1, 89)}).untradable == ("B",)
    assert of(marks={"halted": (1, 88)}).untradable == ()


def test_unsettled_step_inside_the_lookback_holds_the_symbol_back():
    found = of(marks={"unsettled": (1, 60)})

    assert list(found.unsettled) == ["B"]
    assert isinstance(found.unsettled["B"], date)
    with pytest.raises(HeldBack, match=r"B \(since"):
        found.require_all(stale_after_sessions=0, lookback=LOOKBACK)
    # Once the lookback has passed it, no feature sees it.
    assert of(marks={"unsettled": (1, 28)}).unsettled == {}
