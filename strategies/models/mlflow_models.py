"""Bundles and bare models out of MLflow, brought below the artifacts directory.

Owns: what an MLflow URI may look like, which of its files are taken, where they are kept.
Must not know: registries, workers, how a bundle proves itself.
Invariant: what is kept lies under its own digest and never changes, so that an alias that moves moves nothing here; no
file is read that is larger than its limit, and nothing of it is unpickled or run.
"""

import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from strategies.errors import BundleError, BundleNotFound
from strategies.files import read_yaml, shown, sync, write_synced
from strategies.models.bundle_files import SIZE_LIMITS, digest, read_limited, write_folder
from strategies.models.bundle_store import MANIFEST_FILE, fetched_path
from strategies.models.manifest import BUNDLE_FILES, MODEL_FILE
from strategies.models.mlflow_connection import Connection, connect, failures, quiet_mlflow
from strategies.models.outside_models import MLMODEL, booster_file

_STRATEGY = re.compile("[a-z][a-z0-9_]{0,63}")
_RUN = re.compile(r"runs:/(?P<run>[A-Za-z0-9_-]{1,64})/(?P<path>[^\x00-\x1f]{1,800})")
_REGISTERED = re.compile(
    r"models:/(?P<name>[^/@:\x00-\x1f]{1,250})(/(?P<version>\d{1,18})|@(?P<alias>[A-Za-z0-9_.-]{1,250}))"
)
_LOGGED = re.compile(r"models:/(?P<model>m-[0-9a-f]{32})")


class MlflowAway(BundleError):
    """MLflow is not installed, unreachable, or refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Files of a model, in memory."""

    #: As asked for.
    uri: str
    #: The same with an alias resolved to its version.
    pinned_uri: str
    run_id: str | None
    experiment_id: str | None
    #: Those of a bundle, or `model.txt` alone.
    files: Mapping[str, bytes]

    @property
    def bare(self) -> bool:
        """Return whether this is a LightGBM model without a bundle."""
        return MANIFEST_FILE not in self.files

    @property
    def sha256(self) -> str:
        """Return the digest that a registry pins: of `bundle.json`, or of a bare model's own bytes."""
        return digest(self.files[MODEL_FILE if self.bare else MANIFEST_FILE])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    pinned_uri: str
    #: Where its files are, in words that need no registry of models.
    files_uri: str
    run_id: str | None


def fetch_model(uri: str, artifacts_dir: Path, tracking_uri: str | None) -> Fetched:
    """Return the files of a bundle or of a LightGBM model that was logged to MLflow.

    Args:
        uri: `runs:/<run id>/<path>`, `models:/<name>/<version>`, `models:/<name>@<alias>` or `models:/<model id>`.
        artifacts_dir: The local store is beside its models.
        tracking_uri: Of the MLflow store; None = the local one.

    Raises:
        BundleNotFound: MLflow knows no such run or model, or a file of the bundle is missing.
        MlflowAway: MLflow is not installed, unreachable, or refuses.
        BundleError: No such URI, a file too large, or neither a bundle nor a model in LightGBM's own text.
    """
    with _asking(uri):
        connection = connect(artifacts_dir, tracking_uri)
        source = _resolve(uri, connection)
        experiment = connection.client.get_run(source.run_id).info.experiment_id if source.run_id else None
        files = _download(uri, source.files_uri, connection)
    return Fetched(uri=uri, pinned_uri=source.pinned_uri, run_id=source.run_id, experiment_id=experiment, files=files)


def keep_model(fetched: Fetched, artifacts_dir: Path, strategy: str) -> tuple[Path, bool]:
    """Write what was fetched below the artifacts directory; return its place, and whether it is new there.

    Raises:
        BundleError: The strategy's name is none, so that it could lead anywhere.
    """
    if not _STRATEGY.fullmatch(strategy):
        raise BundleError(f"strategy {shown(strategy)} is no name: a letter of a-z, then up to 63 of a-z, 0-9 and _")
    folder = fetched_path(artifacts_dir, strategy, fetched.sha256)
    place = folder.with_name(f"{folder.name}.txt") if fetched.bare else folder
    if place.exists():
        return place, False
    if not fetched.bare:
        write_folder(place, fetched.files)
        return place, True
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex}.tmp")
    write_synced(temporary, fetched.files[MODEL_FILE])
    temporary.chmod(0o444)
    temporary.rename(place)
    sync(place.parent)
    return place, True


@contextmanager
def _asking(uri: str) -> Iterator[None]:
    refusals: tuple[type[Exception], ...] = ()
    try:
        with quiet_mlflow():
            refusals = failures()
            yield
    except ImportError as error:
        raise MlflowAway(
            f"{uri} cannot be fetched, {error.name} is not installed: pip install 'signal-worker[tracking]'"
        ) from error
    except refusals as error:
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise BundleNotFound(f"MLflow has nothing at {uri}: {error}") from error
        raise MlflowAway(f"{uri} cannot be fetched from MLflow: {error}") from error


def _resolve(uri: str, connection: Connection) -> _Source:
    client = connection.client
    if (run := _RUN.fullmatch(uri)) and ".." not in PurePosixPath(run["path"]).parts:
        return _of_run(uri, run["run"], run["path"], connection)
    if logged := _LOGGED.fullmatch(uri):
        return _logged(uri, logged["model"], connection)
    if not (registered := _REGISTERED.fullmatch(uri)):
        raise BundleError(
            f"{shown(uri)} is no MLflow URI: runs:/<run id>/<path>, models:/<name>/<version>, models:/<name>@<alias> "
            "and models:/<model id> are"
        )
    name = registered["name"]
    version = (
        client.get_model_version_by_alias(name, registered["alias"])
        if registered["alias"]
        else client.get_model_version(name, registered["version"])
    )
    pinned, files = f"models:/{name}/{version.version}", client.get_model_version_download_uri(name, version.version)
    if model := _LOGGED.fullmatch(files):
        files = _logged(files, model["model"], connection).files_uri
    return _Source(pinned_uri=pinned, files_uri=files, run_id=version.run_id or None)


def _of_run(uri: str, run_id: str, path: str, connection: Connection) -> _Source:
    """Resolve a path of a run: MLflow 3 keeps models that a run logged apart from the run's other files.

    Its own resolution of such a path asks the global tracking URI, whatever store it was given.
    """
    outputs = connection.client.get_run(run_id).outputs
    name, _, rest = path.partition("/")
    for output in outputs.model_outputs if outputs else ():
        model = connection.client.get_logged_model(output.model_id)
        if model.name == name:
            location = f"{model.artifact_location.rstrip('/')}/{rest}".rstrip("/")
            return _Source(pinned_uri=uri, files_uri=location, run_id=run_id)
    return _Source(pinned_uri=uri, files_uri=uri, run_id=run_id)


def _logged(uri: str, model_id: str, connection: Connection) -> _Source:
    model = connection.client.get_logged_model(model_id)
    return _Source(pinned_uri=uri, files_uri=model.artifact_location, run_id=model.source_run_id or None)


def _download(uri: str, files_uri: str, connection: Connection) -> dict[str, bytes]:
    from mlflow.artifacts import list_artifacts  # noqa: PLC0415 - see `connect`

    listed = list_artifacts(artifact_uri=files_uri, tracking_uri=connection.uri)
    sizes = {PurePosixPath(file.path).name: file.file_size or 0 for file in listed if not file.is_dir}
    with tempfile.TemporaryDirectory() as folder:
        download = _Download(uri, files_uri, connection, sizes, Path(folder))
        if MANIFEST_FILE in sizes:
            return {name: download.read(name, SIZE_LIMITS[name]) for name in sorted(BUNDLE_FILES | {MANIFEST_FILE})}
        return {MODEL_FILE: download.read(_text_model(uri, download), SIZE_LIMITS[MODEL_FILE])}


@dataclass(frozen=True, slots=True)
class _Download:
    uri: str
    files_uri: str
    connection: Connection
    sizes: Mapping[str, int]
    folder: Path

    def fetch(self, name: str, limit_bytes: int) -> Path:
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415 - see `connect`

        if name not in self.sizes:
            raise BundleNotFound(f"{self.uri} has no {name}, only {shown(sorted(self.sizes))}")
        if self.sizes[name] > limit_bytes:
            raise BundleError(f"{self.uri}: {name} has {self.sizes[name]} bytes, at most {limit_bytes} are read")
        place = f"{self.files_uri.rstrip('/')}/{name}"
        fetched = download_artifacts(artifact_uri=place, tracking_uri=self.connection.uri, dst_path=str(self.folder))
        return Path(fetched)

    def read(self, name: str, limit_bytes: int) -> bytes:
        return read_limited(self.fetch(name, limit_bytes), limit_bytes)


def _text_model(uri: str, download: _Download) -> str:
    """Return the name of the file with the booster's text, from MLflow's LightGBM flavour."""
    if MLMODEL not in download.sizes:
        raise BundleError(f"{uri} holds neither {MANIFEST_FILE} nor {MLMODEL}, only {shown(sorted(download.sizes))}")
    try:
        described = read_yaml(download.fetch(MLMODEL, SIZE_LIMITS[MANIFEST_FILE]))
    except ValueError as error:
        raise BundleError(f"{uri}: {MLMODEL} cannot be read: {error}") from error
    return booster_file(described, uri)
