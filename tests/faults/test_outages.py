import signal

import pytest

from contracts import GROUP, RejectionCode
from tests.support.fleet import PATIENCE, Fleet
from tests.support.serving import Streams
from tests.support.world import WRONG, activate_world, served_from
from worker.embedded.processes import wait_until
from worker.registry.migrations import migrate

REQUEST = WRONG

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def servers(private_servers):
    migrate(private_servers.endpoints.database_url)
    activate_world(private_servers.endpoints.database_url)
    return private_servers


@pytest.fixture
def streams(servers):
    return Streams(servers.endpoints.redis_url, "signals")


@pytest.fixture
def fleet(servers, tmp_path, two_versions):
    made = Fleet(servers.endpoints, tmp_path, **served_from(two_versions))
    yield made
    made.end()


def test_worker_continues_by_itself_when_the_server_was_killed(servers, streams, fleet):
    worker = fleet.worker()
    streams.add(REQUEST)
    assert wait_until(lambda: len(streams.rejections()) == 1, PATIENCE)

    servers.kill("valkey")
    worker.await_event("server_away", what="requests")
    servers.start()
    worker.await_event("server_back", what="requests")
    streams.add(REQUEST, times=3)

    assert wait_until(lambda: len(streams.rejections()) == 4, PATIENCE)
    assert len(worker.events("server_away")) <= 8  # one a state change of each: requests, control, heartbeat, leases
    assert {rejection.code for rejection in streams.rejections()} == {RejectionCode.UNKNOWN_SYMBOL}


def test_worker_still_serves_while_the_registry_is_unavailable(servers, streams, fleet):
    worker = fleet.worker()

    servers.kill("postgres")
    streams.client.xadd(streams.names.control, {"type": "reload"})
    worker.await_event("registry_away")
    streams.add(REQUEST)
    assert wait_until(lambda: len(streams.rejections()) == 1, PATIENCE)
    servers.start()
    streams.client.xadd(streams.names.control, {"type": "reload"})

    worker.await_event("registry_back")
    assert len(worker.events("registry_away")) == 1


def test_worker_started_before_its_servers_waits_for_them(servers, streams, fleet):
    servers.kill("valkey")
    worker = fleet.start("run")
    worker.await_event("server_away")

    servers.start()
    worker.await_event("fleet_event", kind="worker.started")
    streams.add(REQUEST)

    assert wait_until(lambda: len(streams.rejections()) == 1, PATIENCE)


def test_sigterm_finishes_what_was_read_and_leaves(streams, fleet):
    worker = fleet.worker()
    streams.add(REQUEST, times=20)

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert streams.pending() == 0
    assert worker.events("fleet_event")[-1]["kind"] == "worker.drained"
    assert streams.client.keys("signals:worker:*") == []
    assert streams.client.xinfo_consumers(streams.names.requests, GROUP) == []


def test_sigterm_ends_a_worker_whose_server_is_unavailable(servers, fleet):
    worker = fleet.worker()
    servers.kill("valkey")
    worker.await_event("server_away")

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0


def test_killed_worker_costs_no_request(streams, fleet):
    first = fleet.worker()
    streams.add(REQUEST, times=200)
    first.signal(signal.SIGKILL)
    first.wait()

    fleet.worker()

    assert wait_until(lambda: len(streams.rejections()) == 200, PATIENCE)
    assert len({rejection.request_id for rejection in streams.rejections()}) == 200
    assert wait_until(lambda: streams.pending() == 0, PATIENCE)


def test_stopped_worker_is_replaced_and_publishes_nothing_when_woken(streams, fleet):
    sleeper = fleet.worker()
    sleeper.signal(signal.SIGSTOP)
    streams.add(REQUEST, times=50)
    fleet.worker()

    assert wait_until(lambda: len(streams.rejections()) == 50, PATIENCE)
    sleeper.signal(signal.SIGCONT)
    streams.add(REQUEST, times=10)

    assert wait_until(lambda: len(streams.rejections()) == 60 and streams.pending() == 0, PATIENCE)
    assert len({rejection.request_id for rejection in streams.rejections()}) == 60


def holders(streams):
    """Return who holds what is pending."""
    rows = streams.client.xpending_range(streams.names.requests, GROUP, min="-", max="+", count=10)
    return [row["consumer"] for row in rows]


@pytest.mark.parametrize("told_to_leave", [False, True], ids=["serving", "leaving"])
def test_worker_that_computes_longer_than_its_lease_keeps_it(streams, fleet, told_to_leave):
    worker = fleet.worker(worker_name="busy", lease_ms=3000, failpoints="seed=1,computed=sleep:8000@1")
    eager = fleet.worker(worker_name="eager", lease_ms=3000)
    streams.client.xadd(streams.names.control, {"type": "pause", "worker": "eager"})
    eager.await_event("fleet_event", kind="worker.paused")
    streams.add(REQUEST)
    assert wait_until(lambda: holders(streams) == [b"busy"], PATIENCE)
    streams.client.xadd(streams.names.control, {"type": "resume", "worker": "eager"})
    if told_to_leave:
        worker.signal(signal.SIGTERM)

    assert wait_until(lambda: len(streams.rejections()) == 1, PATIENCE)

    (rejection,) = streams.rejections()
    assert (rejection.worker, rejection.deliveries) == ("busy", 1)
    assert worker.events("lease_lost") == []
    if told_to_leave:
        assert worker.wait() == 0


def test_flushed_server_gets_its_group_back(streams, fleet):
    worker = fleet.worker()
    streams.client.flushall()

    worker.await_event("group_recreated")
    streams.add(REQUEST)

    assert wait_until(lambda: len(streams.rejections()) == 1, PATIENCE)


def test_full_server_loses_nothing_and_costs_no_delivery(streams, fleet):
    worker = fleet.worker(lease_ms=60000)
    worker.signal(signal.SIGSTOP)
    streams.add(REQUEST, times=5)
    streams.client.config_set("maxmemory", 1)

    worker.signal(signal.SIGCONT)
    worker.await_event("server_away", reason="OOM", what="requests")
    assert streams.rejections() == []
    streams.client.config_set("maxmemory", 0)

    assert wait_until(lambda: len(streams.rejections()) == 5 and streams.pending() == 0, PATIENCE)
    assert {rejection.deliveries for rejection in streams.rejections()} == {1}
