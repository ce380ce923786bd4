"""Explanations: which features moved a prediction, by LightGBM's own SHAP contributions.

Owns: the choice of the features named, the remainder that makes the sum come out, the check that it may.
Must not know: requests, wire models, processors; rows come as the booster sees them.
Invariant: base, contributions and others sum exactly (`math.fsum`) to the prediction, but for half a unit in the last
place of `others`; a model whose contributions mean something else is refused, never rescaled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np

from strategies.errors import NotExplainable
from strategies.market.bars import Float32Array, FloatArray

#: LightGBM adds the trees of a prediction and of its contributions in other orders; what differs by more than this
#: part of the terms' sizes is a transformed output, not rounding (measured on 500 trees: below 1e-15).
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedContribution:
    """What one feature added to a prediction."""

    feature: str
    #: As the booster saw it; None = NaN or infinite.
    value: float | None
    #: In units of the prediction, never 0.
    contribution: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """One row's prediction, taken apart."""

    #: The model's expectation over its training rows.
    base: float
    #: Largest first by absolute value, ties in the order of the feature set.
    named: tuple[NamedContribution, ...]
    #: Sum of all other features' contributions, and of what rounding left.
    others: float


def explain_rows(
    booster: lgb.Booster, features: Float32Array, predictions: FloatArray, names: Sequence[str], *, count: int
) -> tuple[Attribution, ...]:
    """Return why each row has its prediction.

    Args:
        booster: A model of one output.
        features: Processed features, `[rows, features]`.
        predictions: The booster's own output for the same rows, `[rows]`.
        names: Of the features, in order.
        count: Features named a row at most; those that contributed 0 are never named.

    Raises:
        NotExplainable: The booster has no contributions (linear trees), or they do not sum to its predictions (an
            objective that transforms its output, averaged trees).

    Source: Lundberg, Erion, Lee (2018): consistent individualised feature attribution for tree ensembles.
    """
    if not len(features):
        return ()
    try:
        contributions = booster.predict(np.ascontiguousarray(features), pred_contrib=True, num_threads=1)
    except lgb.basic.LightGBMError as error:
        raise NotExplainable(f"the model's predictions cannot be taken apart: {error}") from error
    _require_sums(contributions, predictions)
    return tuple(
        _attribution(contributions[row], features[row], float(predictions[row]), names, count)
        for row in range(len(contributions))
    )


def _require_sums(contributions: FloatArray, predictions: FloatArray) -> None:
    gaps = np.abs(contributions.sum(axis=1) - predictions)
    sizes = np.abs(contributions).sum(axis=1) + np.abs(predictions)
    wrong = ~(gaps <= TOLERANCE * sizes)
    if wrong.any():
        row = int(wrong.argmax())
        raise NotExplainable(
            f"the model's contributions sum to {contributions[row].sum():.6g} where it predicts "
            f"{predictions[row]:.6g}: its output is no sum of its trees"
        )


def _attribution(
    contributions: FloatArray, values: Float32Array, prediction: float, names: Sequence[str], count: int
) -> Attribution:
    base, of_features = float(contributions[-1]), contributions[:-1]
    order = np.argsort(-np.abs(of_features), kind="stable")[:count]
    named = tuple(
        NamedContribution(
            feature=names[index],
            value=float(values[index]) if math.isfinite(values[index]) else None,
            contribution=float(of_features[index]),
        )
        for index in order.tolist()
        if of_features[index] != 0
    )
    others = math.fsum((prediction, -base, *(-each.contribution for each in named)))
    return Attribution(base=base, named=named, others=others)
