"""MLflow: the notebook of training runs.

Owns: what is logged of a run, and the local store that stands in where no server is configured.
Must not know: how models are trained, which one serves.
Invariant: a bundle is whole and proven before it is logged, and does not depend on MLflow in any way.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strategies.errors import TrainingError
from strategies.models.bundle import Bundle
from strategies.models.manifest import BundleManifest

if TYPE_CHECKING:
    from mlflow import MlflowClient


class TrackingFailed(TrainingError):
    """MLflow could not be told of a run; the bundle itself is unharmed."""


def local_store(artifacts_dir: Path) -> str:
    """Return the address of the local store: one SQLite file, as MLflow 3 writes no plain folders any more."""
    return f"sqlite:///{(artifacts_dir / 'mlruns' / 'mlflow.db').resolve()}"


def log_run(bundle: Bundle, path: Path, losses: Sequence[float], *, tracking_uri: str | None) -> str:
    """Log parameters, metrics, validation loss by round and the bundle's files, and return the id of the MLflow run.

    Args:
        bundle: Loaded from `path`.
        path: Folder of the bundle, `artifacts/models/<strategy>/<version>`.
        losses: On the validation period, `[rounds]`.
        tracking_uri: Of the MLflow store; None = the local one beside the bundles.

    Raises:
        TrackingFailed: MLflow is not installed, unreachable, or refuses.
    """
    manifest = bundle.manifest
    if manifest is None:
        raise TrackingFailed(f"{bundle.strategy} {bundle.version} is a bare model, there is nothing to log of it")
    try:
        with _quiet_mlflow():
            from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see `_client`
            from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415
    except ImportError as error:
        raise TrackingFailed(f"MLflow is not installed: {error}") from error
    try:
        with _quiet_mlflow():
            return _log(_client(path.parents[2], tracking_uri), manifest, bundle, path, losses)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingFailed(f"the run was not logged to {tracking_uri or 'the local store'}: {error}") from error


def _client(artifacts_dir: Path, tracking_uri: str | None) -> "tuple[MlflowClient, str | None]":
    from mlflow import MlflowClient  # noqa: PLC0415 - takes more than a second, and only training needs it

    if tracking_uri is not None:
        return MlflowClient(tracking_uri=tracking_uri), None
    runs = (artifacts_dir / "mlruns").resolve()
    runs.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=local_store(artifacts_dir)), (runs / "artifacts").as_uri()


def _log(
    connection: "tuple[MlflowClient, str | None]",
    manifest: BundleManifest,
    bundle: Bundle,
    path: Path,
    losses: Sequence[float],
) -> str:
    client, artifact_location = connection
    known = client.get_experiment_by_name(bundle.strategy)
    experiment = known.experiment_id if known else client.create_experiment(bundle.strategy, artifact_location)
    run_id: str = client.create_run(experiment, run_name=bundle.version, tags=_tags(bundle, manifest)).info.run_id
    for name, value in _parameters(manifest).items():
        client.log_param(run_id, name, value)
    for name, metric in manifest.metrics.items():
        if metric is not None:
            client.log_metric(run_id, name, metric)
    for step, loss in enumerate(losses, start=1):
        client.log_metric(run_id, "validation_loss", loss, step=step)
    client.log_artifacts(run_id, str(path), "bundle")
    client.set_terminated(run_id)
    return run_id


def _tags(bundle: Bundle, manifest: BundleManifest) -> dict[str, str]:
    tags = {
        "strategy": bundle.strategy,
        "version": bundle.version,
        "bundle_sha256": bundle.bundle_sha256,
        "model_sha256": bundle.model_sha256,
        "snapshot_id": manifest.training.snapshot_id,
    }
    return tags | ({"git_revision": manifest.git_revision} if manifest.git_revision else {})


def _parameters(manifest: BundleManifest) -> Mapping[str, Any]:
    training = manifest.training
    periods = {name: getattr(training, name) for name in ("train", "valid", "test")}
    return {
        **training.parameters,
        "feature_set": manifest.feature_set.name,
        "feature_set_sha256": manifest.feature_set.sha256,
        "vwap_stand_in": manifest.feature_set.vwap_stand_in,
        "label": manifest.label.expression,
        "symbols": len(training.universe),
        "best_iteration": training.best_iteration,
        "gap_sessions": training.gap_sessions,
        "train_rows": training.train_rows,
        "valid_rows": training.valid_rows,
        **{name: f"{period.first} to {period.last}" for name, period in periods.items()},
    }


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Keep MLflow from telling its makers of each run, and from telling of its tables on stderr."""
    # It reads these from the environment alone.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # noqa: TID251
    # Seconds instead of minutes until a server that is away is said to be away: the bundle is already safe.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # noqa: TID251
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        yield
