"""Training: from a panel and a configuration to a model with everything that a bundle holds.

Owns: the order of the steps, the call of LightGBM, the lineage.
Must not know: where snapshots and bundles lie, MLflow, command lines.
Invariant: the same panel and configuration give the same model text, byte for byte; the validation period alone decides
when boosting stops, and the test period decides nothing.
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Self

import lightgbm as lgb
import numpy as np
from lightgbm.callback import CallbackEnv
from numpy.typing import NDArray

from strategies.errors import TrainingError
from strategies.expressions.feature_sets import FeatureSet, feature_set
from strategies.feature_set_files import load_feature_set
from strategies.market.bars import FloatArray, Panel, SessionArray
from strategies.models.bundle import Predictor, Scorer, check_booster
from strategies.models.bundle_store import BundleContent, parse_booster
from strategies.models.configuration import TrainingConfig
from strategies.models.evaluation import Correlations, Performance, correlations, metrics, perform
from strategies.models.golden import GoldenSample, choose_rows, replay_golden, take_golden
from strategies.models.manifest import FeatureSetRecord, Lineage, TrainingRecord
from strategies.models.periods import Split, period_of, split_sessions
from strategies.models.processors import Fillna, Float32Array, Scaling, apply_processors, fit_processors
from strategies.models.reference import Distribution, describe
from strategies.models.samples import Progress, Samples, compute_samples, transform_labels

LIBRARIES = ("lightgbm", "numba", "numpy", "pandas", "pyarrow", "scipy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a training run is told of its surroundings, as it cannot know them."""

    #: Version that the bundle will have.
    version: str
    #: Code of the exchange calendar that the panel stands on.
    calendar: str = "XNYS"
    git_revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What the model was worth on sessions that it never saw."""

    sessions: SessionArray
    signal: Correlations
    performance: Performance
    metrics: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model that can be saved as a bundle."""

    content: BundleContent
    test: HeldOut
    #: Loss on the validation period after each round, `[rounds]`.
    validation_loss: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    model: str
    processors: tuple[Scaling | Fillna, ...]
    best_iteration: int
    validation_loss: tuple[float, ...]
    train_rows: int
    valid_rows: int


def train(
    panel: Panel, config: TrainingConfig, provenance: Provenance, *, progress: Progress | None = None
) -> TrainedModel:
    """Train a model on the panel's earlier sessions and judge it on the last ones.

    Rows are trained on if their symbol may be priced there (see `Samples`), a feature has a value and the label is
    known. The golden sample is replayed before anything is returned, so that features computed for a range of
    sessions and for one window are shown to be the same bits.

    Args:
        panel: Bars; symbols outside the configuration's universe are ignored.
        config: What to train.
        provenance: Written into the bundle.
        progress: Told `features` (sessions), `rounds` (boosting rounds), `evaluation` (steps).

    Raises:
        TrainingError: A period has no session or no row, or the bars lack a field.
        UnknownSymbols: The universe names a symbol that the panel lacks.
        MalformedModel: A prediction is not finite.
        ExpressionError: The configuration's own feature set cannot be read.
    """
    report = progress or _silent
    split = split_sessions(panel.sessions, config)
    features = _features(config)
    samples = compute_samples(panel, features, config, slice(split.train.start, split.test.stop), report)
    rows = _Rows.of(samples, split, config)
    fit = _fit(samples, rows, config, features.names, report)
    report("evaluation", 0, 2)
    scorer = Scorer(feature_set=features, processors=fit.processors, booster=parse_booster(fit.model.encode("ascii")))
    check_booster(scorer.booster, features.names)
    test = judge(scorer, samples, samples.within(split.test), config, panel.sessions[split.test])
    report("evaluation", 1, 2)
    record = _training_record(panel, samples, split, config, provenance, fit)
    content = BundleContent(
        lineage=_lineage(config, provenance, features, fit, test, record),
        model=fit.model,
        golden=_golden(scorer, panel, samples, config.seed),
        reference=_reference(scorer, samples.features[rows.train]),
    )
    report("evaluation", 2, 2)
    return TrainedModel(content=content, test=test, validation_loss=fit.validation_loss)


def judge(
    predictor: Predictor, samples: Samples, period: slice, config: TrainingConfig, sessions: SessionArray
) -> HeldOut:
    """Return what predictions for a range of the samples' sessions were worth.

    Args:
        predictor: The model.
        samples: Features, labels and returns.
        period: Range of the samples' sessions.
        config: Construction and costs.
        sessions: Labels of that range, `[sessions]`.
    """
    eligible = samples.eligible[period]
    predictions = np.full(eligible.shape, np.nan)
    predictions[eligible] = predictor.predict(samples.features[period][eligible])
    labels = transform_labels(samples.labels[period], config.label_processor)
    signal = correlations(predictions, labels)
    performance = perform(
        samples.symbols,
        predictions,
        samples.returns[period],
        construction=config.sides,
        cost_bps=config.cost_bps,
    )
    return HeldOut(sessions=sessions, signal=signal, performance=performance, metrics=metrics(signal, performance))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Rows to learn from, `[sessions, symbols]` each, and their labels."""

    train: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    labels: FloatArray

    @classmethod
    def of(cls, samples: Samples, split: Split, config: TrainingConfig) -> Self:
        labels = transform_labels(np.where(samples.eligible, samples.labels, np.nan), config.label_processor)
        known = np.isfinite(labels) & ~np.isnan(samples.features).all(axis=2)
        masks = {name: _only(known, samples.within(period)) for name, period in split}
        for name in ("train", "valid"):
            if not masks[name].any():
                raise TrainingError(f"the {name} period has no row with a label and full history")
        return cls(train=masks["train"], valid=masks["valid"], labels=labels)


def _only(known: NDArray[np.bool_], period: slice) -> NDArray[np.bool_]:
    mask = np.zeros_like(known)
    mask[period] = known[period]
    return mask


def _fit(samples: Samples, rows: _Rows, config: TrainingConfig, names: Sequence[str], report: Progress) -> _Fit:
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
        # The training rows are not among them: their loss falls for ever and would never stop the boosting.
        valid_sets=[valid],
        valid_names=["valid"],
        callbacks=[
            lgb.early_stopping(config.early_stopping_rounds, first_metric_only=True, verbose=False),
            lgb.record_evaluation(losses),
            _rounds(report, config.rounds),
        ],
    )
    made = booster.current_iteration()
    report("rounds", made, made)
    return _Fit(
        model=booster.model_to_string(num_iteration=booster.best_iteration),
        processors=processors,
        best_iteration=booster.best_iteration,
        validation_loss=tuple(float(loss) for loss in next(iter(losses["valid"].values()))),
        train_rows=int(rows.train.sum()),
        valid_rows=int(rows.valid.sum()),
    )


def _rounds(report: Progress, rounds: int) -> Callable[[CallbackEnv], None]:
    def tell(environment: CallbackEnv) -> None:
        report("rounds", environment.iteration + 1, rounds)

    return tell


def _golden(scorer: Scorer, panel: Panel, samples: Samples, seed: int) -> GoldenSample:
    cells = choose_rows(samples.features, samples.listed, seed=seed)
    named = [
        (samples.symbols[symbol], panel.sessions[samples.offset + session].astype(object)) for session, symbol in cells
    ]
    golden = take_golden(scorer, panel, named, samples.features[cells[:, 0], cells[:, 1]])
    replay_golden(scorer, golden)
    return golden


def _reference(scorer: Scorer, features: Float32Array) -> tuple[Distribution, ...]:
    return describe(scorer.feature_set.names, features, scorer.predict(features))


def _features(config: TrainingConfig) -> FeatureSet:
    if config.own_feature_set is not None:
        return load_feature_set(config.own_feature_set)
    return feature_set(config.feature_set, vwap_stand_in=config.vwap_stand_in, precision=config.precision)


def _lineage(
    config: TrainingConfig,
    provenance: Provenance,
    features: FeatureSet,
    fit: _Fit,
    test: HeldOut,
    training: TrainingRecord,
) -> Lineage:
    return Lineage(
        strategy=config.strategy,
        version=provenance.version,
        feature_set=FeatureSetRecord(
            name=features.name,
            # A file of one's own says in its expressions what stands in for the vwap.
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
        prediction_kind="return" if config.label_processor == "none" else "score",
        construction=config.construction,
        training=training,
        metrics=test.metrics,
        versions={"python": platform.python_version(), **{name: installed(name) for name in LIBRARIES}},
        git_revision=provenance.git_revision,
    )


def _training_record(
    panel: Panel, samples: Samples, split: Split, config: TrainingConfig, provenance: Provenance, fit: _Fit
) -> TrainingRecord:
    periods = {name: period_of(panel.sessions, period) for name, period in split}
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


def _silent(_stage: str, _done: int, _total: int) -> None:
    return
