import json
import re
import shutil

import pytest

from contracts import RejectionCode
from tests.support.fleet import PATIENCE, Fleet
from tests.support.published import command_line
from tests.support.serving import Streams
from tests.support.world import STRATEGY, SYMBOLS, build_world, register
from worker.cli._common import ExitCode
from worker.embedded.processes import wait_until
from worker.registry.migrations import migrate
from worker.registry.registry import Registry

REQUEST = {"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)}

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A snapshot, and bundles v1 and v2 trained on it."""
    return build_world(tmp_path_factory.mktemp("world"), ("v1", "v2"))


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


@pytest.fixture
def servers(private_servers):
    migrate(private_servers.endpoints.database_url)
    with Registry(private_servers.endpoints.database_url) as registry:
        for version in ("v1", "v2"):
            register(registry, version)
        registry.activate(STRATEGY, "v1")
    return private_servers


@pytest.fixture
def streams(servers):
    return Streams(servers.endpoints.redis_url, "signals")


@pytest.fixture
def fleet(servers, folder):
    made = Fleet(servers.endpoints, folder, serve_from_cache="true", local_dir=folder / "local")
    yield made
    made.end()


@pytest.fixture
def call(folder, streams, servers):
    return command_line(folder, streams, servers.endpoints.redis_url, DATABASE_URL=servers.endpoints.database_url)


def activate(servers, version):
    with Registry(servers.endpoints.database_url) as registry:
        return registry.activate(STRATEGY, version)


def rows(call):
    return {(row["worker"], row["strategy"]): row for row in json.loads(call("models", "status", "--json").stdout)}


def beaten(streams, worker):
    return {name.decode(): text.decode() for name, text in streams.client.hgetall(streams.names.worker(worker)).items()}


def serves(streams, worker):
    beat = beaten(streams, worker)
    return beat.get("state") == "serving" and STRATEGY in beat["serving"]


def failures(worker):
    return [event["kind"] for event in worker.events("fleet_event")].count("models.failed")


def answered_version(streams):
    before = len(streams.results())
    streams.add(REQUEST)
    assert wait_until(lambda: len(streams.results()) > before, PATIENCE)
    return streams.results()[-1].model_version


def remembered(fleet, folder, version="v1"):
    """Let a worker prove a version here, and end."""
    worker = fleet.worker(worker_name="first")
    worker.await_event("fleet_event", kind="models.loaded", version=version)
    worker.end()
    assert (folder / "local" / "proven" / "signals" / f"{STRATEGY}.json").is_file()


def test_status_shows_who_serves_what_and_who_differs(call, servers, streams, fleet):
    nobody = call("models", "status")
    fleet.worker(worker_name="w1")
    assert wait_until(lambda: serves(streams, "w1"), PATIENCE)
    equal = call("models", "status")
    before = rows(call)["w1", STRATEGY]
    activate(servers, "v2")
    behind = call("models", "status")
    streams.client.xadd(streams.names.control, {"type": "reload"})
    assert wait_until(lambda: call("models", "status").exit_code == 0, PATIENCE)

    assert (nobody.exit_code, equal.exit_code, behind.exit_code) == (1, 0, 1)
    assert "no worker lives" in nobody.stderr
    assert (before["version"], before["activation"], before["proven"], before["equal"]) == ("v1", 1, True, True)
    assert (before["state"], before["cached"], len(before["snapshot_id"])) == ("serving", False, 64)
    assert before["since"]
    row = next(line for line in behind.stdout.splitlines() if STRATEGY in line)
    assert re.fullmatch(rf"w1 +serving +\d\.\ds ago +{STRATEGY} +v1 #1 +v2 #2 +no", row)


def test_status_shows_the_fleet_while_the_registry_is_unavailable(call, servers, streams, fleet):
    fleet.worker(worker_name="w1")
    assert wait_until(lambda: serves(streams, "w1"), PATIENCE)
    servers.kill("postgres")

    result = call("models", "status")

    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "the registry cannot be asked" in result.stderr
    row = next(line for line in result.stdout.splitlines() if STRATEGY in line)
    assert "v1 #1" in row
    assert row.count("?") == 2


def test_starting_worker_is_no_success_while_the_registry_is_unavailable(call, servers, streams, fleet):
    servers.kill("postgres")
    fleet.start("run", worker_name="w1")
    assert wait_until(lambda: beaten(streams, "w1").get("state") == "starting", PATIENCE)

    result = call("models", "status")

    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "w1 " in result.stdout


def test_worker_starts_without_the_registry_and_reports_it(call, servers, streams, fleet, folder):
    remembered(fleet, folder)
    servers.kill("postgres")

    worker = fleet.worker(worker_name="w1")

    said = worker.await_event("fleet_event", kind="models.loaded", version="v1")
    assert said["reason"] == "from the local cache: the registry is away"
    assert answered_version(streams) == "v1"
    assert streams.results()[-1].proven
    assert streams.results()[-1].activation == 1
    assert wait_until(lambda: "from the local cache" in beaten(streams, "w1").get("reason", ""), PATIENCE)
    assert "v1 #1 (cache)" in call("models", "status").stdout
    waited = call("control", "reload", "--wait")
    assert waited.exit_code == 1
    assert "the registry is away" in waited.stdout


def test_worker_on_its_cache_follows_the_registry_once_it_is_back(call, servers, streams, fleet, folder):
    remembered(fleet, folder)
    servers.kill("postgres")
    fleet.worker(worker_name="w1")
    assert answered_version(streams) == "v1"

    servers.start()
    streams.client.xadd(streams.names.control, {"type": "reload"})
    assert wait_until(lambda: call("models", "status").exit_code == 0, PATIENCE)
    activate(servers, "v2")
    assert call("control", "reload", "--wait").exit_code == 0

    assert wait_until(lambda: answered_version(streams) == "v2", PATIENCE)
    assert "(cache)" not in call("models", "status").stdout
    assert wait_until(lambda: "reason" not in beaten(streams, "w1") or beaten(streams, "w1")["reason"] == "", PATIENCE)


def test_cache_serves_nothing_where_the_setting_is_off(servers, streams, fleet, folder):
    remembered(fleet, folder)
    servers.kill("postgres")

    worker = fleet.start("run", serve_from_cache="false", worker_name="w1")

    worker.await_event("registry_away")
    assert wait_until(lambda: beaten(streams, "w1").get("state") == "starting", PATIENCE)
    servers.start()
    worker.await_event("fleet_event", kind="worker.started")
    (loaded,) = [event for event in worker.events("fleet_event") if event["kind"] == "models.loaded"]
    assert "reason" not in loaded


def test_worker_waits_where_a_configured_strategy_is_not_cached(servers, fleet, folder):
    remembered(fleet, folder)
    servers.kill("postgres")

    worker = fleet.start("run", strategies=f"{STRATEGY},other", worker_name="w1")
    worker.await_event("fleet_event", kind="models.loaded")
    servers.start()
    worker.await_event("fleet_event", kind="worker.started")

    said = [event.get("kind", event["event"]) for event in worker.events()]
    assert said.index("registry_back") < said.index("worker.started")


def test_unknown_strategy_is_not_called_unknown_while_the_registry_cannot_be_asked(servers, streams, fleet, folder):
    remembered(fleet, folder)
    servers.kill("postgres")
    fleet.worker(worker_name="w1")

    streams.add({"strategy": "other", "symbols": "AAPL"})

    assert wait_until(lambda: len(streams.rejections()) == 1, PATIENCE)
    assert streams.rejections()[0].code is RejectionCode.NO_ACTIVE_MODEL
    assert "no model in the local cache" in streams.rejections()[0].reason


def test_changed_bundle_does_not_serve_from_the_cache(servers, streams, fleet, folder):
    remembered(fleet, folder)
    model = folder / "artifacts" / "models" / STRATEGY / "v1" / "model.txt"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes() + b"\n")
    servers.kill("postgres")

    worker = fleet.start("run", worker_name="w1")

    said = worker.await_event("fleet_event", kind="models.failed", version="v1")
    assert said["reason"].startswith("from the local cache: model.txt has SHA-256")
    # It looks again each second, and has said why already.
    assert not wait_until(lambda: failures(worker) > 1, 2.5)
    assert beaten(streams, "w1")["state"] == "starting"
    servers.start()
    worker.await_event("fleet_event", kind="worker.started")
    assert failures(worker) == 2


def test_withdrawn_model_does_not_come_back_through_the_cache(servers, fleet, folder):
    remembered(fleet, folder)
    with Registry(servers.endpoints.database_url) as registry:
        registry.deactivate(STRATEGY, reason="test")
    fleet.worker(worker_name="w1").end()

    assert not (folder / "local" / "proven" / "signals" / f"{STRATEGY}.json").exists()
