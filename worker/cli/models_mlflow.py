"""`signal-worker models register --uri` and `models fetch`: models that were logged to MLflow."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import ExitCode, Json, print_json, refuse, settings_of
from worker.cli._registry import registry

if TYPE_CHECKING:
    from strategies.models.mlflow_models import Fetched
    from worker.registry.models import ModelVersion, Registration


def fetch(
    strategy: Annotated[str, typer.Argument(help="Name of the strategy.")],
    version: Annotated[str, typer.Argument(help="Version of the strategy.")],
    *,
    as_json: Json = False,
) -> None:
    """Bring a version that was registered from MLflow below this machine's artifacts directory.

    JSON: strategy, version, path, sha256.

    Example: signal-worker models fetch alpha_baseline v1
    """
    from strategies.models.bundle_store import load_bare_model, load_bundle

    with registry(strategy, version) as models:
        row = models.show(strategy, version)
    settings = settings_of()
    uri, pinned = _pinned(row)
    with _reporter():
        fetched = _fetch(uri)
        if fetched.sha256 != pinned:
            refuse(
                f"{uri} has SHA-256 {fetched.sha256} now, {strategy} {version} was registered as {pinned}",
                ExitCode.FAILED,
            )
        with _kept(fetched, settings.artifacts_dir, strategy) as place:
            if fetched.bare:
                load_bare_model(place, strategy, version)
            else:
                load_bundle(place)
    if as_json:
        print_json({"strategy": strategy, "version": version, "path": place, "sha256": pinned})
    else:
        typer.echo(f"{strategy} {version} is in {place}")


def read_uri(uri: str, stated: "Registration") -> "Registration":
    """Return the registration of what MLflow has at an address, or end with a sentence."""
    from strategies.models.bundle_store import MANIFEST_FILE
    from strategies.models.manifest import decode_manifest
    from worker.operations.registration import Origin, registration_out_of_mlflow

    artifacts_dir = settings_of().artifacts_dir
    with _reporter():
        fetched = _fetch(uri)
        named = (stated.strategy, stated.version)
        if fetched.bare and not all(named):
            refuse(f"{uri} is a bare LightGBM model: give --strategy and --version")
        if not fetched.bare and any(named):
            refuse(f"{uri} is a bundle, which names its own strategy and version: leave --strategy and --version out")
        strategy = stated.strategy if fetched.bare else decode_manifest(fetched.files[MANIFEST_FILE]).strategy
        origin = Origin(
            uri=uri, pinned_uri=fetched.pinned_uri, run_id=fetched.run_id, experiment_id=fetched.experiment_id
        )
        with _kept(fetched, artifacts_dir, strategy) as place:
            return registration_out_of_mlflow(place, artifacts_dir, origin, stated)


def _fetch(uri: str) -> "Fetched":
    from strategies.models.mlflow_models import fetch_model

    settings = settings_of()
    return fetch_model(uri, settings.artifacts_dir, settings.mlflow_tracking_uri)


def _pinned(row: "ModelVersion") -> tuple[str, str]:
    from worker.lifecycle.loader import is_mlflow_uri

    sha256 = row.ref.bundle_sha256
    if not is_mlflow_uri(row.model_path) or sha256 is None:
        refuse(f"{row.strategy} {row.version} was not registered by --uri, its model path is {row.model_path}")
    return str(row.config.get("mlflow_source") or row.model_path), sha256


@contextmanager
def _kept(fetched: "Fetched", artifacts_dir: Path, strategy: str) -> Iterator[Path]:
    """Yield the place of what was fetched; remove it again where it does not prove itself."""
    from strategies.errors import BundleError
    from strategies.models.mlflow_models import keep_model

    place, new = keep_model(fetched, artifacts_dir, strategy)
    try:
        yield place
    except BundleError:
        if new and place.is_dir():
            shutil.rmtree(place)
        elif new:
            place.unlink()
        raise


@contextmanager
def _reporter() -> Iterator[None]:
    from strategies.errors import BundleError, BundleNotFound

    try:
        yield
    except BundleNotFound as error:
        refuse(error, code=ExitCode.NOT_FOUND)
    except BundleError as error:
        refuse(error, code=ExitCode.FAILED)
