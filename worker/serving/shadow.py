"""What candidates compute beside the answers: after the commit, off the hot path, on the shadow stream alone.

Owns: the bounded queue between the consumer and the shadow thread, that thread, its counts.
Must not know: registry, files, how a candidate was proven.
Invariant: the consumer never waits for it, and nothing that a candidate raises or a server refuses reaches the
consumer: what cannot be shadowed is counted and forgotten.
"""

import queue
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import structlog

from contracts import ServedAs, SignalRequest, SignalVector, StreamNames
from contracts.codec import encode
from strategies.market.bars import Panel
from worker.errors import StreamUnavailable, WorkerError
from worker.retry import Outage
from worker.service import Service
from worker.serving.pipeline import DeliveryRecord, ServingRules, compute, signal_vector
from worker.serving.rejections import REJECTED
from worker.serving.slots import ActiveBundle, Candidate, Slots
from worker.serving.traffic_split import in_share
from worker.shutdown import Shutdown
from worker.transport.client import Client

#: Pause between two looks whether the consumer has anything in flight, in seconds.
_LOOK_SECONDS = 0.002
#: Longest wait for something to shadow before candidates are looked after, in seconds.
_REST_SECONDS = 0.2

_log = structlog.get_logger()


class ShadowResult(StrEnum):
    """What became of one request for one candidate; of a dropped one for all of them."""

    PUBLISHED = "published"
    #: The queue was full, or the worker left before it was its turn.
    DROPPED = "dropped"
    #: The candidate cannot honestly answer what the active version answered.
    DECLINED = "declined"
    #: The candidate raised.
    FAILED = "failed"
    #: The server did not take it.
    UNPUBLISHED = "unpublished"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowTask:
    """One request that was answered, with all that the answer was computed from."""

    request: SignalRequest
    #: What answered.
    answered: ActiveBundle
    panel: Panel
    now: datetime
    #: Of the answer; each candidate states its own compute time.
    delivery: DeliveryRecord


class Shadows:
    """What the consumer hands over; every method returns at once."""

    def __init__(self, slots: Slots, *, share: float, size: int) -> None:
        """Take the share of requests that is shadowed, and how many may wait."""
        self._slots, self.share = slots, share
        self._waiting: queue.Queue[ShadowTask] = queue.Queue(size)
        #: Candidates that raised as canaries: strategy, version and error, for the shadow thread to announce.
        self.dropped_canaries: deque[tuple[str, str, str]] = deque(maxlen=100)
        #: `ShadowResult` to how often.
        self.counts: Counter[str] = Counter()

    def offer(self, task: ShadowTask) -> None:
        """Let a request be shadowed if it is of the share and anything shadows it; full = dropped and counted."""
        if not self._slots.candidates.get(task.request.strategy):
            return
        if not in_share(task.request.request_id, ServedAs.SHADOW, self.share):
            return
        try:
            self._waiting.put_nowait(task)
        except queue.Full:
            self.counts[ShadowResult.DROPPED] += 1

    def drop_canary(self, canary_for: ActiveBundle, error: Exception) -> None:
        """Let a candidate that raised compute no more on this worker."""
        bundle = canary_for.bundle
        if self._slots.drop_candidate(bundle.strategy, bundle.version):
            self.dropped_canaries.append((bundle.strategy, bundle.version, f"{type(error).__name__}: {error}"))

    def take(self, seconds: float) -> ShadowTask | None:
        """Return what waits longest, or None if nothing came in that time."""
        try:
            return self._waiting.get(timeout=seconds)
        except queue.Empty:
            return None

    def waiting(self) -> int:
        """Return how many requests wait."""
        return self._waiting.qsize()


class Shadower:
    """Computes tasks for every candidate and publishes the vectors; belongs to the shadow thread."""

    def __init__(
        self,
        shadows: Shadows,
        slots: Slots,
        rules: ServingRules,
        *,
        commands: Client,
        names: StreamNames,
        outage: Outage,
    ) -> None:
        """Take every part from the composition root; the connection belongs to the shadow thread from now on."""
        self._shadows, self._slots, self._rules = shadows, slots, rules
        self._commands, self._stream, self._outage = commands, names.shadow, outage
        #: Strategy and version of what has raised and was logged.
        self._logged: set[tuple[str, str]] = set()

    def candidates(self, task: ShadowTask) -> tuple[Candidate, ...]:
        """Return what computes a task now: not what answered it, nor what is no candidate any more."""
        found = self._slots.candidates.get(task.request.strategy, ())
        return tuple(one for one in found if one.bundle.version != task.answered.bundle.version)

    def compute(self, task: ShadowTask, candidate: Candidate) -> ShadowResult:
        """Publish a candidate's vector of a request, and return what became of it."""
        try:
            vector = self._vector(task, candidate)
        except REJECTED:
            result = ShadowResult.DECLINED
        except Exception as error:  # noqa: BLE001 - around one entry of one candidate
            # Nobody waits for it: counted, and logged once a version, whatever else it raises.
            self._log_once(candidate, error)
            result = ShadowResult.FAILED
        else:
            result = self._publish(vector)
        self._shadows.counts[result] += 1
        return result

    def _vector(self, task: ShadowTask, candidate: Candidate) -> SignalVector:
        begun = time.perf_counter()
        beside = candidate.beside(task.answered, ServedAs.SHADOW)
        # Contributions of features cost many times the prediction, and nobody reads them here.
        request = task.request.model_copy(update={"explain": None})
        found = compute(request, beside, task.panel, self._rules, task.now)
        delivery = replace(task.delivery, compute_ms=round((time.perf_counter() - begun) * 1000, 3))
        return signal_vector(found, delivery, self._rules, task.now)

    def _publish(self, vector: SignalVector) -> ShadowResult:
        try:
            # Said once: a retry after a lost reply would be a second vector.
            self._commands.xadd(self._stream, encode(vector))  # type: ignore[arg-type]  # invariant dict
        except StreamUnavailable as error:
            self._outage.away(error)
            return ShadowResult.UNPUBLISHED
        self._outage.back()
        return ShadowResult.PUBLISHED

    def _log_once(self, candidate: Candidate, error: Exception) -> None:
        key = candidate.bundle.strategy, candidate.bundle.version
        if key not in self._logged:
            self._logged.add(key)
            _log.exception("shadow_failed", strategy=key[0], version=key[1], exc_info=error)


class ShadowThread(Service):
    """Verifies candidates and computes what was offered, until the worker stops; it never ends by itself."""

    def __init__(
        self,
        shadows: Shadows,
        shadower: Shadower,
        *,
        verify_next: Callable[[], bool],
        busy: Callable[[], bool],
        shutdown: Shutdown,
    ) -> None:
        """Take every part from the composition root.

        Args:
            shadows: What the consumer offers.
            shadower: Computes it.
            verify_next: Verifies one candidate, and returns whether there was one to verify.
            busy: Whether the consumer has a request in flight.
            shutdown: Ends the thread.
        """
        super().__init__("shadow", shutdown)
        self._shadows, self._shadower, self._tend, self._busy = shadows, shadower, verify_next, busy
        self._logged: set[str] = set()

    def serve(self) -> None:
        """Work until the worker stops; what still waits then is dropped."""
        while not self._shutdown.stopping.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - a thread's loop
                # Nothing that serves depends on this thread: it logs each kind of error once, and continues.
                self._log_error(error)
                self._shutdown.stopping.wait(1.0)
        self._shadows.counts[ShadowResult.DROPPED] += self._shadows.waiting()

    def _turn(self) -> None:
        if self._tend():
            return
        task = self._shadows.take(_REST_SECONDS)
        if task is None:
            return
        for candidate in self._shadower.candidates(task):
            self._let_the_consumer_go_first()
            if self._shutdown.stopping.is_set():
                self._shadows.counts[ShadowResult.DROPPED] += 1
                return
            self._shadower.compute(task, candidate)

    def _let_the_consumer_go_first(self) -> None:
        """Wait until the consumer has nothing in flight: the two share the interpreter's lock and the processors."""
        while self._busy() and not self._shutdown.stopping.wait(_LOOK_SECONDS):
            pass

    def _log_error(self, error: Exception) -> None:
        known = isinstance(error, WorkerError)
        if type(error).__name__ not in self._logged:
            self._logged.add(type(error).__name__)
            _log.warning("shadow_thread_troubled", reason=f"{type(error).__name__}: {error}", exc_info=not known)
