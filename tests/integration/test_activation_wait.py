"""`--wait` of the verbs that activate: success means that every living worker serves the version."""

import json
import signal

import pytest

from tests.support.fleet import Fleet
from tests.support.published import command_line
from tests.support.world import STRATEGY, build_world, register
from worker.cli._common import ExitCode
from worker.embedded import Endpoints
from worker.operations import activation_wait
from worker.registry.registry import Registry


@pytest.fixture
def folder(tmp_path):
    return build_world(tmp_path, ("v1", "v2"))


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as client:
        register(client, "v1")
        yield client


@pytest.fixture
def fleet(valkey_url, database_url, folder, streams):
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, folder, namespace=streams.names.namespace)
    yield made
    made.end()


@pytest.fixture
def call(folder, streams, valkey_url, database_url):
    return command_line(folder, streams, valkey_url, DATABASE_URL=database_url)


@pytest.fixture
def publisher(fleet):
    started = fleet.start("publish-registry")
    started.await_event("publisher_role", role="active")
    return started


def serves(beat, version):
    return any(one.version == version for one in beat.serving)


@pytest.mark.usefixtures("publisher")
def test_activation_that_every_worker_serves_names_them(fleet, call, registry):
    fleet.worker(worker_name="w1")
    fleet.worker(worker_name="w2")

    activated = call("models", "activate", STRATEGY, "v1", "--wait", "--timeout", "40")
    again = call("models", "activate", STRATEGY, "v1", "--wait", "--timeout", "40")
    register(registry, "v2")
    promoted = call("models", "activate", STRATEGY, "v2", "--wait", "--timeout", "40")
    back = call("models", "rollback", STRATEGY, "--wait", "--timeout", "40")

    assert [done.exit_code for done in (activated, again, promoted, back)] == [0, 0, 0, 0], activated.stderr
    assert activated.stdout == f"{STRATEGY} v1 is active, activation 1, served by w1, w2\n"
    assert again.stdout == f"{STRATEGY} v1 was active already, since activation 1, served by w1, w2\n"
    assert back.stdout == f"{STRATEGY} v1 is active again, activation 3, served by w1, w2\n"


@pytest.mark.usefixtures("publisher")
def test_version_that_does_not_prove_itself_is_a_refusal_with_its_reason(fleet, call, registry, folder):
    """What was seen: the verb printed that v2 is active, and the fleet had failed it a second later."""
    registry.activate(STRATEGY, "v1")
    fleet.worker(worker_name="w1")
    model = folder / "artifacts" / "models" / STRATEGY / "v2" / "model.txt"
    model.chmod(0o644)
    model.write_text(model.read_text().replace("shrinkage=0", "shrinkage=1"), encoding="ascii")
    # Only now: a version in testing would be failed before it is active.
    register(registry, "v2")

    refused = call("models", "activate", STRATEGY, "v2", "--wait", "--timeout", "40")

    assert (refused.exit_code, refused.stdout) == (ExitCode.FAILED, "")
    assert f"{STRATEGY} v2 (activation 2) is" in refused.stderr
    assert "SHA-256" in refused.stderr
    assert "v2 is active, activation" not in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.usefixtures("publisher")
def test_worker_without_the_files_is_named_with_its_reason(fleet, call, registry, tmp_path_factory):
    registry.activate(STRATEGY, "v1")
    bare = build_world(tmp_path_factory.mktemp("bare"), ("v1",))
    fleet.worker(worker_name="whole")
    fleet.worker(worker_name="lacking", artifacts_dir=bare / "artifacts")

    register(registry, "v2")
    refused = call("models", "activate", STRATEGY, "v2", "--wait", "--timeout", "40")

    assert refused.exit_code in {ExitCode.FAILED, ExitCode.TIMEOUT}
    assert "lacking: " in refused.stderr
    assert "whole: " not in refused.stderr


@pytest.mark.usefixtures("publisher")
def test_worker_that_hangs_is_named_after_the_time(fleet, call, registry):
    registry.activate(STRATEGY, "v1")
    fleet.worker(worker_name="w1")
    stuck = fleet.worker(worker_name="w2", heartbeat_seconds=60)
    stuck.signal(signal.SIGSTOP)

    register(registry, "v2")
    refused = call("models", "activate", STRATEGY, "v2", "--wait", "--timeout", "3")

    assert refused.exit_code == ExitCode.TIMEOUT
    assert "not served after 3 s by " in refused.stderr
    assert "w2: serving, serves v1 #1" in refused.stderr


def test_nobody_publishing_is_a_refusal(fleet, call, registry, monkeypatch):
    monkeypatch.setattr(activation_wait, "GRACE_SECONDS", 0.5)
    registry.activate(STRATEGY, "v1")
    fleet.worker(worker_name="w1")

    register(registry, "v2")
    refused = call("models", "activate", STRATEGY, "v2", "--wait", "--timeout", "40")

    assert refused.exit_code == ExitCode.FAILED
    assert "nobody publishes it" in refused.stderr
    assert "not serving it yet: w1: " in refused.stderr


@pytest.mark.usefixtures("registry")
def test_no_worker_is_a_refusal(call, monkeypatch):
    monkeypatch.setattr(activation_wait, "GRACE_SECONDS", 0.2)

    refused = call("models", "activate", STRATEGY, "v1", "--wait")

    assert refused.exit_code == ExitCode.FAILED
    assert "is active in the registry and not served: no worker that serves" in refused.stderr


@pytest.mark.usefixtures("registry")
def test_without_waiting_only_the_registry_is_changed(call):
    assert call("models", "activate", STRATEGY, "v1").stdout == f"{STRATEGY} v1 is active, activation 1\n"
    assert call("models", "activate", STRATEGY, "v1", "--no-wait").exit_code == 0


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", ""])
def test_activation_is_stated_where_nothing_can_be_found_out_about_it(folder, streams, valkey_url, database_url, url):
    call = command_line(folder, streams, valkey_url, DATABASE_URL=database_url, REDIS_URL=url)

    refused = call("models", "activate", STRATEGY, "v1", "--wait")
    again = call("models", "activate", STRATEGY, "v1", "--wait", "--json")

    assert refused.exit_code in {ExitCode.UNAVAILABLE, ExitCode.USAGE}
    assert (
        f"{STRATEGY} v1 (activation 1) is active in the registry; whether it is served is not known: " in refused.stderr
    )
    assert (again.exit_code, json.loads(again.stdout)["activation"]) == (refused.exit_code, 1)
