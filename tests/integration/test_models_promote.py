import json
import shutil
import threading
from datetime import UTC, datetime

import psycopg
import pytest

from tests.support.evidence import Shadowing
from tests.support.fleet import PATIENCE, Fleet
from tests.support.published import Press, command_line
from tests.support.registry import sql
from tests.support.world import STRATEGY, register
from worker.cli._common import ExitCode
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.operations.comparison import gate
from worker.operations.promotion import RegistryChanged, promote, promotion_baseline
from worker.registry.registry import Registry

DAY = datetime(2024, 1, 3, 12, tzinfo=UTC)
#: The last sessions of the world; of the last two the returns are not known yet.
SESSIONS = range(-8, 0)
#: What every version meets.
LAX = {"--min-rank-ic": "-1", "--min-agreement": "0", "--sessions": "6"}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def shadowing(two_versions, streams):
    return Shadowing(Press(two_versions, streams), streams, DAY)


@pytest.fixture
def models(database_url):
    """A registry in which v1 is active and v2 in testing; v3 waits there without a bundle."""
    with Registry(database_url) as registry:
        for version in ("v1", "v2", "v3"):
            register(registry, version)
        registry.activate(STRATEGY, "v1")
        yield registry


@pytest.fixture
def call(two_versions, streams, valkey_url, models, database_url):
    """Promote v2 within the lax limits, or others."""
    assert models.active(STRATEGY).version == "v1"
    run = command_line(two_versions, streams, valkey_url, DATABASE_URL=database_url, LOGNAME="ada")

    def promoted(*flags, version="v2", **limits):
        stated = LAX | {f"--{name.replace('_', '-')}": str(value) for name, value in limits.items()}
        options = [text for pair in stated.items() for text in pair]
        return run("models", "promote", STRATEGY, version, *options, *flags)

    return promoted


def changes(models):
    return [(change.version, change.action) for change in models.history(STRATEGY)]


def test_version_whose_evidence_is_sufficient_is_activated(call, shadowing, models):
    shadowing.pairs(SESSIONS)

    result = call("--reason", "better since May", max_turnover=4, max_latency_ratio=2)

    assert result.exit_code == 0, result.stderr
    assert result.stderr == "alpha_baseline v2 is active, activation 2, in place of v1\n"
    change = models.history(STRATEGY)[0]
    assert (change.from_version, change.to_version, change.actor) == ("v1", "v2", "ada")
    assert change.reason.startswith("better since May (promoted on 8 pairs on 8 sessions (")
    for clause in ("sessions with evidence 6, asked at least 6", "rank IC ", "agreement ", "latency ratio 1.5, asked"):
        assert clause in change.reason


def test_insufficient_evidence_is_refused_and_changes_nothing(call, shadowing, models):
    shadowing.pairs(SESSIONS)

    result = call(min_agreement=1)

    assert result.exit_code == 5
    assert result.stderr.startswith("signal-worker: alpha_baseline v2 is not promoted: agreement 0.")
    assert ";" not in result.stderr
    assert changes(models) == [("v1", "activated")]


def test_every_criterion_that_fails_is_named(call, shadowing, models):
    shadowing.pairs(SESSIONS)
    models.fail(STRATEGY, "v2", "taken back")
    limits = {"sessions": 7, "min_rank_ic": 1, "min_agreement": 1, "max_turnover": 0, "max_latency_ratio": 1.25}

    result = call("--json", **limits)

    found = json.loads(result.stdout)
    assert (result.exit_code, found["passed"], found["activation"]) == (5, False, None)
    failed = {one["name"]: one["value"] for one in found["criteria"] if not one["holds"]}
    assert list(failed) == ["status", "sessions with evidence", "rank IC", "agreement", "turnover", "latency ratio"]
    assert (failed["status"], failed["sessions with evidence"], failed["latency ratio"]) == ("failed", "6", "1.5")
    assert all(name in result.stderr for name in failed)
    assert models.active(STRATEGY).version == "v1"


def test_no_evidence_is_refused(call, models):
    result = call()

    assert result.exit_code == 5
    for clause in ("sessions with evidence 0", "rank IC not measured", "agreement not measured"):
        assert clause in result.stderr
    assert changes(models) == [("v1", "activated")]


def test_version_that_does_not_prove_itself_is_refused(call, shadowing, models):
    shadowing.pairs(SESSIONS)

    result = call(version="v3")

    assert result.exit_code == 5
    assert "proof there is nothing at" in result.stderr
    assert changes(models) == [("v1", "activated")]


def test_dry_run_changes_nothing(call, shadowing, models):
    shadowing.pairs(SESSIONS)

    result = call("--dry-run")

    assert result.exit_code == 0
    assert result.stderr == "alpha_baseline v2 would be promoted in place of v1; nothing was changed\n"
    assert changes(models) == [("v1", "activated")]


def test_evidence_can_be_computed_here_and_now(call, models):
    refused, passed = call("--recompute", sessions=6, min_rank_ic=1), call("--recompute", sessions=6)

    assert (refused.exit_code, passed.exit_code) == (5, 0)
    assert "recomputed on snapshot" in models.history(STRATEGY)[0].reason


def test_what_cannot_be_promoted_is_named(call, models):
    unknown, active = call(version="v9"), call(version="v1")
    models.deactivate(STRATEGY)
    nothing = call()

    assert (unknown.exit_code, active.exit_code, nothing.exit_code) == (3, 4, 4)
    assert active.stderr == "signal-worker: alpha_baseline v1 is active already, since activation 1\n"
    assert "no version of alpha_baseline is active" in nothing.stderr


def test_activation_of_another_meanwhile_is_a_conflict(call, shadowing, models, monkeypatch):
    shadowing.pairs(SESSIONS)
    evaluate = gate.evaluate

    def evaluate_slowly(*arguments):
        models.activate(STRATEGY, "v3")
        return evaluate(*arguments)

    monkeypatch.setattr(gate, "evaluate", evaluate_slowly)

    result = call()

    assert result.exit_code == 4
    assert "alpha_baseline was changed since its evidence was gathered" in result.stderr
    assert changes(models) == [("v3", "activated"), ("v1", "activated")]


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda models: models.activate(STRATEGY, "v3"),
        lambda models: (models.activate(STRATEGY, "v3"), models.activate(STRATEGY, "v1")),
        lambda models: models.activate(STRATEGY, "v2", "bob"),
        lambda models: (models.fail(STRATEGY, "v2", "bad"), models.retry(STRATEGY, "v2", "good after all")),
    ],
    ids=["another", "away and back", "the candidate itself", "failed and retried"],
)
def test_any_change_since_undoes_the_promotion(models, database_url, meanwhile):
    before = promotion_baseline(models, STRATEGY, "v2")
    meanwhile(models)
    after = changes(models)

    with pytest.raises(RegistryChanged):
        promote(database_url, before, reason="evidence")

    assert changes(models) == after
    assert sql(database_url, "SELECT count(*) FROM registry_outbox") == [(len(after),)]
    assert models.fail(STRATEGY, "v3", "the next number").activation == len(after) + 1


def test_change_of_another_strategy_does_not_matter(models, database_url):
    before = promotion_baseline(models, STRATEGY, "v2")
    sql(database_url, "INSERT INTO model_registry (strategy_name, version, model_path) VALUES ('beta', 'v1', 'x')")
    models.activate("beta", "v1")

    assert promote(database_url, before, reason="evidence") == 3


def test_activation_under_way_is_waited_for_and_seen(models, database_url):
    before, outcome = promotion_baseline(models, STRATEGY, "v2"), []

    def try_to_promote():
        try:
            outcome.append(promote(database_url, before, reason="evidence"))
        except RegistryChanged as error:
            outcome.append(error)

    thread = threading.Thread(target=try_to_promote)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'signal-worker promote' AND wait_event_type = 'Lock'"
    )
    with psycopg.connect(database_url) as other:
        other.execute("SELECT activate_model(%s, 'v3')", (STRATEGY,))
        thread.start()
        waited = wait_until(lambda: sql(database_url, waiting) == [(1,)], 20)
    thread.join(20)

    assert waited
    assert [type(one) for one in outcome] == [RegistryChanged]
    assert changes(models) == [("v3", "activated"), ("v1", "activated")]


def test_administrator_without_further_rights_can_promote(models, database_url):
    as_admin = psycopg.conninfo.make_conninfo(database_url, options="-c role=signal_admin")

    assert promote(as_admin, promotion_baseline(models, STRATEGY, "v2"), reason="evidence") == 2


def test_what_a_worker_shadowed_is_evidence(call, models, shadowing, streams, two_versions, tmp_path, valkey_url):
    models.fail(STRATEGY, "v3", "has no bundle")
    folder = shutil.copytree(two_versions, tmp_path / "work")
    endpoints = Endpoints(redis_url=valkey_url, database_url=models._database_url)
    fleet = Fleet(endpoints, folder, namespace=streams.names.namespace, shadow_share=1.0)
    try:
        fleet.worker().await_event("fleet_event", kind="candidates.loaded", version="v2")
        for session in SESSIONS:
            streams.add({"strategy": STRATEGY, "as_of": str(shadowing.vector(session).as_of)})
        assert wait_until(lambda: streams.client.xlen(streams.names.shadow) == len(SESSIONS), PATIENCE)
    finally:
        fleet.end()

    result = call("--json")

    evidence = json.loads(result.stdout)["evidence"]
    assert (result.exit_code, evidence["pairs"], evidence["overall"]["right"]["sessions"]["known"]) == (0, 8, 6)
    assert evidence["overall"]["right"]["compute_ms_p50"] > 0
    assert models.active(STRATEGY).version == "v2"


@pytest.fixture
def fleet(two_versions, tmp_path, streams, valkey_url, database_url):
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, shutil.copytree(two_versions, tmp_path / "fleet"), namespace=streams.names.namespace)
    yield made
    made.end()


def test_promotion_that_every_worker_serves_names_them(call, models, fleet):
    models.fail(STRATEGY, "v3", "has no bundle")
    fleet.start("publish-registry").await_event("publisher_role", role="active")
    fleet.worker(worker_name="w1")

    promoted = call("--recompute", "--wait", "--timeout", "40")

    assert promoted.exit_code == 0, promoted.stderr
    assert promoted.stderr.splitlines()[-1].endswith(", served by w1")
    assert models.active(STRATEGY).version == "v2"


def test_promotion_that_a_worker_cannot_serve_names_it(call, models, fleet):
    models.fail(STRATEGY, "v3", "has no bundle")
    fleet.start("publish-registry").await_event("publisher_role", role="active")
    shutil.rmtree(fleet.folder / "artifacts" / "models" / STRATEGY / "v2")
    fleet.worker(worker_name="w1")

    refused = call("--recompute", "--wait", "--timeout", "40")

    assert refused.exit_code in {ExitCode.FAILED, ExitCode.TIMEOUT}
    assert "not served" in refused.stderr
    assert "w1: " in refused.stderr
    assert ", served by" not in refused.stdout
