"""The baseline's training run: latest snapshot in, proven bundle out.

Owns: the order load, train, save, prove; the baseline's own configuration (`training.yaml`).
Must not know: command lines, MLflow, registries.
Invariant: what is returned was loaded back from disk, digests checked and golden sample replayed.
"""

from dataclasses import dataclass
from pathlib import Path

from strategies.errors import BundleExists
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel
from strategies.models.bundle import Bundle
from strategies.models.bundle_store import bundle_path, load_bundle, next_version, save_bundle
from strategies.models.configuration import TrainingConfig, load_training_config
from strategies.models.samples import Progress
from strategies.models.training import Provenance, TrainedModel, train


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders of one run."""

    #: Above `adjusted/`.
    data_dir: Path
    #: Above `models/`.
    artifacts_dir: Path


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
    """Return the configuration that `alpha_baseline` is trained with unless told otherwise."""
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
        places: Where bars and bundles lie.
        version: Of the bundle; default `v<N>`, the next free one.
        snapshot: Id or run date; default the latest.
        git_revision: Of the code, for the bundle.
        progress: Told `bars` and the stages of `strategies.models.training.train`.

    Raises:
        BundleExists: The version is taken; nothing was trained.
        SnapshotNotFound: No such snapshot.
        TrainingError: See `strategies.models.training.train`.
    """
    version = version or next_version(places.artifacts_dir, config.strategy)
    target = bundle_path(places.artifacts_dir, config.strategy, version)
    if target.exists():
        raise BundleExists(f"{target} is already there, and bundles never change: choose another version")
    ref = find_snapshot(places.data_dir, snapshot) if snapshot else latest_snapshot(places.data_dir)
    calendar = ref.manifest.calendar
    if progress:
        progress("bars", 0, len(ref.symbols))
    panel = load_panel(ref, SessionCalendar(calendar))
    if progress:
        progress("bars", len(ref.symbols), len(ref.symbols))
    provenance = Provenance(version=version, calendar=calendar, git_revision=git_revision)
    trained = train(panel, config, provenance, progress=progress)
    path = save_bundle(places.artifacts_dir, trained.content)
    return TrainingRun(path=path, bundle=load_bundle(path), trained=trained)
