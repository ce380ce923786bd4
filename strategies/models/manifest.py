"""The manifest of a model bundle: the fields of `bundle.json`.

Owns: every field of `bundle.json`, with its bounds, and its encoding.
Must not know: where bundles are stored, how they are loaded.
Invariant: frozen, bounded, unknown fields refused; the same content gives the same bytes, so it has no time of day.
"""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from strategies.construction import MAX_SIDE
from strategies.errors import EngineDiffers, MalformedBundle
from strategies.models.processors import Processor

#: Files of every bundle beside `bundle.json`.
MODEL_FILE, GOLDEN_FILE, REFERENCE_FILE = "model.txt", "golden.parquet", "reference.parquet"
BUNDLE_FILES = frozenset({MODEL_FILE, GOLDEN_FILE, REFERENCE_FILE})
MAX_FEATURES = 4096
#: Most folds of a walk-forward training; each trains a model.
MAX_FOLDS = 200

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
StrategyName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
VersionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=5000)]
Text = Annotated[str, StringConstraints(max_length=500)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(ge=0, le=MAX_SIDE)]
#: What `predicted_return` is, see `strategies.models.labels`.
PredictionKind = Literal["return", "score", "probability"]
VwapStandIn = Literal["none", "typical_price", "close"]
#: How labels are transformed within each session before training; anything but `none` makes predictions scores.
LabelProcessor = Literal["none", "cs_zscore", "cs_rank"]
#: By what boosting stops: means over the sessions of the validation period, or the squared error of its rows.
EarlyStoppingMetric = Literal["rank_ic", "ic", "l2"]
#: LightGBM has gains for 31 levels.
RelevanceLevels = Annotated[int, Field(ge=2, le=31)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """One file of the bundle."""

    sha256: Digest
    size_bytes: Annotated[int, Field(ge=1)]


class FeatureSetRecord(_Record):
    """The feature set by its text: names and expressions in the order of the model's columns."""

    name: Name
    #: Expression that replaced `$vwap`; `none` = the bars' own vwap.
    vwap_stand_in: VwapStandIn
    names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_FEATURES)]
    expressions: Annotated[tuple[Expression, ...], Field(min_length=1, max_length=MAX_FEATURES)]
    #: In which types operations are computed; part of the hash.
    precision: Literal["qlib", "float64"] = "qlib"
    #: Sessions that windows of length 0 look back; None where there are none.
    expanding_sessions: Annotated[int, Field(ge=1, le=10_000)] | None = None
    sha256: Digest
    #: Sessions up to and including the as-of session that a row needs.
    lookback: Annotated[int, Field(ge=1, le=10_000)]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.names) != len(self.expressions):
            raise ValueError(f"{len(self.names)} names, but {len(self.expressions)} expressions")
        return self


class LabelRecord(_Record):
    """What the model was trained to predict."""

    name: Name
    expression: Expression
    #: In words, e.g. "close of T+1 to close of T+2", T being the as-of session; empty where nobody stated the label.
    horizon: Text
    sessions_ahead: Annotated[int, Field(ge=1, le=1000)]


class ConstructionRecord(_Record):
    """Construction that a request without overrides gets."""

    top_n: Side
    bottom_n: Side

    @model_validator(mode="after")
    def _hold_something(self) -> Self:
        if self.top_n == 0 and self.bottom_n == 0:
            raise ValueError("top_n and bottom_n are both 0, at least one side must hold a symbol")
        return self


class Period(_Record):
    """Sessions from the first to the last, both included."""

    first: date
    last: date

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"the period ends at {self.last}, before it starts at {self.first}")
        return self


class TrainingRecord(_Record):
    """Data and parameters that the model came from."""

    snapshot_id: Text
    calendar: Name
    universe: Annotated[tuple[Name, ...], Field(min_length=1, max_length=50_000)]
    train: Period
    valid: Period
    test: Period
    #: Sessions left out between two periods, so that no label of one reads a bar of the next.
    gap_sessions: Annotated[int, Field(ge=0)]
    train_rows: Annotated[int, Field(ge=1)]
    valid_rows: Annotated[int, Field(ge=1)]
    seed: int
    parameters: Annotated[dict[Name, bool | int | Finite | str], Field(max_length=200)]
    #: Boosting rounds kept.
    best_iteration: Annotated[int, Field(ge=1)]


class CostsRecord(_Record):
    """What the metrics have paid for trading and borrowing."""

    #: Basis points of each unit of weight bought or sold.
    cost_bps: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    #: Basis points a year of each unit of weight held short.
    borrow_bps_a_year: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SettingsRecord(CostsRecord):
    """Settings of the training that no other record contains: with those, the whole configuration."""

    label_processor: LabelProcessor
    #: Whether rows were left out whose symbol was listed for fewer sessions than the feature set looks back.
    require_full_history: bool
    #: Boosting rounds at most.
    rounds: Annotated[int, Field(ge=1)]
    #: Rounds without improvement on the validation period after which boosting stops.
    early_stopping_rounds: Annotated[int, Field(ge=1)]
    #: None in bundles of before these three were stated; they stopped by `l2`.
    early_stopping_metric: EarlyStoppingMetric | None = None
    min_rounds: Annotated[int, Field(ge=1)] | None = None
    relevance_levels: RelevanceLevels | None = None

    @model_serializer(mode="wrap")
    def _leave_out_what_was_not_stated(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        stated: dict[str, object] = write(self)
        return {name: value for name, value in stated.items() if value is not None}


class FoldRecord(_Record):
    """One fold of a walk-forward training."""

    train: Period
    valid: Period
    test: Period
    #: Sessions of `train` and `valid` left out, as they follow the test period of an earlier fold.
    embargoed_sessions: Annotated[int, Field(ge=0)]
    train_rows: Annotated[int, Field(ge=1)]
    valid_rows: Annotated[int, Field(ge=1)]
    #: Boosting rounds kept.
    best_iteration: Annotated[int, Field(ge=1)]
    #: Of the test period, predicted by this fold's model; None = not measurable there.
    metrics: Annotated[dict[Name, Finite | None], Field(max_length=200)]


class WalkForwardRecord(_Record):
    """The folds of the walk-forward evaluation of the final model's training."""

    #: `listed`: the configuration named each fold's periods.
    window: Literal["expanding", "rolling", "listed"]
    #: Sessions left out before each validation and test period.
    purge_sessions: Annotated[int, Field(ge=0)]
    #: Sessions after each test period that no later fold, nor the final model, learnt from.
    embargo_sessions: Annotated[int, Field(ge=0)]
    folds: Annotated[tuple[FoldRecord, ...], Field(min_length=1, max_length=MAX_FOLDS)]
    #: Sessions of the final model's `train` and `valid` left out by the embargo.
    final_embargoed_sessions: Annotated[int, Field(ge=0)]
    #: Of the final model on its own test period.
    final_metrics: Annotated[dict[Name, Finite | None], Field(max_length=200)]


class ChancePsiRecord(_Record):
    """How far stretches of the training period itself are from the whole of it, by the model's predictions."""

    #: Length of a stretch.
    sessions: Annotated[int, Field(ge=1)]
    #: Stretches that were measured; they overlap.
    stretches: Annotated[int, Field(ge=1)]
    #: Population stability index that 99 of 100 stretches stay below.
    psi: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PackagingRecord(_Record):
    """What is known of a model that was trained elsewhere; `training` then has what it may have seen."""

    #: Of the file as it was given.
    source_sha256: Digest
    #: As LightGBM's text states it; empty where it states none.
    objective: Text
    #: How it is known which feature each column is.
    columns: Literal["name", "order", "mapping"]
    #: Whether `label` was stated; else it is what outcomes are judged by, and predictions have no horizon.
    label_stated: bool
    label_processor: LabelProcessor
    #: Last session whose bars training read; None: not stated, so that all of the snapshot count as seen.
    trained_until: date | None


class Lineage(_Record):
    """Everything a manifest states but the digests of the bundle's files."""

    format: Literal[1] = 1
    strategy: StrategyName
    version: VersionName
    feature_set: FeatureSetRecord
    label: LabelRecord
    #: Fitted state; empty for the baseline, as trees need none.
    processors: Annotated[tuple[Processor, ...], Field(max_length=20)] = ()
    prediction_kind: PredictionKind
    construction: ConstructionRecord
    training: TrainingRecord
    #: Of the held-out test period, or, after a walk-forward training, of all folds' test periods, each predicted by its
    #: fold's model; None = not measurable there.
    metrics: Annotated[dict[Name, Finite | None], Field(max_length=200)]
    #: Python and libraries that trained the model.
    versions: Annotated[dict[Name, Text], Field(max_length=50)]
    git_revision: Text | None = None
    #: Where folds were trained or borrowing was paid.
    costs: CostsRecord | None = None
    walk_forward: WalkForwardRecord | None = None
    #: None in bundles of before it was stated.
    settings: SettingsRecord | None = None
    #: By length, ascending; None in bundles of before it was stated, empty where training was too short to tell.
    chance_psi: Annotated[tuple[ChancePsiRecord, ...], Field(max_length=20)] | None = None
    #: None where the model was trained here.
    packaging: PackagingRecord | None = None


class BundleManifest(Lineage):
    """All fields of `bundle.json`."""

    files: dict[Name, FileRecord]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if set(self.files) != BUNDLE_FILES:
            raise ValueError(f"files are {sorted(self.files)}, they must be {sorted(BUNDLE_FILES)}")
        return self


#: Omitted from `bundle.json` where they are None, so that bundles of earlier releases keep their bytes.
_OPTIONAL = ("costs", "walk_forward", "settings", "chance_psi", "packaging")


def encode_manifest(manifest: BundleManifest) -> bytes:
    """Return the bytes of `bundle.json`: UTF-8, indented, fields in the order of the classes above."""
    absent = {name for name in _OPTIONAL if getattr(manifest, name) is None}
    return (manifest.model_dump_json(indent=2, exclude=absent) + "\n").encode()


def decode_manifest(content: bytes) -> BundleManifest:
    """Return the manifest in these bytes.

    Raises:
        MalformedBundle: Not JSON, a field missing or out of bounds; the first one is named.
        EngineDiffers: A format or a field that this release does not know.
    """
    try:
        return BundleManifest.model_validate_json(content)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        first = faults[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        newer = all(fault["type"] == "extra_forbidden" or fault["loc"] == ("format",) for fault in faults)
        kind = EngineDiffers if newer else MalformedBundle
        raise kind(f"bundle.json, {place}: {first['msg']} ({error.error_count()} faults in all)") from error
