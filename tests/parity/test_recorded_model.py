"""A model that Qlib trained on Qlib's features: its recorded predictions and books against those from the engine's."""

import json
import lzma

import lightgbm as lgb
import numpy as np
import pyarrow.parquet as pq
import pytest

from strategies.construction import Construction, construct
from strategies.expressions.feature_sets import feature_set
from tests.parity.measurement import whole_range
from tests.parity.panels import demo_panel
from tests.parity.recording import RECORDINGS, input_digest


@pytest.fixture(scope="module")
def recorded():
    table = pq.read_table(RECORDINGS / "model-predictions.parquet")
    booster = lgb.Booster(model_str=lzma.decompress((RECORDINGS / "model.txt.xz").read_bytes()).decode())
    return table, booster


def predicted(booster, precision):
    panel = demo_panel()
    priced = ~np.isnan(panel.fields["close"].T)
    features = whole_range(feature_set("alpha158", precision=precision), panel)
    return booster.predict(features[priced], num_threads=1), priced


def books(predictions, priced):
    everyone, symbols = np.full(priced.shape, np.nan), np.array(demo_panel().symbols)
    everyone[priced] = predictions
    return [
        construct(symbols[at].tolist(), row[at], Construction(top_n=3, bottom_n=3)).weights.tolist()
        for row, at in zip(everyone, priced, strict=True)
    ]


def test_recorded_model_was_trained_by_qlib_on_these_bars(recorded):
    table, booster = recorded

    assert table.schema.metadata[b"input_sha256"].decode() == input_digest(demo_panel())
    assert json.loads(table.schema.metadata[b"made_by"])["pyqlib"]
    assert booster.num_trees() == 100
    assert booster.num_feature() == 158


def test_predictions_from_the_engines_features_are_qlibs(recorded):
    table, booster = recorded
    theirs = table.column("prediction").to_numpy()

    ours, _ = predicted(booster, "qlib")

    np.testing.assert_array_equal(ours, theirs)
    assert np.unique(theirs).size > 10_000


@pytest.mark.parametrize("precision", ["qlib", "float64"])
def test_books_from_the_engines_features_are_qlibs(recorded, precision):
    table, booster = recorded

    ours, priced = predicted(booster, precision)

    mine, theirs = books(ours, priced), books(table.column("prediction").to_numpy(), priced)
    equal = sum(own == other for own, other in zip(mine, theirs, strict=True))
    assert equal >= 0.999 * len(theirs)
    assert len({tuple(book) for book in theirs}) > 20


def test_default_precision_gives_the_most_equal_predictions(recorded):
    table, booster = recorded
    theirs = table.column("prediction").to_numpy()

    exact, wide = (int((predicted(booster, name)[0] == theirs).sum()) for name in ("qlib", "float64"))

    assert exact >= wide
    assert wide >= 0.999 * theirs.size
