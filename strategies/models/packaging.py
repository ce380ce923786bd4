"""From a model that others trained to a bundle that proves itself like one of ours.

Owns: the golden sample and the reference of such a model on a snapshot, and what its manifest states.
Must not know: the forms of files, command lines, registries.
Invariant: what nobody stated is not claimed: without a label predictions have no horizon, and without the last session
of the training all sessions of the snapshot count as seen by it.
"""

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version as installed

import numpy as np
from numpy.typing import NDArray

from strategies.construction import Construction
from strategies.errors import TrainingError
from strategies.expressions.feature_sets import FeatureSet
from strategies.expressions.feature_sets import label as label_of
from strategies.market.bars import Float32Array, FloatArray, Panel
from strategies.models.bundle import UNSTATED_LABEL, Scorer, check_booster
from strategies.models.bundle_files import digest
from strategies.models.bundle_store import BundleContent, objective_of, parse_booster
from strategies.models.golden import GoldenSample, choose_rows, most_rows, replay_golden, take_golden
from strategies.models.labels import horizon_of, kind_of
from strategies.models.manifest import (
    ConstructionRecord,
    FeatureSetRecord,
    LabelProcessor,
    LabelRecord,
    Lineage,
    PackagingRecord,
    Period,
    TrainingRecord,
    VwapStandIn,
)
from strategies.models.model_check import check_model_bytes
from strategies.models.outside_models import Columns, column_names, match_columns, model_text, renamed
from strategies.models.reference import describe
from strategies.models.samples import Samples, SampleSpec, compute_samples

LIBRARIES = ("lightgbm", "numba", "numpy", "pandas", "pyarrow", "scipy")
#: Last sessions of the snapshot that golden rows and the reference are taken from.
MOST_SESSIONS = 750
#: Share of a column's values beyond the range that the model was trained on, from which it is remarked on.
BEYOND_SHARE = 0.5
_RANGE = re.compile(r"\[(?P<low>[-+.\deE]+):(?P<high>[-+.\deE]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagingSpec:
    """What is stated of a model whose training nobody here saw."""

    strategy: str
    version: str
    #: Features of which the model's columns are some, in whatever order.
    feature_set: FeatureSet
    vwap_stand_in: VwapStandIn
    calendar: str
    construction: Construction
    #: Expression of what it was trained to predict; None: nobody stated it.
    label: str | None = None
    #: Over which prices that runs; None: read from the expression.
    horizon: str | None = None
    label_processor: LabelProcessor = "none"
    #: None = every symbol of the snapshot.
    universe: tuple[str, ...] | None = None
    #: Last session whose bars the training read; None: not stated.
    trained_until: date | None = None
    #: See `match_columns`.
    columns: Mapping[str, str] | Sequence[str] | None = None
    columns_in_order: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A bundle before it is saved."""

    content: BundleContent
    #: What a person should know of it, one sentence each.
    notes: tuple[str, ...]


def package(source: bytes, where: str, panel: Panel, spec: PackagingSpec) -> Packaged:
    """Return the bundle of an outside-trained model, its golden sample replayed.

    Args:
        source: Bytes of the file.
        where: Its name, for messages.
        panel: Bars of the snapshot.
        spec: What is stated.

    Raises:
        MalformedModel: No model in LightGBM's text, or one that does not predict one finite number a row.
        FeatureSetMismatch: A column is no feature, or which one it is cannot be known.
        TrainingError: The label is not stated whole, or the snapshot has too few rows.
        ExpressionError: The label is no expression.
    """
    label = label_record(spec.label, spec.horizon)
    text = model_text(source, where)
    names = column_names(text)
    columns = match_columns(names, spec.feature_set, stated=spec.columns, in_order=spec.columns_in_order)
    features = columns.feature_set
    text = renamed(text, features.names)
    content = text.encode("ascii", errors="backslashreplace")
    check_model_bytes(content)
    booster = parse_booster(content)
    check_booster(booster, features.names)
    scorer = Scorer(feature_set=features, processors=(), booster=booster)
    first = max(0, len(panel.sessions) - MOST_SESSIONS)
    asked = SampleSpec(label=label, universe=spec.universe)
    samples = compute_samples(panel, features, asked, slice(first, len(panel.sessions)), _silent)
    seen = _seen(samples, spec.trained_until)
    golden = golden_sample(scorer, panel, samples, seed=0)
    rows = samples.features[seen]
    reference = describe(features.names, rows, scorer.predict(rows))
    kind = kind_of(objective_of(booster), label=spec.label, label_processor=spec.label_processor)
    lineage = Lineage(
        strategy=spec.strategy,
        version=spec.version,
        feature_set=_feature_record(features, spec.vwap_stand_in),
        label=label,
        prediction_kind=kind,
        construction=ConstructionRecord(top_n=spec.construction.top_n, bottom_n=spec.construction.bottom_n),
        training=_training_record(panel, samples, spec, trees=booster.num_trees(), rows=len(rows)),
        metrics={},
        versions={"python": platform.python_version(), **{name: installed(name) for name in LIBRARIES}},
        packaging=PackagingRecord(
            source_sha256=digest(source),
            objective=objective_of(booster),
            columns=columns.by,
            label_stated=spec.label is not None,
            label_processor=spec.label_processor,
            trained_until=spec.trained_until,
        ),
    )
    bundle = BundleContent(lineage=lineage, model=content.decode("ascii"), golden=golden, reference=reference)
    return Packaged(content=bundle, notes=tuple(_notes(spec, text, columns, rows, golden.predictions)))


def label_record(expression: str | None, horizon: str | None) -> LabelRecord:
    """Return what a model was trained to predict; without an expression one that states no horizon.

    Raises:
        TrainingError: The horizon is not stated and cannot be read from the expression.
        ExpressionError: It is no expression.
    """
    if expression is None:
        return LabelRecord(**asdict(UNSTATED_LABEL))
    ahead = label_of(expression).lookahead
    if ahead < 1:
        raise TrainingError(f"label {expression} looks no session ahead, so it is nothing to predict")
    words = horizon or horizon_of(expression)
    if words is None:
        raise TrainingError(f"label {expression} is no return between two prices: state its horizon in words")
    return LabelRecord(name="LABEL0", expression=expression, horizon=words, sessions_ahead=ahead)


def golden_sample(scorer: Scorer, panel: Panel, samples: Samples, *, seed: int) -> GoldenSample:
    """Return the golden sample of a model on these rows, once it was replayed.

    Raises:
        GoldenSampleMismatch: Features computed for a range of sessions and for one window differ.
        MalformedModel: A prediction is not finite.
    """
    features = scorer.feature_set
    most = most_rows(len(features.names), len(features.fields) * features.lookback)
    cells = choose_rows(samples.features, samples.listed, seed=seed, most=most)
    rows = [(samples.symbols[symbol], samples.sessions[session].astype(object)) for session, symbol in cells]
    golden = take_golden(scorer, panel, rows, samples.features[cells[:, 0], cells[:, 1]])
    replay_golden(scorer, golden)
    return golden


def _seen(samples: Samples, until: date | None) -> NDArray[np.bool_]:
    """Return the rows that training may have seen, `[sessions, symbols]`."""
    seen = samples.eligible & np.isfinite(samples.features).any(axis=2)
    if until is not None:
        seen = seen & (samples.sessions <= np.datetime64(until))[:, None]
    if not seen.any():
        period = f"until {until}" if until else f"in {len(samples.sessions)} sessions"
        raise TrainingError(f"the snapshot has no row {period} that may be priced: import bars of the model's universe")
    return seen


def _training_record(panel: Panel, samples: Samples, spec: PackagingSpec, *, trees: int, rows: int) -> TrainingRecord:
    """Return periods by what is stated: sessions that may have been trained on, and those that surely were not."""
    days = [session.astype(object) for session in (panel.sessions[0], panel.sessions[-1])]
    last = min(spec.trained_until or days[1], days[1])
    after = panel.sessions[panel.sessions > np.datetime64(last)]
    seen = Period(first=days[0], last=last)
    return TrainingRecord(
        snapshot_id=panel.snapshot_id,
        calendar=spec.calendar,
        universe=samples.symbols,
        train=seen,
        valid=seen,
        test=Period(first=after[0].astype(object) if len(after) else days[1], last=days[1]),
        gap_sessions=0,
        train_rows=rows,
        valid_rows=rows,
        seed=0,
        parameters={},
        best_iteration=trees,
    )


def _feature_record(features: FeatureSet, stand_in: VwapStandIn) -> FeatureSetRecord:
    return FeatureSetRecord(
        name=features.name,
        vwap_stand_in=stand_in,
        names=features.names,
        expressions=features.expressions,
        precision=features.precision,
        expanding_sessions=features.expanding,
        sha256=features.sha256,
        lookback=features.lookback,
    )


def _notes(
    spec: PackagingSpec, text: str, columns: Columns, rows: Float32Array, predictions: FloatArray
) -> Iterator[str]:
    if spec.label is None:
        yield "nobody stated the label, so predictions have no horizon and are no returns: --label states it"
    if spec.trained_until is None:
        yield "nobody stated until when it was trained, so every session of the snapshot counts as seen in training"
    if np.ptp(predictions) == 0:
        yield f"it predicts {predictions[0]:g} for each of {len(predictions)} golden rows: are its features these?"
    beyond = list(_beyond(text, columns.feature_set.names, rows))
    if beyond:
        yield (
            f"{len(beyond)} columns, {beyond[0]} first, have most values beyond the range that it was trained on: "
            "their order, their scaling or their bars may be others"
        )


def _beyond(text: str, names: Sequence[str], rows: Float32Array) -> Iterator[str]:
    """Yield the columns whose values are mostly outside the range that LightGBM noted in training."""
    stated = re.search(r"^feature_infos=(?P<ranges>[^\n]*)$", text, re.MULTILINE)
    ranges = stated["ranges"].split(" ") if stated else []
    for place, (name, part) in enumerate(zip(names, ranges, strict=False)):
        match = _RANGE.fullmatch(part)
        values = rows[:, place].astype(np.float64)
        values = values[np.isfinite(values)]
        if not match or not len(values):
            continue
        outside = (values < float(match["low"])) | (values > float(match["high"]))
        if outside.mean() > BEYOND_SHARE:
            yield name


def _silent(_stage: str, _done: int, _total: int) -> None:
    return
