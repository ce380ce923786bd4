"""Where bundles and bars lie, and what may serve from there.

Owns: the places and rules that every proof on this worker has in common.
Must not know: which version is to be proven, what becomes of it.
Invariant: active versions and candidates prove themselves in the same way.
"""

from dataclasses import dataclass
from pathlib import Path

from strategies.errors import BundleError
from strategies.market.calendar import SessionCalendar
from strategies.models.bundle import Bundle
from worker.lifecycle.models import ActiveModel, CandidateModel
from worker.lifecycle.proven import ProvenModels
from worker.lifecycle.proving import prove


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
