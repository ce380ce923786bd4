"""Processes of tests, forked from one warm parent that has imported what the command line imports.

Owns: the parent (one a test process), the request to fork, the child as a test sees it.
Must not know: which verb a child runs.
Invariant: a child is what `python -m <module>` would be: a session, an environment, a folder, arguments, streams, a
process id and an exit status of its own, and it dies with the test process. The parent has one thread whenever it
forks, so that no library's lock or thread pool is left half copied. Linux only: pidfd and PR_SET_PDEATHSIG.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.embedded.processes import bind_to_parent
from worker.settings import inherited_environment

#: The slow imports of `run` and `publish-registry`; LightGBM is imported before them, without its optional parts.
WARM_MODULES = (
    "worker.cli.main",
    "worker.app",
    "worker.build",
    "worker.registry.publisher",
    "worker.registry.migrations",
)
#: Keeps libraries from starting threads when they are imported: OpenBLAS its pool, Arrow's jemalloc its collector.
_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
#: Most bytes of one request: a module, its arguments and its environment.
_REQUEST_BYTES = 1 << 17
#: Most bytes of a report: a process id, later an exit code.
_REPORT_BYTES = 32
_ROOT = Path(__file__).parents[2]


class ForkedChild:
    """A forked process, with those methods of `subprocess.Popen` that tests use."""

    def __init__(self, reports: socket.socket, args: Sequence[str]) -> None:
        self.args = args
        self.returncode: int | None = None
        self._reports = reports
        report, descriptors, _, _ = socket.recv_fds(reports, _REPORT_BYTES, 1)
        self.pid = self._number(report)
        (self._pidfd,) = descriptors  # from its parent: a short-lived process may have been reaped by now

    def poll(self) -> int | None:
        """Return the exit code, or minus the number of the signal that ended it; None while it runs."""
        return self._await_exit(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        code = self._await_exit(timeout)
        if code is None:
            raise subprocess.TimeoutExpired([*self.args], timeout or 0.0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended; a recycled process id never receives it."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _await_exit(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._reports, selectors.EVENT_READ)
                if not selector.select(timeout):
                    return None
            try:
                self.returncode = self._number(self._reports.recv(_REPORT_BYTES))
            finally:
                os.close(self._pidfd)
                self._reports.close()
        return self.returncode

    def _number(self, report: bytes) -> int:
        if not report:
            self._reports.close()
            raise RuntimeError("the fork server has ended; its traceback is on standard error")
        return int(report)


class ForkServer:
    """The warm parent as the test process sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it, with the variables that Python and its libraries read at import."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the kernel ends the fork server with the thread that starts it: start it from the main")
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=_ROOT,
                env={**environment, **_SINGLE_THREADED},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                preexec_fn=bind_to_parent(signal.SIGKILL),  # noqa: PLW1509 - one system call, resolved beforehand
            )

    @property
    def pid(self) -> int:
        """Process id of the parent of every child."""
        return self._process.pid

    @property
    def descriptor(self) -> int:
        """File descriptor of the connection to it."""
        return self._requests.fileno()

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedChild:
        """Fork a child that does what `python -m module` does in the log's folder; both output streams go to the log.

        Raises:
            RuntimeError: The fork server has ended.
        """
        order = {"module": module, "arguments": arguments, "environment": environment, "folder": str(log.parent)}
        reports, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log.open("ab") as output:
            try:
                socket.send_fds(self._requests, [json.dumps(order).encode()], [theirs.fileno(), output.fileno()])
            except OSError as error:
                reports.close()
                raise RuntimeError("the fork server has ended; its traceback is on standard error") from error
        return ForkedChild(reports, [module, *arguments])

    def close(self) -> None:
        """End it, and with it every child that still runs."""
        self._requests.close()
        self._process.wait()


#: By whether their children count for the coverage.
_servers: dict[bool, ForkServer] = {}


def fork_server(*, measured: bool) -> ForkServer:
    """Return the fork server of this test process; `measured` says whether its children count for the coverage."""
    if measured not in _servers:
        environment = inherited_environment() | {"PYTHONPATH": str(_ROOT)}
        if not measured:
            environment.pop("COVERAGE_PROCESS_CONFIG", None)
        _servers[measured] = ForkServer(environment)
    return _servers[measured]


def fork_servers() -> Sequence[ForkServer]:
    """Return those that run."""
    return [*_servers.values()]


@atexit.register
def close_fork_servers() -> None:
    """End every fork server of this test process."""
    while _servers:
        _servers.popitem()[1].close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What a child is to do."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str

    def take_on(self) -> None:
        """Become the process that was ordered, up to its first line of code."""
        os.environ.clear()  # noqa: TID251 - the environment of another process, as exec replaces it
        os.environ.update(self.environment)  # noqa: TID251 - as above
        time.tzset()
        os.chdir(self.folder)
        sys.path[0] = self.folder
        sys.argv[1:] = self.arguments


class _Server:
    """The warm parent at work."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._bind = bind_to_parent(signal.SIGKILL)

    def serve(self) -> _Order | None:
        """Fork as requested; return the order in a child, and None in the parent once the test process has left."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._report_exit(key.fd, *key.data)
                    continue
                content, descriptors, _, _ = socket.recv_fds(self._requests, _REQUEST_BYTES, 2)
                if not content:
                    return None
                reports, output = socket.socket(fileno=descriptors[0]), descriptors[1]
                if self._fork(reports, output):
                    return _Order(**json.loads(content))

    def _fork(self, reports: socket.socket, output: int) -> bool:
        """Return whether this is the child."""
        threads = [*Path("/proc/self/task").iterdir()]
        if len(threads) > 1:
            raise RuntimeError(f"the fork server has {len(threads)} threads, it must have 1: an import started one")
        pid = os.fork()
        if pid == 0:
            os.setsid()
            if self._bind is not None:
                self._bind()
            os.dup2(output, 1)
            os.dup2(output, 2)
        os.close(output)
        if pid == 0:
            reports.close()
            self._forget_siblings()
            return True
        pidfd = os.pidfd_open(pid)
        with contextlib.suppress(OSError):  # nobody waits for this child any longer
            socket.send_fds(reports, [str(pid).encode()], [pidfd])
        self._selector.register(pidfd, selectors.EVENT_READ, (pid, reports))
        return False

    def _forget_siblings(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is None:
                self._requests.close()
            else:
                os.close(key.fd)
                key.data[1].close()
        self._selector.close()

    def _report_exit(self, pidfd: int, pid: int, reports: socket.socket) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        with reports, contextlib.suppress(OSError):  # as above
            reports.send(str(os.waitstatus_to_exitcode(status)).encode())


def _warm_up() -> None:
    """Import what children import, and compute what takes long and is the same in every process."""
    from tests.support.market import load_kernels, xnys  # noqa: PLC0415 - for the parent alone
    from worker.runtime import import_lightgbm  # noqa: PLC0415 - as above

    import_lightgbm()
    for module in WARM_MODULES:
        importlib.import_module(module)
    xnys()
    load_kernels()
    gc.collect()
    gc.freeze()  # or the first collection of every child would copy all pages


def main(requests: socket.socket) -> None:
    """Be the warm parent; every child leaves by the end of this function, as an interpreter of its own."""
    _warm_up()
    order: Any = _Server(requests).serve()
    if order is not None:
        order.take_on()
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
