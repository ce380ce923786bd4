"""Golden rows: which are chosen, and what a replay compares."""

from dataclasses import replace

import numpy as np
import pytest

from strategies.errors import GoldenSampleMismatch, MalformedModel
from strategies.models.bundle import Scorer
from strategies.models.bundle_files import SIZE_LIMITS
from strategies.models.bundle_store import parse_booster
from strategies.models.golden import (
    MIN_ROWS,
    SHORT_HISTORIES,
    choose_rows,
    most_rows,
    replay_golden,
)
from strategies.models.tables import decode_golden, decode_reference, encode_golden, encode_reference
from tests.support.models import make_content

#: More than small samples hold.
MOST = 512


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


def test_chosen_rows_cover_the_range_of_each_feature():
    features, listed = features_with_gaps()

    rows = choose_rows(features, listed, seed=1, most=MOST)
    chosen = features[rows[:, 0], rows[:, 1]]
    existing = features[listed >= 1]

    assert np.nanmin(chosen, axis=0).tolist() == np.nanmin(existing, axis=0).tolist()
    assert np.nanmax(chosen, axis=0).tolist() == np.nanmax(existing, axis=0).tolist()
    assert np.isnan(chosen).any(axis=0).all()


def test_chosen_rows_exist_are_unique_and_enough():
    features, listed = features_with_gaps()

    rows = choose_rows(features, listed, seed=1, most=MOST)

    assert MIN_ROWS <= len(rows) <= most_rows(9, 305)
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)
    assert (listed[rows[:, 0], rows[:, 1]] >= 1).all()
    assert {1, 2, 5, 10, 20} <= set(listed[rows[:, 0], rows[:, 1]].tolist())
    assert rows.tolist() == choose_rows(features, listed, seed=1, most=MOST).tolist()


def wide_features():
    """400 independent columns, each with one cell missing."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(200, 20, 400)).astype(np.float32)
    listed = np.broadcast_to(np.arange(1, 201)[:, None] - np.arange(20)[None, :] * 3, (200, 20))
    cells = rng.permutation(np.flatnonzero(listed >= 1))[:400]
    features[*np.divmod(cells, 20), np.arange(400)] = np.nan
    return features, listed


def test_every_column_of_a_wide_feature_set_is_covered():
    features, listed = wide_features()

    rows = choose_rows(features, listed, seed=1, most=most_rows(400, 305))
    chosen, existing = features[rows[:, 0], rows[:, 1]], features[listed >= 1]

    assert np.nanmin(chosen, axis=0).tolist() == np.nanmin(existing, axis=0).tolist()
    assert np.nanmax(chosen, axis=0).tolist() == np.nanmax(existing, axis=0).tolist()
    assert np.isnan(chosen).any(axis=0).all()
    assert set(SHORT_HISTORIES) <= set(listed[rows[:, 0], rows[:, 1]].tolist())


def test_short_histories_gaps_and_last_session_outlast_the_limit():
    features, listed = wide_features()

    rows = choose_rows(features, listed, seed=1, most=450)
    chosen = features[rows[:, 0], rows[:, 1]]

    assert len(rows) == 450
    assert set(SHORT_HISTORIES) <= set(listed[rows[:, 0], rows[:, 1]].tolist())
    assert np.isnan(chosen).any(axis=0).all()
    assert (rows[:, 0] == 199).sum() >= 4


@pytest.mark.parametrize(("columns", "bars"), [(4096, 6 * 61), (4096, 6 * 250), (1, 6 * 10_000), (158, 5 * 61)])
def test_largest_sample_fits_into_its_file(columns, bars):
    rows = most_rows(columns, bars)

    assert rows >= MIN_ROWS
    # As parquet, random numbers take up to a third more than they are.
    assert rows * (4 * columns + 8 * bars) * 4 / 3 <= SIZE_LIMITS["golden.parquet"]
    assert rows >= min(3 * columns, 512)


def test_golden_sample_contains_short_histories_and_gaps():
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


def test_replay_distinguishes_zero_from_negative_zero():
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
