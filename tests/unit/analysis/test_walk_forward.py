"""Walk-forward training: what the folds are worth, and what they cannot know."""

import json

import numpy as np
import pytest

from strategies.alpha_baseline.train import Provenance, train
from strategies.errors import TrainingError
from strategies.models.bundle_store import load_bundle, save_bundle
from strategies.models.configuration import TrainingConfig
from strategies.models.manifest import BundleManifest
from tests.support.models import SMALL, make_bundle, make_model, make_training_panel, scaled_after

V1 = Provenance(version="v1")
WALKED = TrainingConfig.model_validate(
    SMALL.model_dump()
    | {
        "rounds": 4,
        "borrow_bps_a_year": 50.0,
        "walk_forward": {"train_sessions": 110, "valid_sessions": 20, "test_sessions": 30, "embargo_sessions": 3},
    }
)


def learnt(trained):
    return [fold.fit.model for fold in trained.walk_forward.folds]


def test_metrics_are_those_of_the_stitched_predictions():
    trained = make_model(WALKED)

    outcome, metrics = trained.walk_forward, trained.content.lineage.metrics
    assert len(outcome.folds) == 3
    np.testing.assert_array_equal(
        outcome.stitched.predictions, np.concatenate([fold.test.predictions for fold in outcome.folds])
    )
    np.testing.assert_array_equal(
        outcome.stitched.signal.rank_ic, np.concatenate([fold.test.signal.rank_ic for fold in outcome.folds])
    )
    assert metrics["rank_ic"] == pytest.approx(outcome.stitched.signal.rank_ic.mean())
    assert metrics["rank_ic"] > 0.1
    assert trained.content.lineage.walk_forward.final_metrics == trained.test.metrics != metrics


def test_stitched_book_trades_only_the_difference_between_folds():
    outcome = make_model(WALKED).walk_forward

    firsts = np.cumsum([0, *(len(fold.test.sessions) for fold in outcome.folds[:-1])])
    assert [fold.test.performance.turnover[0] for fold in outcome.folds] == [2.0, 2.0, 2.0]
    assert outcome.stitched.performance.turnover[firsts[0]] == 2.0
    assert (outcome.stitched.performance.turnover[firsts[1:]] != 2.0).any()


def test_no_fold_learns_from_its_test_period_or_later():
    panel = make_training_panel(starts={"ORCL": 100})
    before = make_model(WALKED)
    second = before.walk_forward.folds[1].fold.split.test.start

    after = train(scaled_after(panel, second), WALKED, V1)

    assert learnt(after)[:2] == learnt(before)[:2]
    assert learnt(after)[2] != learnt(before)[2]
    assert after.walk_forward.folds[1].test.metrics != before.walk_forward.folds[1].test.metrics


def test_embargoed_rows_are_learnt_from_by_nobody():
    without = make_model(
        WALKED.model_copy(update={"walk_forward": WALKED.walk_forward.model_copy(update={"embargo_sessions": 0})})
    )
    symbols = 8

    for kept, all_rows in zip(make_model(WALKED).walk_forward.folds, without.walk_forward.folds, strict=True):
        rows = all_rows.fit.train_rows + all_rows.fit.valid_rows - kept.fit.train_rows - kept.fit.valid_rows
        assert rows == kept.fold.embargoed_sessions * symbols
    assert make_model(WALKED).walk_forward.folds[2].fold.embargoed_sessions > 0


def test_bundle_states_folds_costs_and_metrics(tmp_path):
    bundle = load_bundle(save_bundle(tmp_path, make_model(WALKED).content), check=False)

    stated = bundle.manifest.walk_forward
    assert bundle.proven
    assert (stated.window, stated.purge_sessions, stated.embargo_sessions) == ("expanding", 2, 3)
    assert [fold.metrics["rank_ic"] for fold in stated.folds] == [
        fold.test.metrics["rank_ic"] for fold in make_model(WALKED).walk_forward.folds
    ]
    assert all(
        before.test.last < after.test.first for before, after in zip(stated.folds, stated.folds[1:], strict=False)
    )
    assert (bundle.manifest.costs.cost_bps, bundle.manifest.costs.borrow_bps_a_year) == (5.0, 50.0)


def test_bundle_without_folds_states_neither_folds_nor_costs_nor_a_packaging(tmp_path):
    path = make_bundle(tmp_path)

    assert list(json.loads((path / "bundle.json").read_text(encoding="utf-8"))) == [
        name for name in BundleManifest.model_fields if name not in ("costs", "walk_forward", "packaging")
    ]


@pytest.mark.slow
def test_number_of_threads_changes_no_tree():
    models = [make_model(WALKED.model_copy(update={"num_threads": threads})) for threads in (1, 2)]

    trees = [[text.split("\nparameters:")[0] for text in learnt(model)] for model in models]
    assert trees[0] == trees[1]
    assert models[0].content.lineage.metrics == models[1].content.lineage.metrics


def test_fold_without_rows_is_named():
    rule = {"train_sessions": 20, "valid_sessions": 10, "test_sessions": 100}
    config = TrainingConfig.model_validate(SMALL.model_dump() | {"walk_forward": rule})

    with pytest.raises(TrainingError, match="the train period of fold 1 has no row with a label and full history"):
        train(make_training_panel(), config, V1)
