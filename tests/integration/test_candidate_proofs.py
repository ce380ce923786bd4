"""Which versions in testing a worker loads, with a real registry and really trained bundles."""

import shutil
import threading
from types import SimpleNamespace

import pytest

from contracts import FleetEvent, ServedAs, StreamNames
from contracts.codec import decode
from strategies.market.calendar import SessionCalendar
from strategies.models.bundle_files import digest
from strategies.models.machine_proof import prove_machine
from tests.support.serving import make_active, open_client
from tests.support.world import STRATEGY, build_world
from worker.events import Events
from worker.lifecycle.candidates import Candidates
from worker.lifecycle.failure_reporter import FailureReporter, PeerHeartbeats
from worker.lifecycle.last_known_good import LastKnownGood
from worker.lifecycle.loader import ModelSources
from worker.lifecycle.reconciler import Reconciler
from worker.lifecycle.refusals import Machine, Refusals
from worker.registry.models import ModelRef
from worker.registry.registry import Registration, Registry
from worker.serving.shadow import Shadows
from worker.serving.slots import Slots
from worker.transport.client import pairs_of

VERSIONS = ("v1", "v2", "v3", "v4")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"), VERSIONS)


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


class OneWorker:
    """The control side and the shadow side of one worker, each step made by the test."""

    def __init__(self, folder, valkey_url, database_url, namespace, *, share=1.0, limit=2):
        client, self.names = open_client(valkey_url, "test"), StreamNames(namespace)
        self._client, self.events = client, Events(client, self.names, "w")
        sources = ModelSources(
            artifacts_dir=folder / "artifacts",
            data_dir=folder / "data",
            calendar=SessionCalendar("XNYS"),
            allow_unproven=False,
            cache=LastKnownGood(folder / "proven"),
        )
        self.slots, self.registry = Slots(), Registry(database_url)
        self.shadows = Shadows(self.slots, share=share, size=4)
        self.candidates = Candidates(self.slots, self.shadows, sources, limit=limit)
        refusals, peers = Refusals(), PeerHeartbeats(client, self.names, "w")
        self.reporter = FailureReporter(
            self.registry, self.events, peers, refusals=refusals, machine=Machine(prove_machine)
        )
        self.reconciler = Reconciler(
            self.registry,
            self.slots,
            self.events,
            sources=sources,
            candidates=self.candidates,
            reporter=self.reporter,
            refusals=refusals,
            registry_unavailable=threading.Event(),
        )

    def look(self, *, force=False):
        assert self.reconciler.reconcile(force=force).registry_reached

    def verify_next(self):
        """Do all that the shadow thread would find to prove, and return how many proofs that were."""
        count = 0
        while self.candidates.verify_next(self.reporter, self.events):
            count += 1
        return count

    def loaded(self):
        return [(one.bundle.version, one.canary_share) for one in self.slots.candidates.get(STRATEGY, ())]

    def said(self, kind):
        rows = self._client.execute_command("XRANGE", self.names.events, "-", "+")
        events = [decode(FleetEvent, pairs_of(flat)) for _, flat in rows]
        return [event for event in events if event.type == kind]

    def status(self):
        return {one.version: one for one in self.candidates.status()}


@pytest.fixture
def make_side(folder, valkey_url, database_url, namespace):
    """Make a worker's side of a registry in which v1 is active and the others are in testing, digests stated."""
    made = []

    def make(**options):
        side = OneWorker(folder, valkey_url, database_url, namespace, **options)
        made.append(side)
        for version in VERSIONS:
            path = f"models/{STRATEGY}/{version}"
            config = {"bundle_sha256": digest((folder / "artifacts" / path / "bundle.json").read_bytes())}
            side.registry.register(Registration(strategy=STRATEGY, version=version, model_path=path, config=config))
        side.registry.activate(STRATEGY, "v1")
        return side

    yield make
    for side in made:
        side.registry.close()


@pytest.fixture
def side(make_side):
    return make_side()


def break_bundle(folder, version):
    model = folder / "artifacts" / "models" / STRATEGY / version / "model.txt"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-200])


def test_newest_candidates_are_proven_after_the_active_version(side):
    side.look()
    at_once = side.loaded()
    proofs = side.verify_next()

    assert (at_once, proofs) == ([], 2)
    assert side.loaded() == [("v4", 0.0), ("v3", 0.0)]
    assert side.slots.active[STRATEGY].bundle.version == "v1"
    assert [event.version for event in side.said("candidates.loaded")] == ["v4", "v3"]
    assert all(one.bundle.proven for one in side.slots.candidates[STRATEGY])


def test_what_is_left_out_is_reported(side):
    side.look()
    side.verify_next()

    status = side.status()
    assert status["v2"].reason == "left out: at most 2 versions of a strategy are loaded"
    assert (status["v2"].since, status["v2"].share) == (None, 0)
    assert (status["v4"].part, status["v4"].share, status["v4"].proven) == (ServedAs.SHADOW, 1.0, True)


def test_canary_is_loaded_first_whatever_its_age(side):
    side.registry.set_canary(STRATEGY, "v2", 0.05, reason="looks better")

    side.look()
    side.verify_next()

    assert side.loaded() == [("v2", 0.05), ("v4", 0.0)]
    assert side.status()["v2"].part is ServedAs.CANARY


def test_without_a_shadow_share_the_canary_alone_is_loaded(make_side):
    side = make_side(share=0.0)
    side.registry.set_canary(STRATEGY, "v2", 0.05, reason="looks better")

    side.look()
    side.verify_next()

    assert side.loaded() == [("v2", 0.05)]


def test_candidate_that_fails_its_proof_is_failed_with_its_reason(side, folder):
    break_bundle(folder, "v4")

    side.look()
    side.verify_next()

    assert side.loaded() == [("v3", 0.0)]
    assert side.slots.active[STRATEGY].bundle.version == "v1"
    assert side.registry.show(STRATEGY, "v4").status == "failed"
    (failed,) = side.said("models.failed")
    assert (failed.version, "model.txt" in failed.reason) == ("v4", True)
    assert side.registry.history(STRATEGY)[0].reason == failed.reason
    side.look()
    side.verify_next()
    assert side.loaded() == [("v3", 0.0), ("v2", 0.0)]


def test_version_activated_during_its_proof_is_not_failed(side, folder):
    break_bundle(folder, "v4")
    side.look()
    side.registry.activate(STRATEGY, "v4")

    side.verify_next()

    assert side.registry.show(STRATEGY, "v4").status == "active"


def test_bundle_that_is_not_here_is_left_alone_and_found_later(side, folder):
    home = folder / "artifacts" / "models" / STRATEGY / "v4"
    away = shutil.move(home, folder / "away")
    side.look()
    side.verify_next()
    assert side.registry.show(STRATEGY, "v4").status == "testing"
    assert "there is nothing at" in side.status()["v4"].reason
    assert side.said("models.failed") == []

    shutil.move(away, home)
    side.look()
    side.verify_next()

    assert side.loaded() == [("v4", 0.0), ("v3", 0.0)]


def test_bare_model_is_left_alone_where_the_setting_forbids_it(side):
    side.registry.register(Registration(strategy=STRATEGY, version="v9", model_path=f"models/{STRATEGY}/v2/model.txt"))

    side.look()
    side.verify_next()

    assert side.registry.show(STRATEGY, "v9").status == "testing"
    assert "allow_unproven is off" in side.status()["v9"].reason
    assert side.loaded() == [("v4", 0.0)]


def end_by_command(registry):
    registry.stop_canary(STRATEGY)


def end_by_failure(registry):
    registry.fail(STRATEGY, "v2", "bad")


def end_by_activation(registry):
    registry.activate(STRATEGY, "v2")


@pytest.mark.parametrize("end", [end_by_command, end_by_failure, end_by_activation])
def test_canary_stops_at_the_next_look_without_any_loading(side, end):
    side.registry.set_canary(STRATEGY, "v2", 0.05, reason="looks better")
    side.look()
    side.verify_next()
    assert ("v2", 0.05) in side.loaded()

    end(side.registry)
    side.look()

    assert ("v2", 0.05) not in side.loaded()
    assert all(share == 0 for _, share in side.loaded())


def test_share_of_a_canary_changes_without_another_proof(side):
    side.registry.set_canary(STRATEGY, "v4", 0.05, reason="looks better")
    side.look()
    side.verify_next()
    before = side.slots.candidates[STRATEGY][0].bundle

    side.registry.set_canary(STRATEGY, "v4", 0.2, reason="still does")
    side.look()

    assert side.verify_next() == 0
    assert side.loaded()[0] == ("v4", 0.2)
    assert side.slots.candidates[STRATEGY][0].bundle is before


def test_activated_candidate_is_not_loaded_again(side, folder):
    side.look()
    side.verify_next()
    proven = {one.bundle.version: one.bundle for one in side.slots.candidates[STRATEGY]}
    shutil.rmtree(folder / "artifacts" / "models" / STRATEGY / "v4")

    side.registry.activate(STRATEGY, "v4")
    side.look()

    assert side.slots.active[STRATEGY].bundle is proven["v4"]
    assert side.slots.active[STRATEGY].activation == 2
    assert [version for version, _ in side.loaded()] == ["v3"]


def test_bundle_of_another_digest_is_not_taken_for_the_activated_one(side):
    ref = ModelRef(strategy=STRATEGY, version="v4", path="models/v4", bundle_sha256="0" * 64)
    other = SimpleNamespace(strategy=STRATEGY, version="v4", ref=ref)
    side.look()
    side.verify_next()

    side.candidates.release({})

    assert side.candidates.take_verified(other) is None
    assert side.candidates.take_verified(side.registry.candidates()[STRATEGY][0]) is not None


def test_dropped_canary_is_announced_and_comes_back_only_when_asked_for(side):
    side.registry.set_canary(STRATEGY, "v2", 0.05, reason="looks better")
    side.look()
    side.verify_next()
    canary = side.slots.candidates[STRATEGY][0].beside(make_active(), ServedAs.CANARY)

    side.shadows.drop_canary(canary, RuntimeError("kaboom"))
    side.look()
    proofs = side.verify_next()

    assert proofs == 0
    assert [version for version, _ in side.loaded()] == ["v4"]
    (dropped,) = side.said("candidates.dropped")
    assert (dropped.version, "RuntimeError: kaboom" in dropped.reason) == ("v2", True)
    assert "RuntimeError: kaboom" in side.status()["v2"].reason
    side.look(force=True)
    side.verify_next()
    assert side.loaded()[0] == ("v2", 0.05)


def test_failing_twice_is_reported_once(side, folder, monkeypatch):
    break_bundle(folder, "v4")
    monkeypatch.setattr(Registry, "fail_candidate", lambda *_: False)

    for _ in range(3):
        side.look()
        side.verify_next()

    assert len(side.said("models.failed")) == 1


def test_candidate_withdrawn_during_its_proof_does_not_compute(side, monkeypatch):
    side.look()
    original = ModelSources.proven

    def prove_and_withdraw(sources, model):
        bundle = original(sources, model)
        side.registry.fail(STRATEGY, model.version, "withdrawn")
        side.look()
        return bundle

    monkeypatch.setattr(ModelSources, "proven", prove_and_withdraw)
    side.candidates.verify_next(side.reporter, side.events)

    assert side.loaded() == []
