import sys

import pytest

from worker import runtime
from worker.app import Worker
from worker.embedded import Endpoints
from worker.settings import Settings


@pytest.fixture(autouse=True)
def _as_before():
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_worker_runs_with_threads_that_take_short_turns():
    endpoints = Endpoints(redis_url="redis://127.0.0.1:1", database_url="postgresql://127.0.0.1:1/nothing")

    Worker(Settings(), endpoints)

    assert sys.getswitchinterval() == pytest.approx(runtime.SWITCH_SECONDS)
