"""The configuration of a training: everything that, with a snapshot, decides what model comes out.

Owns: `TrainingConfig`, its bounds and defaults, and reading it from YAML.
Must not know: snapshots, bundles, command lines.
Invariant: frozen, unknown fields refused by name; no default depends on the machine or the clock.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from strategies.construction import Construction
from strategies.errors import TrainingError
from strategies.files import first_line, read_yaml, shown
from strategies.models.bundle import ALPHA158_LABEL
from strategies.models.labels import kind_of
from strategies.models.manifest import (
    MAX_FOLDS,
    ConstructionRecord,
    EarlyStoppingMetric,
    LabelProcessor,
    LabelRecord,
    Name,
    Period,
    PredictionKind,
    RelevanceLevels,
    StrategyName,
    VwapStandIn,
)
from strategies.models.processors import ProcessorKind
from strategies.suggestions import nearest

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
#: How the training period of a fold follows its test period: it grows, or moves along.
Window = Literal["expanding", "rolling"]
Sessions = Annotated[int, Field(ge=1, le=100_000)]
#: What boosting minimises, by LightGBM's names; the last two order the symbols of a session and predict scores.
Objective = Literal["regression", "regression_l1", "huber", "lambdarank", "rank_xendcg"]
RANKING: frozenset[Objective] = frozenset({"lambdarank", "rank_xendcg"})

#: Basis points of each unit of weight traded that an evaluation assumes by default.
DEFAULT_COST_BPS = 5.0
#: A shipped feature set, or a user's file.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of generated folds, in sessions."""

    window: Window
    #: Of each fold; with an expanding window, of the first one.
    train_sessions: int
    valid_sessions: int
    test_sessions: int
    #: From one fold to the next.
    step: int


class WalkForward(BaseModel):
    """Folds of a walk-forward evaluation: generated from lengths in sessions, or listed by date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: None = expanding.
    window: Window | None = None
    train_sessions: Sessions | None = None
    valid_sessions: Sessions | None = None
    test_sessions: Sessions | None = None
    #: None = as many as a test period has, so that test periods follow each other without a hole.
    step_sessions: Sessions | None = None
    folds: Annotated[tuple[Periods, ...], Field(min_length=1, max_length=MAX_FOLDS)] | None = None
    #: Sessions left out before each validation and test period; None = as many as the label looks ahead, never fewer.
    purge_sessions: Annotated[int, Field(ge=0, le=1000)] | None = None
    #: Sessions after each test period that no later fold learns from.
    embargo_sessions: Annotated[int, Field(ge=0, le=1000)] = 0

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        lengths = (self.train_sessions, self.valid_sessions, self.test_sessions)
        if self.folds is not None:
            if any(length is not None for length in (*lengths, self.step_sessions, self.window)):
                raise ValueError("folds are listed, so window and lengths in sessions have no meaning: leave them out")
            _follow_each_other(self.folds)
        elif None in lengths:
            raise ValueError("give train_sessions, valid_sessions and test_sessions, or list the folds")
        elif self.lengths.step < self.lengths.test_sessions:
            raise ValueError(
                f"step_sessions {self.lengths.step} is shorter than test_sessions {self.lengths.test_sessions}: "
                "a session would be tested twice"
            )
        return self

    @property
    def lengths(self) -> Lengths:
        """Return the lengths of generated folds."""
        return Lengths(
            window=self.window or "expanding",
            train_sessions=self.train_sessions or 0,
            valid_sessions=self.valid_sessions or 0,
            test_sessions=self.test_sessions or 0,
            step=self.step_sessions or self.test_sessions or 0,
        )


def _follow_each_other(folds: tuple[Periods, ...]) -> None:
    for number, (before, after) in enumerate(pairwise(folds), start=1):
        if after.test.first <= before.test.last:
            raise ValueError(
                f"fold {number + 1} tests from {after.test.first}, fold {number} until {before.test.last}: "
                "test periods follow each other without overlap"
            )


class TrainingConfig(BaseModel):
    """One training run; what a file leaves out. The baseline states its own choices in its `training.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: StrategyName = "alpha_baseline"
    #: A shipped one, or the path of a YAML or TOML file with one's own, relative to the configuration's file.
    feature_set: Annotated[str, Field(pattern=FEATURE_SET_PATTERN, max_length=1024)] = "alpha158"
    #: Expression that replaces `$vwap`. Unless it is stated, `none` where the snapshot's bars carry one.
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
    #: 2, as the machines of the demo and of CI have two cores. A number and not "all of them", for it is in the
    #: model's text: the same command gives the same digest on every machine. Trees do not depend on it.
    num_threads: Annotated[int, Field(ge=1, le=256)] = 2
    objective: Objective = "regression"
    #: Quantiles of a session's labels that a ranking objective learns to order; a regression has no use of them.
    relevance_levels: RelevanceLevels = 10
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 100
    #: By what boosting stops, on the validation period: the mean over its sessions of (rank) IC, or the squared error.
    early_stopping_metric: EarlyStoppingMetric = "l2"
    #: Rounds without improvement on the validation period after which boosting stops.
    early_stopping_rounds: Annotated[int, Field(ge=1)] = 20
    #: Rounds that are kept at least, whatever the validation period says.
    min_rounds: Annotated[int, Field(ge=1, le=100_000)] = 1
    learning_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.05
    max_depth: Annotated[int, Field(ge=-1, le=64)] = 6
    num_leaves: Annotated[int, Field(ge=2, le=131_072)] = 31
    #: Other parameters of LightGBM, by its own names.
    parameters: Annotated[dict[Name, bool | int | float | str], Field(max_length=100)] = {}
    construction: ConstructionRecord = ConstructionRecord(top_n=3, bottom_n=3)
    #: Basis points of each unit of weight bought or sold, for the evaluation.
    cost_bps: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = DEFAULT_COST_BPS
    #: Basis points a year of each unit of weight held short, for the evaluation.
    borrow_bps_a_year: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)] = 0.0
    #: None = one model, evaluated on the test period alone.
    walk_forward: WalkForward | None = None

    @model_validator(mode="after")
    def _no_second_spelling(self) -> Self:
        fixed = sorted(_FIXED & self.parameters.keys())
        if fixed:
            raise ValueError(f"parameters may not set {', '.join(fixed)}: the configuration has fields for these")
        return self

    @model_validator(mode="after")
    def _stop_by_what_is_predicted(self) -> Self:
        if self.objective in RANKING and self.early_stopping_metric == "l2":
            raise ValueError(
                f"objective {self.objective} predicts scores, which have no squared error: "
                "early_stopping_metric is rank_ic or ic"
            )
        if self.min_rounds > self.rounds:
            raise ValueError(f"min_rounds {self.min_rounds} is more than rounds {self.rounds}")
        return self

    @model_validator(mode="after")
    def _purge_the_label(self) -> Self:
        purge = self.walk_forward.purge_sessions if self.walk_forward else None
        if purge is None:
            return self
        if self.gap_sessions is not None:
            raise ValueError("gap_sessions and walk_forward.purge_sessions say the same: give one of them")
        if purge < self.label.sessions_ahead:
            raise ValueError(
                f"walk_forward.purge_sessions is {purge}, but the label looks {self.label.sessions_ahead} sessions "
                f"ahead: a shorter purge would let training see bars of the test period"
            )
        return self

    @property
    def own_feature_set(self) -> Path | None:
        """Return the file of a feature set of one's own; None for a shipped one."""
        path = Path(self.feature_set)
        return path if path.suffix else None

    @property
    def sides(self) -> Construction:
        """Return the construction of the evaluation and of requests without overrides."""
        return Construction(**self.construction.model_dump())

    @property
    def gap(self) -> int:
        """Return the sessions left out between two periods."""
        purge = self.walk_forward.purge_sessions if self.walk_forward else None
        return max(self.label.sessions_ahead, self.gap_sessions or 0, purge or 0)

    @property
    def ranks(self) -> bool:
        """Return whether the objective orders symbols within sessions."""
        return self.objective in RANKING

    @property
    def prediction_kind(self) -> PredictionKind:
        """Return what predictions are, as objective, label and label processor make them."""
        return kind_of(self.objective, label=self.label.expression, label_processor=self.label_processor)

    def lightgbm_parameters(self) -> dict[str, bool | int | float | str]:
        """Return the parameters of the booster."""
        # Gains that grow evenly: LightGBM's own double from level to level, so that the short side counts little.
        ranking = {"label_gain": ",".join(map(str, range(self.relevance_levels)))} if self.ranks else {}
        return {
            "objective": self.objective,
            "metric": "l2" if self.early_stopping_metric == "l2" else "None",
            **ranking,
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


#: Set by fields of the configuration, or needed for the same model from the same data; with LightGBM's other names.
_FIXED = frozenset(
    {"learning_rate", "shrinkage_rate", "eta", "max_depth", "num_leaves", "num_leaf", "max_leaves", "max_leaf"}
    | {"max_leaf_nodes", "seed", "random_seed", "random_state", "deterministic", "force_row_wise", "force_col_wise"}
    | {"num_threads", "num_thread", "nthread", "nthreads", "n_jobs", "verbosity", "verbose", "device_type", "device"}
    | {"num_iterations", "num_iteration", "n_iter", "num_tree", "num_trees", "num_round", "num_rounds", "nrounds"}
    | {"num_boost_round", "n_estimators", "max_iter", "early_stopping_round", "early_stopping_rounds"}
    | {"early_stopping", "n_iter_no_change", "objective", "objective_type", "app", "application", "loss"}
    | {"metric", "metrics", "metric_types"}
)


def load_training_config(path: Path) -> TrainingConfig:
    """Return the configuration of a YAML file; fields it leaves out have their defaults.

    Raises:
        TrainingError: The file cannot be read, is no YAML mapping, or a field is unknown or out of bounds.
    """
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as YAML: {first_line(error)}") from error
    try:
        config = TrainingConfig.model_validate({} if content is None else content)
        if config.own_feature_set is None:
            return config
        return config.model_copy(update={"feature_set": str(path.parent / config.own_feature_set)})
    except ValidationError as error:
        # A key with a typing error is both unknown and missing; the unknown one is the cause.
        first = min(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        hint = _hint(first["loc"]) if first["type"] == "extra_forbidden" else ""
        raise TrainingError(f"{path}, {place}: {first['msg']}{hint} (was {shown(first['input'])})") from error


#: Where keys belong that people look for in the configuration.
_ELSEWHERE = {
    "calendar": "the snapshot has its calendar from its import, by SIGNALS_CALENDAR",
    "snapshot": "it is an option of the training, --snapshot",
    "version": "it is an option of the training, --version",
}


def _hint(place: tuple[int | str, ...]) -> str:
    """Return the end of the sentence about an unknown key."""
    *outer, key = (str(part) for part in place if isinstance(part, str))
    known = _keys(TrainingConfig)
    beside = {name.rpartition(".")[2]: name for name in known if name.split(".")[:-1] == outer}
    if near := nearest(key, beside):
        return f"; did you mean {beside[near]}?"
    below = sorted(name for name in known if name.rpartition(".")[2] == key)
    if below:
        return f"; did you mean {' or '.join(below)}?"
    return f": {_ELSEWHERE[key]}" if key in _ELSEWHERE else f"; known are {', '.join(beside)}"


def _keys(model: type[BaseModel], outer: str = "") -> list[str]:
    """Return the keys of a configuration and of what it contains, with dots between."""
    found = []
    for name, info in model.model_fields.items():
        found.append(f"{outer}{name}")
        for part in _models_in(info.annotation):
            found += _keys(part, f"{outer}{name}.")
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - annotations have every shape
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
