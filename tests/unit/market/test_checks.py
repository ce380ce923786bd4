import numpy as np
import pytest

from strategies.market import checks
from strategies.market.checks import Closes, Gathering, closes_of, run_checks
from strategies.market.rules import SNAPSHOT_RULES, Rules
from tests.support.market import make_panel, xnys

NAMES = tuple(f"S{number:02d}" for number in range(40))


def closes(changes=(), *, names=NAMES):
    found = closes_of(make_panel(names, sessions=60))
    arrays = {"close": found.close.copy(), "volume": found.volume.copy()}
    arrays["volume"][:] = 1e6 * np.exp(np.random.default_rng(1).normal(0, 0.3, arrays["volume"].shape))
    for name, rows, columns, change in changes:
        arrays[name][rows, columns] = change(arrays[name][rows, columns]) if callable(change) else change
    return Closes(symbols=found.symbols, sessions=found.sessions, **arrays)


def failed(found, **rules):
    return {name: result.detail for name, result in run_checks(found, Rules(**rules)).items() if not result.passed}


def test_sound_snapshot_passes_every_check():
    results = run_checks(closes(), Rules())

    assert set(results) == {rule.name for rule in SNAPSHOT_RULES}
    assert all(result.passed for result in results.values())
    assert results["last_session_coverage"].limit == 0.8


def test_half_the_universe_missing_on_the_last_session_fails():
    found = failed(closes([("close", slice(0, 40, 2), -1, np.nan)]))

    assert list(found) == ["last_session_coverage"]
    assert "20 of 40 symbols have a bar on" in found["last_session_coverage"]
    assert failed(closes([("close", slice(0, 40, 2), -1, np.nan)]), last_session_coverage=0.4) == {}


def test_few_missing_symbols_pass():
    assert failed(closes([("close", [3, 9, 30], -1, np.nan)])) == {}
    assert failed(closes([("close", [0, 1], -1, np.nan)], names=NAMES[:3])) == {}


def test_feed_that_stops_in_the_alphabet_fails_though_coverage_is_high():
    found = failed(closes([("close", slice(34, 40), -1, np.nan)]))

    assert list(found) == ["feed_stopped"]
    assert "every symbol from S34 on, 6 of 40" in found["feed_stopped"]


def test_symbols_that_ended_earlier_are_not_expected():
    assert failed(closes([("close", slice(20, 40), slice(-20, None), np.nan)])) == {}


def test_last_session_of_unchanged_closes_fails():
    panel = closes()
    panel.close[:30, -1] = panel.close[:30, -2]

    assert list(failed(panel)) == ["last_session_unchanged"]


def test_outliers_on_the_last_session_fail():
    found = failed(closes([("close", slice(0, 12), -1, lambda values: values * 1.4)]))

    assert list(found) == ["last_session_outliers"]
    assert "12 of 40 closes" in found["last_session_outliers"]


@pytest.mark.parametrize("factor", [1.08, 0.92, 1.27, 7.8, 100.0])
@pytest.mark.parametrize("at", [-1, 30])
def test_cross_section_that_moves_by_one_factor_fails_until_confirmed(factor, at):
    panel = closes([("close", slice(None), slice(at, None), lambda values: values * factor)])

    assert "cross_section_moved" in failed(panel)
    day = panel.sessions[at].astype(object)
    assert "cross_section_moved" not in failed(panel, confirmed_sessions=frozenset({day}))


def test_a_crash_in_which_symbols_differ_passes():
    spread = np.exp(np.random.default_rng(3).normal(np.log(0.9), 0.04, (40, 1)))

    assert failed(closes([("close", slice(None), slice(30, None), lambda values: values * spread)])) == {}


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_volume_of_all_symbols_in_another_unit_fails(factor):
    panel = closes([("volume", slice(None), slice(-1, None), lambda values: values * factor)])

    assert list(failed(panel)) == ["volume_shifted"]


def test_step_between_two_blocks_of_sessions_is_seen(monkeypatch):
    monkeypatch.setattr(checks, "_BLOCK", 7)
    for at in range(25, 40):
        panel = closes([("close", slice(None), slice(at, None), lambda values: values * 1.2)])

        assert str(panel.sessions[at]) in failed(panel)["cross_section_moved"]


def test_chosen_checks_alone_are_run():
    assert set(run_checks(closes(), Rules(), names=frozenset({"feed_stopped"}))) == {"feed_stopped"}


@pytest.mark.parametrize("block", [2, 64])
def test_gathered_bars_are_those_of_the_panel(monkeypatch, block):
    monkeypatch.setattr(checks, "_BLOCK", block)
    panel = make_panel(NAMES[:5], sessions=30, starts={"S03": 12, "S04": 20})
    gathering = Gathering(xnys().sessions)
    for row, symbol in enumerate(panel.symbols):
        kept = ~np.isnan(panel.fields["close"][row])
        columns = {name: values[row, kept] for name, values in panel.fields.items()}
        gathering.add(symbol, panel.sessions[kept], columns)

    found, expected = gathering.closes(), closes_of(panel)

    np.testing.assert_array_equal(found.close, expected.close)
    np.testing.assert_array_equal(found.volume, expected.volume)
    np.testing.assert_array_equal(found.sessions, expected.sessions)
