import numpy as np
import pytest

from strategies.market.neighbours import SPLITS
from strategies.market.rules import Rules
from strategies.market.verdicts import HELD, Settled, judged
from tests.support.market import RUN_DATE, make_bars, raw_rows, xnys

N, AT = 120, 80


def steady(seed=0, sessions=N):
    """Return bars whose volume is steady, as that of a liquid share."""
    frame = make_bars(sessions=sessions, seed=seed)
    rng = np.random.default_rng(seed + 1000)
    return frame.assign(volume=np.round(1e6 * np.exp(rng.normal(0, 0.3, sessions))))


def scaled(frame, rows, factor, *, volume=1.0):
    frame = frame.copy()
    for name in ("open", "high", "low", "close"):
        frame.loc[rows, name] = frame.loc[rows, name] * factor
    frame.loc[rows, "volume"] = np.round(frame.loc[rows, "volume"] * volume)
    return frame


def verdict(frame, **rules):
    result = judged(raw_rows(frame), Settled(calendar=xnys(), run_date=RUN_DATE, rules=Rules(**rules)))
    return {reason: np.flatnonzero(flag).tolist() for reason, flag in result.flags.items()}, result


def test_sound_bars_have_no_flag():
    for seed in range(5):
        assert verdict(steady(seed))[0] == {}


@pytest.mark.parametrize("factor", [100.0, 0.01, 1000.0, 0.001])
@pytest.mark.parametrize("length", [1, 3, 25])
def test_block_of_another_unit_is_held_back_and_no_row_after_it(factor, length):
    rows = list(range(AT, AT + length))

    assert verdict(scaled(steady(), rows, factor))[0] == {"unit_mixup": rows}


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_unit_that_never_returns_is_no_new_level(factor):
    rows = list(range(AT, N))

    assert verdict(scaled(steady(), rows, factor))[0] == {"unit_mixup": rows}


@pytest.mark.parametrize("currency", [83.0, 1 / 83])
def test_long_block_of_another_unit_is_held_back_though_prices_move_on_in_it(currency):
    drift = np.exp(np.linspace(0, np.log(0.2), 400))
    frame = steady(sessions=400)
    for name in ("open", "high", "low", "close"):
        frame[name] *= drift
    rows = list(range(30, 110))

    assert verdict(scaled(frame, rows, currency))[0] == {"unit_mixup": rows}


def test_rows_before_a_unit_that_stays_are_all_held_back():
    # A split-like step among them, which is no matter once the first unit is found to be the wrong one.
    frame = scaled(steady(sessions=400), list(range(50, 400)), 1 / 2, volume=2.0)
    frame = scaled(frame, list(range(100, 400)), 100.0)

    flags, _ = verdict(frame)

    assert flags["unit_mixup"] == list(range(100))


def test_unit_mixup_at_the_start_costs_the_first_rows():
    rows = list(range(5))

    assert verdict(scaled(steady(), rows, 0.01))[0] == {"unit_mixup": rows}


@pytest.mark.parametrize(
    ("name", "factor"), [("high", 100.0), ("high", 10.0), ("high", 1.6), ("low", 1e-4), ("low", 0.1), ("low", 0.4)]
)
def test_spike_beside_a_sound_close_is_held_back(name, factor):
    frame = steady()
    frame.loc[AT, name] *= factor

    assert verdict(frame)[0] == {"price_spike": [AT]}


def test_spike_of_open_and_high_is_held_back():
    frame = steady()
    frame.loc[AT, ["open", "high"]] *= 10

    assert verdict(frame)[0] == {"price_spike": [AT]}


def test_high_of_a_day_that_fell_is_no_spike():
    frame = scaled(steady(), list(range(AT, N)), 0.55)
    frame.loc[AT, "high"] = frame.loc[AT - 1, "close"]
    frame.loc[AT, "open"] = frame.loc[AT - 1, "close"]

    assert verdict(frame)[0] == {}


@pytest.mark.parametrize("back", [1, 2, 3, 4, 5])
def test_repeated_bar_is_held_back(back):
    frame = steady()
    columns = ["open", "high", "low", "close", "volume"]
    frame.loc[AT, columns] = frame.loc[AT - back, columns]

    assert verdict(frame)[0] == {"repeated_bar": [AT]}


def test_bar_without_a_range_may_repeat():
    frame = steady()
    for row in range(AT, AT + 10):
        frame.loc[row, ["open", "high", "low", "close"]] = frame.loc[AT - 1, "close"]
        frame.loc[row, "volume"] = 0.0

    assert verdict(frame)[0] == {}


@pytest.mark.parametrize("ratio", [ratio for ratio in SPLITS if ratio >= 1.25])
@pytest.mark.parametrize("reverse", [False, True])
def test_move_that_looks_like_a_split_is_held_back_until_settled(ratio, reverse):
    ratio = 1 / ratio if reverse else ratio
    frame = scaled(steady(), list(range(AT, N)), 1 / ratio, volume=ratio)

    found, result = verdict(frame)

    assert found == {"split_like": [AT]}
    assert result.unsettled == (frame["date"][AT + 1].date(),)
    assert result.verdict == HELD


@pytest.mark.parametrize("ratio", [1.25, 1.5, 2.0])
def test_fall_without_the_volume_of_a_split_is_a_move(ratio):
    frame = scaled(steady(), list(range(AT, N)), 1 / ratio, volume=60.0)

    assert verdict(frame, max_move=0.6)[0].get("split_like") is None


def test_split_like_move_that_returns_was_a_bad_print():
    found, result = verdict(scaled(steady(), [AT], 0.5, volume=2.0))

    assert found == {"split_like": [AT]}
    assert result.unsettled == ()


def test_confirmed_move_is_no_split():
    frame = scaled(steady(), list(range(AT, N)), 0.5, volume=2.0)
    settled = frozenset({("AAPL", frame["date"][AT].date())})

    found, result = verdict(frame, confirmed_moves=settled)

    assert (found, result.unsettled) == ({}, ())


@pytest.mark.parametrize("factor", [83.0, 150.0, 1 / 83.0, 1350.0])
def test_currency_change_is_no_new_level(factor):
    rows = list(range(AT, N))

    found, _ = verdict(scaled(steady(), rows, factor))

    assert sorted(row for flagged in found.values() for row in flagged) == rows


def test_level_at_seven_times_is_held_back_until_settled():
    found, result = verdict(scaled(steady(), list(range(AT, N)), 7.8))

    assert found == {"unexplained_move": [AT]}
    assert result.unsettled == (make_bars(sessions=N)["date"][AT + 1].date(),)


@pytest.mark.parametrize("factor", [0.01, 100.0, 0.001, 1000.0])
def test_volume_of_another_unit_is_held_back_until_settled(factor):
    frame = steady()
    frame.loc[AT:, "volume"] *= factor

    found, _ = verdict(frame)

    assert set(found) == {"volume_unit"}
    assert set(range(AT + 1, N)) <= set(found["volume_unit"])
    day = frame["date"][AT].date()
    assert verdict(frame.assign(volume=frame["volume"]), confirmed_moves=frozenset({("AAPL", day)}))[0] == {}


def test_a_day_of_heavy_trading_is_no_unit():
    frame = steady()
    frame.loc[AT, "volume"] *= 40

    assert verdict(frame)[0] == {}


@pytest.mark.parametrize("own", [-0.09, -0.04, 0.0, 0.05, 0.09])
@pytest.mark.parametrize("busy", [0.5, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("ratio", [1.5, 2.0, 4.0, 1 / 3])
def test_split_is_held_back_on_a_day_that_moved_of_its_own(own, busy, ratio):
    frame = scaled(steady(), list(range(AT, N)), 1 / ratio, volume=ratio)
    frame = scaled(frame, list(range(AT, N)), 1 + own)
    frame.loc[AT, "volume"] *= busy

    assert AT in verdict(frame)[0]["split_like"]


@pytest.mark.parametrize("busy", [14.0, 20.0, 30.0])
def test_crash_on_which_many_shares_changed_hands_is_no_split(busy):
    frame = scaled(steady(), list(range(AT, N)), 0.70)
    frame.loc[AT, "volume"] *= busy

    assert verdict(frame)[0] == {}


def test_fall_during_the_day_is_no_split():
    frame = scaled(steady(), list(range(AT, N)), 0.68)
    frame.loc[AT, ["open", "high"]] = frame.loc[AT - 1, "close"]

    assert verdict(frame)[0] == {}
