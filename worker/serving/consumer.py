"""The loop of the hot path: an entry is processed, its outcome committed, and both are observed.

Owns: the order of these steps, and what is counted, logged and traced of them.
Must not know: how an entry is read, processed or committed.
Invariant: one entry is processed at a time, in the order in which the intake yields them.
"""

import time
from collections.abc import Callable
from datetime import datetime

from contracts import SignalVector
from worker.serving.committer import Committer, Receipt
from worker.serving.intake import Intake
from worker.serving.outcomes import Answered, Duplicate, Elsewhere, Left, Outcome
from worker.serving.processor import Processor, queue_ms
from worker.serving.request_log import log_dropped, log_published
from worker.serving.request_stream import Entry
from worker.serving.shadow import Shadows
from worker.telemetry import Counters, Timing
from worker.tracing import Tracing, trace_fields
from worker.transport.scripts import CommitStatus


class Consumer:
    """One consumer of the group; `run` belongs to one thread."""

    def __init__(
        self,
        intake: Intake,
        processor: Processor,
        committer: Committer,
        *,
        shadows: Shadows,
        counters: Counters,
        clock: Callable[[], datetime],
        tracing: Tracing,
    ) -> None:
        """Take every part from the composition root."""
        self._intake, self._processor, self._committer = intake, processor, committer
        self._shadows, self._counters, self._clock, self._tracing = shadows, counters, clock, tracing

    def run(self) -> None:
        """Answer requests until the worker is to stop.

        Raises:
            StreamUnavailable: The server was unavailable when the worker was forced to stop.
        """
        for entry in self._intake:
            self.handle(entry)

    def handle(self, entry: Entry) -> None:
        """Process one entry, commit its outcome, and observe both."""
        began, waited_ms = time.perf_counter(), queue_ms(entry, self._clock())
        with self._tracing(entry.id, entry.pairs) as finish:
            outcome = self._processor.process(entry)
            processed = time.perf_counter()
            receipt = self._committer.commit(entry, outcome)
            timing = Timing(
                queue_ms=waited_ms,
                compute_ms=(processed - began) * 1000,
                commit_ms=(time.perf_counter() - processed) * 1000,
            )
            self._observe(entry, outcome, receipt, timing)
            if receipt.publication is not None:
                finish(receipt.publication)

    def _observe(self, entry: Entry, outcome: Outcome, receipt: Receipt, timing: Timing) -> None:
        if isinstance(outcome, Left):
            self._counters.failed += 1
        elif isinstance(outcome, Elsewhere) and receipt.publication is None:
            self._counters.left["given" if outcome.heir else "waiting"] += 1
        elif isinstance(outcome, Duplicate):
            self._counters.drop(outcome.commit.status)
            traceparent = trace_fields(entry.pairs).get("traceparent")
            log_dropped(entry, outcome.request_id, outcome.commit, traceparent)
        elif receipt.publication is not None and receipt.commit is not None:
            self._intake.note_seconds(timing.compute_ms / 1000)
            self._counters.count(receipt.publication, receipt.commit.status, timing.total_ms)
            if receipt.commit.status is not CommitStatus.COMMITTED:
                publication = receipt.publication
                log_dropped(entry, publication.request_id, receipt.commit, publication.traceparent)
                return
            self._counters.measure(timing)
            log_published(entry, receipt.publication, timing.total_ms)
            if isinstance(outcome, Answered) and isinstance(receipt.publication, SignalVector):
                self._shadows.offer(outcome.task)
