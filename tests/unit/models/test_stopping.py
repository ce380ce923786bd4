"""What boosting learns and by what it stops: objectives, labels as quantiles, correlations over sessions."""

import numpy as np
import pytest
from pydantic import ValidationError

from strategies.expressions.feature_sets import feature_set
from strategies.models.bundle_store import parse_booster
from strategies.models.configuration import TrainingConfig
from strategies.models.correlations import correlations
from strategies.models.folds import plan_folds
from strategies.models.samples import SampleSpec, compute_samples, relevance
from strategies.models.training import Rows, fit_model
from tests.support.models import make_training_panel

FEATURES = feature_set("alpha158")


@pytest.fixture(scope="module")
def panel():
    return make_training_panel()


@pytest.fixture(scope="module")
def samples(panel):
    config = TrainingConfig()
    return compute_samples(
        panel, FEATURES, SampleSpec.of(config), plan_folds(panel.sessions, config).span, lambda *_: None
    )


def rows_of(samples, panel, config):
    return Rows.of(samples, plan_folds(panel.sessions, config).final, config)


def fitted(samples, panel, **fields):
    config = TrainingConfig(**{"rounds": 30, "num_threads": 1, **fields})
    return fit_model(samples, rows_of(samples, panel, config), config, FEATURES.names)


@pytest.mark.parametrize("metric", ["rank_ic", "ic"])
def test_metric_is_the_mean_correlation_over_the_validation_sessions(samples, panel, metric):
    fit = fitted(samples, panel, early_stopping_metric=metric, early_stopping_rounds=30)
    rows = rows_of(samples, panel, TrainingConfig())
    spread = np.full(rows.valid.shape, np.nan)
    booster = parse_booster(fit.model.encode())
    spread[rows.valid] = booster.predict(samples.features[rows.valid], num_iteration=fit.best_iteration)

    found = getattr(correlations(spread, rows.labels), metric)[rows.valid.any(axis=1)]

    assert fit.validation[fit.best_iteration - 1] == pytest.approx(np.nan_to_num(found).mean(), abs=1e-12)
    assert max(fit.validation) == fit.validation[fit.best_iteration - 1]


@pytest.mark.parametrize("metric", ["rank_ic", "ic", "l2"])
def test_at_least_the_rounds_asked_for_are_kept(samples, panel, metric):
    fit = fitted(samples, panel, early_stopping_metric=metric, early_stopping_rounds=2, min_rounds=12)

    assert fit.best_iteration >= 12
    assert parse_booster(fit.model.encode()).num_trees() == fit.best_iteration
    best = max if metric != "l2" else min
    assert fit.validation[fit.best_iteration - 1] == best(fit.validation[11:])


def test_boosting_stops_after_rounds_without_gain(samples, panel):
    fit = fitted(samples, panel, rounds=400, early_stopping_rounds=5)

    assert len(fit.validation) == fit.best_iteration + 5
    assert min(fit.validation) == fit.validation[fit.best_iteration - 1]


@pytest.mark.parametrize("objective", ["lambdarank", "rank_xendcg"])
def test_ranking_objective_learns_the_order_and_is_the_same_twice(samples, panel, objective):
    asked = {"objective": objective, "early_stopping_metric": "rank_ic", "min_rounds": 5}

    fit, again = fitted(samples, panel, **asked), fitted(samples, panel, **asked)

    assert fit.model == again.model
    assert f"objective={objective}" in fit.model
    rows = rows_of(samples, panel, TrainingConfig())
    spread = np.full(rows.train.shape, np.nan)
    spread[rows.train] = parse_booster(fit.model.encode()).predict(samples.features[rows.train])
    assert np.nanmean(correlations(spread, rows.labels).rank_ic) > 0.1


def test_labels_become_quantiles_of_their_session():
    labels = np.array([[0.3, -0.1, 0.2, np.nan, 0.0], [5.0, 5.0, 5.0, 5.0, np.nan], [np.nan] * 5])

    found = relevance(labels, 2)

    np.testing.assert_array_equal(found[0], [1, 0, 1, np.nan, 0])
    assert np.unique(found[1, :4]).size == 1
    assert np.isnan(found[2]).all()
    assert np.bincount(relevance(np.arange(100.0)[None], 10)[0].astype(int)).tolist() == [10] * 10


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objective": "lambdarank", "early_stopping_metric": "l2"}, "early_stopping_metric is rank_ic or ic"),
        ({"rounds": 10, "min_rounds": 11}, "min_rounds 11 is more than rounds 10"),
        ({"relevance_levels": 32}, "less than or equal to 31"),
        ({"early_stopping_metric": "auc"}, "'rank_ic', 'ic' or 'l2'"),
        ({"objective": "binary"}, "'lambdarank'"),
        ({"parameters": {"objective": "lambdarank"}}, "parameters may not set objective"),
        ({"parameters": {"application": "lambdarank"}}, "parameters may not set application"),
        ({"parameters": {"metric": "ndcg"}}, "parameters may not set metric"),
        ({"parameters": {"eta": 0.5}}, "parameters may not set eta"),
    ],
)
def test_configuration_that_contradicts_itself_is_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        TrainingConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"label_processor": "none", "objective": "regression"}, "return"),
        ({"label_processor": "cs_rank"}, "score"),
        ({"label_processor": "none", "objective": "lambdarank", "early_stopping_metric": "rank_ic"}, "score"),
    ],
)
def test_predictions_are_called_returns_only_where_they_are(fields, kind):
    assert TrainingConfig(**fields).prediction_kind == kind
