"""From one entry to its outcome.

Owns: decoding, the checks before anything is computed, which bundle answers a request, and what a bug ends in.
Must not know: how an outcome is committed.
Invariant: no entry makes it raise; a request that the active version can answer is answered, whatever a canary raises;
a vector names the bundle that computed it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import structlog

from contracts import Rejection, ServedAs, SignalRequest
from contracts.codec import decode_request, request_id_of
from worker.errors import (
    DeadlineExceeded,
    DeliveriesExhausted,
    NoActiveBundle,
    NoSnapshot,
    StrategyNotServed,
    StreamUnavailable,
    UnknownStrategy,
)
from worker.serving.failpoints import Failpoint, Step
from worker.serving.intake import Limits
from worker.serving.outcomes import Answered, Commit, Duplicate, Elsewhere, Left, Outcome, Rejected
from worker.serving.peers import Peers
from worker.serving.pipeline import DeliveryRecord, ServingRules, compute, signal_vector
from worker.serving.rejections import REASON_CHARACTERS, REJECTED, rejection_of
from worker.serving.request_stream import Entry
from worker.serving.shadow import Shadows, ShadowTask
from worker.serving.slots import ActiveBundle, Slots
from worker.serving.traffic_split import bundle_for
from worker.telemetry import Counters
from worker.tracing import trace_fields, trace_id
from worker.transport.scripts import CommitStatus

#: Errors of what this worker has, which another worker may have.
OF_THIS_WORKER = (NoActiveBundle, NoSnapshot, StrategyNotServed, UnknownStrategy)
#: In a backlog, one of so many entries is looked up for its outcome before it is computed.
_LOOK_UP_EVERY = 16

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdentity:
    """Who answers."""

    worker: str
    code_version: str


class Answerer:
    """Answers decoded requests with the active version or its canary."""

    def __init__(
        self, identity: WorkerIdentity, slots: Slots, rules: ServingRules, *, shadows: Shadows, counters: Counters
    ) -> None:
        """Take every part from the composition root."""
        self._identity, self._slots, self._rules = identity, slots, rules
        self._shadows, self._counters = shadows, counters

    def answer(self, request: SignalRequest, entry: Entry, *, began: float, now: datetime) -> Answered:
        """Return the answer to a request.

        Args:
            request: As decoded.
            entry: Its delivery.
            began: When work on it began, by `time.perf_counter`.
            now: The instant that it is answered for.

        Raises:
            Exception: A class of `REJECTED` where the request cannot be answered honestly; anything else is a bug.
        """
        slot, panel = self._slots.slot(request.strategy), self._slots.require_panel()

        def compute_by(bundle: ActiveBundle) -> Answered:
            computed = compute(request, bundle, panel, self._rules, now)
            delivery = self._delivery(entry, began, now)
            vector = signal_vector(computed, delivery, self._rules, now)
            task = ShadowTask(request=request, answered=bundle, panel=panel, now=now, delivery=delivery)
            return Answered(vector=vector, task=task)

        bundle = bundle_for(slot, request.request_id)
        _log.debug(
            "bundle_chosen",
            request_id=request.request_id,
            version=bundle.bundle.version,
            served_as=bundle.served_as.value,
            snapshot_id=panel.snapshot_id,
        )
        by_canary = self._as_canary(bundle, compute_by, request) if bundle.served_as is ServedAs.CANARY else None
        return by_canary or compute_by(slot.active)

    def _as_canary(
        self, canary: ActiveBundle, compute_by: Callable[[ActiveBundle], Answered], request: SignalRequest
    ) -> Answered | None:
        """Return the canary's answer, or None where the active version is to answer in its place."""
        known = {"request_id": request.request_id, "strategy": request.strategy, "version": canary.bundle.version}
        try:
            return compute_by(canary)
        except REJECTED as error:
            # A candidate costs nobody an answer: what it cannot honestly give, the active version may.
            _log.info("canary_declined", reason=str(error), **known)
        except Exception as error:  # noqa: BLE001 - around one entry of one candidate
            # A bug of the candidate, or one that the active version meets too and that is retried then.
            _log.exception("canary_dropped", **known)
            self._shadows.drop_canary(canary, error)
        self._counters.canary_fallbacks += 1
        return None

    def _delivery(self, entry: Entry, began: float, now: datetime) -> DeliveryRecord:
        return DeliveryRecord(
            worker=self._identity.worker,
            code_version=self._identity.code_version,
            queue_ms=queue_ms(entry, now),
            compute_ms=round((time.perf_counter() - began) * 1000, 3),
            deliveries=entry.deliveries,
            partition=entry.partition,
        )


class Server(Protocol):
    """What the stream server is asked while an entry is processed; each call waits until the server answers."""

    def acknowledge_answered(self, entry: Entry, request_id: str) -> Commit:
        """Acknowledge an entry whose request id has an outcome already."""

    def last_error(self, entry: Entry) -> str:
        """Return the last error that processing the entry raised."""

    def server_time(self) -> datetime:
        """Return the instant by the server's clock."""


class Processor:
    """Processes the entries of one consumer."""

    def __init__(
        self,
        worker: str,
        answerer: Answerer,
        server: Server,
        limits: Limits,
        *,
        peers: Peers,
        clock: Callable[[], datetime],
        failpoint: Failpoint,
    ) -> None:
        """Take every part from the composition root."""
        self._worker, self._answerer, self._server, self._limits = worker, answerer, server, limits
        self._peers = peers
        self._clock, self._failpoint = clock, failpoint
        #: Entries older than a lease, since one of them was looked up.
        self._not_looked_up = 0

    def process(self, entry: Entry) -> Outcome:
        """Return the outcome of an entry.

        Raises:
            StreamUnavailable: The server was asked, and was unavailable when the worker was forced to stop.
        """
        began = time.perf_counter()
        try:
            self._failpoint(Step.READ)
            duplicate = self._look_up(entry)
            if duplicate is not None:
                return duplicate
            outcome = self._answer_or_reject(entry, began)
            self._failpoint(Step.COMPUTED)
        except StreamUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - around one entry
            # A bug, not a bad request: tried again after a pause, by whoever claims it, until deliveries run out.
            traced = trace_id(trace_fields(entry.pairs).get("traceparent"))
            _log.exception("request_failed", entry=entry.id, deliveries=entry.deliveries, **traced)
            return Left(error=f"{type(error).__name__}: {error}")
        return outcome

    def _look_up(self, entry: Entry) -> Duplicate | None:
        """Spare computing what has an outcome: after a lost group, all that the stream still has is read again.

        Asked only of an entry that came again or is older than a lease, and of those that are older the fewer while
        none has an outcome, as in a backlog; this machine's clock is good enough, since the commit asks in any case.
        """
        if entry.deliveries == 1:
            if queue_ms(entry, self._clock()) <= self._limits.lease_ms:
                return None
            self._not_looked_up = (self._not_looked_up + 1) % _LOOK_UP_EVERY
            if self._not_looked_up != 1:
                return None
        request_id = request_id_of(entry.pairs, entry.default_id)
        commit = self._server.acknowledge_answered(entry, request_id)
        if commit.status is CommitStatus.OPEN:
            return None
        self._not_looked_up = 0
        return Duplicate(request_id=request_id, commit=commit)

    def _answer_or_reject(self, entry: Entry, began: float) -> Answered | Rejected | Elsewhere:
        try:
            self._require_deliveries_left(entry)
            request = decode_request(
                entry.pairs,
                entry.default_id,
                max_bytes=self._limits.max_entry_bytes,
                max_symbols=self._limits.max_symbols,
            )
            _log.debug(
                "request_decoded",
                entry=entry.id,
                request_id=request.request_id,
                strategy=request.strategy,
                symbols=len(request.symbols) if request.symbols is not None else None,
                as_of=str(request.as_of) if request.as_of is not None else None,
                deliveries=entry.deliveries,
            )
            self._require_time_left(request)
            return self._answer_here_or_elsewhere(request, entry, began)
        except REJECTED as error:
            return Rejected(rejection=self._rejection(entry, error))

    def _answer_here_or_elsewhere(self, request: SignalRequest, entry: Entry, began: float) -> Answered | Elsewhere:
        """Return the answer of this worker, unless another one answers better or this one has not what it takes."""
        if better := self._peers.better(request.strategy):
            return Elsewhere(heir=better)
        try:
            answered = self._answerer.answer(request, entry, began=began, now=self._clock())
        except OF_THIS_WORKER as error:
            rejection, others = self._rejection(entry, error), self._peers.reasons(request.strategy)
            if others:
                sentence = f"{rejection.reason}; nor can another worker: {others}"[:REASON_CHARACTERS]
                rejection = rejection.model_copy(update={"reason": sentence})
            return Elsewhere(rejection=rejection, patient=self._peers.will_answer(request.strategy))
        return replace(answered, deadline_ms=_epoch_ms(request.deadline))

    def _rejection(self, entry: Entry, error: Exception) -> Rejection:
        return rejection_of(entry, error, worker=self._worker, now=self._clock())

    def _require_deliveries_left(self, entry: Entry) -> None:
        if entry.deliveries > self._limits.max_deliveries:
            raise DeliveriesExhausted(
                f"tried {entry.deliveries - 1} times without an outcome, at most {self._limits.max_deliveries} are "
                f"allowed; last error: {self._server.last_error(entry)}"
            )

    def _require_time_left(self, request: SignalRequest) -> None:
        """Spare computing what comes too late; this machine's clock says when to ask the server's, which decides."""
        if request.deadline is not None and self._clock() > request.deadline:
            now = self._server.server_time()
            if now > request.deadline:
                raise DeadlineExceeded(
                    f"the deadline {request.deadline.isoformat()} has passed, now is {now.isoformat()}"
                )


def queue_ms(entry: Entry, now: datetime) -> float:
    """Return the milliseconds since the producer's XADD, by two clocks: the server's and this machine's."""
    return max(0.0, round(now.timestamp() * 1000 - entry.added_ms, 3))


def _epoch_ms(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp() * 1000)
