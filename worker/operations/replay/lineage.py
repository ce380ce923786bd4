"""What a vector was made of, found again on disk.

Owns: the way from digests in a vector to a bundle under the artifact root and a snapshot under the data directory.
Must not know: streams, the registry, how vectors are compared.
Invariant: what is found by digest is preferred, wherever it is below the artifact root, as the registry takes any
path there; what is found by name alone is used too, and its other digest shows.
"""

import platform
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

from contracts import SignalVector
from strategies.errors import BundleError, BundleNotFound, DataError, GoldenSampleMismatch
from strategies.market.bars import Panel
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import find_snapshot, load_panel
from strategies.models.bundle import Bundle
from strategies.models.bundle_files import SIZE_LIMITS, digest, read_limited
from strategies.models.bundle_store import MANIFEST_FILE, bundle_path, load_bare_model, load_bundle
from strategies.models.manifest import MODEL_FILE
from worker.errors import WorkerError
from worker.operations.replay.artifacts import MAX_DEPTH, MAX_FILES, Artifacts

#: Bundles and snapshots kept between vectors; an audit goes through them one after the other.
_BUNDLES, _PANELS = 8, 2


class NotReproducible(WorkerError):
    """A vector whose bundle or snapshot is no longer here, so that nothing is known of it."""


class LineageResolver:
    """Bundles and bars by what vectors state of them; not safe to share between threads."""

    def __init__(self, artifacts_dir: Path, data_dir: Path) -> None:
        """Take where bundles and snapshots are; nothing is read before it is asked for."""
        self._artifacts_dir, self._data_dir = artifacts_dir, data_dir
        self._artifacts, self._identity = Artifacts(artifacts_dir), cache(_identity)
        self._bundle = lru_cache(_BUNDLES)(self._load_bundle)
        self._panel = lru_cache(_PANELS)(self._load_panel)

    def bundle(self, vector: SignalVector) -> tuple[Bundle, str]:
        """Return the vector's bundle, and why it is not proven here (empty: it is, or never was).

        Raises:
            NotReproducible: There is none, or it does not load.
        """
        return self._bundle(vector.strategy, vector.model_version, vector.bundle_sha256, vector.model_sha256)

    def bars(self, vector: SignalVector) -> tuple[Panel, SessionCalendar]:
        """Return the bars of the vector's snapshot, and their calendar.

        Raises:
            NotReproducible: The snapshot is gone, or no longer what its manifest states.
        """
        return self._panel(vector.snapshot_id)

    def _load_panel(self, snapshot_id: str) -> tuple[Panel, SessionCalendar]:
        try:
            snapshot = find_snapshot(self._data_dir, snapshot_id)
            calendar = snapshot.open_calendar()
            return load_panel(snapshot, calendar), calendar
        except DataError as error:
            raise NotReproducible(f"snapshot {snapshot_id}: {error}") from error

    def _load_bundle(
        self, strategy: str, version: str, bundle_sha256: str | None, model_sha256: str
    ) -> tuple[Bundle, str]:
        path = self._find(strategy, version, bundle_sha256, model_sha256)
        try:
            if path.is_file():
                return load_bare_model(path, strategy, version), ""
            try:
                return load_bundle(path), ""
            except GoldenSampleMismatch as error:
                # It served once; what it computes here and now is exactly what a replay is to show.
                return load_bundle(path, prove=False), f"the bundle does not prove itself here: {error}"
        except BundleError as error:
            raise NotReproducible(f"bundle {strategy} {version}: {error}") from error

    def _find(self, strategy: str, version: str, bundle_sha256: str | None, model_sha256: str) -> Path:
        named, wanted = bundle_path(self._artifacts_dir, strategy, version), bundle_sha256 or model_sha256
        for path in (named, *_candidates(self._artifacts_dir / "models" / strategy)):
            if path.exists() and self._identity(path, by_model=bundle_sha256 is None) == wanted:
                return path
        if elsewhere := self._find_elsewhere(bundle_sha256, model_sha256):
            return elsewhere
        if not named.exists():
            raise NotReproducible(
                f"bundle {strategy} {version}: there is nothing at {named}, and of the first {MAX_FILES} files below "
                f"{self._artifacts_dir}, {MAX_DEPTH} folders deep, none has SHA-256 {wanted}"
            )
        return named

    def _find_elsewhere(self, bundle_sha256: str | None, model_sha256: str) -> Path | None:
        # A bare model states its own digest as that of its bundle; a vector that states none may be of either.
        if bundle_sha256 is not None and bundle_sha256 != model_sha256:
            return self._artifacts.bundle(bundle_sha256)
        model = self._artifacts.model(model_sha256)
        if model and bundle_sha256 is None and model.name == MODEL_FILE and (model.parent / MANIFEST_FILE).is_file():
            return model.parent
        return model


def surroundings(vector: SignalVector, bundle: Bundle, code_version: str) -> tuple[str, ...]:
    """Return what else is not as it was: this code since the vector, libraries since the model was trained.

    None of it changes a vector by itself; it is where to look first when something did.
    """
    found = []
    if vector.code_version != code_version:
        found.append(f"code version was {vector.code_version}, here it is {code_version}")
    stated = bundle.manifest.versions if bundle.manifest else {}
    for name, was in stated.items():
        here = platform.python_version() if name == "python" else _installed(name)
        if here != was:
            found.append(f"{name} was {was} at training, here it is {here}")
    return tuple(found)


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield every bundle of a strategy and every bare model beside or in one, in order of name."""
    if folder.is_dir():
        yield from sorted(path.parent for path in folder.glob(f"*/{MANIFEST_FILE}"))
        yield from sorted((*folder.glob("*.txt"), *folder.glob("*/*.txt")))


def _identity(path: Path, *, by_model: bool) -> str:
    """Return the digest that a vector states of the bundle here; empty where it cannot be read."""
    name = MODEL_FILE if by_model else MANIFEST_FILE
    file, limit = (path, SIZE_LIMITS[MODEL_FILE]) if path.is_file() else (path / name, SIZE_LIMITS[name])
    try:
        return digest(read_limited(file, limit))
    except (BundleNotFound, BundleError):
        return ""
