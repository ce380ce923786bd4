import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest

from tests.support.registry import register, sql
from worker.errors import (
    IllegalTransition,
    InvalidRegistration,
    ReasonMissing,
    RegistryUnavailable,
    UnknownVersion,
    VersionExists,
)
from worker.registry.registry import Registration, Registry


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as client:
        yield client


@pytest.fixture
def three(registry):
    """The registry with v1, v2 and v3 of alpha in testing."""
    register(registry, "alpha", "v1", "v2", "v3")
    return registry


def statuses(registry, strategy="alpha"):
    return {row.version: row.status for row in registry.list(strategy)}


def test_registered_version_is_testing_and_complete(registry):
    registered = registry.register(
        Registration(
            strategy="alpha",
            version="2026.1+a",
            model_path="models/alpha/2026.1",
            mlflow_run_id="0a1b",
            mlflow_experiment_id="7",
            metrics={"ic": 0.05, "icir": float("nan"), "by_year": [{"2013": float("inf")}]},
            config={"bundle_sha256": "ab"},
            created_by="ada",
            notes="first",
        )
    )

    assert registered == registry.show("alpha", "2026.1+a")
    assert (registered.status, registered.activated_at) == ("testing", None)
    assert (registered.mlflow_run_id, registered.mlflow_experiment_id) == ("0a1b", "7")
    assert registered.metrics == {"ic": 0.05, "icir": None, "by_year": [{"2013": None}]}
    assert (registered.config, registered.created_by, registered.notes) == ({"bundle_sha256": "ab"}, "ada", "first")
    assert registered.created_at.utcoffset() == datetime.now(UTC).utcoffset()


def test_version_cannot_be_registered_twice(three):
    with pytest.raises(VersionExists, match="alpha v1 is registered already"):
        register(three, "alpha", "v1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategy", "Alpha"),
        ("strategy", "a" * 65),
        ("version", ""),
        ("version", "v1\n"),
        ("version", "../v1"),
        ("model_path", "models/../../etc/passwd"),
        ("model_path", "models/a\x07"),
        ("mlflow_run_id", "a b"),
        ("created_by", "x" * 201),
        ("notes", "x" * 4001),
    ],
)
def test_impossible_field_is_refused_by_name(registry, field, value):
    values = {"strategy": "alpha", "version": "v1", "model_path": "models/alpha/v1"} | {field: value}

    with pytest.raises(InvalidRegistration, match=f"^{field} must be"):
        registry.register(Registration(**values))

    assert registry.list() == ()


@pytest.mark.parametrize("version", ["v\x00", "\ud800"])
def test_text_that_no_database_stores_is_refused(registry, version):
    with pytest.raises(InvalidRegistration):
        registry.show("alpha", version)
    with pytest.raises(InvalidRegistration):
        register(registry, "alpha", version)


def test_activation_replaces_the_active_version(three):
    three.activate("alpha", "v1", by="ada", reason="better")

    active = three.activate("alpha", "v2")

    assert statuses(three) == {"v1": "inactive", "v2": "active", "v3": "testing"}
    assert (active.version, active.activation, active.model_path) == ("v2", 2, "models/alpha/v2")
    assert three.active("alpha") == active
    assert three.show("alpha", "v1").deactivated_at <= active.activated_at


def test_reactivated_version_loses_its_old_end(three):
    for version in ("v1", "v2", "v1"):
        three.activate("alpha", version)

    again = three.show("alpha", "v1")

    assert (again.status, again.deactivated_at) == ("active", None)
    assert again.activated_at > three.show("alpha", "v2").activated_at


def test_unknown_version_leaves_the_active_one(three):
    three.activate("alpha", "v1")

    with pytest.raises(UnknownVersion, match="strategy alpha has no version v9"):
        three.activate("alpha", "v9")

    assert three.active("alpha").version == "v1"


def test_activating_the_active_version_keeps_its_number(three, database_url):
    first = three.activate("alpha", "v1")

    again = three.activate("alpha", "v1", reason="once more")

    assert again == first
    assert len(three.history("alpha")) == 1
    assert sql(database_url, "SELECT count(*) FROM registry_outbox") == [(1,)]


def test_numbers_count_over_all_strategies(three):
    register(three, "beta", "v1")

    numbers = [three.activate(strategy, "v1").activation for strategy in ("alpha", "beta")]

    assert numbers == [1, 2]
    assert {name: model.activation for name, model in three.active_models().items()} == {"alpha": 1, "beta": 2}
    assert three.strategies() == ("alpha", "beta")


def test_history_records_who_when_why_from_and_to(three):
    three.activate("alpha", "v1")
    three.activate("alpha", "v2", by="ada", reason="better IC")

    change = three.history("alpha")[0]

    assert (change.activation, change.version, change.action) == (2, "v2", "activated")
    assert (change.from_status, change.to_status) == ("testing", "active")
    assert (change.from_version, change.to_version) == ("v1", "v2")
    assert (change.actor, change.reason) == ("ada", "better IC")
    assert change.session_role == three.history("alpha")[1].actor
    assert abs((change.at - datetime.now(UTC)).total_seconds()) < 60


def test_rollback_goes_further_back_each_time(three):
    for version in ("v1", "v2", "v3"):
        three.activate("alpha", version)

    versions = [three.rollback("alpha").version for _ in range(2)]

    assert versions == ["v2", "v1"]
    with pytest.raises(IllegalTransition, match="no earlier version"):
        three.rollback("alpha")
    assert [change.action for change in three.history("alpha", limit=2)] == ["rolled_back", "rolled_back"]


def test_rollback_after_rollback_and_activation_returns_to_the_middle(three):
    for version in ("v1", "v2"):
        three.activate("alpha", version)
    three.rollback("alpha")
    three.activate("alpha", "v3")

    assert three.rollback("alpha").version == "v1"


def test_rollback_follows_history_not_dates(three):
    for version in ("v1", "v2", "v3", "v1"):
        three.activate("alpha", version)

    assert three.rollback("alpha").version == "v3"


def test_rollback_passes_over_a_version_that_failed_since(three):
    for version in ("v1", "v2", "v3"):
        three.activate("alpha", version)
    three.fail("alpha", "v2", "wrong digest")

    assert three.rollback("alpha").version == "v1"


@pytest.mark.parametrize("end", ["fail", "deactivate"])
def test_rollback_works_when_nothing_is_active(three, end):
    for version in ("v1", "v2"):
        three.activate("alpha", version)
    if end == "fail":
        for version in ("v1", "v2"):
            three.fail("alpha", version, "drifted")
        three.retry("alpha", "v1", "again")
        with pytest.raises(IllegalTransition, match="no earlier version"):
            three.rollback("alpha")
    else:
        three.deactivate("alpha")
        # What was merely switched off is what was active before.
        assert three.rollback("alpha").version == "v2"


def test_active_version_that_fails_gives_way_to_the_one_before_it(three, database_url):
    for version in ("v1", "v2", "v3"):
        three.activate("alpha", version)
    three.fail("alpha", "v2", "drifted")

    change = three.fail("alpha", "v3", "golden sample differs", by="worker-1")

    back = three.history("alpha")[0]
    assert (change.action, change.from_version, change.to_version) == ("failed", "v3", None)
    assert (back.action, back.version, back.activation) == ("rolled_back", "v1", change.activation + 1)
    assert (back.actor, back.reason) == ("worker-1", "v3 failed: golden sample differs")
    assert three.active("alpha").activation == back.activation
    assert sql(database_url, "SELECT type FROM registry_outbox ORDER BY id DESC LIMIT 2") == [
        ("model.activated",),
        ("model.failed",),
    ]


def test_only_version_that_fails_leaves_nothing_active(three):
    three.activate("alpha", "v1")

    three.fail("alpha", "v1", "golden sample differs")

    assert three.active("alpha") is None
    assert three.history("alpha")[0].action == "failed"


def test_deactivation_leaves_nothing_active(three):
    three.activate("alpha", "v1")

    change = three.deactivate("alpha", by="ada", reason="holiday")

    assert (change.action, change.from_version, change.to_version) == ("deactivated", "v1", None)
    assert three.active("alpha") is None
    with pytest.raises(IllegalTransition, match="no active version to deactivate"):
        three.deactivate("alpha")


def test_verbs_on_an_unknown_strategy_report_it(registry):
    for verb in (registry.deactivate, registry.rollback):
        with pytest.raises(UnknownVersion, match="strategy nobody has no versions"):
            verb("nobody")


@pytest.mark.parametrize("before", ["testing", "active", "inactive"])
def test_any_version_can_fail(three, before):
    if before != "testing":
        three.activate("alpha", "v1")
    if before == "inactive":
        three.activate("alpha", "v2")

    change = three.fail("alpha", "v1", "golden sample differs", by="worker-1")

    assert (change.from_status, change.to_status, change.reason) == (before, "failed", "golden sample differs")
    assert statuses(three)["v1"] == "failed"


def test_several_workers_failing_one_version_count_once(three, database_url):
    first = three.fail("alpha", "v1", "truncated", by="worker-1")

    second = three.fail("alpha", "v1", "truncated", by="worker-2")

    assert second == first
    assert sql(database_url, "SELECT count(*) FROM registry_outbox") == [(1,)]


def test_failed_version_serves_again_only_after_a_retry(three):
    three.fail("alpha", "v1", "truncated")
    with pytest.raises(IllegalTransition, match=r"alpha v1 is failed, so it cannot become active.*retry_model"):
        three.activate("alpha", "v1")

    change = three.retry("alpha", "v1", "file was copied again")

    assert (change.action, change.to_status, change.reason) == ("retried", "testing", "file was copied again")
    assert three.activate("alpha", "v1").version == "v1"


def test_only_a_failed_version_can_be_retried(three):
    with pytest.raises(IllegalTransition, match="alpha v1 is testing, only a failed version can be retried"):
        three.retry("alpha", "v1", "why not")


@pytest.mark.parametrize("reason", ["", "  \t"])
def test_failing_and_retrying_need_a_reason(three, reason):
    for verb in (three.fail, three.retry):
        with pytest.raises(ReasonMissing, match="needs a reason"):
            verb("alpha", "v1", reason)


def test_long_reason_is_cut_to_what_the_wire_takes(three):
    assert len(three.fail("alpha", "v1", "x" * 5000).reason) == 2000


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("UPDATE model_registry SET status = 'active', activated_at = now()", "changes only by activate_model"),
        ("UPDATE model_registry SET activated_at = now()", "changes only by activate_model"),
        ("UPDATE model_registry SET model_path = 'other'", "immutable"),
        ("UPDATE model_registry SET config = '{\"a\": 1}'", "immutable"),
        ("UPDATE model_registry SET performance_metrics = '{\"a\": 1}'", "immutable"),
        ("UPDATE model_registry SET version = 'v7'", "immutable"),
        (
            "INSERT INTO model_registry (strategy_name, version, model_path, status) VALUES ('a', 'v8', 'x', 'active')",
            "a new version is testing",
        ),
        ("UPDATE model_activations SET reason = 'forged'", "append-only"),
        ("DELETE FROM model_activations", "append-only"),
        ("TRUNCATE model_registry CASCADE", "append-only"),
    ],
)
def test_registry_cannot_be_made_inconsistent_by_hand(three, database_url, statement, sentence):
    three.activate("alpha", "v1")
    three.fail("alpha", "v2", "bad")

    with pytest.raises(psycopg.DatabaseError, match=sentence) as refused:
        sql(database_url, statement)

    assert refused.value.sqlstate == "SW004"


def test_notes_may_change_later(three, database_url):
    sql(database_url, "UPDATE model_registry SET notes = 'seen' WHERE version = 'v1'")

    assert three.show("alpha", "v1").notes == "seen"


def test_second_active_version_is_impossible_even_for_the_owner(three, database_url):
    three.activate("alpha", "v1")

    with pytest.raises(psycopg.errors.UniqueViolation, match="model_registry_one_active"):
        sql(
            database_url,
            "DO $$ BEGIN PERFORM set_config('signal_registry.transition', 'on', true);"
            " UPDATE model_registry SET status = 'active', activated_at = now(), deactivated_at = NULL; END $$",
        )


def test_fifty_activations_at_once_leave_one_active_and_no_gap(three, database_url):
    start = threading.Barrier(5)

    def activate(worker):
        with Registry(database_url) as client:
            client.strategies()
            start.wait(30)
            return [client.activate("alpha", f"v{(worker + turn) % 3 + 1}").activation for turn in range(10)]

    with ThreadPoolExecutor(5) as pool:
        numbers = [number for found in pool.map(activate, range(5)) for number in found]

    changes = three.history("alpha", limit=1000)[::-1]
    assert list(statuses(three).values()).count("active") == 1
    assert len(numbers) == 50
    assert [change.activation for change in changes] == list(range(1, len(changes) + 1))
    assert set(numbers) == {change.activation for change in changes}
    assert [change.from_version for change in changes[1:]] == [change.to_version for change in changes[:-1]]
    assert three.active("alpha").activation == changes[-1].activation
    assert sorted(change.at for change in changes) == [change.at for change in changes]


def test_activation_rolled_back_leaves_no_gap(three, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT activate_model('alpha', 'v1')")
        connection.rollback()

    assert three.activate("alpha", "v2").activation == 1


def test_withdrawn_distinguishes_deactivation_from_another_versions_failure(three):
    three.activate("alpha", "v1")
    three.activate("alpha", "v2")
    three.fail("alpha", "v1", "not now")
    three.fail("alpha", "v2", "does not load")

    assert not three.withdrawn("alpha", serving="v3")
    assert three.withdrawn("alpha", serving="v2")

    three.retry("alpha", "v1", "now")
    three.activate("alpha", "v1")
    three.deactivate("alpha")
    three.fail("alpha", "v3", "does not load either")

    assert three.withdrawn("alpha", serving="v1")
    assert not three.withdrawn("nobody")


def test_testing_lists_only_what_waits_for_its_proof(three):
    three.activate("alpha", "v1")
    three.fail("alpha", "v3", "bad")

    assert [row.version for row in three.testing("alpha")] == ["v2"]


def test_connection_cut_between_two_questions_is_not_noticed(three, database_url):
    three.activate("alpha", "v1")
    for question in (lambda: three.active("alpha").version, lambda: three.activate("alpha", "v1").version):
        sql(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'signal-worker'",
        )

        assert question() == "v1"


@pytest.mark.usefixtures("three")
def test_statement_that_waits_too_long_ends(database_url):
    with psycopg.connect(database_url) as holder, Registry(database_url, statement_ms=200) as impatient:
        holder.execute("SELECT activate_model('alpha', 'v1')")

        with pytest.raises(RegistryUnavailable, match="statement timeout"):
            impatient.activate("alpha", "v2")

        holder.commit()
        assert impatient.activate("alpha", "v2").activation == 2
