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
from lightgbm.callback import CallbackEnv, EarlyStopException
from numpy.typing import NDArray

from strategies.errors import TrainingError
from strategies.expressions.feature_sets import FeatureSet
from strategies.files import release
from strategies.market.bars import FloatArray, IntArray
from strategies.models.bundle import Scorer, check_booster
from strategies.models.bundle_store import parse_booster
from strategies.models.configuration import TrainingConfig
from strategies.models.correlations import correlations
from strategies.models.folds import Fold
from strategies.models.processors import Fillna, Scaling, apply_processors, fit_processors
from strategies.models.samples import Progress, Samples, relevance, transform_labels


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
        known = np.isfinite(labels) & np.array([~np.isnan(rows).all(axis=1) for rows in samples.features])
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
    #: `early_stopping_metric` of the validation rows after each round, `[rounds]`.
    validation: tuple[float, ...]
    train_rows: int
    valid_rows: int


class _Stop:
    """Ends boosting where the validation rows have not improved for some rounds; LightGBM's own has no least round."""

    order = 30
    before_iteration = False

    def __init__(self, *, patience: int, least: int) -> None:
        self.values: list[float] = []
        self._patience, self._least = patience, least
        self._best, self._best_round = -np.inf, least

    def __call__(self, environment: CallbackEnv) -> None:
        _, _, value, higher_is_better, *_ = environment.evaluation_result_list[0]
        self.values.append(float(value))
        done, score = environment.iteration + 1, value if higher_is_better else -value
        if done >= self._least and score > self._best:
            self._best, self._best_round = score, done
        if done - self._best_round >= self._patience or done == environment.end_iteration:
            raise EarlyStopException(self._best_round - 1, environment.evaluation_result_list)


def fit_model(
    samples: Samples, rows: Rows, config: TrainingConfig, names: Sequence[str], report: Progress | None = None
) -> Fit:
    """Return the booster of these rows; `report` is called with the stage `rounds`."""
    raw = samples.features[rows.train]
    release(samples.features)  # until they are evaluated: boosting needs the memory
    processors = fit_processors(config.processors, raw)
    parameters = config.lightgbm_parameters()
    labels = relevance(rows.labels, config.relevance_levels) if config.ranks else rows.labels
    train = lgb.Dataset(
        apply_processors(processors, raw),
        labels[rows.train],
        group=_groups(rows.train) if config.ranks else None,
        feature_name=list(names),
        params=parameters,
    ).construct()
    del raw  # in bins now: the rows of both periods and the bins' samples would be in memory together
    valid = lgb.Dataset(
        apply_processors(processors, samples.features[rows.valid]),
        labels[rows.valid],
        group=_groups(rows.valid) if config.ranks else None,
        reference=train,
    ).construct()
    release(samples.features)
    stop = _Stop(patience=config.early_stopping_rounds, least=config.min_rounds)
    booster = lgb.train(
        parameters,
        train,
        num_boost_round=config.rounds,
        # Without the training rows: their loss never stops falling, so it would never stop the boosting.
        valid_sets=[valid],
        valid_names=["valid"],
        feval=None if config.early_stopping_metric == "l2" else _correlation(rows, config.early_stopping_metric),
        callbacks=[stop, *([_rounds(report, config.rounds)] if report else [])],
    )
    if report:
        report("rounds", booster.current_iteration(), booster.current_iteration())
    return Fit(
        model=booster.model_to_string(num_iteration=booster.best_iteration),
        processors=processors,
        best_iteration=booster.best_iteration,
        validation=tuple(stop.values),
        train_rows=int(rows.train.sum()),
        valid_rows=int(rows.valid.sum()),
    )


def _groups(rows: NDArray[np.bool_]) -> IntArray:
    """Return the number of rows of each session that has any: a mask takes them session by session."""
    counts = rows.sum(axis=1)
    groups: IntArray = counts[counts > 0]
    return groups


def _correlation(rows: Rows, kind: str) -> Callable[[FloatArray, lgb.Dataset], tuple[str, float, bool]]:
    """Return the mean over the validation sessions of IC or rank IC.

    A session in which all predictions are equal counts as 0: a model that does not tell symbols apart is no better
    than chance there.
    """
    at = rows.valid.any(axis=1)
    known, labels = rows.valid[at], np.where(rows.valid, rows.labels, np.nan)[at]

    def measure(predictions: FloatArray, _: lgb.Dataset) -> tuple[str, float, bool]:
        spread = np.full(known.shape, np.nan)
        spread[known] = predictions
        signal = correlations(spread, labels)
        return kind, float(np.nan_to_num(signal.rank_ic if kind == "rank_ic" else signal.ic).mean()), True

    return measure


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
