"""What becomes of a version that does not serve here.

Owns: telling of it, and the choice whether it is failed for everyone or only not served by this worker.
Must not know: what serves instead.
Invariant: one worker's own trouble fails no version for the others: neither what it could not read or start, nor what
others have loaded.
"""

import structlog

from contracts import FleetEventType
from strategies.errors import BundleError, BundleUnavailable
from worker.errors import RegistryUnavailable, StreamUnavailable
from worker.events import Events
from worker.lifecycle.peer_heartbeats import Witnesses
from worker.registry.models import ActiveModel, CandidateModel
from worker.registry.registry import Registry

_log = structlog.get_logger()


class Refusals:
    """Belongs to one thread, as do its connections."""

    def __init__(self, registry: Registry, events: Events, witnesses: Witnesses) -> None:
        """Take the thread's own connections."""
        self._registry, self._events, self._witnesses = registry, events, witnesses

    def tell(self, model: ActiveModel | CandidateModel, error: BundleError, control_id: str | None = None) -> bool:
        """Say why a version does not serve here, and fail it unless that says nothing about the version.

        Returns:
            Whether it is failed; if not, it is to be looked at again.
        """
        reason = str(error)[:2000]
        self._events.say(
            FleetEventType.MODEL_FAILED,
            strategy=model.strategy,
            version=model.version,
            activation=model.activation if isinstance(model, ActiveModel) else None,
            reason=reason,
            control_id=control_id,
        )
        if self._of_this_place(model, error):
            return False
        try:
            if isinstance(model, ActiveModel):
                self._registry.fail(model.strategy, model.version, reason)
            else:
                self._registry.fail_candidate(model.strategy, model.version, reason)
        except RegistryUnavailable as unavailable:
            _log.warning("model_failure_not_recorded", strategy=model.strategy, reason=str(unavailable))
            return False
        return True

    def _of_this_place(self, model: ActiveModel | CandidateModel, error: BundleError) -> bool:
        if isinstance(error, BundleUnavailable):
            return True
        try:
            elsewhere = self._witnesses.serve(model.strategy, model.version)
        except StreamUnavailable:
            return True  # nobody can be asked now
        if elsewhere:
            _log.warning("model_refused_here_alone", strategy=model.strategy, version=model.version)
        return elsewhere
