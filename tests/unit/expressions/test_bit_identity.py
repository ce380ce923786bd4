import hashlib
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.expressions.evaluate import Bars, Cut, evaluate
from strategies.expressions.feature_sets import FeatureSet, define, feature_set
from strategies.market.bars import Panel
from tests.support.rough_panels import rough_panel

#: Every family of windows, over inputs that are windows themselves, so that lookbacks add up.
COLUMNS = (
    ("sums", "Sum(Mean($close, 4), 7) + Count($volume, 5)"),
    ("moments", "Std(Ref($close, 3), 9) / Var($close / Ref($close, 1), 6)"),
    ("trend", "Slope(Std($close, 5), 8) + Rsquare($high, 11) + Resi($low, 4)"),
    ("peaks", "IdxMax($high, 13) - IdxMin(Ref($low, 2), 6) + Max($open, 3) / Min($close, 17)"),
    ("ranks", "Rank(Mean($close, 3), 12)"),
    ("order", "Quantile($close, 15, 0.3) / Med(Delta($close, 2), 8)"),
    ("pairs", "Corr($close, Log($volume + 1), 10) + Cov($open, Mean($close, 2), 7)"),
    ("shape", "Skew($close, 9) + Kurt($volume, 12) + Mad($close, 5)"),
    ("weighted", "WMA($close, 6) + EMA($close, 4) + EMA(Mean($close, 3), 0.3) + EMA($open, 0)"),
    ("choices", "If($close > Ref($open, 1), Sum($close > $open, 5), $close ** 2) + Mean($close != $close, 0)"),
)


@cache
def mixed() -> FeatureSet:
    return define("mixed", COLUMNS, expanding=40)


def whole(features: FeatureSet, panel: Panel, **options: object) -> np.ndarray:
    days = panel.sessions.astype(object)
    return features.evaluate_range(panel, days[0], days[-1], **options)


def bits(values: np.ndarray) -> np.ndarray:
    # Any NaN is as good as another: which one a processor makes of 0/0 is not a value.
    return np.where(np.isnan(values), np.float32(np.nan), values).astype(np.float32).view(np.uint32)


def assert_same_bits(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_array_equal(bits(left), bits(right))


@pytest.mark.parametrize("name", ["mixed", "alpha158", "alpha360"])
def test_every_session_alone_equals_the_backfill(name):
    features = mixed() if name == "mixed" else feature_set(name)
    panel = rough_panel(7, sessions=features.lookback + 12)

    backfill = whole(features, panel)

    for session in (0, 1, 5, features.lookback - 1, features.lookback + 3, features.lookback + 11):
        day = panel.sessions[session].astype(object)
        window = panel.window(panel.symbols, day, features.lookback)
        assert_same_bits(features.evaluate(window), backfill[session])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_start_date_and_other_symbols_never_matter(seed, data):
    features = mixed()
    panel = rough_panel(seed, sessions=features.lookback + 20, roughness=data.draw(st.sampled_from([0.0, 0.1, 0.5])))
    chosen = data.draw(st.lists(st.sampled_from(panel.symbols), min_size=1, max_size=9))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, panel.sessions.size - 1)] * 2)))

    part = features.evaluate_range(
        panel, panel.sessions[first].astype(object), panel.sessions[last].astype(object), chosen
    )

    assert_same_bits(part, whole(features, panel)[first : last + 1][:, panel.rows(chosen)])


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    lanes=st.integers(1, 9),
    chunk=st.integers(1, 100),
    threads=st.integers(1, 4),
    start=st.integers(0, 60),
    count=st.integers(0, 60),
)
def test_blocks_chunks_and_threads_never_matter(seed, lanes, chunk, threads, start, count):
    features, panel = mixed(), rough_panel(seed, sessions=120)
    bars = Bars(fields=panel.fields, rows=np.arange(6), first=panel.first, sessions=120)

    cut = evaluate(features.program, bars, start, count, threads=threads, cut=Cut(lanes=lanes, chunk=chunk))

    assert_same_bits(cut, whole(features, panel)[start : start + count])


def test_bars_outside_the_lookback_never_matter():
    features, panel = mixed(), rough_panel(3, sessions=mixed().lookback + 30)
    day, stop = panel.sessions[-1].astype(object), panel.sessions.size - features.lookback
    spoiled = {name: values.copy() for name, values in panel.fields.items()}
    for values in spoiled.values():
        values[:, :stop] = 1e30

    answer = whole(features, replace(panel, fields=spoiled))[-1]

    assert_same_bits(answer, features.evaluate(panel.window(panel.symbols, day, features.lookback)))


def test_the_lookback_is_not_longer_than_needed():
    features, panel = define("one", [("a", "Mean(Ref($close, 2), 5)")]), rough_panel(3, roughness=0.0)
    spoiled = {name: values.copy() for name, values in panel.fields.items()}
    spoiled["close"][:, -features.lookback] += 1.0

    changed = whole(features, replace(panel, fields=spoiled))[-1]

    assert features.lookback == 7
    assert (changed[:4] != whole(features, panel)[-1][:4]).all()


def test_a_longer_window_than_the_lookback_gives_the_same():
    features, panel = feature_set("alpha158"), rough_panel(11, sessions=150)
    day = panel.sessions[140].astype(object)

    alone, longer = (features.evaluate(panel.window(panel.symbols, day, n)) for n in (features.lookback, 120))

    assert_same_bits(alone, longer)


def test_a_column_has_the_same_bits_in_any_company():
    panel = rough_panel(5)

    together = whole(mixed(), panel)

    for place, column in enumerate(COLUMNS):
        alone = whole(define("alone", [column], expanding=40), panel)
        assert_same_bits(alone[:, :, 0], together[:, :, place])


def test_another_process_computes_the_same_bits():
    code = (
        "import hashlib, sys; from tests.unit.expressions.test_bit_identity import bits, mixed, whole;"
        "from tests.support.rough_panels import rough_panel;"
        "sys.stdout.write(hashlib.sha256(bits(whole(mixed(), rough_panel(9), threads=3)).tobytes()).hexdigest())"
    )

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert other.stdout == hashlib.sha256(bits(whole(mixed(), rough_panel(9))).tobytes()).hexdigest()
