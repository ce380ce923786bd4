import threading
import time

import pytest

from worker.errors import StreamUnavailable
from worker.service import Service
from worker.shutdown import Shutdown


class Dying(Service):
    def __init__(self, shutdown, error):
        super().__init__("dying", shutdown)
        self._raised = error

    def serve(self):
        raise self._raised


def test_running_worker_has_time_for_everything():
    assert Shutdown(0.0).has_time_for(3600.0)


def test_time_left_counts_from_the_first_request():
    shutdown = Shutdown(60.0)

    shutdown.request()
    shutdown.grace_seconds = 3600.0
    shutdown.request()

    assert 0 < shutdown.seconds_left() <= 60.0
    assert shutdown.has_time_for(1.0)
    assert not shutdown.has_time_for(61.0)


def test_forced_worker_has_time_for_nothing():
    shutdown = Shutdown(60.0)

    shutdown.force()

    assert not shutdown.has_time_for(0.0)


def test_only_a_request_is_a_drain():
    shutdown = Shutdown(60.0)

    shutdown.stop()
    assert shutdown.stopping.is_set()
    assert not shutdown.draining.is_set()
    shutdown.request("7-0")

    assert shutdown.draining.is_set()
    assert shutdown.control_id == "7-0"


def test_thread_that_dies_stops_the_worker_and_keeps_its_error():
    shutdown, error = Shutdown(60.0), ValueError("odd")
    thread = Dying(shutdown, error)

    thread.start()
    thread.join(10)

    assert thread.error is error
    assert shutdown.deaths == {"dying": error}
    assert shutdown.stopping.is_set()
    assert not shutdown.draining.is_set()


@pytest.mark.parametrize("stopping", [True, False])
def test_outage_is_a_death_unless_the_worker_stops_anyway(stopping):
    shutdown = Shutdown(60.0)
    if stopping:
        shutdown.request()
    thread = Dying(shutdown, StreamUnavailable("ConnectionError", "refused"))

    thread.start()
    thread.join(10)

    assert bool(shutdown.deaths) is not stopping


def test_wait_ends_when_a_thread_dies():
    shutdown = Shutdown(60.0)
    threading.Timer(0.05, Dying(shutdown, ValueError()).run).start()
    began = time.monotonic()

    assert shutdown.stopping.wait(30)
    assert time.monotonic() - began < 30
