"""The baseline's training run: latest snapshot in, verified bundle out.

Owns: the order of the steps, the lineage, the baseline's own configuration (`training.yaml`).
Must not know: command lines, MLflow, registries.
Invariant: the same panel and configuration give the same model text, byte for byte; test periods decide nothing; what
is returned was loaded back from disk, digests checked and golden sample replayed.
"""

import platform
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from strategies.analysis.drift import chance_psi
from strategies.analysis.evaluation import EvaluationResult, EvaluationSpec, evaluate
from strategies.analysis.walk_forward import WalkForwardResult, walk_forward, walk_forward_record
from strategies.errors import BundleExists
from strategies.expressions.feature_set_files import load_feature_set
from strategies.expressions.feature_sets import FeatureSet, feature_set
from strategies.files import release
from strategies.market.bars import Panel
from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel
from strategies.models.bundle import Bundle, Scorer
from strategies.models.bundle_store import BundleContent, bundle_path, load_bundle, next_version, save_bundle
from strategies.models.configuration import TrainingConfig, load_training_config
from strategies.models.folds import Fold, period_of, plan_folds
from strategies.models.manifest import (
    ChancePsiRecord,
    CostsRecord,
    FeatureSetRecord,
    Lineage,
    SettingsRecord,
    TrainingRecord,
    WalkForwardRecord,
)
from strategies.models.packaging import LIBRARIES, golden_sample
from strategies.models.reference import Distribution, describe
from strategies.models.samples import Progress, Samples, SampleSpec, compute_samples
from strategies.models.training import Fit, Rows, fit_model, scorer_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the lineage states of a training run's surroundings."""

    #: Version that the bundle will have.
    version: str
    #: Code of the exchange calendar of the panel.
    calendar: str = "XNYS"
    git_revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders of one run."""

    #: Above `adjusted/`.
    data_dir: Path
    #: Above `models/`.
    artifacts_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model that can be saved as a bundle."""

    content: BundleContent
    #: Of the final model on its own test period.
    test: EvaluationResult
    #: `early_stopping_metric` on the validation period after each round, `[rounds]`.
    validation: tuple[float, ...]
    #: What models of earlier sessions were worth on later ones; None without walk-forward folds.
    walk_forward: WalkForwardResult | None = None

    @property
    def evaluation(self) -> EvaluationResult:
        """Return the evaluation that the bundle's metrics come from: the folds' where there are any."""
        return self.walk_forward.stitched if self.walk_forward else self.test


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What came out."""

    #: Folder of the bundle.
    path: Path
    #: Loaded back from there, and proven.
    bundle: Bundle
    trained: TrainedModel
    #: None where the run was not logged to MLflow.
    mlflow_run_id: str | None = None


def baseline_config() -> TrainingConfig:
    """Return the configuration that `alpha_baseline` is trained with by default."""
    return load_training_config(Path(__file__).with_name("training.yaml"))


def train_baseline(
    config: TrainingConfig,
    places: Places,
    *,
    version: str | None = None,
    snapshot: str | None = None,
    git_revision: str | None = None,
    progress: Progress | None = None,
) -> TrainingRun:
    """Train on a snapshot, save the bundle, and load it back as a worker would.

    Args:
        config: What to train.
        places: Folders of bars and bundles.
        version: Of the bundle; default `v<N>`, the next free one.
        snapshot: Id or run date; default the latest.
        git_revision: Of the code, for the bundle.
        progress: Called with `bars` and the stages of `train`.

    Raises:
        BundleExists: The version is taken; nothing was trained.
        SnapshotNotFound: No such snapshot.
        TrainingError: See `train`.
    """
    version = version or next_version(places.artifacts_dir, config.strategy)
    target = bundle_path(places.artifacts_dir, config.strategy, version)
    if target.exists():
        raise BundleExists(f"{target} is already there, and bundles never change: choose another version")
    ref = find_snapshot(places.data_dir, snapshot) if snapshot else latest_snapshot(places.data_dir)
    calendar = ref.calendar
    if progress:
        progress("bars", 0, len(ref.symbols))
    panel = load_panel(ref, ref.open_calendar())
    if progress:
        progress("bars", len(ref.symbols), len(ref.symbols))
    if panel.has_vwap and "vwap_stand_in" not in config.model_fields_set:
        # A stand-in is for bars that have none; Qlib's VWAP0 is that of the bars.
        config = config.model_copy(update={"vwap_stand_in": "none"})
    provenance = Provenance(version=version, calendar=calendar, git_revision=git_revision)
    trained = train(panel, config, provenance, progress=progress)
    path = save_bundle(places.artifacts_dir, trained.content)
    return TrainingRun(path=path, bundle=load_bundle(path), trained=trained)


def train(
    panel: Panel, config: TrainingConfig, provenance: Provenance, *, progress: Progress | None = None
) -> TrainedModel:
    """Train a model on the panel's earlier sessions and evaluate it on the last ones, and on those of each fold.

    Rows are trained on if their symbol may be priced there (see `Samples`), a feature has a value and the label is
    known. The golden sample is replayed before anything is returned, so that features computed for a range of
    sessions and for one window are shown to be the same bits.

    Args:
        panel: Bars; symbols outside the configuration's universe are ignored.
        config: What to train.
        provenance: Written into the bundle.
        progress: Called with `features` (sessions), `folds`, `rounds` (boosting rounds), `evaluation` (steps).

    Raises:
        TrainingError: A period has no session or no row, no fold fits, or the bars lack a field.
        UnknownSymbols: The universe names a symbol that the panel lacks.
        MalformedModel: A prediction is not finite.
        ExpressionError: The configuration's own feature set cannot be read.
    """
    report = progress or _no_progress
    plan = plan_folds(panel.sessions, config)
    features = _feature_set(config)
    samples = compute_samples(panel, features, SampleSpec.of(config), plan.span, report)
    walked = walk_forward(samples, features, plan, config, report) if plan.folds else None
    rows = Rows.of(samples, plan.final, config)
    fit = fit_model(samples, rows, config, features.names, report)
    scorer = scorer_of(fit, features)
    report("evaluation", 0, 2)
    test = evaluate(scorer, samples, plan.final.split.test, EvaluationSpec.of(config))
    report("evaluation", 1, 2)
    lineage = _lineage(
        config,
        provenance,
        features=features,
        fit=fit,
        training=_training_record(panel, samples, plan.final, config, provenance, fit),
        metrics=(walked.stitched if walked else test).metrics,
        walk_forward=walk_forward_record(walked, plan, config, test, samples) if walked else None,
    )
    reference, chance = _reference(scorer, samples, rows)
    content = BundleContent(
        lineage=lineage.model_copy(update={"chance_psi": chance}),
        model=fit.model,
        golden=golden_sample(scorer, panel, samples, seed=config.seed),
        reference=reference,
    )
    report("evaluation", 2, 2)
    return TrainedModel(content=content, test=test, validation=fit.validation, walk_forward=walked)


def _feature_set(config: TrainingConfig) -> FeatureSet:
    if config.own_feature_set is not None:
        return load_feature_set(config.own_feature_set)
    return feature_set(config.feature_set, vwap_stand_in=config.vwap_stand_in, precision=config.precision)


def _reference(
    scorer: Scorer, samples: Samples, rows: Rows
) -> tuple[tuple[Distribution, ...], tuple[ChancePsiRecord, ...]]:
    """Return what the training rows look like, and how far stretches of them are from the whole."""
    features = samples.features[rows.train]
    release(samples.features)
    predictions = np.full(rows.train.shape, np.nan)
    predictions[rows.train] = scorer.predict(features)
    described = describe(scorer.feature_set.names, features, predictions[rows.train])
    return described, chance_psi(described[-1], predictions)


def _lineage(
    config: TrainingConfig,
    provenance: Provenance,
    *,
    features: FeatureSet,
    fit: Fit,
    training: TrainingRecord,
    metrics: dict[str, float | None],
    walk_forward: WalkForwardRecord | None,
) -> Lineage:
    costs = CostsRecord(cost_bps=config.cost_bps, borrow_bps_a_year=config.borrow_bps_a_year)
    return Lineage(
        strategy=config.strategy,
        version=provenance.version,
        feature_set=FeatureSetRecord(
            name=features.name,
            # The expressions of a user's file state themselves what they use for the vwap.
            vwap_stand_in="none" if config.own_feature_set else config.vwap_stand_in,
            names=features.names,
            expressions=features.expressions,
            precision=features.precision,
            expanding_sessions=features.expanding,
            sha256=features.sha256,
            lookback=features.lookback,
        ),
        label=config.label,
        processors=fit.processors,
        prediction_kind=config.prediction_kind,
        construction=config.construction,
        training=training,
        metrics=metrics,
        versions={"python": platform.python_version(), **{name: installed(name) for name in LIBRARIES}},
        git_revision=provenance.git_revision,
        costs=costs if walk_forward or config.borrow_bps_a_year else None,
        walk_forward=walk_forward,
        settings=SettingsRecord(**{name: getattr(config, name) for name in SettingsRecord.model_fields}),
    )


def _training_record(
    panel: Panel, samples: Samples, fold: Fold, config: TrainingConfig, provenance: Provenance, fit: Fit
) -> TrainingRecord:
    periods = {name: period_of(samples.sessions, period) for name, period in fold.split}
    return TrainingRecord(
        snapshot_id=panel.snapshot_id,
        calendar=provenance.calendar,
        universe=samples.symbols,
        train=periods["train"],
        valid=periods["valid"],
        test=periods["test"],
        gap_sessions=config.gap,
        train_rows=fit.train_rows,
        valid_rows=fit.valid_rows,
        seed=config.seed,
        parameters=config.lightgbm_parameters(),
        best_iteration=fit.best_iteration,
    )


def _no_progress(_stage: str, _done: int, _total: int) -> None:
    return
