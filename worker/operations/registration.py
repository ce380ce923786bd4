"""From files of a model to what is registered of it.

Owns: which statements of a bundle go into the registry, and how its place is written there.
Must not know: the registry's tables, what serves.
Invariant: what is registered is below the artifacts directory and loaded here and now, golden sample included; its
path is relative, so that workers on other machines find it below their own, or the MLflow URI that it came from.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strategies.errors import BundleError, BundleNotFound
from strategies.models.bundle import Bundle
from strategies.models.bundle_store import load_bare_model, load_bundle
from worker.registry.models import Registration


def registration_of_bundle(folder: Path, artifacts_dir: Path, extra: Registration | None = None) -> Registration:
    """Return the registration of a bundle, with the MLflow ids, author and notes of `extra`.

    Raises:
        BundleNotFound: No bundle is there.
        BundleError: It is outside the artifacts directory, or does not prove itself here.
    """
    model_path = _relative(folder, artifacts_dir)
    bundle = load_bundle(artifacts_dir.resolve() / model_path)
    found = Registration(
        strategy=bundle.strategy,
        version=bundle.version,
        model_path=model_path,
        metrics=dict(bundle.manifest.metrics) if bundle.manifest else {},
        config=_config(bundle),
    )
    return found if extra is None else _completed(found, extra)


def registration_of_bare_model(file: Path, artifacts_dir: Path, stated: Registration) -> Registration:
    """Return the registration of a LightGBM text file, under the strategy and version that `stated` gives it.

    Raises:
        BundleNotFound: No file is there.
        BundleError: It is outside the artifacts directory, or is no model of Alpha158.
    """
    model_path = _relative(file, artifacts_dir)
    bundle = load_bare_model(artifacts_dir.resolve() / model_path, stated.strategy, stated.version)
    return replace(stated, model_path=model_path, config=_config(bundle))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where MLflow had it."""

    #: As given; the registry's model path.
    uri: str
    #: The same with an alias replaced by its version.
    pinned_uri: str
    run_id: str | None
    experiment_id: str | None


def registration_out_of_mlflow(place: Path, artifacts_dir: Path, origin: Origin, stated: Registration) -> Registration:
    """Return the registration of what was brought out of MLflow to a place below the artifacts directory.

    Its model path is the URI as given; its digest is pinned, and what has another one is never served.

    Args:
        place: A bundle's folder, or the file of a bare model.
        artifacts_dir: Above it.
        origin: Where MLflow had it.
        stated: Strategy and version of a bare model; author and notes; ids of MLflow, where they are not the origin's.

    Raises:
        BundleError: It does not prove itself here.
    """
    of = registration_of_bare_model if place.is_file() else registration_of_bundle
    found = of(place, artifacts_dir, stated)
    return replace(
        found,
        model_path=origin.uri,
        mlflow_run_id=stated.mlflow_run_id or origin.run_id,
        mlflow_experiment_id=stated.mlflow_experiment_id or origin.experiment_id,
        config={**found.config, "mlflow_source": origin.pinned_uri},
    )


def _relative(path: Path, artifacts_dir: Path) -> str:
    root = artifacts_dir.resolve()
    # As given from here, or as the registry would spell it.
    places = [place for place in (path, root / path) if place.exists()]
    if not places:
        raise BundleNotFound(f"there is nothing at {path}, neither from here nor in {root}")
    place = places[0].resolve()
    if not place.is_relative_to(root):
        raise BundleError(f"{path} is outside the artifacts directory {root}")
    return place.relative_to(root).as_posix()


def _config(bundle: Bundle) -> dict[str, Any]:
    config: dict[str, Any] = {
        "proven": bundle.proven,
        "bundle_sha256": bundle.bundle_sha256,
        "model_sha256": bundle.model_sha256,
        "feature_set": bundle.feature_set.name,
        "feature_set_sha256": bundle.feature_set.sha256,
        "prediction_kind": bundle.prediction_kind,
        "horizon": bundle.label.horizon,
    }
    if bundle.manifest is not None:
        config["snapshot_id"] = bundle.manifest.training.snapshot_id
    return config


def _completed(found: Registration, extra: Registration) -> Registration:
    return replace(
        found,
        mlflow_run_id=extra.mlflow_run_id,
        mlflow_experiment_id=extra.mlflow_experiment_id,
        created_by=extra.created_by,
        notes=extra.notes,
    )
