"""The bench of injected defects on built bars: nothing of a kind is served, nothing sound is held back."""

import numpy as np
import pandas as pd

from tests.benchmarks.defects import KINDS, Others, clean_frames, false_holds, measure, page
from tests.benchmarks.others import health_check
from tests.support.market import make_bars

OTHERS = Others(health=health_check(None), repair=None)


def steady(seed: int) -> pd.DataFrame:
    frame = make_bars(sessions=300, seed=seed)
    volume = np.round(1e6 * np.exp(np.random.default_rng(seed).normal(0, 0.3, 300)))
    prices = ["open", "high", "low", "close"]
    return frame.assign(volume=volume, **{name: frame[name].round(2) for name in prices})


def test_defects_of_built_bars_are_held_back_and_sound_bars_are_not() -> None:
    frames = {f"S{seed}": steady(seed) for seed in range(4)}

    results = list(measure(frames, np.random.default_rng(3), rounds=8, others=OTHERS))

    assert [one.name for one in results] == [kind.name for kind in KINDS]
    assert {one.name: one.injected - one.held for one in results if one.held < one.injected} == {}
    held, rows, _ = false_holds(frames)
    assert (held, rows) == (0, 1200)


def test_page_has_a_line_for_each_kind() -> None:
    text = page(clean_frames(None, 2), seed=1, rounds=4, others=OTHERS)

    assert all(f"| {kind.name} |" in text for kind in KINDS)
    assert "| nothing | " in text


def test_health_check_names_what_it_compares() -> None:
    frame, health = steady(1).assign(volume=1e6), health_check(None)

    assert not health(frame)
    for column, at, value in (("open", 5, np.nan), ("close", 9, 400.0), ("volume", 20, 5e7)):
        assert health(frame.assign(**{column: frame[column].where(frame.index != at, value)}))
