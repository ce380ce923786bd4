"""The study of one bundle: everything that its tear sheet states, computed again from bars.

Owns: which sessions are judged on which side of the training, the costs and where they come from, the comparison with
what the bundle states of itself.
Must not know: where bundles and snapshots lie, plots, pages.
Invariant: sessions that training has seen are judged apart from the others, with books of their own; no cost is left
out in silence.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from strategies.analysis.evaluation import HeldOut, judge
from strategies.analysis.tear_sheet.measures import (
    Calibration,
    Importance,
    calibrate,
    divide,
    further_figures,
    importances,
    session_range,
)
from strategies.analysis.tear_sheet.quantiles import Quantiles, measure_quantiles
from strategies.errors import TrainingError
from strategies.market.bars import Panel
from strategies.models.bundle import Bundle
from strategies.models.configuration import TrainingConfig
from strategies.models.manifest import BundleManifest, Period
from strategies.models.samples import Progress, Samples, compute_samples

#: Basis points of each unit of weight traded where nobody says: those that training assumes unless told otherwise.
DEFAULT_COST_BPS: float = TrainingConfig.model_fields["cost_bps"].default

CostSource = Literal["given", "bundle", "assumed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What trading and borrowing cost, and who says so."""

    #: Basis points of each unit of weight bought or sold.
    cost_bps: float
    #: Basis points a year of each unit of weight held short.
    borrow_bps_a_year: float
    #: `given` with the command, stated by the `bundle`, or `assumed`.
    source: CostSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is asked for; None = what the bundle says."""

    first: date | None = None
    last: date | None = None
    cost_bps: float | None = None
    borrow_bps_a_year: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One side of the border: sessions that training has seen, or sessions that it has not."""

    #: Whether training has seen these sessions: what stands here is no evidence.
    seen: bool
    period: Period
    held: HeldOut
    #: Those of `evaluation.metrics`, then those of `tear_sheet.further_figures` and `rank_autocorrelation`.
    figures: dict[str, float | None]
    quantiles: Quantiles
    calibration: Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All that a tear sheet states."""

    bundle: Bundle
    manifest: BundleManifest
    #: Of the bars judged on.
    snapshot_id: str
    costs: Costs
    code_version: str
    #: In order of time: seen before unseen; at least one.
    parts: tuple[Part, ...]
    #: The largest gain first.
    importance: tuple[Importance, ...]
    #: Figures that the bundle states of its test period: name, stated, found here; None = not the same sessions or
    #: bars, or other costs were given, so there is nothing to compare.
    compared: tuple[tuple[str, float | None, float | None], ...] | None


def study_bundle(
    bundle: Bundle, panel: Panel, scope: Scope, *, code_version: str, progress: Progress | None = None
) -> Study:
    """Return what the bundle was worth on these bars.

    Features, processors and predictions come from the code that serves; a prediction is made where training made one.
    IC is held against the bundle's label as training transformed it, quantiles and calibration against the label
    itself, books against the return of one session.

    Args:
        bundle: With a manifest.
        panel: Bars of its universe at least.
        scope: Sessions and costs that differ from the bundle's own.
        code_version: Written onto the page.
        progress: Told `features` (sessions).

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
    config = _config(manifest, costs)
    samples = compute_samples(panel, bundle.feature_set, config, period, progress or _silent)
    borders = divide(panel.sessions, period, manifest.training)
    parts = tuple(
        _part(bundle, samples, panel, config, each, seen=seen)
        for seen, each in ((True, borders.seen), (False, borders.unseen))
        if each.stop > each.start
    )
    return Study(
        bundle=bundle,
        manifest=manifest,
        snapshot_id=panel.snapshot_id,
        costs=costs,
        code_version=code_version,
        parts=parts,
        importance=importances(bundle.booster, bundle.feature_set.names),
        compared=_compare(manifest, panel.snapshot_id, costs, parts),
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


def _config(manifest: BundleManifest, costs: Costs) -> TrainingConfig:
    """Return a configuration that judges as the bundle was judged; nothing is trained with it."""
    settings = manifest.settings
    told = settings.model_dump(include={"label_processor", "require_full_history"}) if settings else {}
    return TrainingConfig(
        **told,
        strategy=manifest.strategy,
        universe=manifest.training.universe,
        label=manifest.label,
        construction=manifest.construction,
        cost_bps=costs.cost_bps,
        borrow_bps_a_year=costs.borrow_bps_a_year,
    )


def _part(bundle: Bundle, samples: Samples, panel: Panel, config: TrainingConfig, period: slice, *, seen: bool) -> Part:
    sessions = panel.sessions[period]
    held = judge(bundle, samples, samples.within(period), config, sessions)
    outcomes = samples.labels[samples.within(period)]
    quantiles = measure_quantiles(sessions, samples.symbols, held.predictions, outcomes)
    figures = held.metrics | further_figures(held, config.cost_bps)
    return Part(
        seen=seen,
        period=Period(first=sessions[0].astype(object), last=sessions[-1].astype(object)),
        held=held,
        figures=figures | {"rank_autocorrelation": quantiles.rank_autocorrelation},
        quantiles=quantiles,
        calibration=calibrate(held.predictions, outcomes),
    )


def _compare(
    manifest: BundleManifest, snapshot_id: str, costs: Costs, parts: tuple[Part, ...]
) -> tuple[tuple[str, float | None, float | None], ...] | None:
    part = parts[-1]
    same = snapshot_id == manifest.training.snapshot_id and part.period == manifest.training.test
    if part.seen or not same or costs.source == "given":
        return None
    stated = manifest.walk_forward.final_metrics if manifest.walk_forward else manifest.metrics
    return tuple((name, value, part.figures.get(name)) for name, value in stated.items())


def _silent(_stage: str, _done: int, _total: int) -> None:
    return
