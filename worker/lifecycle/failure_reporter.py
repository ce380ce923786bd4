"""What becomes of a version that does not serve here.

Owns: reporting it, and the choice whether it is failed for everyone or only not served by this worker.
Must not know: what serves instead.
Invariant: one worker's own trouble fails no version for the others: neither what it could not read or start, nor what
others have loaded.
"""

import structlog

from contracts import FleetEventType, Heartbeat, StreamNames
from strategies.errors import BundleError, BundleUnavailable
from worker.client import protocol
from worker.client.synchronous import Runner
from worker.errors import RegistryUnavailable, StreamUnavailable
from worker.events import Events
from worker.registry.models import ActiveModel, CandidateModel
from worker.registry.registry import Registry
from worker.transport.client import Client

_log = structlog.get_logger()


class PeerHeartbeats:
    """The other living workers; not safe to share between threads."""

    def __init__(self, commands: Client, names: StreamNames, worker: str) -> None:
        """Take the connection of the thread that asks, and the name of the worker that does."""
        self._runner, self._names, self._worker = Runner(commands), names, worker

    def serve(self, strategy: str, version: str) -> bool:
        """Return whether another living worker has loaded a version, as the active one or as a candidate.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        beats = self._runner.run(protocol.workers(self._names))
        return any((strategy, version) in _loaded(beat) for beat in beats if beat.worker != self._worker)


class FailureReporter:
    """Belongs to one thread, as do its connections."""

    def __init__(self, registry: Registry, events: Events, peers: PeerHeartbeats) -> None:
        """Take the thread's own connections."""
        self._registry, self._events, self._peers = registry, events, peers

    def report(self, model: ActiveModel | CandidateModel, error: BundleError, control_id: str | None = None) -> bool:
        """Report why a version does not serve here, and fail it unless the cause is this worker alone.

        Returns:
            Whether it is failed; if not, it is to be looked at again.
        """
        reason = str(error)[:2000]
        self._events.emit(
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
            elsewhere = self._peers.serve(model.strategy, model.version)
        except StreamUnavailable:
            return True  # nobody can be asked now
        if elsewhere:
            _log.warning("model_refused_here_alone", strategy=model.strategy, version=model.version)
        return elsewhere


def _loaded(beat: Heartbeat) -> set[tuple[str, str]]:
    candidates = {(one.strategy, one.version) for one in beat.candidates if one.since is not None}
    return candidates | {(one.strategy, one.version) for one in beat.serving}
