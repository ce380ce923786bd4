"""The way to MLflow.

Owns: its lazy import, the local store used where no server is configured, what it may print.
Must not know: what is logged or fetched.
Invariant: MLflow is imported only by `connect`, and an unavailable server fails within seconds.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A client, and where it leads."""

    client: "MlflowClient"
    uri: str
    #: Where new experiments keep their files; None = the server decides.
    artifact_location: str | None


def local_store(artifacts_dir: Path) -> str:
    """Return the address of the local store: one SQLite file, as MLflow 3 writes no plain folders any more."""
    return f"sqlite:///{(artifacts_dir / 'mlruns' / 'mlflow.db').resolve()}"


def connect(artifacts_dir: Path, tracking_uri: str | None) -> Connection:
    """Return a client of the store at an address; None = the local one beside the bundles.

    Raises:
        ImportError: MLflow is not installed.
        OSError: The local store's folder cannot be made.
    """
    from mlflow import MlflowClient  # noqa: PLC0415 - takes more than a second, and only research needs it

    if tracking_uri is not None:
        # The same server for runs and for registered models, whatever the environment sets for either.
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        return Connection(client=client, uri=tracking_uri, artifact_location=None)
    runs = (artifacts_dir / "mlruns").resolve()
    runs.mkdir(parents=True, exist_ok=True)
    uri = local_store(artifacts_dir)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    return Connection(client=client, uri=uri, artifact_location=(runs / "artifacts").as_uri())


def failures() -> tuple[type[Exception], ...]:
    """Return the errors that MLflow raises where it is unreachable, or refuses.

    Raises:
        ImportError: MLflow is not installed.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see `connect`
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    return MlflowException, SQLAlchemyError, OSError


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Keep MLflow from telling its makers of each run, and from telling of its tables and copies on stderr."""
    # It reads these from the environment alone.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # noqa: TID251
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # noqa: TID251
    # Its import sets the level of its logger, whatever was set before.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # noqa: TID251
    # Seconds instead of minutes until an unavailable server fails the call: the bundle is already saved.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # noqa: TID251
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        yield
