import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.fleet import PATIENCE, Process
from tests.support.fork_server import ForkServer, fork_server
from worker.embedded.processes import wait_until
from worker.settings import inherited_environment

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone, see the module"),
]

#: What a process can know of how it was started.
FACTS = """
import json, locale, os, resource, signal, sys, time

print(json.dumps({
    "arguments": sys.argv[1:],
    "environment": sorted(os.environ.items()),
    "folder": os.getcwd(),
    "path": sys.path,
    "zone": time.tzname,
    "leads_its_session": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "signals": {number.name: str(signal.getsignal(number)) for number in signal.valid_signals() if number < 32},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "descriptors": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in "012"),
    "others": [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 3],
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "encodings": [sys.stdout.encoding, sys.stderr.encoding, locale.getencoding()],
    "line_buffering": [sys.stdout.line_buffering, sys.stderr.line_buffering],
    "main": [sys.modules["__main__"].__file__, __name__],
    "threads": len(os.listdir("/proc/self/task")),
    "parent_death": os.getppid() > 1,
}))
if len(sys.argv) > 2:
    exec(sys.argv[2])
"""


@pytest.fixture
def start(tmp_path):
    """Starts the module of facts in a folder of its own, with code that it runs afterwards; ended with the test."""
    processes = []
    environment = inherited_environment() | {"TZ": "Asia/Tokyo", "ONLY_HERE": "é", "PYTHONPATH": str(ROOT)}

    def start(code="", *, warm=True):
        folder = tmp_path / "facts"
        folder.mkdir(exist_ok=True)
        (folder / "facts.py").write_text(FACTS, encoding="utf-8")
        log = folder / f"{len(processes)}.log"
        processes.append(Process(["one two", code], environment, log, "facts", warm=warm))
        return processes[-1]

    yield start
    for process in processes:
        process.end()


def facts(process):
    assert process.wait() == 0, process.log.read_text()
    found = json.loads(process.log.read_text().splitlines()[0])
    assert found.pop("others") == []
    return {**found, "descriptors": [name.replace(str(process.log), "log") for name in found["descriptors"]]}


def test_forked_process_differs_in_nothing_from_an_executed_one(start):
    assert facts(start()) == facts(start(warm=False))


def test_forked_process_has_the_libraries_of_a_worker_and_no_thread(start):
    process = start("import sys; assert {'lightgbm', 'worker.app', 'numba'} <= {*sys.modules}")

    assert facts(process)["threads"] == 1
    server = psutil.Process(fork_server(measured="COVERAGE_PROCESS_CONFIG" in inherited_environment()).pid)
    assert server.num_threads() == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.exit(7)", 7),
        ("raise ValueError('of the child')", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os._exit(3)", 3),
    ],
)
@pytest.mark.parametrize("warm", [True, False], ids=["forked", "executed"])
def test_exit_status_and_traceback_are_those_of_an_interpreter(start, code, expected, warm):
    process = start(code, warm=warm)

    assert process.wait() == expected
    assert ("of the child" in process.log.read_text()) == ("ValueError" in code)


def test_exit_handlers_run_and_threads_are_joined(start):
    process = start(
        "import atexit, threading; atexit.register(print, 'left');"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('joined'))).start()"
    )

    assert process.wait() == 0
    assert process.log.read_text().splitlines()[1:] == ["joined", "left"]


def test_signals_reach_the_process_itself(start):
    process = start("time.sleep(600)")
    assert process.running()
    child = psutil.Process(process.pid)

    process.signal(signal.SIGSTOP)
    assert wait_until(lambda: child.status() == psutil.STATUS_STOPPED, PATIENCE)
    os.kill(process.pid, signal.SIGKILL)

    assert process.wait() == -signal.SIGKILL
    process.signal(signal.SIGTERM)  # nobody gets it
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize(
    "end", [ForkServer.close, lambda server: os.kill(server.pid, signal.SIGKILL)], ids=["close", "kill"]
)
def test_children_die_with_their_server(tmp_path, end):
    (tmp_path / "sleeper.py").write_text("import time; time.sleep(600)", encoding="utf-8")
    server = ForkServer(inherited_environment())
    child = server.start("sleeper", [], inherited_environment(), tmp_path / "log")
    assert child.poll() is None

    end(server)

    assert wait_until(lambda: not psutil.pid_exists(child.pid), PATIENCE)
    with pytest.raises(RuntimeError, match="the fork server has ended"):
        child.wait(PATIENCE)
    with pytest.raises(RuntimeError, match="the fork server has ended"):
        server.start("sleeper", [], {}, tmp_path / "log")
    server.close()


def test_children_die_with_a_killed_test_process(tmp_path):
    (tmp_path / "sleeper.py").write_text("import time; time.sleep(600)", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from tests.support.fork_server import fork_server;"
        "from worker.settings import inherited_environment;"
        "server = fork_server(measured=False);"
        "child = server.start('sleeper', [], inherited_environment(), Path(sys.argv[1]) / 'log');"
        "print(server.pid, child.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        owner.kill()

    assert len(pids) == 2
    assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), PATIENCE)
