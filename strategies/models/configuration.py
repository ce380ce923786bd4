"""The configuration of a training: everything that, with a snapshot, decides what model comes out.

Owns: `TrainingConfig`, its bounds and defaults, and reading it from YAML.
Must not know: snapshots, bundles, command lines.
Invariant: frozen, unknown fields refused by name; no default depends on the machine or the clock.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from strategies.construction import Construction
from strategies.errors import TrainingError
from strategies.models.bundle import ALPHA158_LABEL, LabelSpec
from strategies.models.manifest import ConstructionRecord, LabelRecord, Name, Period, StrategyName, VwapStandIn
from strategies.models.processors import ProcessorKind

#: How labels are transformed within each session before training; anything but `none` makes predictions scores.
LabelProcessor = Literal["none", "cs_zscore", "cs_rank"]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


#: A shipped feature set, or a file of one's own.
FEATURE_SET_PATTERN = r"^(alpha158|alpha360|[^\x00-\x1f]+\.(yaml|yml|toml))$"


class Shares(BaseModel):
    """Shares of the snapshot's sessions, in order of time; what is left over is the test period."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Share = 0.6
    valid: Share = 0.2

    @model_validator(mode="after")
    def _leave_a_test_period(self) -> Self:
        if self.train + self.valid >= 1:
            raise ValueError(f"train {self.train} and valid {self.valid} leave no session for the test period")
        return self


class Periods(BaseModel):
    """Periods by date, in order of time and without overlap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Period
    valid: Period
    test: Period

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.train.last < self.valid.first <= self.valid.last < self.test.first:
            raise ValueError("train, valid and test must follow each other without overlap")
        return self


class TrainingConfig(BaseModel):
    """One training run. The defaults are those of the baseline strategy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: StrategyName = "alpha_baseline"
    #: A shipped one, or the path of a YAML or TOML file with one's own, relative to the configuration's file.
    feature_set: Annotated[str, Field(pattern=FEATURE_SET_PATTERN, max_length=1024)] = "alpha158"
    #: What stands in for `$vwap`: `none` where the snapshot's bars have it.
    vwap_stand_in: VwapStandIn = "typical_price"
    #: In which types features are computed; `qlib` = as Qlib does.
    precision: Literal["qlib", "float64"] = "qlib"
    label: LabelRecord = LabelRecord(
        name=ALPHA158_LABEL.name,
        expression=ALPHA158_LABEL.expression,
        horizon=ALPHA158_LABEL.horizon,
        sessions_ahead=ALPHA158_LABEL.sessions_ahead,
    )
    label_processor: LabelProcessor = "none"
    #: Fitted on the training period and carried by the bundle.
    processors: tuple[ProcessorKind, ...] = ()
    #: None = every symbol of the snapshot.
    universe: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    #: None = by `shares`.
    periods: Periods | None = None
    shares: Shares = Shares()
    #: Sessions left out between two periods; None = as many as the label looks ahead, never fewer.
    gap_sessions: Annotated[int, Field(ge=0, le=1000)] | None = None
    #: Leave rows out whose symbol was listed for fewer sessions than the feature set looks back, as serving does.
    require_full_history: bool = True
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    num_threads: Annotated[int, Field(ge=1, le=256)] = 2
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 100
    #: Rounds without improvement on the validation period after which boosting stops.
    early_stopping_rounds: Annotated[int, Field(ge=1)] = 20
    learning_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.05
    max_depth: Annotated[int, Field(ge=-1, le=64)] = 6
    num_leaves: Annotated[int, Field(ge=2, le=131_072)] = 31
    #: Other parameters of LightGBM, by its own names.
    parameters: Annotated[dict[Name, bool | int | float | str], Field(max_length=100)] = {}
    construction: ConstructionRecord = ConstructionRecord(top_n=3, bottom_n=3)
    #: Basis points of each unit of weight bought or sold, for the evaluation.
    cost_bps: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 5.0

    @model_validator(mode="after")
    def _no_second_spelling(self) -> Self:
        fixed = sorted(_FIXED & self.parameters.keys())
        if fixed:
            raise ValueError(f"parameters may not set {', '.join(fixed)}: the configuration has fields for these")
        return self

    @property
    def own_feature_set(self) -> Path | None:
        """Return the file of a feature set of one's own; None for a shipped one."""
        path = Path(self.feature_set)
        return path if path.suffix else None

    @property
    def label_spec(self) -> LabelSpec:
        """Return the label as bundles state it."""
        return LabelSpec(**self.label.model_dump())

    @property
    def sides(self) -> Construction:
        """Return the construction of the evaluation and of requests without overrides."""
        return Construction(**self.construction.model_dump())

    @property
    def gap(self) -> int:
        """Return the sessions left out between two periods."""
        return max(self.label.sessions_ahead, self.gap_sessions or 0)

    def lightgbm_parameters(self) -> dict[str, bool | int | float | str]:
        """Return the parameters of the booster."""
        return {
            "objective": "regression",
            "metric": "l2",
            **self.parameters,
            "learning_rate": self.learning_rate,
            "max_depth": self.max_depth,
            "num_leaves": self.num_leaves,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.num_threads,
            "verbosity": -1,
        }


#: Set by fields of the configuration, or needed for the same model from the same data.
_FIXED = frozenset(
    {"learning_rate", "max_depth", "num_leaves", "seed", "deterministic", "force_row_wise", "num_threads", "verbosity"}
    | {"num_iterations", "num_boost_round", "early_stopping_round", "early_stopping_rounds", "device_type"}
)


def load_training_config(path: Path) -> TrainingConfig:
    """Return the configuration of a YAML file; fields it leaves out have their defaults.

    Raises:
        TrainingError: The file cannot be read, is no YAML mapping, or a field is unknown or out of bounds.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{path} cannot be read as YAML: {error}") from error
    try:
        config = TrainingConfig.model_validate({} if content is None else content)
        if config.own_feature_set is None:
            return config
        return config.model_copy(update={"feature_set": str(path.parent / config.own_feature_set)})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise TrainingError(f"{path}, {place}: {first['msg']} (was {first['input']!r})") from error
