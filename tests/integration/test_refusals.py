"""Versions that do not serve here: which of them are failed for everyone, and which are looked at again."""

import socket
from datetime import timedelta

import pytest

from contracts import Heartbeat, RefusedModel, ServedModel, StandingCandidate
from contracts.codec import encode
from strategies.errors import (
    BundleError,
    BundleNotFound,
    BundleUnavailable,
    DigestMismatch,
    EngineDiffers,
    GoldenSampleMismatch,
    MachineUnproven,
    MalformedBundle,
    MalformedModel,
)
from strategies.models.machine_proof import prove_machine
from tests.support.registry import register
from tests.support.serving import NOW, open_client, put_hash
from worker.clock import utc_now
from worker.errors import RegistryUnavailable
from worker.events import Events
from worker.lifecycle.failure_reporter import FailureReporter, PeerHeartbeats
from worker.lifecycle.loader import OtherCalendar, UnprovenRefused
from worker.lifecycle.refusals import Machine, Refusals
from worker.registry.registry import Registry

WRONG = DigestMismatch("model.txt", "2", "1")
OTHERWISE = GoldenSampleMismatch("prediction of IBM on 2013-02-28: expected 1, was 2")
#: After every reporter of this module began.
LATER = utc_now() + timedelta(hours=1)


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
    yield reporter_of(client, registry, streams)
    client.close()


def reporter_of(client, registry, streams, *, prove=prove_machine):
    peers = PeerHeartbeats(client, streams.names, "here")
    events = Events(client, streams.names, "here")
    return FailureReporter(registry, events, peers, refusals=Refusals(), machine=Machine(prove))


def beat(streams, worker="there", **loaded):
    """Let a worker on another host state what it has loaded, or what else is true of it."""
    known = {"host": "h", "pid": 1, "started_at": NOW, "beaten_at": NOW, "code_version": "1", "state": "serving"}
    said = Heartbeat.model_validate({"worker": worker, **known, **loaded})
    put_hash(streams.client, streams.names.worker(worker), encode(said))


def serving(version):
    return {"serving": (ServedModel(strategy="alpha", version=version, activation=2),)}


def test_version_that_is_wrong_is_failed_and_the_one_before_it_active(reporter, registry):
    assert reporter.report(registry.active("alpha"), WRONG)

    assert registry.show("alpha", "v2").status == "failed"
    assert registry.active("alpha").version == "v1"


@pytest.mark.parametrize(
    "error",
    [
        BundleNotFound("nothing there"),
        BundleUnavailable("Permission denied"),
        UnprovenRefused("allow_unproven is off"),
        OtherCalendar("trained on XBOM"),
        EngineDiffers("a field of a later release"),
        BundleError("of no known cause"),
    ],
    ids=lambda error: type(error).__name__,
)
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
    client = open_client(valkey_url, "test")
    away = PeerHeartbeats(open_client("redis://127.0.0.1:1", "nobody"), streams.names, "here")
    events = Events(client, streams.names, "here")
    alone = FailureReporter(registry, events, away, refusals=Refusals(), machine=Machine(prove_machine))

    assert not alone.report(registry.active("alpha"), WRONG)

    assert registry.active("alpha").version == "v2"


@pytest.mark.parametrize("error", [MalformedModel("no trees"), MalformedBundle("no JSON"), WRONG], ids=str)
def test_wrong_bytes_fail_a_version_by_one_worker(reporter, registry, error):
    assert reporter.report(registry.active("alpha"), error)

    assert registry.show("alpha", "v2").status == "failed"


@pytest.mark.parametrize("error", [WRONG, OTHERWISE], ids=["digest", "golden"])
def test_machine_that_does_not_prove_itself_testifies_against_nothing(valkey_url, streams, registry, error):
    def differ():
        raise MachineUnproven("this machine does not reproduce the reference sample")

    beat(streams, **refusing("v2"))

    assert not reporter_of(open_client(valkey_url, "test"), registry, streams, prove=differ).report(
        registry.active("alpha"), error
    )
    assert registry.active("alpha").version == "v2"


def refusing(version, **changes):
    refused = {"strategy": "alpha", "version": version, "golden": True, "reason": "prediction"} | changes
    return {"refused": (RefusedModel(**refused),)}


HERE = {"host": socket.gethostname()}


@pytest.mark.parametrize(
    ("second", "failed"),
    [
        (None, False),
        ({}, False),
        (refusing("v1"), False),
        (refusing("v2", golden=False), False),
        (refusing("v2"), True),
        ({**refusing("v2"), **HERE}, False),
        ({**refusing("v2"), **HERE, "beaten_at": LATER}, True),
    ],
    ids=["alone", "silent", "of another", "of another kind", "another machine", "one that died here", "another here"],
)
def test_golden_sample_counts_once_a_second_living_worker_agrees(reporter, registry, streams, second, failed):
    if second is not None:
        beat(streams, **second)

    assert reporter.report(registry.active("alpha"), OTHERWISE) is failed

    assert registry.show("alpha", "v2").status == ("failed" if failed else "active")
    if failed:
        assert "on here and on there" in registry.history("alpha")[1].reason


def test_second_witness_is_on_another_machine_where_one_serves_the_strategy(reporter, registry, streams):
    beat(streams, "beside", **refusing("v2"), **HERE, beaten_at=LATER)
    beat(streams, "elsewhere", strategies="beta")
    beat(streams, "there", strategies="alpha,beta")

    assert not reporter.report(registry.active("alpha"), OTHERWISE)

    beat(streams, "there", strategies="alpha,beta", **refusing("v2"))
    assert reporter.report(registry.active("alpha"), OTHERWISE)


def test_refusal_is_announced_once_and_whenever_somebody_asks(reporter, registry, streams):
    model, error = registry.active("alpha"), BundleNotFound("nothing there")
    for control_id in (None, None, "7-1", None):
        reporter.report(model, error, control_id)

    assert [event.control_id for event in streams.events()] == [None, "7-1"]


def test_failure_that_the_registry_did_not_take_is_to_be_reported_again(reporter, registry, monkeypatch):
    active = registry.active("alpha")
    original = registry.fail

    def away(*_):
        raise RegistryUnavailable("the server closed the connection")

    monkeypatch.setattr(registry, "fail", away)
    assert not reporter.report(active, WRONG)
    monkeypatch.setattr(registry, "fail", original)

    assert reporter.report(active, WRONG)
