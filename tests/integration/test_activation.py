import shutil
from datetime import date

import pytest

from tests.support.fleet import PATIENCE, Fleet
from tests.support.market import make_bars, write_snapshot
from tests.support.world import STRATEGY, SYMBOLS, build_world, register
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.registry.registry import Registry

REQUEST = {"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A snapshot, and bundles v1 to v3 trained on it."""
    return build_world(tmp_path_factory.mktemp("world"), ("v1", "v2", "v3"))


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


@pytest.fixture
def fleet(valkey_url, database_url, namespace, folder):
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, folder, namespace=namespace)
    yield made
    made.end()


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as made:
        for version in ("v1", "v2", "v3"):
            register(made, version)
        made.activate(STRATEGY, "v1")
        yield made


def served_version(streams):
    """Return the version that answers a new request, or the code of its rejection."""
    answered, refused = len(streams.results()), len(streams.rejections())
    streams.add(REQUEST)
    assert wait_until(lambda: len(streams.results()) + len(streams.rejections()) > answered + refused, PATIENCE)
    found = streams.results()
    return found[-1].model_version if len(found) > answered else streams.rejections()[-1].code


def test_activation_swaps_between_requests_and_loses_none(streams, fleet, registry):
    fleet.start("publish-registry")
    worker = fleet.worker()

    sent = []
    for version in ("v2", "v3", "v1", "v3"):
        sent += streams.add(REQUEST, times=25)
        active = registry.activate(STRATEGY, version)
        worker.await_event("fleet_event", kind="models.loaded", activation=active.activation)
    sent += streams.add(REQUEST, times=25)

    assert wait_until(lambda: len(streams.results()) == len(sent), PATIENCE)
    vectors = streams.results()
    assert [vector.request_id for vector in vectors] == sent
    assert streams.rejections() == []
    activations = [vector.activation for vector in vectors]
    assert activations == sorted(activations)
    assert vectors[-1].model_version == "v3"
    digests = {vector.model_version: vector.model_sha256 for vector in vectors}
    assert all(vector.model_sha256 == digests[vector.model_version] and vector.proven for vector in vectors)
    assert len(set(digests.values())) == len(digests)


def break_model(folder, version, artifacts="artifacts"):
    model = folder / artifacts / "models" / STRATEGY / version / "model.txt"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-200])


def test_broken_bundle_is_refused_and_the_old_model_serves_on(streams, fleet, registry, folder):
    fleet.start("publish-registry")
    worker = fleet.worker()
    break_model(folder, "v2")

    registry.activate(STRATEGY, "v2")

    failed = worker.await_event("fleet_event", kind="models.failed", version="v2")
    assert "model.txt" in failed["reason"]
    assert wait_until(lambda: registry.show(STRATEGY, "v2").status == "failed", PATIENCE)
    assert served_version(streams) == "v1"
    assert [change.action for change in registry.history(STRATEGY)[1::-1]] == ["failed", "rolled_back"]
    worker.await_event("fleet_event", kind="models.loaded", version="v1", activation=4)
    assert served_version(streams) == "v1"
    assert registry.active(STRATEGY).activation == streams.results()[-1].activation == 4


def test_worker_that_starts_after_a_failure_serves_what_the_others_serve(streams, fleet, registry, folder):
    old = fleet.worker(worker_name="old")
    break_model(folder, "v2")
    registry.activate(STRATEGY, "v2")
    streams.client.xadd(streams.names.control, {"type": "reload"})
    old.await_event("fleet_event", kind="models.failed", version="v2")

    new = fleet.worker(worker_name="new")

    new.await_event("fleet_event", kind="models.loaded", version="v1", activation=4)
    old.await_event("fleet_event", kind="models.loaded", version="v1", activation=4)
    assert served_version(streams) == "v1"


def test_files_broken_on_one_machine_fail_the_version_for_nobody(streams, fleet, registry, folder, tmp_path):
    healthy = fleet.worker(worker_name="healthy", reconcile_seconds=0.3)
    there = shutil.copytree(folder / "artifacts", tmp_path / "there")
    break_model(tmp_path, "v1", artifacts="there")

    broken = fleet.worker(worker_name="broken", artifacts_dir=there, reconcile_seconds=0.3)

    broken.await_event("fleet_event", kind="models.failed", version="v1")
    broken.await_event("model_refused_here_alone", version="v1")
    assert registry.show(STRATEGY, "v1").status == "active"
    broken.end()
    assert served_version(streams) == "v1"
    assert not [event for event in healthy.events("fleet_event") if event["kind"] == "models.removed"]


def test_event_typed_by_hand_makes_the_worker_look(streams, fleet, registry):
    worker = fleet.worker()
    assert served_version(streams) == "v1"
    registry.activate(STRATEGY, "v2")

    streams.client.xadd(streams.names.control, {"type": "reload", "strategy": STRATEGY})

    worker.await_event("fleet_event", kind="models.loaded", version="v2")
    assert served_version(streams) == "v2"


def test_worker_that_receives_nothing_converges_by_itself(streams, fleet, registry):
    worker = fleet.worker(reconcile_seconds=0.3)
    registry.activate(STRATEGY, "v2")

    worker.await_event("fleet_event", kind="models.loaded", version="v2")

    assert served_version(streams) == "v2"


def test_deactivated_strategy_is_answered_by_nobody_until_it_is_active_again(streams, fleet, registry):
    worker = fleet.worker(reconcile_seconds=0.3)

    registry.deactivate(STRATEGY, reason="test")

    worker.await_event("fleet_event", kind="worker.unready")
    (entry,) = streams.add(REQUEST)
    streams.control("reload")
    worker.await_event("fleet_event", kind="worker.reconciled")
    assert streams.results() == streams.rejections() == []
    assert streams.pending() == 0
    registry.activate(STRATEGY, "v1")
    assert wait_until(streams.results, PATIENCE)
    assert [vector.request_id for vector in streams.results()] == [entry]


def test_bundle_that_is_not_here_yet_fails_nobody_and_is_found_later(streams, fleet, registry, folder):
    worker = fleet.worker()
    home = folder / "artifacts" / "models" / STRATEGY / "v2"
    away = shutil.move(home, folder / "away")
    registry.activate(STRATEGY, "v2")
    streams.client.xadd(streams.names.control, {"type": "reload"})
    worker.await_event("fleet_event", kind="models.failed", version="v2")
    assert registry.show(STRATEGY, "v2").status == "active"
    assert served_version(streams) == "v1"

    shutil.move(away, home)
    streams.client.xadd(streams.names.control, {"type": "reload"})

    worker.await_event("fleet_event", kind="models.loaded", version="v2")


@pytest.mark.parametrize("allowed", [True, False])
def test_worker_that_starts_without_the_active_files_serves_what_it_proved_last(
    streams, fleet, registry, folder, allowed
):
    cache = {"serve_from_cache": str(allowed), "local_dir": folder / "local", "worker_name": "w1"}
    first = fleet.worker(**cache)
    home = folder / "artifacts" / "models" / STRATEGY / "v2"
    away = shutil.move(home, folder / "away")
    registry.activate(STRATEGY, "v2")
    first.end()

    worker = fleet.worker(**cache)

    worker.await_event("fleet_event", kind="models.failed", version="v2")
    if allowed:
        assert served_version(streams) == "v1"
        loaded = worker.await_event("fleet_event", kind="models.loaded", version="v1", activation=1)
        assert loaded["reason"] == "from the local cache: v2 cannot be loaded here"
    else:
        worker.await_event("fleet_event", kind="worker.unready")
        streams.add(REQUEST)  # waits
    assert registry.show(STRATEGY, "v2").status == "active"

    shutil.move(away, home)
    streams.client.xadd(streams.names.control, {"type": "reload"})

    worker.await_event("fleet_event", kind="models.loaded", version="v2")
    assert served_version(streams) == "v2"
    assert streams.rejections() == []


def test_failed_version_does_not_come_back_through_the_cache(fleet, registry, folder):
    cache = {"serve_from_cache": "true", "local_dir": folder / "local", "worker_name": "w1"}
    fleet.worker(**cache).end()
    registry.activate(STRATEGY, "v2")
    registry.fail(STRATEGY, "v1", "drifted")
    shutil.move(folder / "artifacts" / "models" / STRATEGY / "v2", folder / "away")

    worker = fleet.worker(**cache)

    worker.await_event("fleet_event", kind="models.failed", version="v2")
    worker.await_event("fleet_event", kind="worker.unready")
    assert "models.loaded" not in [event["kind"] for event in worker.events("fleet_event")]


@pytest.mark.parametrize("path", ["/etc/passwd", "models/alpha_baseline/outside"], ids=["absolute", "link"])
def test_path_outside_the_artifact_root_is_refused(streams, fleet, registry, folder, path):
    worker = fleet.worker()
    (folder / "artifacts" / "models" / STRATEGY / "outside").symlink_to("/etc")
    register(registry, "v9", path)
    registry.activate(STRATEGY, "v9")

    streams.client.xadd(streams.names.control, {"type": "reload"})

    assert "outside the artifact root" in worker.await_event("fleet_event", kind="models.failed")["reason"]
    assert served_version(streams) == "v1"


def test_bundle_under_another_name_is_refused(streams, fleet, registry):
    worker = fleet.worker()
    register(registry, "v9", f"models/{STRATEGY}/v2")
    registry.activate(STRATEGY, "v9")

    streams.client.xadd(streams.names.control, {"type": "reload"})

    assert "holds alpha_baseline v2" in worker.await_event("fleet_event", kind="models.failed")["reason"]
    assert served_version(streams) == "v1"


def test_bare_model_serves_only_where_the_setting_allows_it(streams, fleet, registry):
    register(registry, "v9", f"models/{STRATEGY}/v2/model.txt")
    registry.activate(STRATEGY, "v9")
    strict = fleet.worker()
    assert "allow_unproven is off" in strict.await_event("fleet_event", kind="models.failed")["reason"]
    assert registry.show(STRATEGY, "v9").status == "active"
    strict.end()

    fleet.worker(allow_unproven="true")

    assert served_version(streams) == "v9"
    assert not streams.results()[-1].proven


@pytest.mark.usefixtures("registry")
def test_new_snapshot_serves_from_the_next_request_on(streams, fleet, folder):
    worker = fleet.worker()
    assert served_version(streams) == "v1"
    bars = {symbol: make_bars(sessions=301, seed=row) for row, symbol in enumerate(SYMBOLS)}
    write_snapshot(folder / "data", bars, run_date=date(2099, 1, 2))

    streams.client.xadd(streams.names.control, {"type": "data.refreshed"})

    worker.await_event("fleet_event", count=2, kind="snapshot.loaded")
    assert served_version(streams) == "v1"
    before, after = streams.results()
    assert before.snapshot_id != after.snapshot_id
    assert after.as_of > before.as_of


@pytest.mark.usefixtures("registry")
def test_operators_pause_resume_ping_and_drain(streams, fleet):
    worker = fleet.worker(worker_name="w-1")
    tell = streams.client.xadd
    tell(streams.names.control, {"type": "no such thing"})
    tell(streams.names.control, {"type": "ping", "worker": "somebody-else"})
    tell(streams.names.control, {"type": "ping", "worker": "w-1"})
    worker.await_event("control_event_malformed")
    worker.await_event("fleet_event", kind="worker.pong")

    tell(streams.names.control, {"type": "pause"})
    worker.await_event("fleet_event", kind="worker.paused")
    streams.add(REQUEST)
    assert not wait_until(lambda: streams.results() != [], 1.0)
    tell(streams.names.control, {"type": "resume"})
    assert wait_until(lambda: len(streams.results()) == 1, PATIENCE)
    tell(streams.names.control, {"type": "drain"})

    assert worker.wait() == 0
    assert len(worker.events("fleet_event")) >= 5


@pytest.mark.usefixtures("registry")
def test_flushed_control_stream_is_noticed(streams, fleet):
    worker = fleet.worker(reconcile_seconds=0.3)
    streams.client.xadd(streams.names.control, {"type": "ping"}, id="9999999999999-0")
    worker.await_event("fleet_event", kind="worker.pong")

    streams.client.delete(streams.names.control)
    worker.await_event("control_stream_went_back")
    streams.client.xadd(streams.names.control, {"type": "ping"})

    worker.await_event("fleet_event", count=2, kind="worker.pong")
