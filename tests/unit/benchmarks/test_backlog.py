import subprocess
import sys
from contextlib import contextmanager
from itertools import chain, repeat

import pytest

from tests.benchmarks import backlog
from tests.benchmarks.backlog import GROWTH, backlog_figure
from tests.benchmarks.children import ChildFailed

SYMBOLS = ("AAPL", "IBM")
REQUESTS = 100


@pytest.fixture
def names(streams):
    return streams.names


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(backlog, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(backlog, "_PIECE", 30)


class ScriptedWorker:
    """A process that does nothing; at each look at its memory some requests are answered."""

    def __init__(self, redis_client, names, looks):
        self._client, self._names, self._looks = redis_client, names, iter(looks)

    @contextmanager
    def start(self):
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            yield child
            child.stdin.close()

    def resident(self, _process):
        answered, size = next(self._looks)
        for _ in range(answered):
            self._client.xadd(self._names.results, {"vector": "one"})
        return size


@pytest.fixture
def measure(redis_client, names, monkeypatch):
    def measured(looks):
        worker = ScriptedWorker(redis_client, names, looks)
        monkeypatch.setattr(backlog, "_resident", worker.resident)
        return backlog_figure(redis_client, names, SYMBOLS, REQUESTS, worker.start)

    return measured


@pytest.mark.parametrize(("most", "met"), [(10 + GROWTH, True), (11 + GROWTH, False)])
def test_memory_counts_from_the_first_tenth_to_its_highest(measure, redis_client, names, most, met):
    # A look sees what was answered before it.
    figure = measure([(10, 1), (80, 10), (10, most), (0, 12)])

    asked = redis_client.xrange(names.requests)
    assert len(asked) == REQUESTS
    assert asked[0][1] == {b"strategy": b"alpha_baseline", b"symbols": b"AAPL,IBM"}
    assert figure.met is met


def test_worker_that_stops_answering_ends_the_measurement(measure, monkeypatch):
    monkeypatch.setattr(backlog, "_STILL_SECONDS", 0.2)

    with pytest.raises(ChildFailed, match="of a backlog of 100 requests 60 stayed unanswered"):
        measure(chain([(40, 1)], repeat((0, 1))))
