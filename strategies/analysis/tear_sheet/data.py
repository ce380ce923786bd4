"""The data of a tear sheet: everything it states of one bundle, computed again from bars.

Owns: which sessions are in sample and which are not, the costs and their source, the comparison with the metrics in the
bundle's manifest.
Must not know: where bundles and snapshots are stored, plots, pages.
Invariant: sessions that training has seen are evaluated apart from the others, with separate books; no cost is omitted
silently.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from strategies.analysis.evaluation import EvaluationResult, EvaluationSpec, evaluate
from strategies.analysis.quantiles import Quantiles, measure_quantiles
from strategies.analysis.tear_sheet.measures import (
    Calibration,
    Importance,
    calibrate,
    further_figures,
    importances,
    session_range,
    split_at_test,
)
from strategies.construction import Construction
from strategies.errors import TrainingError
from strategies.market.bars import Panel
from strategies.models.bundle import Bundle
from strategies.models.configuration import DEFAULT_COST_BPS
from strategies.models.folds import period_of
from strategies.models.manifest import BundleManifest, Period
from strategies.models.samples import Progress, Samples, SampleSpec, compute_samples

CostSource = Literal["given", "bundle", "assumed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What trading and borrowing cost, and where the figures come from."""

    #: Basis points of each unit of weight bought or sold.
    cost_bps: float
    #: Basis points a year of each unit of weight held short.
    borrow_bps_a_year: float
    #: `given` with the command, stated by the `bundle`, or `assumed`.
    source: CostSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Sessions and costs that were asked for; None = those of the bundle."""

    first: date | None = None
    last: date | None = None
    cost_bps: float | None = None
    borrow_bps_a_year: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Sessions on one side of the start of the test period."""

    #: Whether training has seen these sessions, so that their figures are no evidence.
    in_sample: bool
    period: Period
    result: EvaluationResult
    #: Those of `evaluation.metrics`, then those of `measures.further_figures` and `rank_autocorrelation`.
    figures: dict[str, float | None]
    quantiles: Quantiles
    calibration: Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class TearSheetData:
    """All that a tear sheet states."""

    bundle: Bundle
    manifest: BundleManifest
    #: Of the bars that the model was evaluated on.
    snapshot_id: str
    costs: Costs
    code_version: str
    #: In order of time, in sample first; at least one.
    segments: tuple[Segment, ...]
    #: The largest gain first.
    importance: tuple[Importance, ...]
    #: Figures that the bundle states of its test period: name, stated, found here; None = not the same sessions or
    #: bars, or other costs were given, so there is nothing to compare.
    compared: tuple[tuple[str, float | None, float | None], ...] | None


def tear_sheet_data(
    bundle: Bundle, panel: Panel, scope: Scope, *, code_version: str, progress: Progress | None = None
) -> TearSheetData:
    """Return what the bundle was worth on these bars.

    Features, processors and predictions come from the code that serves; a prediction is made where training made one.
    IC compares with the bundle's label as training transformed it, quantiles and calibration with the label
    itself, books with the return of one session.

    Args:
        bundle: With a manifest.
        panel: Bars of its universe at least.
        scope: Sessions and costs that differ from the bundle's own.
        code_version: Written onto the page.
        progress: Called with the stage `features` (sessions).

    Raises:
        TrainingError: A bare model, no session in the period, or bars without a field that features need.
        UnknownSymbols: The panel lacks a symbol of the universe.
    """
    manifest = bundle.manifest
    if manifest is None:
        raise TrainingError(
            f"{bundle.strategy} {bundle.version} is a bare model: it does not say what it was trained on"
        )
    test, costs = manifest.training.test, costs_of(manifest, scope)
    first, last = scope.first or test.first, scope.last or test.last
    period = session_range(panel.sessions, np.datetime64(first, "D"), np.datetime64(last, "D"))
    rows, spec = _specs(manifest, costs)
    samples = compute_samples(panel, bundle.feature_set, rows, period, progress or _no_progress)
    seen, unseen = split_at_test(samples.sessions, manifest.training)
    segments = tuple(
        _segment(bundle, samples, spec, sessions, in_sample=in_sample)
        for in_sample, sessions in ((True, seen), (False, unseen))
        if sessions.stop > sessions.start
    )
    return TearSheetData(
        bundle=bundle,
        manifest=manifest,
        snapshot_id=panel.snapshot_id,
        costs=costs,
        code_version=code_version,
        segments=segments,
        importance=importances(bundle.booster, bundle.feature_set.names),
        compared=_compare(manifest, panel.snapshot_id, costs, segments),
    )


def costs_of(manifest: BundleManifest, scope: Scope) -> Costs:
    """Return the costs asked for, else those that the bundle states, else the default."""
    stated = manifest.costs or manifest.settings
    given = scope.cost_bps is not None or scope.borrow_bps_a_year is not None
    cost_bps = scope.cost_bps if scope.cost_bps is not None else stated.cost_bps if stated else DEFAULT_COST_BPS
    borrow = scope.borrow_bps_a_year
    if borrow is None:
        borrow = stated.borrow_bps_a_year if stated else 0.0
    return Costs(
        cost_bps=cost_bps,
        borrow_bps_a_year=borrow,
        source="given" if given else "bundle" if stated else "assumed",
    )


def _specs(manifest: BundleManifest, costs: Costs) -> tuple[SampleSpec, EvaluationSpec]:
    """Return rows and evaluation as the bundle's training had them, at these costs."""
    settings, sides = manifest.settings, manifest.construction
    samples = SampleSpec(
        label=manifest.label,
        universe=manifest.training.universe,
        require_full_history=settings.require_full_history if settings else True,
    )
    return samples, EvaluationSpec(
        label_processor=settings.label_processor if settings else "none",
        construction=Construction(top_n=sides.top_n, bottom_n=sides.bottom_n),
        cost_bps=costs.cost_bps,
        borrow_bps_a_year=costs.borrow_bps_a_year,
    )


def _segment(bundle: Bundle, samples: Samples, spec: EvaluationSpec, period: slice, *, in_sample: bool) -> Segment:
    result = evaluate(bundle, samples, period, spec)
    outcomes = samples.labels[period]
    quantiles = measure_quantiles(result.sessions, samples.symbols, result.predictions, outcomes)
    figures = result.metrics | further_figures(result, spec.cost_bps)
    return Segment(
        in_sample=in_sample,
        period=period_of(samples.sessions, period),
        result=result,
        figures=figures | {"rank_autocorrelation": quantiles.rank_autocorrelation},
        quantiles=quantiles,
        calibration=calibrate(result.predictions, outcomes),
    )


def _compare(
    manifest: BundleManifest, snapshot_id: str, costs: Costs, segments: tuple[Segment, ...]
) -> tuple[tuple[str, float | None, float | None], ...] | None:
    segment = segments[-1]
    same = snapshot_id == manifest.training.snapshot_id and segment.period == manifest.training.test
    if segment.in_sample or not same or costs.source == "given":
        return None
    stated = manifest.walk_forward.final_metrics if manifest.walk_forward else manifest.metrics
    return tuple((name, value, segment.figures.get(name)) for name, value in stated.items())


def _no_progress(_stage: str, _done: int, _total: int) -> None:
    return
