"""The life of one worker process.

Owns: the order of starting and stopping, signals, the health port.
Must not know: how a part is built, what it does.
Invariant: the process ends when it is asked to (0), when a thread of it dies (1), or when its settings cannot be (2).
"""

import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog

from contracts import FleetEventType
from worker.embedded import Endpoints
from worker.errors import StreamUnavailable
from worker.fleet.os_signals import handle_signals
from worker.runtime import configure_interpreter
from worker.settings import Settings
from worker.shutdown import Shutdown

if TYPE_CHECKING:
    from worker.build import Parts

_log = structlog.get_logger()


class Worker:
    """One worker process: a consumer on the main thread, and a thread for each service."""

    def __init__(self, settings: Settings, endpoints: Endpoints, *, lifeline: int | None = None) -> None:
        """Build every part; nothing is connected before `run`.

        Args:
            settings: Of the environment and the command line.
            endpoints: Where the servers are.
            lifeline: Pipe to the supervisor, where there is one.

        Raises:
            SettingsError: Settings that cannot be true.
        """
        configure_interpreter()
        # Only now: what it imports, imports LightGBM.
        from worker.build import build  # noqa: PLC0415

        self._settings, self._stack = settings, ExitStack()
        self.name = settings.worker_name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._parts: Parts = build(settings, endpoints, self.name, self._stack, pipe=lifeline)

    def stop(self) -> None:
        """Stop reading, finish or nack what was read, leave."""
        self._parts.shutdown.request()

    def run(self) -> int:
        """Serve until the worker is to stop.

        Returns:
            The exit code: 0 after a stop, 1 if a thread died.

        Raises:
            SettingsError: The health port cannot be listened on, or a server or a login is not enough for a worker.
        """
        parts = self._parts
        with self._stack, _signals(parts.shutdown):
            self._open_health_port()
            for guard in parts.guards:
                guard.start()
            try:
                self._serve()
            except StreamUnavailable as error:
                # To stop, and the server was unavailable until the time was up.
                _log.warning("stopped_while_server_away", reason=error.reason, handed_back=self._nack_all())
            finally:
                parts.shutdown.stop()
                for guard in reversed(parts.guards):
                    guard.stop()
                    guard.join()
            return 1 if parts.shutdown.deaths else 0

    def _serve(self) -> None:
        parts = self._parts
        parts.machine.fault()  # logged: before this machine judges any model
        parts.require_servers()
        parts.control.begin()
        if parts.shutdown.stopping.is_set():
            return
        parts.intake.join_group()
        parts.ready.set()
        parts.heartbeat.beat_now()
        # After what it states: whoever reads it may ask the health port, the heartbeat and the group at once.
        parts.events.emit(FleetEventType.STARTED)
        for loop in parts.loops:
            loop.start()
        parts.consumer.run()
        parts.stream.leave()
        parts.events.emit(FleetEventType.DRAINED, control_id=parts.shutdown.control_id)
        for loop in parts.loops:
            loop.stop()
            loop.join()

    def _nack_all(self) -> int:
        """Try once to nack what is still in flight; what the server does not take waits for its lease."""
        try:
            return self._parts.entries_in_flight()
        except StreamUnavailable:
            return 0

    def _open_health_port(self) -> None:
        """Listen for probes, if wanted.

        Raises:
            SettingsError: The address cannot be listened on.
        """
        settings, status = self._settings, self._parts.status
        if settings.health_port:
            from worker.fleet.health_port import HealthPort, pages  # noqa: PLC0415 - only where it is wanted
            from worker.fleet.metrics import metrics_registry  # noqa: PLC0415

            readiness = status.readiness
            answers = pages(status.liveness, readiness, metrics_registry(status), remarks=readiness.remarks)
            port = HealthPort(settings.health_host, settings.health_port, answers)
            self._stack.callback(port.close)


@contextmanager
def _signals(shutdown: Shutdown) -> Iterator[None]:
    """Stop on SIGTERM and SIGINT, by force on a second one; only the main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handle_signals(_stop_on(shutdown)):
        yield


def _stop_on(shutdown: Shutdown) -> Callable[[signal.Signals], None]:
    received = threading.Event()

    def stop(number: signal.Signals) -> None:
        if received.is_set():
            shutdown.force()
        received.set()
        shutdown.request()
        _log.info("stop_signal", signal=number.name)

    return stop
