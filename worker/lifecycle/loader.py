"""Loads the bundle of a version and proves it: nothing serves before it has reproduced here what training saw.

Owns: where bundles and bars are, the step from a registry row to a bundle that may serve; active versions and
candidates take the same one.
Must not know: which bundle serves now, and what happens to a refused one.
Invariant: the path is under the artifact root, and what is there is the version that the registry names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from strategies.errors import BundleError, BundleNotFound, BundleUnavailable, MalformedBundle
from strategies.market.calendar import SessionCalendar, canonical_name
from strategies.market.loading import Loading
from strategies.market.rules import limited, with_limits
from strategies.models.bundle import Bundle
from strategies.models.bundle_store import fetched_path, load_bare_model, load_bundle
from worker.lifecycle.last_known_good import LastKnownGood
from worker.registry.models import ModelRef
from worker.settings import Settings


class UnprovenRefused(BundleUnavailable):
    """A bare model without a golden sample where the settings ask for a proof."""


class OtherCalendar(BundleUnavailable):
    """A bundle whose sessions are those of another exchange than the settings name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSources:
    """Where bundles and bars are."""

    artifacts_dir: Path
    data_dir: Path
    calendar: SessionCalendar
    allow_unproven: bool
    #: What proved itself on this machine last.
    cache: LastKnownGood
    #: Whether that may serve while the registry has not answered since the start.
    serve_from_cache: bool = False
    #: Limits that this worker holds bars to; the others are those of the rules, or of a snapshot's manifest.
    bar_limits: Mapping[str, float] = field(default_factory=dict)
    #: Snapshots that may serve.
    snapshots: Loading = field(init=False)

    def __post_init__(self) -> None:
        loading = Loading(
            data_dir=self.data_dir,
            calendar=self.calendar,
            rules=with_limits(self.bar_limits),
            given=frozenset(self.bar_limits),
        )
        object.__setattr__(self, "snapshots", loading)

    def proven(self, ref: ModelRef) -> Bundle:
        """Return the bundle of a version, proven on this worker and for its exchange.

        Raises:
            BundleNotFound: Nothing exists at its path.
            BundleError: It does not prove itself.
        """
        bundle = prove(ref, self.artifacts_dir, allow_unproven=self.allow_unproven)
        require_calendar(bundle, self.calendar.name)
        return bundle


def sources_of(settings: Settings, calendar: SessionCalendar) -> ModelSources:
    """Return where bundles and bars are."""
    return ModelSources(
        artifacts_dir=settings.artifacts_dir,
        data_dir=settings.data_dir,
        calendar=calendar,
        allow_unproven=settings.allow_unproven,
        cache=LastKnownGood(settings.local_dir / "proven" / settings.namespace),
        serve_from_cache=settings.serve_from_cache,
        bar_limits=limited(settings.bar_limits),
    )


def require_calendar(bundle: Bundle, here: str) -> None:
    """Refuse a bundle whose sessions are those of another exchange; an alias names the same one.

    Raises:
        OtherCalendar: They are.
    """
    if canonical_name(bundle.calendar) != canonical_name(here):
        raise OtherCalendar(
            f"the bundle was trained on the calendar {bundle.calendar}, this worker serves {here}: set SIGNALS_CALENDAR"
        )


def prove(ref: ModelRef, artifacts_dir: Path, *, allow_unproven: bool) -> Bundle:
    """Return the bundle of a version, proven on this worker.

    Whatever a bundle makes this code raise is its refusal: an error that escaped would end the control thread of every
    worker, for a version that only had to be left alone.

    Raises:
        BundleUnavailable: This worker cannot find, read, check or compute it, or its settings do not allow it.
        BundleError: A digest differs, the model does not parse, or the golden sample comes out otherwise.
    """
    try:
        return _proven(ref, _place(ref, artifacts_dir), artifacts_dir.resolve(), allow_unproven=allow_unproven)
    except BundleError:
        raise
    except Exception as error:
        # Of this machine or release, as far as anybody knows: no memory for a child, a disk that fails, a library.
        raise BundleUnavailable(f"{ref.path} cannot be proven here: {type(error).__name__}: {error}") from error


def _proven(ref: ModelRef, path: Path, root: Path, *, allow_unproven: bool) -> Bundle:
    # The registry remembers which bytes were registered: a bundle replaced under the same version is another one.
    if path.is_file():
        if not allow_unproven:
            raise UnprovenRefused(f"{ref.path} is a bare model without a golden sample; allow_unproven is off")
        return load_bare_model(path, ref.strategy, ref.version, expected_sha256=ref.bundle_sha256, root=root)
    bundle = load_bundle(path, expected_sha256=ref.bundle_sha256, root=root)
    if (bundle.strategy, bundle.version) != (ref.strategy, ref.version):
        raise MalformedBundle(
            f"{ref.path} holds {bundle.strategy} {bundle.version}, the registry states {ref.strategy} {ref.version}"
        )
    return bundle


def is_mlflow_uri(model_path: str) -> bool:
    """Return whether a registry path names a model of MLflow instead of a place below the artifact root."""
    return model_path.startswith(("runs:/", "models:/"))


def _place(ref: ModelRef, artifacts_dir: Path) -> Path:
    """Return where a version is here; what came out of MLflow is found by the digest that its registration pinned.

    MLflow itself is never asked: an alias may have moved since, and an unavailable server must not matter.
    """
    if not is_mlflow_uri(ref.path):
        return artifact_path(ref.path, artifacts_dir)
    if ref.bundle_sha256 is None or not re.fullmatch("[0-9a-f]{64}", ref.bundle_sha256):
        raise BundleUnavailable(
            f"{ref.path} is registered without the digest that it stood for then, and may be another model by "
            "now: register it by `signal-worker models register --uri`"
        )
    folder = fetched_path(Path(), ref.strategy, ref.bundle_sha256).as_posix()
    for place in (folder, f"{folder}.txt"):
        try:
            return artifact_path(place, artifacts_dir)
        except BundleNotFound:
            continue
    raise BundleNotFound(
        f"{ref.path} was not brought below {artifacts_dir.resolve()} yet: "
        f"`signal-worker models fetch {ref.strategy} {ref.version}` does"
    )


def artifact_path(model_path: str, artifacts_dir: Path) -> Path:
    """Return where a registry path is on this machine.

    Raises:
        BundleUnavailable: It leaves the artifact root, by a link or an absolute path, or can name nothing.
        BundleNotFound: Nothing exists there.
    """
    root = artifacts_dir.resolve()
    try:
        path = (root / model_path).resolve()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long; links in a circle, until Python 3.13; NUL
        raise BundleUnavailable(f"model_path {model_path[:200]} cannot be followed: {error}") from error
    if not path.is_relative_to(root):
        raise BundleUnavailable(f"model_path {model_path} is outside the artifact root {root}")
    if not exists:
        raise BundleNotFound(f"there is nothing at {path}")
    return path
