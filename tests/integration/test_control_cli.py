import json
import signal
from datetime import UTC, datetime

import pytest

from contracts import ControlEvent, ControlType, FleetEvent, FleetEventType, Heartbeat, WorkerState
from contracts.codec import decode, encode
from contracts.control import ANSWERS
from tests.support.fleet import PATIENCE, Fleet
from tests.support.market import write_snapshot
from tests.support.published import command_line
from tests.support.serving import open_client
from tests.support.world import STRATEGY, register
from worker.cli._common import ExitCode
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.operations.commands import BLOCK_MS, Commander
from worker.registry.registry import Registry
from worker.transport.client import pairs_of

VERBS = {
    "reload": ControlType.RELOAD,
    "refresh-data": ControlType.DATA_REFRESHED,
    "ping": ControlType.PING,
    "pause": ControlType.PAUSE,
    "resume": ControlType.RESUME,
    "drain": ControlType.DRAIN,
}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def call(tmp_path, streams, valkey_url):
    return command_line(tmp_path, streams, valkey_url)


@pytest.fixture
def fleet(valkey_url, database_url, namespace, tmp_path):
    made = Fleet(Endpoints(redis_url=valkey_url, database_url=database_url), tmp_path, namespace=namespace)
    yield made
    made.end()


@pytest.fixture
def commander(valkey_url, streams):
    client = open_client(valkey_url, "test", block_ms=BLOCK_MS)
    yield Commander(client, streams.names, maxlen=100)
    client.close()


def sent(streams):
    return [
        decode(ControlEvent, tuple(fields.items()))
        for _, fields in [(entry, dict(pairs_of(flat))) for entry, flat in streams.client.xrange(streams.names.control)]
    ]


def answers(result):
    return {one["worker"]: one for one in json.loads(result.stdout)["answers"]}


def test_every_verb_is_answered_by_every_living_worker(call, streams, fleet, tmp_path):
    write_snapshot(tmp_path / "data")
    workers = [fleet.worker(worker_name=name) for name in ("w1", "w2")]

    results = {verb: call("control", verb, "--wait", "--json", "--timeout", "30") for verb in VERBS}

    for verb, result in results.items():
        found = answers(result)
        assert (verb, result.exit_code, sorted(found)) == (verb, 0, ["w1", "w2"])
        assert all(one["after_ms"] >= 0 and one["reason"] == "" for one in found.values())
    assert all(one["duration_ms"] >= 0 for one in answers(results["reload"]).values())
    assert [event.type for event in sent(streams)] == list(VERBS.values())
    assert [worker.wait() for worker in workers] == [0, 0]


def test_refresh_without_bars_is_no_success(call, fleet):
    fleet.worker(worker_name="w1")

    result = call("control", "refresh-data", "--wait", "--json")

    assert result.exit_code == 1
    assert "no complete snapshot" in answers(result)["w1"]["reason"]


def test_one_worker_may_be_addressed(call, fleet):
    fleet.worker(worker_name="w1")
    other = fleet.worker(worker_name="w2")

    result = call("control", "pause", "--worker", "w1", "--wait")

    assert result.exit_code == 0
    (row,) = [line for line in result.stdout.splitlines() if "w1" in line]
    assert row.split()[:2] == ["w1", "yes"]
    assert "w2" not in result.stdout
    assert other.events("control_event") == []


def test_worker_that_does_not_answer_is_named(call, fleet):
    fleet.worker(worker_name="w1", heartbeat_seconds=60)
    silent = fleet.worker(worker_name="w2", heartbeat_seconds=60)
    silent.signal(signal.SIGSTOP)

    result = call("control", "ping", "--wait", "--timeout", "2")
    silent.signal(signal.SIGCONT)

    assert result.exit_code == ExitCode.TIMEOUT
    assert "no answer within 2 s from w2" in result.stderr
    (row,) = [line for line in result.stdout.splitlines() if "w2" in line]
    assert row.split(maxsplit=4)[1:] == ["no", "-", "-", "no answer"]


def test_reload_names_what_it_could_not_load(call, fleet, database_url):
    with Registry(database_url) as registry:
        register(registry, "v1")
        fleet.worker(worker_name="w1")
        registry.activate(STRATEGY, "v1")

    again = [call("control", "reload", "--strategy", STRATEGY, "--wait", "--json") for _ in range(2)]

    for result in again:
        assert result.exit_code == 1
        assert f"{STRATEGY} v1 is refused: there is nothing at" in answers(result)["w1"]["reason"]


def test_drained_worker_answers_after_its_last_request(call, streams, fleet):
    worker = fleet.worker(worker_name="w1")
    streams.add({"strategy": "unregistered", "symbols": "AAPL"}, times=20)

    result = call("control", "drain", "--wait", "--json")

    assert result.exit_code == 0
    control_id = json.loads(result.stdout)["control_id"]
    last = streams.client.xrevrange(streams.names.events, count=1)[0][1]
    said = decode(FleetEvent, pairs_of(last))
    assert (said.type, said.control_id) == (FleetEventType.DRAINED, control_id)
    assert worker.wait() == 0


def test_unawaited_event_is_on_the_stream_with_its_sender(call, streams):
    result = call("control", "reload", "--strategy", STRATEGY, "--reason", "new bars")

    (event,) = sent(streams)
    assert result.exit_code == 0
    assert (event.type, event.strategy, event.worker, event.reason) == (ControlType.RELOAD, STRATEGY, None, "new bars")
    assert event.by


def test_nobody_there_is_no_success(call, fleet):
    alone = call("control", "ping", "--wait")
    fleet.worker(worker_name="w1")
    misspelt = call("control", "ping", "--worker", "w2", "--wait")

    assert (alone.exit_code, misspelt.exit_code) == (1, 1)
    assert "no worker lives" in alone.stderr
    assert "no worker w2 lives" in misspelt.stderr


def test_events_about_other_strategies_are_passed_over(call, fleet, streams):
    mine = fleet.worker(worker_name="mine", strategies="alpha,beta")
    fleet.worker(worker_name="other", strategies="gamma")

    result = call("control", "reload", "--strategy", "beta", "--wait", "--json")

    assert set(answers(result)) == {"mine"}
    streams.client.xadd(streams.names.control, {"type": "pause", "strategy": "alpha"})
    mine.await_event("control_event_malformed")
    assert not [event for event in mine.events("fleet_event") if event["kind"] == "worker.paused"]


@pytest.mark.parametrize("verb", ["pause", "resume", "drain", "refresh-data"])
def test_part_of_a_worker_cannot_be_addressed(call, streams, verb):
    result = call("control", verb, "--strategy", STRATEGY)

    assert result.exit_code == 2
    assert "takes no --strategy" in result.stderr
    assert not streams.client.exists(streams.names.control)


def test_misspelt_strategy_is_one_sentence(call):
    result = call("control", "reload", "--strategy", "No Such")

    assert result.exit_code == 2
    assert "strategy was 'No Such'" in result.stderr


def test_server_that_is_unavailable_is_one_sentence(tmp_path, streams, free_port):
    result = command_line(tmp_path, streams, f"redis://127.0.0.1:{free_port}")("control", "ping", "--wait")

    assert result.exit_code == ExitCode.UNAVAILABLE
    assert len(result.stderr.splitlines()) == 1


def test_entries_that_are_no_events_are_passed_over(call, streams, fleet):
    fleet.worker(worker_name="w1")
    streams.client.xadd(streams.names.events, {"hand": "made"})

    result = call("control", "ping", "--wait")

    assert result.exit_code == 0
    assert wait_until(lambda: streams.client.xlen(streams.names.events) >= 3, PATIENCE)


def test_answer_to_another_event_is_not_taken_for_ours(streams, commander):
    event = ControlEvent(type=ControlType.PING)
    at = datetime(2024, 1, 2, tzinfo=UTC)
    beat = Heartbeat(
        worker="w1", state=WorkerState.SERVING, host="h", pid=1, started_at=at, beaten_at=at, code_version="1"
    )

    other, ours = commander.send(event), commander.send(event)
    for said, control_id in ((FleetEventType.PONG, other), (FleetEventType.PAUSED, ours)):
        answer = FleetEvent(type=said, worker="w1", at=beat.beaten_at, control_id=control_id)
        streams.client.xadd(streams.names.events, encode(answer))

    (silence,) = commander.replies(event, ours, [beat], 0.5)
    assert (silence.after_ms, silence.done) == (None, False)


def test_every_control_type_has_an_answer():
    assert set(ANSWERS) == set(ControlType)
    assert encode(ControlEvent(type=ControlType.PING)) == {"type": "ping"}
