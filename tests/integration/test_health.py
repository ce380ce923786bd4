import json
import shutil
import threading
from datetime import date

import pytest

from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE, Fleet
from tests.support.probes import ask
from tests.support.serving import Bench, Streams
from tests.support.world import STRATEGY, SYMBOLS, WRONG, build_world, register
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.fleet.health import Liveness
from worker.registry.registry import Registry
from worker.serving.failpoints import Step
from worker.serving.pipeline import ServingRules

pytestmark = pytest.mark.timeout(180)

REQUEST = {"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)}


@pytest.fixture
def calendar():
    return SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1))


@pytest.fixture
def fleet(valkey_url, database_url, namespace, tmp_path, free_port):
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, tmp_path, namespace=namespace, health_port=free_port)
    yield made
    made.end()


def reasons(port):
    """Return the codes that /readyz says."""
    return [json.loads(line).get("reason") for line in ask(port, "/readyz")[1].splitlines()]


def metrics(port):
    """Return each sample line's name and labels to its value."""
    lines = ask(port, "/metrics")[1].splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_worker_shows_probes_and_scrapes_what_it_does(fleet, streams, database_url, tmp_path_factory, free_port):
    shutil.copytree(build_world(tmp_path_factory.mktemp("world"), ("v1",)), fleet.folder, dirs_exist_ok=True)
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    worker = fleet.worker()
    streams.add(REQUEST, times=3)
    streams.add(WRONG)

    assert wait_until(lambda: len(streams.results()) + len(streams.rejections()) == 4, PATIENCE)
    assert ask(free_port, "/livez")[0] == 200
    assert reasons(free_port) == [None]
    assert wait_until(lambda: metrics(free_port).get("signal_worker_pending_entries") == 0, PATIENCE)
    found = metrics(free_port)
    assert found['signal_worker_outcomes_total{code="answered"}'] == 3
    assert found['signal_worker_outcomes_total{code="unknown_symbol"}'] == 1
    assert found['signal_worker_deliveries_total{kind="new"}'] == 4
    assert found[f'signal_worker_model_activation{{strategy="{STRATEGY}"}}'] == 1
    assert found["signal_worker_end_to_end_seconds_count"] == 4
    assert found["signal_worker_lag_entries"] == 0

    (key,) = streams.client.keys(streams.names.worker("*"))
    assert wait_until(lambda: streams.client.hmget(key, "answered", "rejected") == [b"3", b"1"], PATIENCE)
    beat = streams.client.hgetall(key)
    assert beat[b"deliveries"] == b"new=4"
    assert beat[b"codes"] == b"unknown_symbol=1"
    stages = dict(stage.split("=") for stage in beat[b"stages"].decode().split(","))
    assert set(stages) == {"queue", "compute", "commit", "end_to_end"}
    assert all(0 <= float(median) <= float(last) for median, last in (pair.split("/") for pair in stages.values()))
    assert (beat[b"state"], beat[b"reason"]) == (b"serving", b"")

    streams.client.xadd(streams.names.control, {"type": "no such thing"})
    assert wait_until(lambda: streams.client.hget(key, "malformed_control_events") == b"1", PATIENCE)
    assert metrics(free_port)["signal_worker_malformed_control_events_total"] == 1

    streams.client.xadd(streams.names.control, {"type": "pause"})
    assert wait_until(lambda: reasons(free_port) == ["paused"], PATIENCE)
    assert worker.running()


def test_worker_without_model_and_bars_is_alive_and_not_ready(fleet, free_port):
    fleet.worker()

    assert ask(free_port, "/livez")[0] == 200
    assert ask(free_port, "/readyz")[0] == 503
    assert reasons(free_port) == ["no_model", "missing_snapshot"]


def test_port_that_is_taken_ends_the_worker_with_a_sentence(fleet, free_port):
    fleet.worker()

    second = fleet.start("run")

    assert second.wait() == 2
    assert f"health_port {free_port}: Address already in use" in second.log.read_text()


def test_worker_waiting_for_its_server_is_alive_and_not_ready(private_servers, tmp_path, free_port):
    private_servers.kill("valkey")
    fleet = Fleet(private_servers.endpoints, tmp_path, health_port=free_port)
    try:
        worker = fleet.start("run")
        worker.await_event("server_away")

        assert ask(free_port, "/livez")[0] == 200
        assert "starting" in reasons(free_port)
    finally:
        fleet.end()


class CountedPulse:
    """A pulse that remembers how often it was beaten."""

    def __init__(self) -> None:
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1


def test_loop_beats_on_while_its_server_is_unavailable(private_servers, calendar):
    pulse = CountedPulse()
    bench = Bench(
        private_servers.endpoints.redis_url,
        Streams(private_servers.endpoints.redis_url, "s").names,
        ServingRules(calendar=calendar),
        pulse=pulse,
    )
    thread = threading.Thread(target=bench.consumer.run)
    thread.start()
    try:
        private_servers.kill("valkey")
        assert wait_until(lambda: bench.outage.lasting, PATIENCE)
        before = pulse.beats

        assert wait_until(lambda: pulse.beats >= before + 5, PATIENCE)
        assert bench.outage.lasting
    finally:
        bench.shutdown.request()
        private_servers.start()
        thread.join(PATIENCE)


def test_hung_compute_stops_the_pulse_and_a_late_end_revives_it(valkey_url, streams, calendar):
    bench = Bench(valkey_url, streams.names, ServingRules(calendar=calendar))
    reached, go_on = threading.Event(), threading.Event()

    def reach(step: Step) -> None:
        if step is Step.COMPUTED:
            reached.set()
            go_on.wait(PATIENCE)

    bench.failpoint = reach
    liveness = Liveness({"consumer": (bench.pulse, 0.3)}, {})
    thread = threading.Thread(target=bench.consumer.run)
    thread.start()
    streams.add({"strategy": "nobody"})
    try:
        assert reached.wait(PATIENCE)
        assert wait_until(lambda: [reason.code for reason in liveness.reasons()] == ["hung"], PATIENCE)
        go_on.set()

        assert wait_until(lambda: liveness.reasons() == (), PATIENCE)
    finally:
        go_on.set()
        bench.shutdown.request()
        thread.join(PATIENCE)
