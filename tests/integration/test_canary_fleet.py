"""A worker process with candidates, from the operator's command line to the streams."""

import json
import shutil

import pytest

from contracts import ServedAs, SignalVector
from contracts.codec import decode
from tests.support.fleet import PATIENCE, Fleet
from tests.support.published import command_line
from tests.support.world import STRATEGY, SYMBOLS, build_world, register
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.registry.registry import Registry
from worker.serving.traffic_split import in_share
from worker.transport.client import pairs_of

SHARE = 0.4

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A snapshot, and bundles v1 to v3 trained on it."""
    return build_world(tmp_path_factory.mktemp("world"), ("v1", "v2", "v3"))


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as made:
        for version in ("v1", "v2", "v3"):
            register(made, version)
        made.activate(STRATEGY, "v1")
        yield made


@pytest.fixture
def fleet(valkey_url, database_url, namespace, folder, registry):
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, folder, namespace=namespace, shadow_share=1.0)
    assert registry.active(STRATEGY)
    yield made
    made.end()


@pytest.fixture
def call(folder, streams, valkey_url, database_url):
    return command_line(folder, streams, valkey_url, DATABASE_URL=database_url)


def candidates(call):
    """Return version to part and share of what computes, as `models status` tells."""
    rows = json.loads(call("models", "status", "--json").stdout)
    return {
        one["version"]: (one["part"], one["share"]) for row in rows for one in row["candidates"] if one.get("since")
    }


def ask(streams, prefix, count=12):
    """Ask, and return request id to its vector once all are answered."""
    ids = [f"{prefix}-{number}" for number in range(count)]
    for request_id in ids:
        streams.add({"strategy": STRATEGY, "symbols": ",".join(SYMBOLS), "request_id": request_id})

    def answered():
        return {vector.request_id: vector for vector in streams.results() if vector.request_id in ids}

    assert wait_until(lambda: len(answered()) == count, PATIENCE)
    return answered()


def shadows(streams):
    rows = streams.client.execute_command("XRANGE", streams.names.shadow, "-", "+")
    return [decode(SignalVector, pairs_of(flat)) for _, flat in rows]


def by_canary(vectors):
    return {request_id for request_id, vector in vectors.items() if vector.served_as is ServedAs.CANARY}


def test_candidates_shadow_answer_a_share_and_stop_by_command_and_by_failure(call, streams, fleet, registry):
    fleet.start("publish-registry")
    worker = fleet.worker()
    worker.await_event("fleet_event", count=2, kind="candidates.loaded")
    assert wait_until(lambda: candidates(call) == {"v2": ("shadow", 1.0), "v3": ("shadow", 1.0)}, PATIENCE)
    shadowed = ask(streams, "shadowed")
    assert wait_until(lambda: len(shadows(streams)) == 2 * len(shadowed), PATIENCE)

    call("models", "canary", STRATEGY, "v2", "--share", str(SHARE), "--reason", "test")
    assert wait_until(lambda: candidates(call).get("v2") == ("canary", SHARE), PATIENCE)
    during = ask(streams, "during")
    call("models", "canary", STRATEGY, "--stop")
    assert wait_until(lambda: candidates(call).get("v2") == ("shadow", 1.0), PATIENCE)
    stopped = ask(streams, "stopped")
    registry.fail(STRATEGY, "v2", "test")
    assert wait_until(lambda: "v2" not in candidates(call), PATIENCE)
    failed = ask(streams, "failed")

    assert by_canary(during) == {name for name in during if in_share(name, ServedAs.CANARY, SHARE)} != set()
    assert by_canary(shadowed) == by_canary(stopped) == by_canary(failed) == set()
    for name, vector in (shadowed | during | stopped | failed).items():
        assert vector.model_version == ("v2" if name in by_canary(during) else "v1")
        assert (vector.activation, vector.proven) == (1, True)
    assert {(one.served_as, one.activation) for one in shadows(streams)} == {(ServedAs.SHADOW, 1)}
    canary_for = min(by_canary(during))
    assert call("replay", canary_for).exit_code == 0
    assert call("archive").exit_code == 0
    for options in ([], ["--offline"]):
        replayed = call("replay", "--shadow", "shadowed-0", "--json", *options)
        assert replayed.exit_code == 0
        found = sorted((one["model_version"], one["outcome"]) for one in json.loads(replayed.stdout))
        assert found == [("v2", "identical"), ("v3", "identical")]
        assert call("replay", "--shadow", "unknown", *options).exit_code == 3
    worker.end()
    assert worker.wait() == 0
