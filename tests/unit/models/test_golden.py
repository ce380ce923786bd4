"""Golden rows: which are chosen, and what a replay compares."""

from dataclasses import replace

import numpy as np
import pytest

from strategies.errors import GoldenSampleMismatch, MalformedModel
from strategies.models.bundle import Scorer
from strategies.models.bundle_store import parse_booster
from strategies.models.golden import MAX_ROWS, MIN_ROWS, choose_rows, replay_golden
from strategies.models.tables import decode_golden, decode_reference, encode_golden, encode_reference
from tests.support.models import make_content


def scorer() -> Scorer:
    from strategies.expressions.feature_sets import feature_set  # noqa: PLC0415 - compiled once, in the process

    booster = parse_booster(make_content().model.encode())
    return Scorer(feature_set=feature_set("alpha158"), processors=(), booster=booster)


def features_with_gaps(seed=0, sessions=60, symbols=7, columns=9):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(sessions, symbols, columns)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    listed = np.arange(1, sessions + 1)[:, None] - rng.integers(0, 40, symbols)[None, :]
    return features, listed


def test_chosen_rows_hold_the_range_of_each_feature():
    features, listed = features_with_gaps()

    rows = choose_rows(features, listed, seed=1)
    chosen = features[rows[:, 0], rows[:, 1]]
    existing = features[listed >= 1]

    assert np.nanmin(chosen, axis=0).tolist() == np.nanmin(existing, axis=0).tolist()
    assert np.nanmax(chosen, axis=0).tolist() == np.nanmax(existing, axis=0).tolist()
    assert np.isnan(chosen).any(axis=0).all()


def test_chosen_rows_exist_are_unique_and_enough():
    features, listed = features_with_gaps()

    rows = choose_rows(features, listed, seed=1)

    assert MIN_ROWS <= len(rows) <= MAX_ROWS
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)
    assert (listed[rows[:, 0], rows[:, 1]] >= 1).all()
    assert {1, 2, 5, 10, 20} <= set(listed[rows[:, 0], rows[:, 1]].tolist())
    assert rows.tolist() == choose_rows(features, listed, seed=1).tolist()


def test_chosen_rows_stay_below_the_limit():
    features, listed = features_with_gaps(sessions=200, symbols=20, columns=400)

    assert len(choose_rows(features, listed, seed=1)) == MAX_ROWS


def test_golden_sample_of_training_holds_short_histories_and_gaps():
    golden = make_content().golden

    histories = {int(window.sessions.size - window.first[0]) for window in golden.windows}

    assert {1, 2, 3, 5, 10, 20, 30, 59, 60, 61} <= histories
    assert np.isnan(golden.features).any()
    assert np.isfinite(golden.predictions).all()


def test_golden_sample_survives_parquet_bit_for_bit():
    content = make_content()
    names = content.lineage.feature_set.names

    read = decode_golden(encode_golden(content.golden, names), names)

    assert read.features.tobytes() == content.golden.features.tobytes()
    assert read.predictions.tobytes() == content.golden.predictions.tobytes()
    for was, window in zip(read.windows, content.golden.windows, strict=True):
        assert (was.symbols, was.as_of, was.first.tolist()) == (window.symbols, window.as_of, window.first.tolist())
        assert was.fields.keys() == window.fields.keys()
        for name, values in was.fields.items():
            assert values.tobytes() == window.fields[name].tobytes()


def test_reference_survives_parquet():
    reference = make_content().reference

    assert decode_reference(encode_reference(reference)) == reference
    assert [each.name for each in reference][-1] == "prediction"


def test_replay_accepts_what_training_saw():
    replay_golden(scorer(), make_content().golden)


def test_replay_notices_one_changed_bar():
    golden = make_content().golden
    window = golden.windows[40]
    close = window.fields["close"].copy()
    close[0, -1] *= 1.001
    changed = replace(window, fields={**window.fields, "close": close})

    with pytest.raises(GoldenSampleMismatch, match=f"KMID of {window.symbols[0]} on {window.as_of}"):
        replay_golden(scorer(), replace(golden, windows=(*golden.windows[:40], changed, *golden.windows[41:])))


def test_replay_tells_zero_from_negative_zero():
    golden = make_content().golden
    zeros = np.argwhere(golden.features == 0)
    features = golden.features.copy()
    features[tuple(zeros[0])] *= -1

    with pytest.raises(GoldenSampleMismatch, match=r"expected -0\.0, was 0\.0|expected 0\.0, was -0\.0"):
        replay_golden(scorer(), replace(golden, features=features))


def test_model_that_predicts_nothing_finite_is_refused():
    class Silent(Scorer):
        def predict(self, features):
            return np.full(len(features), np.nan)

    real = scorer()
    silent = Silent(feature_set=real.feature_set, processors=(), booster=real.booster)

    with pytest.raises(MalformedModel, match="is nan, not finite"):
        replay_golden(silent, make_content().golden)
