"""What becomes of a version that does not serve here.

Owns: reporting it, and the choice whether it is failed for everyone or only not served by this worker.
Must not know: what serves instead.
Invariant: a version is failed only because of its own bytes, by a machine that proved itself, and against no living
worker that has it loaded; a golden sample that came out otherwise counts once a second living worker finds the same.
"""

import socket
from collections.abc import Sequence

import structlog

from contracts import FleetEventType, Heartbeat, StreamNames
from strategies.errors import CAUSED_BY_BYTES, BundleError, GoldenSampleMismatch
from worker.client import protocol
from worker.client.synchronous import Runner
from worker.clock import utc_now
from worker.errors import RegistryUnavailable, StreamUnavailable
from worker.events import Events
from worker.lifecycle.refusals import Machine, Refusals
from worker.registry.models import ActiveModel, CandidateModel
from worker.registry.registry import Registry
from worker.transport.client import Client

_log = structlog.get_logger()


class PeerHeartbeats:
    """The other living workers; not safe to share between threads."""

    def __init__(self, commands: Client, names: StreamNames, worker: str) -> None:
        """Take the connection of the thread that asks, and the name of the worker that does."""
        self._runner, self._names, self.worker = Runner(commands), names, worker

    def others(self) -> list[Heartbeat]:
        """Return the heartbeat of every other living worker.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        return [beat for beat in self._runner.run(protocol.workers(self._names)) if beat.worker != self.worker]


class FailureReporter:
    """Belongs to one thread, as do its connections."""

    def __init__(
        self, registry: Registry, events: Events, peers: PeerHeartbeats, *, refusals: Refusals, machine: Machine
    ) -> None:
        """Take the thread's own connections, and what all threads of the worker share."""
        self._registry, self._events, self._peers = registry, events, peers
        self._refusals, self._machine = refusals, machine
        self._host, self._since = socket.gethostname(), utc_now()

    def report(self, model: ActiveModel | CandidateModel, error: BundleError, control_id: str | None = None) -> bool:
        """Report why a version does not serve here, and fail it if its own bytes are the cause.

        Returns:
            Whether it is failed; if not, it is to be looked at again.
        """
        reason = str(error)[:2000]
        # Once, however often it is looked at; and whenever somebody asked.
        activation = model.activation if isinstance(model, ActiveModel) else None
        news = self._refusals.note(model.strategy, model.version, error, activation=activation)
        if news or control_id is not None:
            self._events.emit(
                FleetEventType.MODEL_FAILED,
                strategy=model.strategy,
                version=model.version,
                activation=activation,
                reason=reason,
                control_id=control_id,
            )
        witness = self._witness(model, error)
        if witness is None:
            return False
        try:
            self._fail(model, f"{reason}; {witness}"[:2000] if witness else reason)
        except RegistryUnavailable as unavailable:
            _log.warning("model_failure_not_recorded", strategy=model.strategy, reason=str(unavailable))
            return False
        return True

    def _fail(self, model: ActiveModel | CandidateModel, reason: str) -> None:
        if isinstance(model, ActiveModel):
            self._registry.fail(model.strategy, model.version, reason)
        else:
            self._registry.fail_candidate(model.strategy, model.version, reason)

    def _witness(self, model: ActiveModel | CandidateModel, error: BundleError) -> str | None:
        """Return who else testifies against a version, empty where nobody else must; None: it is not failed."""
        if not isinstance(error, CAUSED_BY_BYTES):
            return None
        known = {"strategy": model.strategy, "version": model.version}
        if fault := self._machine.fault():
            _log.warning("model_not_judged_here", reason=fault, **known)
            return None
        try:
            others = self._peers.others()
        except StreamUnavailable:
            return None  # nobody can be asked now
        if any((model.strategy, model.version) in _loaded(beat) for beat in others):
            _log.warning("model_refused_here_alone", **known)
            return None
        if not isinstance(error, GoldenSampleMismatch):
            return ""
        second = self._second(model, others)
        if second is None:
            _log.warning("model_waits_for_a_second_witness", **known)
            return None
        return f"so it came out on {self._peers.worker} and on {second.worker}"

    def _second(self, model: ActiveModel | CandidateModel, others: Sequence[Heartbeat]) -> Heartbeat | None:
        """Return another living worker whose golden sample came out otherwise, too.

        On another machine, where one that is to serve the strategy lives there. A process that was ended, and whose
        heartbeat has not expired, is no witness: on this host one that has beaten since this worker began.
        """
        asked = [beat for beat in others if not beat.strategies or model.strategy in beat.strategies.split(",")]
        elsewhere = [beat for beat in asked if beat.host != self._host]
        here = [beat for beat in asked if beat.host == self._host and beat.beaten_at > self._since]
        return next((beat for beat in elsewhere or here if _testifies(beat, model)), None)


def _testifies(beat: Heartbeat, model: ActiveModel | CandidateModel) -> bool:
    key = model.strategy, model.version
    return any(each.golden and (each.strategy, each.version) == key for each in beat.refused)


def _loaded(beat: Heartbeat) -> set[tuple[str, str]]:
    candidates = {(one.strategy, one.version) for one in beat.candidates if one.since is not None}
    return candidates | {(one.strategy, one.version) for one in beat.serving}
