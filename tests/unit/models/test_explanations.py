import math
from fractions import Fraction

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import NotExplainable
from strategies.models.explanations import explain_rows

FEATURES = 12
NAMES = tuple(f"F{number}" for number in range(FEATURES))


def make_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, FEATURES)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def make_booster(*, rounds=60, labels=None, **parameters):
    rows = make_rows(600)
    labels = np.nan_to_num(rows[:, :4]).sum(axis=1) * 0.01 if labels is None else labels
    given_parameters = {"verbosity": -1, "num_threads": 1, "seed": 1, "num_leaves": 15, "min_data_in_leaf": 5}
    data = lgb.Dataset(rows, labels, feature_name=list(NAMES))
    booster = lgb.train(given_parameters | parameters, data, num_boost_round=rounds)
    return lgb.Booster(model_str=booster.model_to_string())


BOOSTER = make_booster()


def explain(rows, count=3, booster=BOOSTER):
    predictions = booster.predict(rows, num_threads=1)
    return predictions, explain_rows(booster, rows, predictions, NAMES, count=count)


def half_a_unit(value):
    return Fraction(math.ulp(value)) / 2


@pytest.mark.parametrize("count", [0, 1, 5, FEATURES, 50])
def test_parts_sum_to_the_prediction_on_many_rows(count):
    predictions, attributions = explain(make_rows(2000, seed=7), count)

    for prediction, one in zip(predictions.tolist(), attributions, strict=True):
        parts = [one.base, *(named.contribution for named in one.named), one.others]
        assert abs(sum(map(Fraction, parts)) - Fraction(prediction)) <= half_a_unit(one.others)
        assert math.fsum(parts) == pytest.approx(prediction, rel=1e-14, abs=1e-17)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-12, 1e12), count=st.integers(0, FEATURES))
def test_contributions_sum_for_values_of_any_size(seed, size, count):
    rows = (make_rows(3, seed) * np.float32(size)).astype(np.float32)

    predictions, attributions = explain(rows, count)

    for prediction, one in zip(predictions.tolist(), attributions, strict=True):
        parts = [one.base, *(named.contribution for named in one.named), one.others]
        assert abs(sum(map(Fraction, parts)) - Fraction(prediction)) <= half_a_unit(one.others)


def test_features_that_moved_the_prediction_most_are_named_first():
    rows = make_rows(50, seed=3)
    whole = BOOSTER.predict(rows, pred_contrib=True, num_threads=1)

    _, attributions = explain(rows, 4)

    for row, one in enumerate(attributions):
        sizes = [abs(named.contribution) for named in one.named]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes == sorted(np.abs(whole[row, :-1]), reverse=True)[:4]
        assert [whole[row, NAMES.index(named.feature)] for named in one.named] == [
            named.contribution for named in one.named
        ]


def test_feature_that_contributed_nothing_is_not_named():
    stumps = make_booster(rounds=1, num_leaves=2)

    _, attributions = explain(make_rows(20), 5, stumps)

    assert {len(one.named) for one in attributions} == {1}


def test_value_is_the_one_the_model_saw():
    rows = make_rows(3, seed=5)
    rows[0], rows[1, :4] = np.nan, np.inf

    _, attributions = explain(rows, FEATURES)

    assert {named.value for named in attributions[0].named} == {None}
    assert [named.value for named in attributions[1].named if named.feature in NAMES[:4]] == [None] * 4
    seen = {named.feature: named.value for named in attributions[2].named}
    assert seen == {
        name: None if np.isnan(rows[2, at]) else float(rows[2, at]) for at, name in enumerate(NAMES) if name in seen
    }
    assert None not in [value for name, value in seen.items() if not np.isnan(rows[2, NAMES.index(name)])]


def test_one_row_alone_is_explained_as_among_others():
    rows = make_rows(40, seed=9)

    _, together = explain(rows)

    assert together == tuple(explain(rows[row : row + 1])[1][0] for row in range(len(rows)))


def test_no_rows_have_no_explanations():
    assert explain_rows(BOOSTER, make_rows(0), np.empty(0), NAMES, count=3) == ()


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "poisson"},
        {"objective": "binary", "labels": (np.arange(600) % 3 == 0).astype(float)},
        {"reg_sqrt": True},
        {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
    ],
    ids=lambda parameters: str(next(iter(parameters.values()))),
)
def test_output_that_is_no_sum_of_trees_is_refused(parameters):
    counts = np.arange(600) % 7 + 0.5
    booster = make_booster(rounds=10, **{"labels": counts, **parameters})

    with pytest.raises(NotExplainable, match="where it predicts"):
        explain(make_rows(10), booster=booster)


def test_model_with_linear_trees_is_refused():
    booster = make_booster(rounds=3, linear_tree=True)

    with pytest.raises(NotExplainable, match="linear trees"):
        explain(make_rows(10), booster=booster)
