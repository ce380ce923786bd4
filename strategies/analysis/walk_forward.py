"""Walk-forward evaluation: a model for each fold, evaluated on sessions that it could not know.

Owns: the order of folds, predictions stitched over their test periods, the record of it.
Must not know: how folds are chosen (`models.folds`), how one model is fitted (`models.training`), files.
Invariant: each session is predicted by one model, which learnt from nothing at or after the start of its test period.
"""

from dataclasses import dataclass

import numpy as np

from strategies.analysis.evaluation import (
    EvaluationResult,
    EvaluationSpec,
    evaluate_predictions,
    predict_period,
)
from strategies.expressions.feature_sets import FeatureSet
from strategies.models.configuration import TrainingConfig
from strategies.models.folds import Fold, FoldPlan, period_of
from strategies.models.manifest import FoldRecord, WalkForwardRecord
from strategies.models.samples import Progress, Samples
from strategies.models.training import Fit, Rows, fit_model, scorer_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One fold: its periods, its model, and the evaluation of its test period."""

    fold: Fold
    fit: Fit
    test: EvaluationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkForwardResult:
    """All folds, and their test periods taken together."""

    folds: tuple[FoldResult, ...]
    #: Books of the stitched predictions: from one fold to the next only the difference is traded.
    stitched: EvaluationResult


def walk_forward(
    samples: Samples, features: FeatureSet, plan: FoldPlan, config: TrainingConfig, report: Progress
) -> WalkForwardResult:
    """Train and evaluate every fold of a plan.

    Args:
        samples: Of the plan's whole span.
        features: The feature set of the samples.
        plan: At least one fold.
        config: Parameters, processors, construction and costs.
        report: Called with the stage `folds`.

    Raises:
        TrainingError: A fold has no row to train on, or none to stop by.
        MalformedModel: A fold's model has no trees, or predicts something that is not finite.
    """
    spec = EvaluationSpec.of(config)
    stitched = np.full(samples.eligible.shape, np.nan)
    results = []
    report("folds", 0, len(plan.folds))
    for fold in plan.folds:
        fit = fit_model(samples, Rows.of(samples, fold, config), config, features.names)
        test = fold.split.test
        stitched[test] = predict_period(scorer_of(fit, features), samples, test)
        result = evaluate_predictions(stitched[test], samples, np.arange(test.start, test.stop), spec)
        results.append(FoldResult(fold=fold, fit=fit, test=result))
        report("folds", len(results), len(plan.folds))
    return WalkForwardResult(
        folds=tuple(results), stitched=evaluate_predictions(stitched[plan.tested], samples, plan.tested, spec)
    )


def walk_forward_record(
    result: WalkForwardResult, plan: FoldPlan, config: TrainingConfig, final: EvaluationResult, samples: Samples
) -> WalkForwardRecord:
    """Return what a bundle states of its folds."""
    rule = config.walk_forward
    assert rule is not None  # noqa: S101 - there are folds because it asks for them
    return WalkForwardRecord(
        window="listed" if rule.folds else rule.lengths.window,
        purge_sessions=config.gap,
        embargo_sessions=rule.embargo_sessions,
        folds=tuple(_fold_record(each, samples) for each in result.folds),
        final_embargoed_sessions=plan.final.embargoed_sessions,
        final_metrics=final.metrics,
    )


def _fold_record(result: FoldResult, samples: Samples) -> FoldRecord:
    periods = {name: period_of(samples.sessions, period) for name, period in result.fold.split}
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
