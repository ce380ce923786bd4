"""Model bundles on disk: `artifacts/models/<strategy>/<version>/`.

Owns: saving a bundle atomically and once, loading one with every check, the bare LightGBM file as the simplest case.
Must not know: registries, MLflow, settings, which version serves.
Invariant: digests are checked before anything is parsed, a child process parses the model before this one does, and a
bundle that `load_bundle` returns as proven has computed its golden sample again, bit for bit.
"""

import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import lightgbm as lgb
import numpy as np

from strategies.construction import Construction
from strategies.errors import (
    BundleError,
    BundleNotFound,
    EngineDiffers,
    ExpressionError,
    GoldenSampleMismatch,
    MalformedBundle,
    MalformedModel,
)
from strategies.expressions.feature_sets import FeatureSet, define, feature_set
from strategies.market.bars import FIELDS, Window
from strategies.models.bundle import UNSTATED_LABEL, Bundle, LabelSpec, check_booster
from strategies.models.bundle_files import SIZE_LIMITS, digest, read_checked, read_limited, write_folder
from strategies.models.golden import GoldenSample, replay_golden
from strategies.models.labels import kind_of
from strategies.models.manifest import (
    GOLDEN_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    BundleManifest,
    FileRecord,
    Lineage,
    VwapStandIn,
    decode_manifest,
    encode_manifest,
)
from strategies.models.model_check import check_model_bytes
from strategies.models.reference import LEVELS, PREDICTION, Distribution
from strategies.models.tables import decode_golden, decode_reference, encode_golden, encode_reference

MANIFEST_FILE = "bundle.json"
#: What a bare model, which states nothing, is taken to have been trained with.
_BARE_STAND_IN: VwapStandIn = "typical_price"


class RecentDigests:
    """The digests that were added last, at most `limit` of them; any thread may ask and add."""

    def __init__(self, limit: int) -> None:
        """Begin without any."""
        self._limit, self._lock = limit, threading.Lock()
        #: In the order in which they were added.
        self._digests: dict[str, None] = {}

    def __contains__(self, sha256: str) -> bool:
        """Return whether it is among them."""
        with self._lock:
            return sha256 in self._digests

    def add(self, sha256: str) -> None:
        """Add one, and forget the oldest where they are too many."""
        with self._lock:
            self._digests[sha256] = None
            if len(self._digests) > self._limit:
                del self._digests[next(iter(self._digests))]


#: What a child has parsed: a version that is activated again needs no second child.
_checked = RecentDigests(256)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContent:
    """The parts of a bundle before it is saved."""

    lineage: Lineage
    #: Text of the LightGBM model.
    model: str
    golden: GoldenSample
    reference: tuple[Distribution, ...]


def bundle_path(artifacts_dir: Path, strategy: str, version: str) -> Path:
    """Return the folder of a bundle."""
    return artifacts_dir / "models" / strategy / version


def fetched_path(artifacts_dir: Path, strategy: str, sha256: str) -> Path:
    """Return the folder of a bundle from MLflow, by the digest of `bundle.json`; a bare model's file adds `.txt`."""
    return bundle_path(artifacts_dir, strategy, f"mlflow-{sha256}")


def next_version(artifacts_dir: Path, strategy: str) -> str:
    """Return `v<N>`, N one above the highest below the artifacts directory."""
    folder = artifacts_dir / "models" / strategy
    taken = [re.fullmatch(r"v(\d{1,9})", path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return f"v{max((int(match[1]) for match in taken if match), default=0) + 1}"


def save_bundle(artifacts_dir: Path, content: BundleContent) -> Path:
    """Write the bundle under a temporary name, rename it into place, and return its folder.

    Raises:
        BundleExists: The strategy has this version already.
    """
    files = {
        MODEL_FILE: content.model.encode("ascii"),
        GOLDEN_FILE: encode_golden(content.golden, content.lineage.feature_set.names),
        REFERENCE_FILE: encode_reference(content.reference),
    }
    records = {name: FileRecord(sha256=digest(data), size_bytes=len(data)) for name, data in files.items()}
    manifest = BundleManifest(**dict(content.lineage), files=records)
    path = bundle_path(artifacts_dir, manifest.strategy, manifest.version)
    write_folder(path, {**files, MANIFEST_FILE: encode_manifest(manifest)})
    return path


def load_bundle(
    path: Path,
    *,
    check: bool = True,
    prove: bool = True,
    expected_sha256: str | None = None,
    root: Path | None = None,
) -> Bundle:
    """Return the bundle of a folder.

    Order: size limits and digests of all files, manifest, feature set, child process, parse, golden sample. The model
    is parsed from the very bytes that were hashed.

    Args:
        path: Folder of the bundle.
        check: Whether a child process parses the model first; False only for bytes this process has just written.
        prove: Whether the golden sample is replayed; without it the bundle has `proven=False`.
        expected_sha256: Digest that `bundle.json` must have, where the registry knows it.
        root: Folder above it below which no link is followed, see `read_limited`.

    Raises:
        BundleNotFound: No folder, or a file of it is missing.
        DigestMismatch: A file differs from its digest.
        FeatureSetMismatch: The booster was trained on other features than the manifest states.
        EngineDiffers: This release computes other features than the manifest states, or does not know its format.
        MalformedModel: The model does not parse, has no trees, or predicts something that is not finite.
        GoldenSampleMismatch: A feature or prediction differs from what training saw.
        BundleError: Anything else that must not serve.
    """
    manifest, manifest_sha256 = _read_manifest(path, expected_sha256, root)
    contents = {name: _read(path, name, manifest, root) for name in (MODEL_FILE, GOLDEN_FILE, REFERENCE_FILE)}
    features = _feature_set(manifest)
    tables = (contents[GOLDEN_FILE], contents[REFERENCE_FILE])
    booster = _booster(contents[MODEL_FILE], features, tables, check=check)
    bundle = _bundle(manifest, manifest_sha256, features, booster)
    bundle = replace(bundle, reference=_reference(contents[REFERENCE_FILE], features))
    if not prove:
        return bundle
    golden = decode_golden(contents[GOLDEN_FILE], features.names)
    try:
        replay_golden(bundle, golden)
    except (ExpressionError, ValueError) as error:  # bars of other fields, predictions of another shape
        raise GoldenSampleMismatch(f"the golden sample cannot be computed again: {error}") from error
    return replace(bundle, proven=True)


def load_golden(path: Path, bundle: Bundle) -> GoldenSample:
    """Return the golden sample of a loaded bundle, from the folder it was loaded from.

    Raises:
        DigestMismatch: The file differs from the digest in the bundle's manifest.
        BundleError: The bundle is a bare model, or the file is no golden sample.
    """
    content = _read(path, GOLDEN_FILE, _stated(bundle))
    return decode_golden(content, bundle.feature_set.names)


def load_bare_model(
    path: Path,
    strategy: str,
    version: str,
    *,
    check: bool = True,
    expected_sha256: str | None = None,
    root: Path | None = None,
) -> Bundle:
    """Return a LightGBM text file without a bundle as Alpha158 by its 158 features, never proven.

    Nobody stated its label, so its predictions are no returns and have no horizon.

    Raises:
        BundleNotFound: No such file.
        DigestMismatch: It has another digest than the registry knows of it.
        FeatureSetMismatch: Not 158 features, or others than Alpha158's in its order.
        MalformedModel: The model does not parse, has no trees, or predicts something that is not finite.
        BundleError: A link, or a file that is too large.
    """
    limit = SIZE_LIMITS[MODEL_FILE]
    content = _read_pinned(path, limit, expected_sha256, root)
    features = feature_set("alpha158", vwap_stand_in=_BARE_STAND_IN)
    sha256 = digest(content)
    booster = _booster(content, features, (), check=check)
    bundle = Bundle(
        strategy=strategy,
        version=version,
        model_sha256=sha256,
        bundle_sha256=sha256,
        feature_set=features,
        label=UNSTATED_LABEL,
        prediction_kind=kind_of(objective_of(booster), label=None),
        vwap_stand_in=_BARE_STAND_IN,
        construction=Construction(),
        calendar="XNYS",
        universe=(),
        proven=False,
        manifest=None,
        processors=(),
        booster=booster,
    )
    _warm_up(bundle)
    return bundle


def objective_of(booster: lgb.Booster) -> str:
    """Return the objective that a booster states, with its parameters; empty where it states none."""
    return str(booster.dump_model(num_iteration=1).get("objective", ""))


def _warm_up(bundle: Bundle) -> None:
    """Predict once from synthetic bars, as a golden sample's replay does, so that no request waits for compilation."""
    bars = np.linspace(1.0, 2.0, bundle.lookback)[np.newaxis]
    bars.setflags(write=False)
    window = Window(
        symbols=("A",),
        sessions=np.arange(bundle.lookback).astype("datetime64[D]"),
        fields=dict.fromkeys(FIELDS, bars),
        first=np.zeros(1, dtype=np.int64),
    )
    bundle.predict(bundle.feature_set.evaluate(window))


def parse_booster(content: bytes) -> lgb.Booster:
    """Return the booster of model bytes that a child process has already parsed.

    Raises:
        MalformedModel: LightGBM refuses them.
    """
    try:
        return lgb.Booster(model_str=content.decode("ascii"))
    except (lgb.basic.LightGBMError, ValueError, TypeError) as error:
        raise MalformedModel(f"LightGBM cannot read the model: {error}") from error


def _read_manifest(path: Path, expected_sha256: str | None, root: Path | None) -> tuple[BundleManifest, str]:
    if not path.is_dir():
        raise BundleNotFound(f"there is no bundle folder {path}")
    limit = SIZE_LIMITS[MANIFEST_FILE]
    file = path / MANIFEST_FILE
    content = _read_pinned(file, limit, expected_sha256, root)
    return decode_manifest(content), digest(content)


def _read_pinned(path: Path, limit_bytes: int, expected_sha256: str | None, root: Path | None) -> bytes:
    if not expected_sha256:
        return read_limited(path, limit_bytes, root=root)
    return read_checked(path, limit_bytes, expected_sha256, root=root)


def _read(path: Path, name: str, manifest: BundleManifest, root: Path | None = None) -> bytes:
    return read_checked(path / name, SIZE_LIMITS[name], manifest.files[name].sha256, root=root)


def _feature_set(manifest: BundleManifest) -> FeatureSet:
    record = manifest.feature_set
    try:
        features = define(
            record.name,
            tuple(zip(record.names, record.expressions, strict=True)),
            precision=record.precision,
            expanding=record.expanding_sessions,
        )
    except ExpressionError as error:
        raise EngineDiffers(f"this engine cannot compute the bundle's features: {error}") from error
    for name, expected, was in (
        ("hash", record.sha256, features.sha256),
        ("lookback", record.lookback, features.lookback),
    ):
        if expected != was:
            raise EngineDiffers(f"feature set {record.name} has {name} {was} here, the bundle states {expected}")
    return features


def _booster(content: bytes, features: FeatureSet, tables: tuple[bytes, ...], *, check: bool) -> lgb.Booster:
    if check:
        _check(content, tables)
    booster = parse_booster(content)
    check_booster(booster, features.names)
    return booster


def _check(content: bytes, tables: tuple[bytes, ...]) -> None:
    """Let a child process parse bytes that none has parsed for this process yet.

    Raises:
        MalformedBundle: A table of them unpacks to too much.
        MalformedModel: The model must not be parsed here.
        BundleUnavailable: They cannot be checked now.
    """
    sha256 = digest(b"".join(digest(each).encode() for each in (content, *tables)))
    if sha256 not in _checked:
        check_model_bytes(content, tables)
        _checked.add(sha256)


def _reference(content: bytes, features: FeatureSet) -> tuple[Distribution, ...]:
    reference = decode_reference(content)
    if tuple(each.name for each in reference) != (*features.names, PREDICTION):
        raise MalformedBundle(f"{REFERENCE_FILE} holds other columns than the features in order and the prediction")
    if any(
        len(each.quantiles) not in {0, len(LEVELS)} or each.quantiles != tuple(sorted(each.quantiles))
        for each in reference
    ):
        raise MalformedBundle(f"{REFERENCE_FILE} holds a column without {len(LEVELS)} ascending quantiles")
    return reference


def _bundle(manifest: BundleManifest, sha256: str, features: FeatureSet, booster: lgb.Booster) -> Bundle:
    return Bundle(
        strategy=manifest.strategy,
        version=manifest.version,
        model_sha256=manifest.files[MODEL_FILE].sha256,
        bundle_sha256=sha256,
        feature_set=features,
        label=LabelSpec(**manifest.label.model_dump()),
        prediction_kind=manifest.prediction_kind,
        vwap_stand_in=manifest.feature_set.vwap_stand_in,
        construction=Construction(**manifest.construction.model_dump()),
        calendar=manifest.training.calendar,
        universe=manifest.training.universe,
        proven=False,
        manifest=manifest,
        processors=manifest.processors,
        booster=booster,
    )


def _stated(bundle: Bundle) -> BundleManifest:
    if bundle.manifest is None:
        raise BundleError(f"{bundle.strategy} {bundle.version} is a bare model, it has no other files")
    return bundle.manifest
