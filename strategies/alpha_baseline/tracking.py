"""MLflow: the log of training runs.

Owns: what is logged of a run.
Must not know: how models are trained, which one serves.
Invariant: a bundle is complete and verified before it is logged, and does not depend on MLflow in any way.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strategies.alpha_baseline.train import TrainedModel
from strategies.errors import TrainingError
from strategies.models.bundle import Bundle
from strategies.models.manifest import BundleManifest
from strategies.models.mlflow_connection import Connection, connect, failures, quiet_mlflow


class TrackingFailed(TrainingError):
    """A run could not be logged to MLflow; the bundle itself is unaffected."""


def log_run(bundle: Bundle, path: Path, trained: TrainedModel, *, tracking_uri: str | None) -> str:
    """Log parameters, metrics, plots and the bundle's files, and return the id of the MLflow run.

    Metrics are the bundle's; `fold_…` each fold's, with the fold as step; `final_…` the final model's own, where there
    are folds; `validation_<metric>`, what boosting stopped by, with the boosting round as step.

    Args:
        bundle: Loaded from `path`.
        path: Folder of the bundle, `artifacts/models/<strategy>/<version>`.
        trained: What the bundle was saved from.
        tracking_uri: Of the MLflow store; None = the local one beside the bundles.

    Raises:
        TrackingFailed: MLflow is not installed, unreachable, or refuses.
    """
    manifest = bundle.manifest
    if manifest is None:
        raise TrackingFailed(f"{bundle.strategy} {bundle.version} is a bare model, there is nothing to log of it")
    refusals: tuple[type[Exception], ...] = ()
    try:
        with quiet_mlflow():
            refusals = failures()
            return _log(connect(path.parents[2], tracking_uri), manifest, bundle, path, trained)
    except ImportError as error:
        # Of MLflow itself, of what its local store needs, or of the plots.
        raise TrackingFailed(f"{error.name} is not installed: pip install 'signal-worker[tracking]'") from error
    except refusals as error:
        raise TrackingFailed(f"the run was not logged to {tracking_uri or 'the local store'}: {error}") from error


def _log(connection: Connection, manifest: BundleManifest, bundle: Bundle, path: Path, trained: TrainedModel) -> str:
    from strategies.analysis.plots import draw_figures  # noqa: PLC0415 - matplotlib comes with MLflow, not with serving

    client = connection.client
    existing = client.get_experiment_by_name(bundle.strategy)
    experiment = (
        existing.experiment_id if existing else client.create_experiment(bundle.strategy, connection.artifact_location)
    )
    run_id: str = client.create_run(experiment, run_name=bundle.version, tags=_tags(bundle, manifest)).info.run_id
    for name, value in _parameters(manifest).items():
        client.log_param(run_id, name, value)
    for name, metric, step in _metrics(manifest, trained):
        client.log_metric(run_id, name, metric, step=step)
    client.log_artifacts(run_id, str(path), "bundle")
    for name, figure in draw_figures(bundle, trained.evaluation, trained.validation).items():
        client.log_figure(run_id, figure, f"plots/{name}.png")
    client.set_terminated(run_id)
    return run_id


def _metrics(manifest: BundleManifest, trained: TrainedModel) -> list[tuple[str, float, int]]:
    metrics = [(name, value, 0) for name, value in manifest.metrics.items()]
    if manifest.walk_forward:
        for step, fold in enumerate(manifest.walk_forward.folds, start=1):
            metrics += [(f"fold_{name}", value, step) for name, value in fold.metrics.items()]
        metrics += [(f"final_{name}", value, 0) for name, value in manifest.walk_forward.final_metrics.items()]
    stopped_by = (manifest.settings.early_stopping_metric if manifest.settings else None) or "l2"
    metrics += [(f"validation_{stopped_by}", value, step) for step, value in enumerate(trained.validation, start=1)]
    return [(name, value, step) for name, value, step in metrics if value is not None]


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
    folds = manifest.walk_forward
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
        **(manifest.settings.model_dump() if manifest.settings else {}),
        **(folds.model_dump(include={"window", "embargo_sessions"}) | {"folds": len(folds.folds)} if folds else {}),
    }
