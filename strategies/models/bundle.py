"""The loaded model bundle: booster, feature set, processors and lineage in one immutable object.

Owns: the type `Bundle`, its label, and the one way in which predictions are computed and explained.
Must not know: where bundles are stored, digests of files, registries.
Invariant: features go to the booster by the order of the bundle's own names, on one thread; the same row gives the same
prediction alone or among others. One thread uses a booster at a time, as LightGBM sets its predictor up at each call.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import lightgbm as lgb
import numpy as np

from strategies.construction import Construction
from strategies.errors import FeatureSetMismatch, MalformedModel
from strategies.expressions.feature_sets import FeatureSet
from strategies.market.bars import Float32Array, FloatArray
from strategies.models.explanations import Attribution, explain_rows
from strategies.models.manifest import BundleManifest, PredictionKind, VwapStandIn
from strategies.models.processors import Fillna, Scaling, apply_processors
from strategies.models.reference import Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSpec:
    """What a prediction is a prediction of."""

    name: str
    expression: str
    #: In words, T being the as-of session; empty: nobody stated the label.
    horizon: str
    #: Sessions after the as-of session that the label reads.
    sessions_ahead: int


#: Qlib's label for Alpha158: bought at the close after the as-of session, sold one session later.
ALPHA158_LABEL = LabelSpec(
    name="LABEL0",
    expression="Ref($close, -2)/Ref($close, -1) - 1",
    horizon="close of T+1 to close of T+2",
    sessions_ahead=2,
)

#: Of a model whose label nobody stated: outcomes are judged by Alpha158's, and its predictions have no horizon.
UNSTATED_LABEL = replace(ALPHA158_LABEL, name="not stated", horizon="")


class Predictor(Protocol):
    """Anything that computes features and predictions as a bundle does."""

    @property
    def feature_set(self) -> FeatureSet:
        """Return what is computed from bars."""
        ...

    def predict(self, features: Float32Array) -> FloatArray:
        """Return the model's own output for each row of raw features, `[rows]`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scorer:
    """What `Bundle` computes with, before there is a bundle: feature set, processors and booster."""

    feature_set: FeatureSet
    processors: tuple[Scaling | Fillna, ...]
    booster: lgb.Booster

    def predict(self, features: Float32Array) -> FloatArray:
        """Return the model's own output for each row, as `Bundle.predict` does."""
        return predict_rows(self.booster, apply_processors(self.processors, features))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """A model that can serve: all of it, and nothing else."""

    strategy: str
    version: str
    #: SHA-256 of `model.txt`, hex.
    model_sha256: str
    #: SHA-256 of `bundle.json`, hex; of the model file itself where a bare model has no manifest.
    bundle_sha256: str
    feature_set: FeatureSet
    label: LabelSpec
    prediction_kind: PredictionKind
    #: Expression that replaces `$vwap` in the feature set.
    vwap_stand_in: VwapStandIn
    #: Used where a request names no sides of its own.
    construction: Construction
    #: Code of the exchange calendar, e.g. XNYS.
    calendar: str
    #: Symbols it was trained on, ascending; empty for a bare model.
    universe: tuple[str, ...]
    #: Whether its golden sample was replayed here, bit for bit.
    proven: bool
    #: None for a bare model.
    manifest: BundleManifest | None
    processors: tuple[Scaling | Fillna, ...]
    booster: lgb.Booster
    #: What each feature, in order, and the prediction looked like in training; empty for a bare model.
    reference: tuple[Distribution, ...] = ()
    #: A canary serves requests on one thread and shadow vectors on another. `replace` does not copy the lock: a copy
    #: with its own booster must not wait for this one.
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def lookback(self) -> int:
        """Return the sessions up to and including the as-of session that a prediction needs."""
        return self.feature_set.lookback

    def predict(self, features: Float32Array) -> FloatArray:
        """Return the model's own output for each row, `[symbols]` float64, never rescaled.

        Args:
            features: Raw features in the order of the feature set, `[symbols, features]` float32; NaN = missing.
                The bundle's processors, if any, are applied here.

        Raises:
            FeatureSetMismatch: Another number of columns than the feature set has.
        """
        processed = self._processed(features)
        with self._turn:
            return predict_rows(self.booster, processed)

    def explain(self, features: Float32Array, predictions: FloatArray, *, count: int) -> tuple[Attribution, ...]:
        """Return why each row has its prediction, values as the booster saw them: after the processors.

        Args:
            features: As for `predict`.
            predictions: What `predict` returned for them.
            count: Features named a row at most.

        Raises:
            NotExplainable: Contributions do not sum to this model's predictions, or there are none.
            FeatureSetMismatch: Another number of columns than the feature set has.
        """
        processed = self._processed(features)
        with self._turn:
            return explain_rows(self.booster, processed, predictions, self.feature_set.names, count=count)

    def _processed(self, features: Float32Array) -> Float32Array:
        if features.shape != (len(features), len(self.feature_set.names)):
            raise FeatureSetMismatch(f"features have shape {features.shape}, columns are {len(self.feature_set.names)}")
        return apply_processors(self.processors, features)


def predict_rows(booster: lgb.Booster, features: Float32Array) -> FloatArray:
    """Return the booster's output for each row of processed features, `[rows]` float64."""
    if not len(features):
        return np.empty(0, dtype=np.float64)
    # One thread: a pool that spins up for 5 rows costs more than the trees, and the process serves one request a time.
    predictions: FloatArray = booster.predict(np.ascontiguousarray(features), num_threads=1)
    return predictions


def check_booster(booster: lgb.Booster, names: Sequence[str]) -> None:
    """Refuse a booster that cannot predict one number a row from these columns in this order.

    Raises:
        MalformedModel: No trees, or more than one output a row.
        FeatureSetMismatch: Another number of columns, or other names than these and than LightGBM's own `Column_0`.
    """
    if booster.num_trees() < 1:
        raise MalformedModel("the model has 0 trees, at least 1 is needed")
    if booster.num_model_per_iteration() != 1:
        raise MalformedModel(f"the model has {booster.num_model_per_iteration()} outputs a row, it must have 1")
    if booster.num_feature() != len(names):
        raise FeatureSetMismatch(f"the model has {booster.num_feature()} features, the feature set {len(names)}")
    for index, (was, name) in enumerate(zip(booster.feature_name(), names, strict=True)):
        # LightGBM writes an underscore for a blank; arrays without names become Column_0, Column_1, ...
        if was not in (name.replace(" ", "_"), f"Column_{index}"):
            raise FeatureSetMismatch(f"column {index} of the model is {was}, of the feature set {name}")
