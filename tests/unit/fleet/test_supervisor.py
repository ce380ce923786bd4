import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from worker.embedded.processes import wait_until
from worker.fleet.supervisor import Child, Supervisor, SupervisorTimeouts

PATIENCE = 20.0
#: Speaks as a worker does; what it does besides is appended. Its last argument is the pipe.
SPEAK = """
import os, signal, sys, threading, time
pipe = int(sys.argv[-1])
def say(word=b"+"):
    os.write(pipe, word)
say()
"""
ON_AND_ON = "while True:\n    say(); time.sleep(0.02)\n"


def make_child(tmp_path, body, name="w-0", before=SPEAK):
    path = tmp_path / f"{name}.py"
    path.write_text(before + body)
    return Child(name, [sys.executable, "-S", str(path), str(tmp_path)])


def make_supervisor(*children, hung_after=20.0, shutdown=20.0, restart_max=0.05, **others):
    patiences = SupervisorTimeouts(
        hung_after_seconds=hung_after, shutdown_timeout_seconds=shutdown, restart_max_seconds=restart_max, **others
    )
    return Supervisor(children, patiences)


class Script:
    """What happens to a supervisor that runs on the main thread: acts on a thread of its own, each awaited."""

    def __init__(self) -> None:
        self.failed: str | None = None

    def during(self, *acts):
        def perform() -> None:
            for condition, act in acts:
                if not wait_until(condition, PATIENCE):
                    self.failed = f"waited in vain: {condition.__name__}"
                    os.kill(os.getpid(), signal.SIGTERM)
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                act()

        self._thread = threading.Thread(target=perform)
        self._thread.start()

    def done(self) -> None:
        self._thread.join()
        assert self.failed is None, self.failed


@pytest.fixture
def script():
    return Script()


def marks(tmp_path, pattern):
    """Return what children wrote down."""
    return sorted(tmp_path.glob(pattern))


def told():
    os.kill(os.getpid(), signal.SIGTERM)


NOTE_START = 'open(f"{sys.argv[-3]}/started-{os.getpid()}", "w").close()\n'
LEAVE_ON_TERM = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"


def test_child_that_died_is_started_again_under_its_name(tmp_path, script):
    child = make_child(tmp_path, LEAVE_ON_TERM + NOTE_START + ON_AND_ON)

    def kill() -> None:
        os.kill(int(marks(tmp_path, "started-*")[0].name.split("-")[1]), signal.SIGKILL)

    script.during(
        (lambda: len(marks(tmp_path, "started-*")) == 1, kill),
        (lambda: len(marks(tmp_path, "started-*")) == 2, told),
    )

    assert make_supervisor(child).run() == 0
    script.done()


def test_child_that_falls_silent_is_killed_and_started_again(tmp_path, script):
    child = make_child(tmp_path, LEAVE_ON_TERM + NOTE_START + "signal.pause()\n")
    script.during((lambda: len(marks(tmp_path, "started-*")) == 2, told))

    make_supervisor(child, hung_after=1.0).run()

    script.done()


def test_child_that_has_not_reported_yet_may_take_longer(tmp_path, script):
    body = LEAVE_ON_TERM + 'time.sleep(1.5)\nsay()\nopen(f"{sys.argv[-3]}/spoke-{os.getpid()}", "w").close()\n'
    child = make_child(tmp_path, body + NOTE_START + ON_AND_ON, before=SPEAK.removesuffix("say()\n"))
    script.during((lambda: len(marks(tmp_path, "started-*")) == 1, told))

    assert make_supervisor(child, hung_after=0.5).run() == 0

    script.done()
    assert len(marks(tmp_path, "spoke-*")) == 1


def test_child_that_never_reports_is_killed_and_started_again(tmp_path, script):
    child = make_child(tmp_path, LEAVE_ON_TERM + NOTE_START + "signal.pause()\n", before=SPEAK.removesuffix("say()\n"))
    script.during((lambda: len(marks(tmp_path, "started-*")) == 2, told))

    make_supervisor(child, hung_after=0.1, starting_seconds=1.0).run()

    script.done()


def test_child_that_reports_itself_hung_is_killed_at_once(tmp_path, script):
    child = make_child(tmp_path, LEAVE_ON_TERM + NOTE_START + 'say(b"-")\nsignal.pause()\n')
    script.during((lambda: len(marks(tmp_path, "started-*")) == 2, told))

    make_supervisor(child, hung_after=600.0).run()

    script.done()


def test_stopped_process_counts_as_hung(tmp_path, script):
    child = make_child(tmp_path, LEAVE_ON_TERM + NOTE_START + ON_AND_ON)

    def freeze() -> None:
        os.kill(int(marks(tmp_path, "started-*")[0].name.split("-")[1]), signal.SIGSTOP)

    script.during(
        (lambda: len(marks(tmp_path, "started-*")) == 1, freeze),
        (lambda: len(marks(tmp_path, "started-*")) == 2, told),
    )

    assert make_supervisor(child, hung_after=1.0).run() == 0
    script.done()


def test_child_that_left_by_itself_is_not_started_again(tmp_path):
    children = [make_child(tmp_path, NOTE_START, name) for name in ("w-0", "w-1")]

    assert make_supervisor(*children).run() == 0
    assert len(marks(tmp_path, "started-*")) == 2


def test_refused_settings_end_all_with_code_two(tmp_path):
    refusing = make_child(tmp_path, "sys.exit(2)\n", "w-0")
    serving = make_child(tmp_path, LEAVE_ON_TERM + ON_AND_ON, "w-1")

    assert make_supervisor(refusing, serving).run() == 2


def test_child_that_ignores_sigterm_is_killed_when_time_is_up(tmp_path, script):
    child = make_child(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + NOTE_START + ON_AND_ON)
    supervisor = make_supervisor(child, shutdown=-4.5)  # half a second with the grace
    script.during((lambda: len(marks(tmp_path, "started-*")) == 1, told))

    assert supervisor.run() == 1
    script.done()


def test_second_signal_reaches_the_children_too(tmp_path, script):
    body = """
count = 0
def told(*_):
    global count
    count += 1
    open(f"{sys.argv[-3]}/told-{count}", "w").close()
    if count == 2:
        sys.exit(0)
signal.signal(signal.SIGTERM, told)
"""
    child = make_child(tmp_path, body + NOTE_START + ON_AND_ON)
    script.during(
        (lambda: len(marks(tmp_path, "started-*")) == 1, told),
        (lambda: len(marks(tmp_path, "told-*")) == 1, told),
    )

    assert make_supervisor(child).run() == 0
    script.done()
    assert len(marks(tmp_path, "told-*")) == 2


def test_third_signal_kills_without_waiting(tmp_path, script):
    body = 'signal.signal(signal.SIGTERM, lambda *_: open(f"{sys.argv[-3]}/told-{time.monotonic_ns()}", "w").close())\n'
    child = make_child(tmp_path, body + NOTE_START + ON_AND_ON)
    script.during(
        (lambda: len(marks(tmp_path, "started-*")) == 1, told),
        (lambda: len(marks(tmp_path, "told-*")) == 1, told),
        (lambda: len(marks(tmp_path, "told-*")) == 2, told),
    )

    assert make_supervisor(child, shutdown=600.0).run() == 1
    script.done()


def test_signal_during_a_restart_pause_starts_nothing(tmp_path, script):
    child = make_child(tmp_path, NOTE_START + "os.kill(os.getpid(), signal.SIGKILL)\n")
    supervisor = make_supervisor(child, restart_max=600.0)
    script.during((lambda: child.restart_at is not None and bool(marks(tmp_path, "started-*")), told))

    assert supervisor.run() == 0
    script.done()
    assert len(marks(tmp_path, "started-*")) == 1


def test_pause_before_a_restart_grows_up_to_its_cap(tmp_path, monkeypatch):
    monkeypatch.setattr("worker.retry.random.uniform", lambda _low, high: high)
    child = make_child(tmp_path, "")

    # A first failure a long time after its start, as here, begins anew.
    child.plan_restart(3.0)
    monkeypatch.setattr(child, "_started_at", time.monotonic())

    assert [child.plan_restart(3.0) for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]


def open_pipes():
    """Return the pipes that this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that reads this folder
            found.add(str(descriptor.readlink()))
    return {target for target in found if target.startswith("pipe:")}


def command_line(process):
    """Return the words of a process; none of one that just ended, here or in an earlier test."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_nothing_of_a_supervisor_stays_behind(tmp_path, script):
    children = [make_child(tmp_path, LEAVE_ON_TERM + NOTE_START + ON_AND_ON, f"w-{place}") for place in range(3)]
    before = open_pipes()
    script.during((lambda: len(marks(tmp_path, "started-*")) == 3, told))

    assert make_supervisor(*children).run() == 0
    script.done()
    assert not [process for process in psutil.Process().children() if str(tmp_path) in command_line(process)]
    assert open_pipes() <= before


def test_child_stopped_before_it_listens_has_left_well(tmp_path, script):
    child = make_child(tmp_path, NOTE_START + ON_AND_ON)
    script.during((lambda: len(marks(tmp_path, "started-*")) == 1, told))

    assert make_supervisor(child).run() == 0
    script.done()
