"""Loads the bundle of a version and proves it: nothing serves before it has reproduced here what training saw.

Owns: where bundles and bars are, the step from a registry row to a bundle that may serve; active versions and
candidates take the same one.
Must not know: which bundle serves now, and what happens to a refused one.
Invariant: the path lies under the artifact root, and what lies there is the version that the registry names.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from strategies.errors import BundleError, BundleNotFound, BundleUnavailable
from strategies.market.calendar import SessionCalendar
from strategies.models.bundle import Bundle
from strategies.models.bundle_store import fetched_path, load_bare_model, load_bundle
from worker.lifecycle.last_known_good import ProvenModels
from worker.registry.models import ActiveModel, CandidateModel


class UnprovenRefused(BundleError):
    """A bare model without a golden sample where the settings ask for a proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where bundles and bars lie."""

    artifacts_dir: Path
    data_dir: Path
    calendar: SessionCalendar
    allow_unproven: bool
    #: What proved itself on this machine last.
    cache: ProvenModels
    #: Whether that may serve while the registry has not answered since the start.
    serve_from_cache: bool = False

    def proven(self, model: ActiveModel | CandidateModel) -> Bundle:
        """Return the bundle of a version, proven on this worker and for its exchange.

        Raises:
            BundleNotFound: Nothing stands at its path.
            BundleError: It does not prove itself.
        """
        bundle = prove(model, self.artifacts_dir, allow_unproven=self.allow_unproven)
        require_calendar(bundle, self.calendar.name)
        return bundle


def require_calendar(bundle: Bundle, here: str) -> None:
    """Refuse a bundle whose sessions are those of another exchange.

    Raises:
        BundleError: They are.
    """
    if bundle.calendar != here:
        raise BundleError(f"the bundle was trained on the calendar {bundle.calendar}, this worker serves {here}")


def prove(model: ActiveModel | CandidateModel, artifacts_dir: Path, *, allow_unproven: bool) -> Bundle:
    """Return the bundle of a version, proven on this worker.

    Whatever a bundle makes this code raise is its refusal: an error that escaped would end the control thread of every
    worker, for a version that only had to be left alone.

    Raises:
        BundleNotFound: Nothing stands at the path.
        BundleUnavailable: This machine cannot read or check it now.
        BundleError: The path leaves the artifact root, a digest differs, the model does not parse, or the golden
            sample comes out otherwise.
    """
    try:
        return _proven(model, _place(model, artifacts_dir), artifacts_dir.resolve(), allow_unproven=allow_unproven)
    except BundleError:
        raise
    except (OSError, MemoryError) as error:
        # Of this machine, at this moment: no memory for a child, a disk that fails, too many open files.
        raise BundleUnavailable(f"{model.model_path} cannot be proven here: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise BundleError(f"{model.model_path} cannot be proven: {type(error).__name__}: {error}") from error


def _proven(model: ActiveModel | CandidateModel, path: Path, root: Path, *, allow_unproven: bool) -> Bundle:
    # The registry remembers which bytes were registered: a bundle replaced under the same version is another one.
    expected = model.config.get("bundle_sha256")
    if path.is_file():
        if not allow_unproven:
            raise UnprovenRefused(f"{model.model_path} is a bare model without a golden sample; allow_unproven is off")
        return load_bare_model(path, model.strategy, model.version, expected_sha256=expected, root=root)
    bundle = load_bundle(path, expected_sha256=expected, root=root)
    if (bundle.strategy, bundle.version) != (model.strategy, model.version):
        raise BundleError(
            f"{model.model_path} holds {bundle.strategy} {bundle.version}, "
            f"the registry says {model.strategy} {model.version}"
        )
    return bundle


def is_mlflow_uri(model_path: str) -> bool:
    """Return whether a registry path names a model of MLflow instead of a place below the artifact root."""
    return model_path.startswith(("runs:/", "models:/"))


def _place(model: ActiveModel | CandidateModel, artifacts_dir: Path) -> Path:
    """Return where a version lies here; what came out of MLflow lies by the digest that its registration pinned.

    MLflow itself is never asked: an alias may have moved since, and a server that is away must not matter.
    """
    if not is_mlflow_uri(model.model_path):
        return artifact_path(model.model_path, artifacts_dir)
    sha256 = model.config.get("bundle_sha256")
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BundleError(
            f"{model.model_path} is registered without the digest that it stood for then, and may be another model by "
            "now: register it by `signal-worker models register --uri`"
        )
    folder = fetched_path(Path(), model.strategy, sha256).as_posix()
    for place in (folder, f"{folder}.txt"):
        try:
            return artifact_path(place, artifacts_dir)
        except BundleNotFound:
            continue
    raise BundleNotFound(
        f"{model.model_path} was not brought below {artifacts_dir.resolve()} yet: "
        f"`signal-worker models fetch {model.strategy} {model.version}` does"
    )


def artifact_path(model_path: str, artifacts_dir: Path) -> Path:
    """Return where a registry path lies on this machine.

    Raises:
        BundleError: It leaves the artifact root, by `..`, a link or an absolute path, or can name nothing.
        BundleNotFound: Nothing stands there.
    """
    root = artifacts_dir.resolve()
    try:
        path = (root / model_path).resolve()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long; links in a circle, until Python 3.13; NUL
        raise BundleError(f"model_path {model_path[:200]} cannot be followed: {error}") from error
    if not path.is_relative_to(root):
        raise BundleError(f"model_path {model_path} lies outside the artifact root {root}")
    if not exists:
        raise BundleNotFound(f"nothing stands at {path}")
    return path
