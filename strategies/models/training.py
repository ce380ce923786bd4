"""Training: one booster from the rows of one fold.

Owns: which rows are learnt from, the call of LightGBM, when boosting stops.
Must not know: how folds were chosen, how models are evaluated, bundles on disk.
Invariant: the same rows and configuration give the same model text, byte for byte; the validation rows alone decide
when boosting stops.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import lightgbm as lgb
import numpy as np
from lightgbm.callback import CallbackEnv
from numpy.typing import NDArray

from strategies.errors import TrainingError
from strategies.expressions.feature_sets import FeatureSet
from strategies.market.bars import FloatArray, IntArray
from strategies.models.bundle import Scorer, check_booster
from strategies.models.bundle_store import parse_booster
from strategies.models.configuration import TrainingConfig
from strategies.models.folds import Fold
from strategies.models.processors import Fillna, Scaling, apply_processors, fit_processors
from strategies.models.samples import Progress, Samples, transform_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows to learn from, `[sessions, symbols]` each, and their labels."""

    train: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    labels: FloatArray

    @classmethod
    def of(cls, samples: Samples, fold: Fold, config: TrainingConfig) -> Self:
        """Return the rows of a fold whose features have a value and whose label is known.

        Raises:
            TrainingError: There is none to train on, or none to stop by.
        """
        labels = transform_labels(np.where(samples.eligible, samples.labels, np.nan), config.label_processor)
        known = np.isfinite(labels) & ~np.isnan(samples.features).all(axis=2)
        train, valid = (_only(known, sessions) for sessions in (fold.train, fold.valid))
        for name, mask in (("train", train), ("valid", valid)):
            if not mask.any():
                raise TrainingError(f"the {name} period{fold.place} has no row with a label and full history")
        return cls(train=train, valid=valid, labels=labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A fitted model."""

    #: Text of the LightGBM model.
    model: str
    processors: tuple[Scaling | Fillna, ...]
    #: Boosting rounds kept.
    best_iteration: int
    #: Loss on the validation rows after each round, `[rounds]`.
    validation_loss: tuple[float, ...]
    train_rows: int
    valid_rows: int


def fit_model(
    samples: Samples, rows: Rows, config: TrainingConfig, names: Sequence[str], report: Progress | None = None
) -> Fit:
    """Return the booster of these rows; `report` is called with the stage `rounds`."""
    raw = samples.features[rows.train]
    processors = fit_processors(config.processors, raw)
    parameters = config.lightgbm_parameters()
    train = lgb.Dataset(
        apply_processors(processors, raw), rows.labels[rows.train], feature_name=list(names), params=parameters
    )
    valid = lgb.Dataset(
        apply_processors(processors, samples.features[rows.valid]), rows.labels[rows.valid], reference=train
    )
    losses: dict[str, dict[str, list[float]]] = {}
    booster = lgb.train(
        parameters,
        train,
        num_boost_round=config.rounds,
        # Without the training rows: their loss never stops falling, so it would never stop the boosting.
        valid_sets=[valid],
        valid_names=["valid"],
        callbacks=[
            lgb.early_stopping(config.early_stopping_rounds, first_metric_only=True, verbose=False),
            lgb.record_evaluation(losses),
            *([_rounds(report, config.rounds)] if report else []),
        ],
    )
    if report:
        report("rounds", booster.current_iteration(), booster.current_iteration())
    return Fit(
        model=booster.model_to_string(num_iteration=booster.best_iteration),
        processors=processors,
        best_iteration=booster.best_iteration,
        validation_loss=tuple(float(loss) for loss in next(iter(losses["valid"].values()))),
        train_rows=int(rows.train.sum()),
        valid_rows=int(rows.valid.sum()),
    )


def scorer_of(fit: Fit, features: FeatureSet) -> Scorer:
    """Return a fitted model as something that predicts.

    Raises:
        MalformedModel: The model has no trees.
    """
    scorer = Scorer(feature_set=features, processors=fit.processors, booster=parse_booster(fit.model.encode("ascii")))
    check_booster(scorer.booster, features.names)
    return scorer


def _only(known: NDArray[np.bool_], sessions: IntArray) -> NDArray[np.bool_]:
    mask = np.zeros_like(known)
    mask[sessions] = known[sessions]
    return mask


def _rounds(report: Progress, rounds: int) -> Callable[[CallbackEnv], None]:
    def after_round(environment: CallbackEnv) -> None:
        report("rounds", environment.iteration + 1, rounds)

    return after_round
