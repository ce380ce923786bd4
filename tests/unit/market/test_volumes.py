import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.market.volumes import other_unit

N, AT = 200, 100


def shares(seed=0, spread=0.3):
    return np.round(1e6 * np.exp(np.random.default_rng(seed).normal(0, spread, N)))


def held(volume, *, close=None, confirmed=()):
    known = np.zeros(len(volume), bool)
    known[list(confirmed)] = True
    return np.flatnonzero(other_unit(volume, np.full(len(volume), 50.0) if close is None else close, known)).tolist()


@pytest.mark.parametrize("factor", [0.01, 0.001, 100.0, 1000.0])
@pytest.mark.parametrize("length", [2, 10, 60, 100])
def test_block_of_another_unit_is_held_back_and_no_row_after_it(factor, length):
    volume = shares()
    volume[AT : AT + length] *= factor

    assert held(volume) == list(range(AT, AT + length))


@pytest.mark.parametrize("busy", [3.0, 8.0, 15.0])
@pytest.mark.parametrize("at", [AT, AT + 1, AT + 15, AT + 60])
def test_busy_day_in_lots_neither_hides_a_block_nor_ends_it(busy, at):
    volume = shares()
    volume[AT:] /= 100
    volume[at] *= busy

    # The first row of a block may be a day's own.
    assert set(range(AT + 1, N)) <= set(held(volume))


def test_block_goes_on_after_a_day_that_looks_like_its_end():
    volume = shares()
    volume[AT:] /= 100
    volume[AT + 40] *= 90

    assert held(volume) == [row for row in range(AT, N) if row != AT + 40]


def test_volume_that_moves_on_in_a_long_block_stays_in_it_until_the_unit_returns():
    volume = shares() * np.exp(np.linspace(0, np.log(12), N))
    volume[50:180] /= 100

    assert held(volume) == list(range(50, 180))


def test_days_without_trades_are_no_part_of_a_block_and_no_end_of_it():
    volume = shares()
    volume[AT : AT + 30] /= 100
    volume[[AT + 5, AT + 6]] = [0, np.nan]

    assert held(volume) == [row for row in range(AT, AT + 30) if row not in {AT + 5, AT + 6}]


def test_day_of_an_index_change_is_real_unless_its_volume_ends_in_two_zeros():
    volume = shares()
    volume[AT] = 88_000_055

    assert held(volume) == []
    volume[AT] = 88_000_000
    assert held(volume) == [AT]


def test_shares_of_a_split_and_what_somebody_confirmed_are_accepted():
    volume, close = shares(), np.full(N, 50.0)
    volume[AT:] *= 100
    close[AT:] /= 100

    assert held(volume, close=close) == []
    volume[AT] /= 10  # a quiet day, so that the ratio shows on the next one
    assert held(volume, close=close) == []
    volume[AT] *= 10
    assert held(volume, confirmed=[AT]) == []


def test_lasting_change_to_a_quarter_is_no_other_unit():
    volume = shares()
    volume[AT:] *= 0.25

    assert held(volume) == []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.5, 1.0]))
def test_row_is_judged_by_the_rows_before_it_alone(seed, spread):
    rng = np.random.default_rng(seed)
    volume = 1e6 * np.exp(rng.normal(0, spread, N))
    for start in rng.integers(10, N - 5, 4):
        volume[start : start + int(rng.integers(1, 60))] *= float(rng.choice([100, 1000, 0.01, 0.001, 20, 0.05]))
    volume[rng.random(N) < 0.05] = rng.choice([0.0, np.nan])
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, N)))
    confirmed = rng.random(N) < 0.02
    whole = other_unit(volume, close, confirmed)

    for count in rng.integers(1, N, 12):
        np.testing.assert_array_equal(other_unit(volume[:count], close[:count], confirmed[:count]), whole[:count])
