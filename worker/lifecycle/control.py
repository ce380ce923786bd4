"""The control thread: reads hints, reconciles, executes operators' events.

Owns: the cursor on the control stream and what each control event means.
Must not know: how a model is loaded or an entry answered.
Invariant: no event is needed for correctness; a cursor that the stream lost, or that is ahead of it, ends in a
reconcile, as does every pause of `reconcile_seconds`.
"""

import threading
import time

import structlog

from contracts import ControlEvent, ControlType, FleetEventType, StreamNames
from contracts.codec import decode
from contracts.control import ANSWERS
from contracts.entry_ids import EntryId
from contracts.errors import ContractError
from worker.errors import StreamUnavailable
from worker.events import Events
from worker.lifecycle.plan import Report
from worker.lifecycle.reconciler import Reconciler
from worker.retry import RetryPolicy
from worker.service import Service
from worker.shutdown import Shutdown
from worker.transport.client import Client, pairs_of

Rows = list[tuple[str, tuple[tuple[bytes, bytes], ...]]]

_log = structlog.get_logger()

#: Pause in seconds before what failed is looked at again.
_FIRST_PAUSE = 5.0
_RECONCILING = frozenset(kind for kind, answer in ANSWERS.items() if answer is FleetEventType.RECONCILED)


class ControlListener(Service):
    """Reads the control stream for one worker until it stops."""

    def __init__(  # noqa: PLR0913 - the composition root hands in every part; none is optional
        self,
        *,
        worker: str,
        names: StreamNames,
        reader: Client,
        reconciler: Reconciler,
        events: Events,
        paused: threading.Event,
        retry: RetryPolicy,
        shutdown: Shutdown,
        reconcile_seconds: float,
        block_ms: int,
    ) -> None:
        """Take every part from the composition root; the connections belong to this thread from now on."""
        super().__init__("control", shutdown)
        self._worker, self._names, self._reader, self._reconciler = worker, names, reader, reconciler
        self._events, self._paused, self._retry = events, paused, retry
        self._reconcile_seconds, self._block_ms = reconcile_seconds, block_ms
        self._cursor = "0-0"
        #: Whether a read failed since the last reconcile.
        self._lost = False
        self._due = 0.0
        #: Pause until the next look while a version is refused here: it doubles from one to the next.
        self._pause = _FIRST_PAUSE
        #: Control events so far that could not be read.
        self.malformed = 0

    def begin(self) -> None:
        """Take the cursor, then reconcile once: what is activated between the two is still read.

        Returns only when the registry has answered once, or the cache replaces it, or the worker stops.
        """
        self._cursor = self._retry.call(self._end_of_stream)
        while (
            not self._reconcile().registry_reached
            and not self._reconciler.serve_cached()
            and not self._shutdown.stopping.wait(1.0)
        ):
            pass

    def serve(self) -> None:
        """Read control events and act on them until the worker stops."""
        while not self._shutdown.stopping.is_set():
            self._step()

    def _step(self) -> None:
        rows = self._retry.call(self._listen)
        for entry_id, pairs in rows:
            self._cursor = entry_id
            self._handle(entry_id, pairs)
        if self._lost or time.monotonic() >= self._due:
            self._retry.call(self._heal)
            self._lost = False

    def _listen(self) -> Rows:
        """Return what is new; after a read that failed from a cursor that the stream still has, and at once."""
        try:
            if self._lost:
                self._find_cursor()
            return self._read(1 if self._lost else self._block_ms)
        except StreamUnavailable:
            self._lost = True
            raise

    def _read(self, block_ms: int) -> Rows:
        reply = self._reader.execute_command(
            "XREAD",
            "COUNT",
            100,
            "BLOCK",
            block_ms,
            "STREAMS",
            self._names.control,
            self._cursor,
        )
        rows = reply[0][1] if reply else []
        return [(entry_id.decode(), pairs_of(flat)) for entry_id, flat in rows]

    def _heal(self) -> None:
        """Reconcile by a new connection: hints may have been lost.

        A connection that only reads never learns that its server is a replica now, or one that was left.
        """
        self._reader.connection_pool.disconnect()
        self._find_cursor()
        self._reconcile()

    def _find_cursor(self) -> None:
        """Put a cursor that is ahead of the stream back to its end."""
        end = self._end_of_stream()
        if EntryId.parse(end) < EntryId.parse(self._cursor):
            _log.warning("control_stream_went_back", cursor=self._cursor, end=end)
            self._cursor = end

    def _end_of_stream(self) -> str:
        if not self._reader.exists(self._names.control):
            return "0-0"
        info = self._reader.xinfo_stream(self._names.control)
        last = info["last-generated-id"]
        return last.decode() if isinstance(last, bytes) else str(last)

    def _handle(self, entry_id: str, pairs: tuple[tuple[bytes, bytes], ...]) -> None:
        try:
            event = decode(ControlEvent, pairs)
        except ContractError as error:
            self.malformed += 1
            _log.warning("control_event_malformed", entry=entry_id, reason=str(error))
            return
        if event.worker in {None, self._worker} and (event.strategy is None or self._reconciler.serves(event.strategy)):
            self._act(event, entry_id)

    def _act(self, event: ControlEvent, entry_id: str) -> None:
        _log.info("control_event", entry=entry_id, kind=event.type.value, strategy=event.strategy)
        if event.type in _RECONCILING:
            self._answer_reconciled(entry_id, event)
        elif event.type is ControlType.PAUSE:
            self._paused.set()
            self._events.emit(FleetEventType.PAUSED, control_id=entry_id)
        elif event.type is ControlType.RESUME:
            self._paused.clear()
            self._events.emit(FleetEventType.RESUMED, control_id=entry_id)
        elif event.type is ControlType.PING:
            self._events.emit(FleetEventType.PONG, control_id=entry_id)
        elif event.type is ControlType.DRAIN:
            # Answered by the worker's last event, once what it had read is done.
            self._shutdown.request(control_id=entry_id)

    def _answer_reconciled(self, entry_id: str, event: ControlEvent) -> None:
        begun = time.perf_counter()
        report = self._reconcile(control_id=entry_id, force=event.type is ControlType.RELOAD, strategy=event.strategy)
        self._events.emit(
            FleetEventType.RECONCILED,
            duration_ms=round((time.perf_counter() - begun) * 1000, 3),
            control_id=entry_id,
            reason="; ".join(report.errors)[:2000] or None,
        )

    def _reconcile(self, *, control_id: str | None = None, force: bool = False, strategy: str | None = None) -> Report:
        self._due = time.monotonic() + self._reconcile_seconds
        report = self._reconciler.reconcile(control_id=control_id, force=force, strategy=strategy)
        if not report.registry_reached:
            # Look again soon, not in five minutes.
            self._due = min(self._due, time.monotonic() + _FIRST_PAUSE)
        if report.refused_here:
            # Files may come, memory may be free, a second worker may agree; to prove a large model costs seconds.
            self._due = min(self._due, time.monotonic() + self._pause)
            self._pause = min(2 * self._pause, self._reconcile_seconds)
        else:
            self._pause = _FIRST_PAUSE
        return report
