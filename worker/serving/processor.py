"""Which bundle answers a request, and what it answers.

Owns: the step from a decoded request to a vector of the active version or of its canary.
Must not know: streams, commits.
Invariant: a request that the active version can answer is answered, whatever a canary raises; a vector names the bundle
that computed it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from contracts import ServedAs, SignalRequest, SignalVector
from worker.serving.intake import Entry
from worker.serving.pipeline import Delivery, Rules, answer, signal_vector
from worker.serving.rejections import REJECTED
from worker.serving.shadow import Shadows, ShadowTask
from worker.serving.slots import ActiveBundle, Slots
from worker.serving.traffic_split import answering
from worker.telemetry import Counters

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who answers."""

    worker: str
    code_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A vector, and what the candidates may compute too once it is published."""

    vector: SignalVector
    task: ShadowTask


class Answers:
    """The answers of one consumer."""

    def __init__(self, identity: Identity, slots: Slots, rules: Rules, *, shadows: Shadows, counters: Counters) -> None:
        """Take every part from the composition root."""
        self._identity, self._slots, self._rules = identity, slots, rules
        self._shadows, self._counters = shadows, counters

    def of(self, request: SignalRequest, entry: Entry, *, read_at: float, now: datetime) -> Answered:
        """Return the answer to a request.

        Args:
            request: As decoded.
            entry: Its delivery.
            read_at: When work on it began, by `time.perf_counter`.
            now: The instant that it is answered for.

        Raises:
            Exception: A class of `REJECTED` where the request cannot be answered honestly; anything else is a bug.
        """
        slot, panel = self._slots.slot(request.strategy), self._slots.require_panel()

        def compute(by: ActiveBundle) -> Answered:
            found = answer(request, by, panel, self._rules, now)
            delivery = self._delivery(entry, read_at, now)
            vector = signal_vector(found, delivery, self._rules, now)
            task = ShadowTask(request=request, answered=by, panel=panel, now=now, delivery=delivery)
            return Answered(vector=vector, task=task)

        by = answering(slot, request.request_id)
        answered = self._as_canary(by, compute, request) if by.served_as is ServedAs.CANARY else None
        return answered or compute(slot.active)

    def _as_canary(
        self, canary: ActiveBundle, compute: Callable[[ActiveBundle], Answered], request: SignalRequest
    ) -> Answered | None:
        """Return the canary's answer, or None where the active version is to answer in its place."""
        known = {"request_id": request.request_id, "strategy": request.strategy, "version": canary.bundle.version}
        try:
            return compute(canary)
        except REJECTED as error:
            # A candidate costs nobody an answer: what it cannot honestly give, the active version may.
            _log.info("canary_declined", reason=str(error), **known)
        except Exception as error:  # noqa: BLE001 - around one entry of one candidate
            # A bug of the candidate, or one that the active version meets too and that is retried then.
            _log.exception("canary_dropped", **known)
            self._shadows.drop_canary(canary, error)
        self._counters.canary_fallbacks += 1
        return None

    def _delivery(self, entry: Entry, read_at: float, now: datetime) -> Delivery:
        return Delivery(
            worker=self._identity.worker,
            code_version=self._identity.code_version,
            queue_ms=max(0.0, round(now.timestamp() * 1000 - entry.added_ms, 3)),
            compute_ms=round((time.perf_counter() - read_at) * 1000, 3),
            deliveries=entry.deliveries,
        )
