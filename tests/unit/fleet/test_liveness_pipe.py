import os
import select

import pytest

from worker.embedded.processes import wait_until
from worker.fleet import liveness_pipe
from worker.fleet.health import Liveness
from worker.fleet.liveness_pipe import LivenessPipe
from worker.shutdown import Shutdown

PATIENCE = 20.0


@pytest.fixture
def pipe(monkeypatch):
    """Both ends; the one for reading may be closed by the test."""
    monkeypatch.setattr(liveness_pipe, "INTERVAL_SECONDS", 0.01)
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)


@pytest.fixture
def report(pipe):
    """Start reporting on this worker: the threads that died, and its way out."""
    begun = []

    def begin(deaths=None, shutdown=None) -> LivenessPipe:
        begun.append(LivenessPipe(pipe[1], Liveness({}, {} if deaths is None else deaths), shutdown or Shutdown(0)))
        begun[-1].start()
        return begun[-1]

    yield begin
    for thread in begun:
        thread.stop()
        thread.join(PATIENCE)


def test_worker_reports_whether_it_lives(pipe, report):
    died = {}
    report(died)
    assert os.read(pipe[0], 1) == b"+"

    died["control"] = ValueError("odd")

    assert wait_until(lambda: os.read(pipe[0], 1) == b"-", PATIENCE)
    os.close(pipe[0])


def test_first_report_comes_at_once(pipe, report, monkeypatch):
    monkeypatch.setattr(liveness_pipe, "INTERVAL_SECONDS", 600.0)

    report()

    assert select.select([pipe[0]], [], [], PATIENCE)[0]
    os.close(pipe[0])


def test_worker_whose_supervisor_is_gone_leaves(pipe, report):
    shutdown = Shutdown(0)
    os.close(pipe[0])

    thread = report(shutdown=shutdown)

    assert shutdown.draining.wait(PATIENCE)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_full_pipe_of_a_stopped_supervisor_blocks_nothing(pipe, report):
    shutdown = Shutdown(0)
    os.set_blocking(pipe[1], False)
    while select.select([], [pipe[1]], [], 0)[1]:
        os.write(pipe[1], b"x" * 4096)

    thread = report(shutdown=shutdown)
    thread.join(0.2)

    assert thread.is_alive()
    assert not shutdown.stopping.is_set()
    thread.stop()
    thread.join(PATIENCE)
    os.close(pipe[0])
