import contextlib
import signal
import sys

import psutil
import pytest

from contracts import GROUP
from tests.support.fleet import PATIENCE, Fleet, Process
from tests.support.world import WRONG, activate_world, served_from
from worker.embedded import Endpoints
from worker.embedded.identity import free_port
from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable

pytestmark = pytest.mark.timeout(180)

REQUEST = WRONG


@pytest.fixture
def fleet(valkey_url, database_url, namespace, tmp_path, two_versions):
    activate_world(database_url)
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, tmp_path, namespace=namespace, **served_from(two_versions))
    yield made
    made.end()


def supervise(fleet, processes=2, *options, **settings):
    """Start a supervisor named `w` and wait until its workers serve."""
    supervisor = fleet.start("run", "--processes", str(processes), "--name", "w", *options, **settings)
    supervisor.await_event("fleet_event", processes, kind="worker.started")
    return supervisor


def pids(supervisor):
    """Return worker name to the process id it was last started with."""
    return {event["worker"]: event["pid"] for event in supervisor.events("worker_started")}


def beating(streams):
    """Return the names of workers whose heartbeat stands."""
    prefix = streams.names.worker("")
    return {key.decode().removeprefix(prefix) for key in streams.client.keys(f"{prefix}*")}


def test_several_workers_share_the_requests_and_leave_together(fleet, streams):
    supervisor = supervise(fleet)
    streams.add(REQUEST, times=40)
    assert wait_until(lambda: len(streams.rejections()) == 40, PATIENCE)
    assert beating(streams) == {"w-0", "w-1"}

    supervisor.signal(signal.SIGTERM)

    assert supervisor.wait() == 0
    assert beating(streams) == set()
    assert len(supervisor.events("worker_left")) == 2
    assert len([event for event in supervisor.events("fleet_event") if event["kind"] == "worker.drained"]) == 2


def test_killed_worker_comes_back_under_its_name_with_its_entries(fleet, streams):
    supervisor = supervise(fleet, 1, lease_ms=3_600_000)
    first = pids(supervisor)["w-0"]
    assert wait_until(lambda: streams.client.exists(streams.names.requests), PATIENCE)  # made with its group
    psutil.Process(first).suspend()
    streams.add(REQUEST)
    # Delivered to the stopped worker, as if it had died with the entry in hand.
    streams.client.execute_command("XREADGROUP", "GROUP", GROUP, "w-0", "STREAMS", streams.names.requests, ">")
    psutil.Process(first).kill()

    supervisor.await_event("worker_died", worker="w-0", code=-9)
    supervisor.await_event("worker_started", 2, worker="w-0")

    assert wait_until(lambda: len(streams.rejections()) == 1, PATIENCE)
    assert streams.rejections()[0].worker == "w-0"
    assert pids(supervisor)["w-0"] != first


@pytest.mark.slow
def test_frozen_worker_is_replaced(fleet):
    supervisor = supervise(fleet, 2, hung_after_seconds=16, block_ms=100)
    frozen = psutil.Process(pids(supervisor)["w-1"])

    frozen.suspend()

    supervisor.await_event("worker_killed", worker="w-1", hung=False)
    supervisor.await_event("worker_started", 2, worker="w-1")
    assert not alive(frozen)
    assert pids(supervisor)["w-1"] != frozen.pid


@pytest.mark.slow
def test_hung_compute_is_reported_by_its_worker_and_replaced(fleet, streams):
    supervisor = supervise(fleet, 1, hung_after_seconds=16, block_ms=100, failpoints="seed=1,computed=sleep:600000@1")

    streams.add(REQUEST)

    supervisor.await_event("worker_hung")
    supervisor.await_event("worker_killed", worker="w-0", hung=True)
    supervisor.await_event("worker_started", 2, worker="w-0")


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels send no signal; the pipe tells there")
def test_no_worker_outlives_a_killed_supervisor(fleet):
    supervisor = supervise(fleet)
    workers = [psutil.Process(pid) for pid in pids(supervisor).values()]
    workers[0].suspend()  # it hears nothing, as one that hangs

    supervisor.signal(signal.SIGKILL)
    supervisor.wait()

    assert wait_until(lambda: not any(map(alive, workers)), PATIENCE)


def alive(process):
    """Return whether a process still runs; one that nobody waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_supervisor_outlives_its_servers(private_servers, tmp_path):
    fleet = Fleet(private_servers.endpoints, tmp_path)
    try:
        private_servers.kill("valkey")
        supervisor = fleet.start("run", "--processes", "2", "--name", "w")
        supervisor.await_event("server_away", 2)

        assert supervisor.running()
        assert len(supervisor.events("worker_started")) == 2

        supervisor.signal(signal.SIGTERM)
        assert supervisor.wait() == 0, supervisor.log.read_text()
    finally:
        fleet.end()


def test_settings_that_cannot_be_end_the_supervisor_too(fleet):
    supervisor = fleet.start("run", "--processes", "2", "--name", "w", failpoints="nonsense")

    assert supervisor.wait() == 2


def test_each_worker_has_a_health_port_of_its_own(fleet):
    first = next(port for port in iter(free_port, None) if free_port(port + 1) == port + 1)

    supervisor = supervise(fleet, 2, "--health-port", str(first))

    ports = {event["port"] for event in supervisor.events("health_port_open")}
    assert ports == {first, first + 1}


@pytest.fixture
def stuck(fleet, streams):
    """A worker with three entries in hand that computes the first one for ever, and a lease that never ends."""

    def start(**settings) -> Process:
        streams.add(REQUEST, times=3)
        worker = fleet.start(
            "run", "--name", "w", lease_ms=3_600_000, failpoints="seed=1,computed=sleep:600000@1", **settings
        )
        worker.await_event("fleet_event", kind="worker.started")
        assert wait_until(lambda: len(held(streams)) == 3, PATIENCE)
        return worker

    return start


def held(streams):
    """Return the delivery counts of what is pending, nothing while there is no group yet."""
    with contextlib.suppress(StreamUnavailable):
        return sorted(streams.deliveries().values())
    return []


def test_second_sigterm_nacks_what_was_read(fleet, streams, stuck):
    worker = stuck()

    worker.signal(signal.SIGTERM)
    worker.await_event("stop_signal")
    worker.signal(signal.SIGTERM)

    assert worker.wait() == 1
    assert held(streams) == [0, 0, 1]  # the one in work was tried, the others only read
    fleet.worker(lease_ms=3_600_000)
    assert wait_until(lambda: len(streams.rejections()) == 3, PATIENCE)


def test_time_limit_nacks_what_was_read(fleet, streams, stuck):
    worker = stuck(shutdown_timeout_seconds=1)

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 1
    worker.await_event("entries_handed_back", entries=3)
    fleet.worker(lease_ms=3_600_000)
    assert wait_until(lambda: len(streams.rejections()) == 3, PATIENCE)
