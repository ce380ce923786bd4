import psutil
import pytest

from tests.faults.test_outages import REQUEST
from tests.support.fleet import PATIENCE, Fleet
from tests.support.serving import Streams
from tests.support.world import activate_world, served_from
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until

pytestmark = pytest.mark.timeout(180)


def test_backlog_is_worked_through_in_constant_memory(valkey_url, database_url, namespace, tmp_path, two_versions):
    activate_world(database_url)
    streams = Streams(valkey_url, namespace)
    with streams.client.pipeline(transaction=False) as pipe:
        for _ in range(8_000):
            pipe.xadd(streams.names.requests, dict(REQUEST))
        pipe.execute()
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    fleet = Fleet(endpoints, tmp_path, namespace=namespace, **served_from(two_versions))
    worker = fleet.start("run")
    memory = psutil.Process(worker.pid)

    def rejected():
        return streams.client.xlen(streams.names.rejections)

    try:
        assert wait_until(lambda: rejected() > 1000, PATIENCE)
        early = memory.memory_info().rss
        assert wait_until(lambda: rejected() == 8_000, 2 * PATIENCE)
        grown = memory.memory_info().rss - early
    finally:
        fleet.end()

    assert grown < 16 * 2**20
