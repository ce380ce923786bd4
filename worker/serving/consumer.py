"""The loop: read, answer, commit; entry by entry, whatever they hold.

Owns: the order of reading and the fate of every entry that was read.
Must not know: how an answer is computed, how a commit works.
Invariant: an entry that was read ends as committed, given back, or left to its lease; one bad entry costs no other.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog

from contracts import Rejection, SignalRequest, SignalVector, StreamNames
from contracts.codec import decode_request, printable, request_id_of
from worker.errors import DeadlineExceeded, DeliveriesExhausted, GroupVanished, StreamUnavailable
from worker.retry import Patience
from worker.serving.committer import Commit, Outcome, Results
from worker.serving.failpoints import Reach, Step
from worker.serving.intake import Entry, Prefetch, RequestStream
from worker.serving.leases import Leases
from worker.serving.processor import Answers
from worker.serving.rejections import REJECTED, code_of
from worker.serving.request_log import log_dropped, log_published
from worker.serving.shadow import Shadows, ShadowTask
from worker.telemetry import Counters, Pulse, Timing
from worker.tracing import Tracing, trace_fields, trace_id
from worker.transport.scripts import CommitStatus

Result = TypeVar("Result")

#: In a backlog, one of so many entries is asked for its outcome before it is computed.
_ASK_EVERY = 16
#: What remains of the slowest entry, an entry later.
_FADE = 0.9
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the loop, from the settings."""

    batch_count: int
    block_ms: int
    lease_ms: int
    claim_interval_ms: int
    max_deliveries: int
    max_entry_bytes: int
    max_symbols: int
    shutdown_timeout_seconds: float
    retry_pause_ms: int = 1000
    batch_bytes: int = 8_388_608


class Consumer:
    """One consumer of the group; `run` belongs to one thread."""

    def __init__(  # noqa: PLR0913 - the composition root hands in every part; none is optional
        self,
        *,
        worker: str,
        names: StreamNames,
        stream: RequestStream,
        results: Results,
        leases: Leases,
        answers: Answers,
        shadows: Shadows,
        limits: Limits,
        counters: Counters,
        patience: Patience,
        patience_in_hand: Patience,
        leave_now: threading.Event,
        clock: Callable[[], datetime],
        reach: Reach,
        pulse: Pulse,
        tracing: Tracing,
    ) -> None:
        """Take every part from the composition root."""
        self._worker, self._names, self._stream, self._results = worker, names, stream, results
        self._leases, self._answers, self._shadows, self._limits = leases, answers, shadows, limits
        self._counters, self._clock, self._reach = counters, clock, reach
        #: Of reading, which ends when the worker is told to stop; of what was read, which ends when its time is up.
        self._patience, self._patience_in_hand = patience, patience_in_hand
        self._pulse, self._tracing = pulse, tracing
        self._prefetch = Prefetch(limits.batch_count, limits.batch_bytes, limits.max_entry_bytes)
        self._next_claim = 0.0
        self._recover = True
        # Given back by this process and not seen since: still pending under its name, and not to be resumed early.
        self._waiting: dict[str, float] = {}
        #: Until when what was read may be finished, once the worker is told to stop; set by whoever tells it.
        self.finish_until: float | None = None
        #: Entries that lay long, since one of them was asked for its outcome.
        self._unasked = 0
        #: Seconds that an entry takes to compute, by those before.
        self._slowest = 0.0
        self.paused = threading.Event()
        #: Told to give back what was read instead of finishing it.
        self.leave_now = leave_now
        #: Entry that is being answered, empty between two.
        self.in_work = ""

    def join_group(self) -> None:
        """Make sure of the consumer group, which must exist before the worker is announced as started.

        Raises:
            StreamUnavailable: The server was still unavailable when the worker was stopped.
        """
        self._patiently(self._stream.ensure_group)

    def run(self, stop: threading.Event) -> None:
        """Answer requests until told to stop, then finish or give back what was read.

        Raises:
            StreamUnavailable: The server was still away when the worker was told to stop.
        """
        self._patiently(lambda: self._start(stop))
        while not stop.is_set():
            if self.paused.is_set():
                self._pulse.beat()
                stop.wait(0.1)
                continue
            try:
                entries = self._patiently(lambda: self._read(stop))
            except StreamUnavailable:
                if stop.is_set() and not self.leave_now.is_set():
                    return  # nothing is in hand
                raise
            if self.paused.is_set():
                # Read by a call that was under way when the pause came: nothing is answered while paused.
                for entry in entries:
                    self._give_back(entry, tried=False)
                continue
            self._take(entries, stop)

    def run_once(self) -> None:
        """Answer what can be read now, without waiting for more."""
        self._stream.ensure_group()
        self._resume(threading.Event())
        claimed = self._stream.claim()
        while claimed is not None:
            self._take([claimed], threading.Event())
            claimed = self._stream.claim()
        entries = self._read_new(1)
        while entries:
            self._take(entries, threading.Event())
            entries = self._read_new(1)

    def _start(self, stop: threading.Event) -> None:
        try:
            self._resume(stop, count_again=True)
        except GroupVanished as error:
            self._recreate_group(error)

    def _resume(self, stop: threading.Event, *, count_again: bool = False) -> None:
        """Answer what is pending under this name: of a former process, or of a reply that was lost."""
        for entry in self._stream.recover(self._leases.held() | self._waiting.keys(), count_again=count_again):
            self._counters.deliveries["own"] += 1
            self._take([entry], stop)
            if stop.is_set():
                return  # what was not asked for was not taken, and its lease runs on
        self._recover = False

    def _read(self, stop: threading.Event) -> list[Entry]:
        """Return what to work on next: what dead workers left, or what is new."""
        try:
            if self._recover:
                self._resume(stop)
            claimed = self._claim_when_due()
            return [claimed] if claimed else self._read_new(self._block_ms())
        except GroupVanished as error:
            self._recreate_group(error)
            return []
        except StreamUnavailable:
            # Its reply may have been lost with entries in it.
            self._recover = True
            raise

    def _recreate_group(self, error: GroupVanished) -> None:
        """Create the group again at the stream's beginning: remembered ids absorb what was answered before."""
        self._recover = True
        if not self._stream.ensure_group():
            # Another worker was faster, or the connections lead to two servers: with a pause, and not in a loop.
            self._stream.reconnect()
            raise StreamUnavailable(error.reason, str(error)) from error
        _log.warning("group_recreated", detail=str(error))

    def _block_ms(self) -> int:
        """Return how long to wait for what is new: no longer than until leases are looked at again."""
        until_claim = int((self._next_claim - time.monotonic()) * 1000)
        return max(1, min(self._limits.block_ms, until_claim))  # a block of 0 would never end

    def _read_new(self, block_ms: int) -> list[Entry]:
        entries = self._stream.read(self._prefetch.count, block_ms)
        self._prefetch.note(entries)
        self._counters.deliveries["new"] += len(entries)
        return entries

    def _claim_when_due(self) -> Entry | None:
        if time.monotonic() < self._next_claim:
            return None
        claimed = self._stream.claim()
        while claimed is None and not self._stream.looked_everywhere:
            claimed = self._stream.claim()
        self._counters.deliveries["claimed"] += claimed is not None
        if claimed is None:
            self._next_claim = time.monotonic() + self._limits.claim_interval_ms / 1000
        return claimed

    def _take(self, entries: list[Entry], stop: threading.Event) -> None:
        self._leases.hold(entry.id for entry in entries)
        for entry in entries:
            self._waiting.pop(entry.id, None)
        for entry in entries:
            try:
                if self.leave_now.is_set() or (stop.is_set() and not self._time_for_one_more()):
                    self._give_back(entry, tried=False)
                else:
                    self._handle(entry)
            finally:
                self._leases.drop(entry.id)

    def _time_for_one_more(self) -> bool:
        """Return whether an entry as slow as those before is finished in time by a worker that is told to stop."""
        if self.finish_until is None:
            self.finish_until = time.monotonic() + self._limits.shutdown_timeout_seconds
        return time.monotonic() + self._slowest < self.finish_until

    def _handle(self, entry: Entry) -> None:
        self._pulse.beat()
        self.in_work = entry.id
        with self._tracing(entry.id, entry.pairs) as finish:
            outcome = self._process(entry)
            if outcome is not None:
                finish(outcome)
        self.in_work = ""

    def _process(self, entry: Entry) -> Outcome | None:
        read_at = time.perf_counter()
        queue_ms = max(0.0, self._clock().timestamp() * 1000 - entry.added_ms)
        try:
            self._reach(Step.READ)
            if self._answered_before(entry, queue_ms):
                return None
            outcome, deadline_ms, task = self._outcome(entry, read_at)
            self._reach(Step.COMPUTED)
        except StreamUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - around one entry
            # A bug, not a bad request: tried again after a pause, by whoever claims it, until deliveries run out.
            traced = trace_id(trace_fields(entry.pairs).get("traceparent"))
            _log.exception("request_failed", entry=entry.id, deliveries=entry.deliveries, **traced)
            self._counters.failed += 1
            self._give_back(entry, tried=True, error=f"{type(error).__name__}: {error}")
            return None
        computed_at = time.perf_counter()
        self._slowest = max(computed_at - read_at, self._slowest * _FADE)
        outcome, commit = self._publish(entry, outcome, deadline_ms)
        self._reach(Step.COMMITTED)
        timing = Timing(
            queue_ms=queue_ms,
            compute_ms=(computed_at - read_at) * 1000,
            commit_ms=(time.perf_counter() - computed_at) * 1000,
        )
        self._say(entry, outcome, commit, timing)
        if task is not None and isinstance(outcome, SignalVector) and commit.status is CommitStatus.COMMITTED:
            self._shadows.offer(task)
        return outcome

    def _answered_before(self, entry: Entry, queue_ms: float) -> bool:
        """Spare computing what has an outcome: after a lost group, all that the stream still holds is read again.

        Asked only of an entry that came again or lay longer than a lease, and of those that lay the fewer while none
        has an outcome, as in a backlog; this machine's clock is good enough, since the commit asks in any case.
        """
        if entry.deliveries == 1:
            if queue_ms <= self._limits.lease_ms:
                return False
            self._unasked = (self._unasked + 1) % _ASK_EVERY
            if self._unasked != 1:
                return False
        request_id = request_id_of(entry.pairs, entry.id)
        commit = self._in_hand(lambda: self._results.acknowledge_answered(entry, request_id))
        if commit.status is CommitStatus.OPEN:
            return False
        self._unasked = 0
        self._counters.drop(commit.status)
        log_dropped(entry, request_id, commit, trace_fields(entry.pairs).get("traceparent"))
        return True

    def _publish(self, entry: Entry, outcome: Outcome, deadline_ms: int | None) -> tuple[Outcome, Commit]:
        """Return what was published in the end: a vector that comes after its deadline is a rejection."""
        commit = self._in_hand(lambda: self._commit(entry, outcome, deadline_ms))
        if commit.status is not CommitStatus.LATE:
            return outcome, commit
        late = DeadlineExceeded(f"the deadline {deadline_ms} ms passed before the vector could be published")
        rejection = self._rejection(entry, late)
        return rejection, self._in_hand(lambda: self._commit(entry, rejection, None))

    def _commit(self, entry: Entry, outcome: Outcome, deadline_ms: int | None) -> Commit:
        try:
            return self._results.commit(entry, outcome, deadline_ms=deadline_ms)
        except GroupVanished as error:
            # The entry is delivered again from the new group; whoever reads it then commits.
            self._recover = True
            if self._stream.ensure_group():
                _log.warning("group_recreated", detail=str(error))
            return Commit(CommitStatus.FENCED, "")

    def _outcome(self, entry: Entry, read_at: float) -> tuple[Outcome, int | None, ShadowTask | None]:
        """Return the outcome, the instant after which it is worthless, and what may be shadowed once it stands."""
        try:
            self._require_deliveries_left(entry)
            request = decode_request(
                entry.pairs,
                entry.id,
                max_bytes=self._limits.max_entry_bytes,
                max_symbols=self._limits.max_symbols,
            )
            self._require_time_left(request)
            answered = self._answers.of(request, entry, read_at=read_at, now=self._clock())
        except REJECTED as error:
            return self._rejection(entry, error), None, None
        return answered.vector, _epoch_ms(request.deadline), answered.task

    def _require_deliveries_left(self, entry: Entry) -> None:
        if entry.deliveries > self._limits.max_deliveries:
            last_error = self._in_hand(lambda: self._stream.last_error(self._key(entry)))
            raise DeliveriesExhausted(
                f"tried {entry.deliveries - 1} times without an outcome, at most {self._limits.max_deliveries} are "
                f"allowed; last error: {last_error}"
            )

    def _require_time_left(self, request: SignalRequest) -> None:
        """Spare computing what comes too late; this machine's clock says when to ask the server's, which decides."""
        if request.deadline is not None and self._clock() > request.deadline:
            now = self._in_hand(self._results.server_time)
            if now > request.deadline:
                raise DeadlineExceeded(
                    f"the deadline {request.deadline.isoformat()} has passed, now is {now.isoformat()}"
                )

    def _rejection(self, entry: Entry, error: Exception) -> Rejection:
        fields = printable(entry.pairs)
        return Rejection(
            request_id=request_id_of(entry.pairs, entry.id),
            code=code_of(error),
            reason=str(error)[:2000],
            entry_id=entry.id,
            rejected_at=self._clock(),
            deliveries=entry.deliveries,
            worker=self._worker,
            fields=fields,
            **trace_fields(entry.pairs),
        )

    def _give_back(self, entry: Entry, *, tried: bool, error: str = "") -> None:
        pause = self._pause_ms(entry.deliveries) if tried else 0
        # Before it is given back: a renewal between the two would make it wait for a whole lease.
        self._leases.let_go(entry.id)

        def give_back() -> None:
            with suppress(GroupVanished):  # nothing to give back: a new group delivers the entry again
                self._stream.give_back(entry, self._key(entry), pause_ms=pause, tried=tried, error=error[:500])

        self._in_hand(give_back)
        now, lease = time.monotonic(), self._limits.lease_ms / 1000
        # After a pause and a lease others have claimed it, and this process would never hear of that.
        self._waiting = {one: at for one, at in self._waiting.items() if now - at < 2 * lease} | {entry.id: now}

    def _pause_ms(self, deliveries: int) -> int:
        """Return the pause before the next try, doubled each time up to the lease."""
        longest = min(self._limits.retry_pause_ms * 2 ** (deliveries - 1), self._limits.lease_ms)
        # Jitter: entries that failed together, of one cause, are not all tried together again.
        return int(longest * random.uniform(0.5, 1.0))  # noqa: S311

    def _patiently(self, command: Callable[[], Result]) -> Result:
        """Return what the command returns, however long the server is away; each try is a sign of life."""
        return self._patience.call(lambda: self._living(command))

    def _in_hand(self, command: Callable[[], Result]) -> Result:
        """Likewise, for an entry in hand: not given up when the worker is told to stop, but when its time is up."""
        return self._patience_in_hand.call(lambda: self._living(command))

    def _living(self, command: Callable[[], Result]) -> Result:
        self._pulse.beat()
        return command()

    def _key(self, entry: Entry) -> str:
        return self._names.request(request_id_of(entry.pairs, entry.id))

    def _say(self, entry: Entry, outcome: Outcome, commit: Commit, timing: Timing) -> None:
        self._counters.count(outcome, commit.status, timing.total_ms)
        if commit.status is CommitStatus.COMMITTED:
            self._counters.measure(timing)
            log_published(entry, outcome, timing.total_ms)
        else:
            log_dropped(entry, outcome.request_id, commit, outcome.traceparent)


def _epoch_ms(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp() * 1000)
