"""Worker processes as operators start them, for tests that kill and cut them off.

Owns: spawning a verb of the command line with an environment of its own, reading its log, ending it.
Must not know: what the verb does.
Invariant: no process outlives its test.
"""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.fork_server import ForkedChild, fork_server
from worker.embedded import Endpoints
from worker.embedded.processes import Launch, launch, wait_until
from worker.settings import inherited_environment

#: Time a process has to do what a test waits for, in seconds; the machine may be busy.
PATIENCE = 40.0


class Process:
    """One verb of `signal-worker`, running."""

    def __init__(
        self, verb: list[str], environment: Mapping[str, str], log: Path, module: str = "worker", *, warm: bool = True
    ) -> None:
        """Start it: `warm` forks it from a parent that has imported the command line, else a new interpreter does."""
        self.log = log
        self._child: subprocess.Popen[bytes] | ForkedChild
        if warm and sys.platform == "linux":
            server = fork_server(measured="COVERAGE_PROCESS_CONFIG" in environment)
            self._child = server.start(module, verb, environment, log)
            return
        self._child = launch(
            Launch(
                command=(sys.executable, "-m", module, *verb),
                log=log,
                death_signal=signal.SIGKILL,
                environment=dict(environment),
                folder=log.parent,
            )
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log's events, of one name or all; lines that are no event are left out."""
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and (name is None or event.get("event") == name):
                    found.append(event)
        return found

    def await_event(self, name: str, count: int = 1, **facts: object) -> dict[str, Any]:
        """Wait until the log holds an event with these facts, and return the last one."""

        def matching() -> list[dict[str, Any]]:
            return [event for event in self.events(name) if facts.items() <= event.items()]

        if not wait_until(lambda: len(matching()) >= count or not self.running(), PATIENCE) or len(matching()) < count:
            raise AssertionError(f"no {name} {facts} in the log:\n{self.log.read_text(encoding='utf-8')[-4000:]}")
        return matching()[-1]

    def running(self) -> bool:
        """Whether it runs."""
        return self._child.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return self._child.wait(timeout=PATIENCE)

    def end(self) -> None:
        """Ask it to leave, and kill it if it does not."""
        if self.running():
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=5)
        if self.running():
            self._child.kill()
            self._child.wait(timeout=PATIENCE)


class Fleet:
    """The processes of one test, in one environment."""

    def __init__(self, endpoints: Endpoints, folder: Path, *, measured: bool = True, **settings: object) -> None:
        """Take where they work; `measured` says whether they count for the coverage, which costs each a third more."""
        self.folder = folder
        self.environment = inherited_environment() | {
            "REDIS_URL": endpoints.redis_url,
            "DATABASE_URL": endpoints.database_url,
            "SIGNALS_DATA_DIR": str(folder / "data"),
            "SIGNALS_ARTIFACTS_DIR": str(folder / "artifacts"),
            "SIGNALS_BLOCK_MS": "200",
            "SIGNALS_LEASE_MS": "1000",
            "SIGNALS_CLAIM_INTERVAL_MS": "100",
            "SIGNALS_HEARTBEAT_SECONDS": "0.2",
            "SIGNALS_BACKOFF_MAX_SECONDS": "0.5",
            "SIGNALS_GRACE_SECONDS": "0.5",
            "SIGNALS_DEFAULT_AS_OF": "snapshot",
            "SIGNALS_DRIFT_SESSIONS": "0",
            "SIGNALS_LOG_FORMAT": "json",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **{f"SIGNALS_{name.upper()}": str(value) for name, value in settings.items()},
        }
        if not measured:
            self.environment.pop("COVERAGE_PROCESS_CONFIG", None)
        self._processes: list[Process] = []

    def start(self, *verb: str, module: str = "worker", **settings: object) -> Process:
        """Start a verb of the command line, or of another module that ends in it."""
        return self._start(verb, module, settings, warm=True)

    def execute(self, *verb: str, module: str = "worker", **settings: object) -> Process:
        """Start it in a new interpreter, as modules need that replace something before the command line imports it."""
        return self._start(verb, module, settings, warm=False)

    def worker(self, **settings: object) -> Process:
        """Start a worker and wait until it serves."""
        process = self.start("run", module="worker", **settings)
        process.await_event("fleet_event", kind="worker.started")
        return process

    def end(self) -> None:
        """End every process."""
        for process in self._processes:
            process.end()

    def _start(self, verb: tuple[str, ...], module: str, settings: Mapping[str, object], *, warm: bool) -> Process:
        environment = self.environment | {f"SIGNALS_{name.upper()}": str(value) for name, value in settings.items()}
        log = self.folder / f"{len(self._processes)}-{verb[-1]}.log"
        process = Process(list(verb), environment, log, module, warm=warm)
        self._processes.append(process)
        return process
