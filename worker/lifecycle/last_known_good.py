"""What proved itself on this machine last: the worker's memory for a start without the registry.

Owns: one small JSON file a strategy, `<local_dir>/proven/<namespace>/<strategy>.json`.
Must not know: whether it may serve, and what does now.
Invariant: it names a bundle and its digest and contains none: whatever serves from here proves itself again first. A
file that cannot be written or read costs the memory, never the service.
"""

from datetime import datetime
from pathlib import Path

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from contracts.fields import Digest, Strategy, Version
from strategies.models.bundle import Bundle
from worker.embedded.files import write_private
from worker.registry.models import ActiveModel

_log = structlog.get_logger()


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Strategy
    version: Version
    activation: int
    model_path: str
    model_sha256: Digest
    bundle_sha256: Digest
    activated_at: AwareDatetime


class LastKnownGood:
    """The files of one namespace; several workers of a machine may share them, each file being replaced whole."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it is made when something is first remembered."""
        self._folder = folder

    def remember(self, model: ActiveModel, bundle: Bundle) -> None:
        """Note an activation whose bundle has just proven itself."""
        record = _Record(
            strategy=model.strategy,
            version=model.version,
            activation=model.activation,
            model_path=model.model_path,
            model_sha256=bundle.model_sha256,
            bundle_sha256=bundle.bundle_sha256,
            activated_at=model.activated_at,
        )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_private(self._path(model.strategy), record.model_dump_json(indent=2) + "\n")
        except OSError as error:
            _log.warning("proven_model_not_remembered", strategy=model.strategy, reason=str(error))

    def forget(self, strategy: str) -> None:
        """Drop what is remembered of a strategy."""
        try:
            self._path(strategy).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("proven_model_not_forgotten", strategy=strategy, reason=str(error))

    def models(self) -> tuple[ActiveModel, ...]:
        """Return every remembered activation, by strategy; a file that is none is logged and left out."""
        found = []
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            try:
                record = _Record.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                _log.warning("proven_model_unreadable", file=str(path), reason=str(error)[:200])
            else:
                found.append(_active(record))
        return tuple(found)

    def _path(self, strategy: str) -> Path:
        return self._folder / f"{strategy}.json"


def _active(record: _Record) -> ActiveModel:
    activated_at: datetime = record.activated_at
    return ActiveModel(
        strategy=record.strategy,
        version=record.version,
        activation=record.activation,
        model_path=record.model_path,
        mlflow_run_id=None,
        config={"bundle_sha256": record.bundle_sha256},
        metrics={},
        activated_at=activated_at,
    )
