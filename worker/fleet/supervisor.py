"""The parent of several workers: starts them, restarts those that die or hang, ends them together.

Owns: the processes, their pipes, the pause before a restart, the order of ending.
Must not know: requests, models, servers; it works while every server is unavailable.
Invariant: no worker outlives it, and each name is carried by one process at a time.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import structlog

from worker.fleet.liveness_pipe import HUNG
from worker.retry import backoff

#: First pause before a restart, doubled with each that follows soon, in seconds.
FIRST_PAUSE_SECONDS = 0.5
#: A worker that lived this long is not failing over and over.
STEADY_SECONDS = 60.0
#: Time beyond the shutdown timeout, and after a second signal, in which workers end by themselves, in seconds.
GRACE_SECONDS = 5.0
#: Silence allowed before a worker's first report: where many start at once, imports take long.
STARTING_SECONDS = 120.0
#: A worker that refuses its settings refuses them each time.
USAGE = 2

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorTimeouts:
    """How long the supervisor waits for what."""

    #: Silence after which a worker counts as hung.
    hung_after_seconds: float
    shutdown_timeout_seconds: float
    restart_max_seconds: float
    #: Silence after which a worker that has not reported yet counts as hung; at least `hung_after_seconds`.
    starting_seconds: float = STARTING_SECONDS


class Child:
    """One worker's name, with the process that carries it just now."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """Take the command; the pipe's number is appended to it."""
        self.name, self._command = name, tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = self._reported_at = 0.0
        self._failures = 0
        self.pipe = -1
        #: Whether the process has reported yet.
        self.reported = False
        self.hung = False
        #: When it is to be started; none: it runs, or has left for good.
        self.restart_at: float | None = 0.0

    @property
    def running(self) -> bool:
        """Whether a process carries the name."""
        return self._process is not None

    def start(self) -> None:
        """Start the process, in a session of its own so that a terminal's Ctrl-C reaches the supervisor alone."""
        ours, theirs = os.pipe()
        try:
            os.set_blocking(ours, False)
            self._process = subprocess.Popen(
                [*self._command, "--lifeline", str(theirs)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.pipe = ours
        self._started_at = self._reported_at = time.monotonic()
        self.reported, self.hung, self.restart_at = False, False, None
        _log.info("worker_started", worker=self.name, pid=self._process.pid)

    def read_reports(self) -> bool:
        """Read what the worker reported; return whether it may report more."""
        try:
            reports = os.read(self.pipe, 4096)
        except BlockingIOError:
            return True
        if reports:
            self._reported_at, self.reported, self.hung = time.monotonic(), True, reports[-1:] == HUNG
        return bool(reports)

    def silent_seconds(self) -> float:
        """Return how long it has reported nothing."""
        return time.monotonic() - self._reported_at

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def reap(self) -> int | None:
        """Return the exit code of a process that ended, once; minus the signal's number if one killed it."""
        code = self._process.poll() if self._process is not None else None
        if code is not None:
            self._process = None
            os.close(self.pipe)
        return code

    def plan_restart(self, most_seconds: float) -> float:
        """Return the pause before the next start, longer after each failure that follows soon upon a start."""
        now = time.monotonic()
        self._failures = 1 if now - self._started_at > STEADY_SECONDS else self._failures + 1
        pause = backoff(self._failures, first=FIRST_PAUSE_SECONDS, longest=most_seconds)
        self.restart_at = now + pause
        return pause


class Supervisor:
    """Runs the children until stopped, or until all have left; belongs to the main thread.

    The kernel ends a child when the thread that started it ends, so that thread must be the one that lives longest.
    """

    def __init__(self, children: Sequence[Child], patiences: SupervisorTimeouts) -> None:
        """Take the workers to run."""
        self._children, self._patiences = tuple(children), patiences
        self._selector = selectors.DefaultSelector()
        self._signals = 0
        self._obeyed = 0
        self._kill_at = float("inf")
        self._code = 0

    def run(self) -> int:
        """Return the exit code.

        0: stopped, or all drained, and each left by itself. 1: at least one had to be killed or failed while
        leaving. 2: a worker refuses its settings.
        """
        with self._woken_by_signals():
            try:
                while self._step():
                    pass
            finally:
                self._kill_all()
        return self._code

    def _step(self) -> bool:
        """Do what is due; return whether anything is left to watch."""
        self._handle()
        if not self._watches_any():
            return False
        for child in self._children:
            if child.restart_at is not None and time.monotonic() >= child.restart_at:
                self._start(child)
        self._listen()
        for child in self._children:
            self._judge(child)
        return self._watches_any()

    def _watches_any(self) -> bool:
        return any(child.running or child.restart_at is not None for child in self._children)

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:  # no memory or no process left on this machine: it may have them again later
            pause = child.plan_restart(self._patiences.restart_max_seconds)
            _log.error("worker_not_started", worker=child.name, reason=str(error), again_in_seconds=round(pause, 2))
        else:
            self._selector.register(child.pipe, selectors.EVENT_READ, child)

    def _listen(self) -> None:
        """Wait for a report, an end, a signal, or the next thing that is due."""
        due = [child.restart_at for child in self._children if child.restart_at is not None]
        pause = min([1.0, *(at - time.monotonic() for at in (*due, self._kill_at))])
        for key, _ in self._selector.select(max(0.0, pause)):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif not key.data.read_reports():
                self._selector.unregister(key.fd)
                self._await_end(key.data)

    def _await_end(self, child: Child) -> None:
        """Give a process that closed its pipe the moment it needs to end: nothing wakes us a second time."""
        deadline = time.monotonic() + 1.0
        while child.running and not self._reap(child) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _judge(self, child: Child) -> None:
        if not child.running or self._reap(child):
            return
        silent, patiences = child.silent_seconds(), self._patiences
        limit = patiences.hung_after_seconds
        if not child.reported:
            limit = max(limit, patiences.starting_seconds)
        if child.hung or silent > limit:
            _log.error("worker_killed", worker=child.name, hung=child.hung, silent_seconds=round(silent, 1))
            self._kill(child)
        elif time.monotonic() >= self._kill_at:
            _log.error("worker_killed", worker=child.name, reason="it did not leave in time")
            self._kill(child)

    def _kill(self, child: Child) -> None:
        child.signal(signal.SIGKILL)
        self._await_end(child)

    def _reap(self, child: Child) -> bool:
        code = child.reap()
        if code is None:
            return False
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.pipe)
        if self._signals or code == 0:
            _log.info("worker_left", worker=child.name, code=code)
            # Stopped before it could handle signals: nothing was in flight.
            self._code = max(self._code, int(code not in {0, -signal.SIGTERM}))
        elif code == USAGE:
            _log.error("worker_refused", worker=child.name, code=code)
            self._code = USAGE
            self._signals += 1
        else:
            pause = child.plan_restart(self._patiences.restart_max_seconds)
            _log.error("worker_died", worker=child.name, code=code, restart_in_seconds=round(pause, 2))
        return True

    def _handle(self) -> None:
        """Pass signals on: the first lets workers finish, the second makes them nack, the third kills them."""
        if self._signals == self._obeyed:
            return
        self._obeyed = self._signals
        graces = (self._patiences.shutdown_timeout_seconds + GRACE_SECONDS, GRACE_SECONDS)
        grace = graces[self._signals - 1] if self._signals <= len(graces) else 0.0
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        _log.info("stop_signal", count=self._signals, workers=sum(child.running for child in self._children))
        for child in self._children:
            child.restart_at = None
            child.signal(signal.SIGTERM)

    def _kill_all(self) -> None:
        for child in self._children:
            if child.running:
                self._kill(child)

    @contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Count SIGTERM and SIGINT; each wakes the selector."""

        def count(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        ours, theirs = os.pipe()
        for end in (ours, theirs):
            os.set_blocking(end, False)
        self._selector.register(ours, selectors.EVENT_READ, None)
        woken_before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        before = {number: signal.signal(number, count) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken_before)
            self._selector.close()
            os.close(ours)
            os.close(theirs)
