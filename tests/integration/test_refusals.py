"""Versions that do not serve here: which of them are failed for everyone, and which are looked at again."""

import pytest

from contracts import Heartbeat, ServedModel, StandingCandidate
from contracts.codec import encode
from strategies.errors import BundleError, BundleNotFound, BundleUnavailable
from tests.support.registry import register
from tests.support.serving import NOW, open_client, put_hash
from worker.errors import RegistryUnavailable
from worker.events import Events
from worker.lifecycle.failure_reporter import FailureReporter, PeerHeartbeats
from worker.registry.registry import Registry

WRONG = BundleError("model.txt has SHA-256 1, the bundle states 2")


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as made:
        register(made, "alpha", "v1", "v2", "v3")
        made.activate("alpha", "v1")
        made.activate("alpha", "v2")
        yield made


@pytest.fixture
def reporter(valkey_url, streams, registry):
    client = open_client(valkey_url, "test")
    events = Events(client, streams.names, "here")
    yield FailureReporter(registry, events, PeerHeartbeats(client, streams.names, "here"))
    client.close()


def beat(streams, worker="there", **loaded):
    """Let a worker say what it has loaded."""
    known = {"host": "h", "pid": 1, "started_at": NOW, "beaten_at": NOW, "code_version": "1", "state": "serving"}
    said = Heartbeat.model_validate({"worker": worker, **known, **loaded})
    put_hash(streams.client, streams.names.worker(worker), encode(said))


def serving(version):
    return {"serving": (ServedModel(strategy="alpha", version=version, activation=2),)}


def test_version_that_is_wrong_is_failed_and_the_one_before_it_active(reporter, registry):
    assert reporter.report(registry.active("alpha"), WRONG)

    assert registry.show("alpha", "v2").status == "failed"
    assert registry.active("alpha").version == "v1"


@pytest.mark.parametrize("error", [BundleNotFound("nothing there"), BundleUnavailable("Permission denied")])
def test_what_cannot_be_read_here_is_failed_for_nobody(reporter, registry, error):
    assert not reporter.report(registry.active("alpha"), error)

    assert registry.active("alpha").version == "v2"


def test_what_others_serve_is_failed_for_nobody(reporter, registry, streams):
    beat(streams, **serving("v2"))

    assert not reporter.report(registry.active("alpha"), WRONG)

    assert registry.active("alpha").version == "v2"


def test_candidate_that_others_have_loaded_is_failed_for_nobody(reporter, registry, streams):
    (candidate,) = registry.candidates()["alpha"]
    known = {"strategy": "alpha", "version": "v3", "part": "shadow", "share": 0.1}
    beat(streams, candidates=(StandingCandidate(**known, since=NOW),))
    assert not reporter.report(candidate, WRONG)
    beat(streams, candidates=(StandingCandidate(**known, reason="not proven yet"),))

    assert reporter.report(candidate, WRONG)

    assert registry.show("alpha", "v3").status == "failed"


@pytest.mark.parametrize(
    ("worker", "loaded"),
    [("here", serving("v2")), ("there", serving("v1")), ("there", {})],
    ids=["oneself", "another version", "nothing"],
)
def test_own_and_unreadable_heartbeats_do_not_count(reporter, registry, streams, worker, loaded):
    beat(streams, worker, **loaded)
    put_hash(streams.client, streams.names.worker("odd"), {"serving": "no JSON"})

    assert reporter.report(registry.active("alpha"), WRONG)


def test_version_is_failed_by_nobody_who_cannot_ask_the_others(valkey_url, streams, registry):
    events = Events(open_client(valkey_url, "test"), streams.names, "here")
    away = PeerHeartbeats(open_client("redis://127.0.0.1:1", "nobody"), streams.names, "here")

    assert not FailureReporter(registry, events, away).report(registry.active("alpha"), WRONG)

    assert registry.active("alpha").version == "v2"


def test_failure_that_the_registry_did_not_take_is_to_be_reported_again(reporter, registry, monkeypatch):
    active = registry.active("alpha")
    original = registry.fail

    def away(*_):
        raise RegistryUnavailable("the server closed the connection")

    monkeypatch.setattr(registry, "fail", away)
    assert not reporter.report(active, WRONG)
    monkeypatch.setattr(registry, "fail", original)

    assert reporter.report(active, WRONG)
