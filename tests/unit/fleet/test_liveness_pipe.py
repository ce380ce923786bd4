import os
import select
import threading

import pytest

from worker.embedded.processes import wait_until
from worker.fleet import liveness_pipe as lifeline
from worker.fleet.health import Liveness
from worker.fleet.liveness_pipe import Lifeline

PATIENCE = 20.0


@pytest.fixture
def pipe(monkeypatch):
    """Both ends; the one for reading may be closed by the test."""
    monkeypatch.setattr(lifeline, "WORD_SECONDS", 0.01)
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)


@pytest.fixture
def speak(pipe):
    begun = []

    def begin(deaths, on_orphaned=lambda: None) -> Lifeline:
        begun.append(Lifeline(pipe[1], Liveness(dict, deaths), on_orphaned))
        begun[-1].start()
        return begun[-1]

    yield begin
    for line in begun:
        line.end()
        line.join(PATIENCE)


def test_worker_says_whether_it_lives(pipe, speak):
    died = {"control": None}
    speak(lambda: died)
    assert os.read(pipe[0], 1) == b"+"

    died["control"] = ValueError("odd")

    assert wait_until(lambda: os.read(pipe[0], 1) == b"-", PATIENCE)
    os.close(pipe[0])


def test_first_word_is_said_at_once(pipe, speak, monkeypatch):
    monkeypatch.setattr(lifeline, "WORD_SECONDS", 600.0)

    speak(dict)

    assert select.select([pipe[0]], [], [], PATIENCE)[0]
    os.close(pipe[0])


def test_worker_alone_is_told_so_once(pipe, speak):
    orphaned = threading.Event()
    os.close(pipe[0])

    line = speak(dict, orphaned.set)

    assert orphaned.wait(PATIENCE)
    line.join(PATIENCE)
    assert not line.is_alive()


def test_full_pipe_of_a_stopped_supervisor_blocks_nothing(pipe, speak):
    orphaned = threading.Event()
    os.set_blocking(pipe[1], False)
    while select.select([], [pipe[1]], [], 0)[1]:
        os.write(pipe[1], b"x" * 4096)

    line = speak(dict, orphaned.set)
    line.join(0.2)

    assert line.is_alive()
    assert not orphaned.is_set()
    line.end()
    line.join(PATIENCE)
    os.close(pipe[0])
