"""Walk-forward training: a model for each fold, judged on sessions that it could not know.

Owns: the order of folds, predictions stitched over their test periods, the record of it.
Must not know: where folds lie (`folds`), how one model is fitted (`fitting`), files.
Invariant: each session is predicted by one model, which learnt from nothing at or after the start of its test period.
"""

from dataclasses import dataclass

import numpy as np

from strategies.analysis.evaluation import HeldOut, judge_predictions, predict_period
from strategies.expressions.feature_sets import FeatureSet
from strategies.market.bars import FloatArray, SessionArray
from strategies.models.configuration import TrainingConfig
from strategies.models.folds import Fold, Plan
from strategies.models.manifest import FoldRecord, WalkForwardRecord
from strategies.models.periods import period_of
from strategies.models.samples import Progress, Samples
from strategies.models.training import Fit, Rows, fit_model, scorer_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One fold: its periods, its model's size, and what its predictions were worth."""

    fold: Fold
    fit: Fit
    test: HeldOut


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfSample:
    """All folds, and their test periods taken together."""

    folds: tuple[FoldResult, ...]
    #: Books of the stitched predictions: from one fold to the next only the difference is traded.
    stitched: HeldOut


def walk_forward(
    samples: Samples,
    features: FeatureSet,
    plan: Plan,
    config: TrainingConfig,
    sessions: SessionArray,
    report: Progress,
) -> OutOfSample:
    """Train and judge every fold of a plan.

    Args:
        samples: Of the plan's whole span.
        features: What the samples hold.
        plan: At least one fold.
        config: Parameters, processors, construction and costs.
        sessions: Labels of the panel's sessions, which the plan counts.
        report: Told `folds`.

    Raises:
        TrainingError: A fold has no row to train on, or none to stop by.
        MalformedModel: A fold's model has no trees, or predicts something that is not finite.
    """
    stitched = np.full(samples.eligible.shape, np.nan)
    results = []
    report("folds", 0, len(plan.folds))
    for fold in plan.folds:
        result = _train_fold(samples, features, fold, config, sessions)
        stitched[samples.within(fold.split.test)] = result.test.predictions
        results.append(result)
        report("folds", len(results), len(plan.folds))
    return OutOfSample(folds=tuple(results), stitched=_judge_stitched(stitched, samples, plan, config, sessions))


def record_of(
    outcome: OutOfSample, plan: Plan, config: TrainingConfig, final: HeldOut, sessions: SessionArray
) -> WalkForwardRecord:
    """Return what a bundle states of its folds."""
    rule = config.walk_forward
    assert rule is not None  # noqa: S101 - there are folds because it asks for them
    return WalkForwardRecord(
        window="listed" if rule.folds else rule.lengths.window,
        purge_sessions=config.gap,
        embargo_sessions=rule.embargo_sessions,
        folds=tuple(_fold_record(result, sessions) for result in outcome.folds),
        final_embargoed_sessions=plan.final.embargoed_sessions,
        final_metrics=final.metrics,
    )


def _train_fold(
    samples: Samples, features: FeatureSet, fold: Fold, config: TrainingConfig, sessions: SessionArray
) -> FoldResult:
    fit = fit_model(samples, Rows.of(samples, fold, config), config, features.names)
    period = samples.within(fold.split.test)
    predictions = predict_period(scorer_of(fit, features), samples, period)
    at = np.arange(period.start, period.stop, dtype=np.int64)
    test = judge_predictions(predictions, samples, at, config, sessions[fold.split.test])
    return FoldResult(fold=fold, fit=fit, test=test)


def _judge_stitched(
    predictions: FloatArray, samples: Samples, plan: Plan, config: TrainingConfig, sessions: SessionArray
) -> HeldOut:
    at = plan.tested - samples.offset
    return judge_predictions(predictions[at], samples, at, config, sessions[plan.tested])


def _fold_record(result: FoldResult, sessions: SessionArray) -> FoldRecord:
    periods = {name: period_of(sessions, period) for name, period in result.fold.split}
    return FoldRecord(
        train=periods["train"],
        valid=periods["valid"],
        test=periods["test"],
        embargoed_sessions=result.fold.embargoed_sessions,
        train_rows=result.fit.train_rows,
        valid_rows=result.fit.valid_rows,
        best_iteration=result.fit.best_iteration,
        metrics=result.test.metrics,
    )
