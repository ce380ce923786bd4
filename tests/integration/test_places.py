"""What is wrong with one place: it makes that worker unready, with the reason, and condemns no model."""

import contextlib
import json
import shutil

import pytest

from contracts import FleetEventType
from strategies.models.tables import encode_golden
from tests.support.fleet import PATIENCE, Fleet
from tests.support.models import forge_file, make_content
from tests.support.probes import ask
from tests.support.registry import sql
from tests.support.world import STRATEGY, SYMBOLS, register
from worker.embedded import Endpoints
from worker.embedded.identity import free_port
from worker.embedded.processes import wait_until
from worker.registry.registry import Registry

REQUEST = {"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def folder(two_versions, tmp_path):
    return shutil.copytree(two_versions, tmp_path / "work")


@pytest.fixture
def fleet(valkey_url, database_url, namespace, folder):
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, folder, namespace=namespace, reconcile_seconds=0.3)
    yield made
    made.end()


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as made:
        register(made, "v1")
        register(made, "v2")
        made.activate(STRATEGY, "v1")
        yield made


def unready(port):
    """Return the reasons of /readyz in one text; empty: it is ready, or its port is not open yet."""
    with contextlib.suppress(ConnectionRefusedError):
        status, body = ask(port, "/readyz")
        return "" if status == 200 else "\n".join(json.loads(line)["detail"] for line in body.splitlines())
    return ""


def reconciled(streams, control_id):
    """Return how many workers have compared everything since a control event."""
    return sum(event.type is FleetEventType.RECONCILED for event in streams.events(control_id))


def test_faults_of_a_place_make_its_worker_unready_and_condemn_no_model(
    streams, fleet, registry, database_url, tmp_path
):
    register(registry, "bare", f"models/{STRATEGY}/v2/model.txt")
    registry.activate(STRATEGY, "bare")
    ports = {name: free_port() for name in ("settings", "calendar", "files", "child")}
    common = {name: {"worker_name": name, "health_port": port} for name, port in ports.items()}
    workers = [fleet.start("run", **common["settings"])]
    assert wait_until(lambda: "allow_unproven is off" in unready(ports["settings"]), PATIENCE)
    registry.activate(STRATEGY, "v2")
    workers[0].end()

    workers = [
        fleet.start("run", calendar="XHKG", **common["calendar"]),
        fleet.start("run", artifacts_dir=tmp_path, **common["files"]),
        fleet.execute("run", module="tests.support.childless_worker", **common["child"]),
    ]

    for name, words in {
        "calendar": "trained on the calendar XNYS, this worker serves XHKG: set SIGNALS_CALENDAR",
        "files": "there is nothing at",
        "child": "does not work here: OSError: libgomp.so.1",
    }.items():
        assert wait_until(lambda port=ports[name], words=words: words in unready(port), PATIENCE), name
    asked = streams.control("reload")
    assert wait_until(lambda: reconciled(streams, asked) == len(workers), PATIENCE)
    assert registry.show(STRATEGY, "v2").status == "active"
    assert sql(database_url, "SELECT DISTINCT action FROM model_activations") == [("activated",)]


def test_golden_sample_that_comes_out_otherwise_is_failed_when_a_second_worker_agrees(fleet, registry, folder):
    other = make_content(seed=3)
    forged = encode_golden(other.golden, other.lineage.feature_set.names)
    forge_file(folder / "artifacts" / "models" / STRATEGY / "v2", "golden.parquet", forged)
    first = fleet.worker(worker_name="first")
    registry.activate(STRATEGY, "v2")
    first.await_event("model_waits_for_a_second_witness", count=2, version="v2")
    assert first.events("machine_proven")
    assert registry.show(STRATEGY, "v2").status == "active"

    fleet.start("run", worker_name="second")

    assert wait_until(lambda: registry.show(STRATEGY, "v2").status == "failed", PATIENCE)
    assert registry.active(STRATEGY).version == "v1"
    (failed,) = [change for change in registry.history(STRATEGY) if change.action == "failed"]
    assert "first" in failed.reason
    assert "second" in failed.reason
