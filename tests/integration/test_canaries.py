import json

import pytest
from typer.testing import CliRunner

from tests.support.registry import register, sql
from worker.cli import models
from worker.errors import IllegalTransition, ImpossibleShare, ReasonMissing, UnknownVersion
from worker.registry.outbox import Outbox
from worker.registry.registry import Registry


@pytest.fixture
def registry(database_url):
    """The registry with v1 of alpha active, and v2 and v3 in testing."""
    with Registry(database_url) as client:
        register(client, "alpha", "v1", "v2", "v3")
        client.activate("alpha", "v1")
        yield client


def shares(registry):
    return {model.version: model.canary_share for model in registry.candidates().get("alpha", ())}


def test_candidates_are_the_canary_then_the_newest(registry):
    register(registry, "beta", "v1")

    registry.set_canary("alpha", "v2", 0.05, reason="looks better")

    assert list(shares(registry).items()) == [("v2", 0.05), ("v3", 0.0)]
    assert list(registry.candidates()) == ["alpha"]
    assert registry.show("alpha", "v2").status == "testing"


def test_canary_writes_its_history_and_informs_the_workers(registry, database_url):
    registry.set_canary("alpha", "v2", 0.05, reason="looks better", by="ada")
    stopped = registry.stop_canary("alpha", by="bob", reason="seen enough")

    setting = registry.history("alpha")[1]
    assert (setting.action, setting.version, setting.share) == ("canary_set", "v2", 0.05)
    assert (setting.actor, setting.reason, setting.from_version, setting.to_version) == (
        "ada",
        "looks better",
        "v1",
        "v1",
    )
    assert (stopped.action, stopped.actor, stopped.reason, stopped.share) == (
        "canary_stopped",
        "bob",
        "seen enough",
        None,
    )
    with Outbox(database_url) as outbox:
        told = [(event.type, event.activation) for event in outbox.pending()]
    assert told == [("model.activated", 1), ("reload", 2), ("reload", 3)]


def test_second_canary_replaces_the_first(registry):
    registry.set_canary("alpha", "v2", 0.05, reason="a")
    registry.set_canary("alpha", "v3", 0.1, reason="b")

    assert shares(registry) == {"v3": 0.1, "v2": 0.0}


def test_same_canary_twice_keeps_its_number_and_another_share_takes_a_new_one(registry):
    first = registry.set_canary("alpha", "v2", 0.05, reason="a")
    again = registry.set_canary("alpha", "v2", 0.05, reason="b")
    more = registry.set_canary("alpha", "v2", 0.1, reason="c")

    assert again.activation == first.activation
    assert more.activation == first.activation + 1
    assert shares(registry)["v2"] == 0.1


def end_by_command(registry):
    registry.stop_canary("alpha")


def end_by_activation(registry):
    registry.activate("alpha", "v2")
    registry.rollback("alpha")


def end_by_failure(registry):
    registry.fail("alpha", "v2", "bad")
    registry.retry("alpha", "v2", "again")


def end_by_deactivation(registry):
    registry.deactivate("alpha")
    registry.activate("alpha", "v1")


def end_by_failure_of_the_active_version(registry):
    registry.fail("alpha", "v1", "bad")
    registry.activate("alpha", "v3")


@pytest.mark.parametrize(
    "end",
    [
        end_by_command,
        end_by_activation,
        end_by_failure,
        end_by_deactivation,
        end_by_failure_of_the_active_version,
    ],
)
def test_canary_ends_and_does_not_come_back_by_itself(registry, database_url, end):
    registry.set_canary("alpha", "v2", 0.05, reason="a")
    assert sql(database_url, "SELECT version FROM canaries") == [("v2",)]

    end(registry)

    assert sql(database_url, "SELECT version FROM canaries") == []
    assert set(shares(registry).values()) <= {0.0}


def test_canary_continues_beside_another_active_version(registry):
    registry.set_canary("alpha", "v2", 0.05, reason="a")

    registry.activate("alpha", "v3")

    assert shares(registry) == {"v2": 0.05}


def test_canary_hides_neither_a_deactivation_nor_the_way_back(registry):
    registry.activate("alpha", "v2")
    registry.set_canary("alpha", "v3", 0.05, reason="a")
    registry.stop_canary("alpha")
    assert registry.rollback("alpha").version == "v1"
    registry.set_canary("alpha", "v3", 0.05, reason="a")
    registry.deactivate("alpha")

    assert registry.withdrawn("alpha", "v1")


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_only_a_version_in_testing_can_be_a_canary(registry, version):
    registry.fail("alpha", "v3", "bad")

    with pytest.raises(IllegalTransition, match="only a version in testing can be a canary"):
        registry.set_canary("alpha", version, 0.05, reason="a")


def test_canary_needs_an_active_version_beside_it(registry):
    registry.deactivate("alpha")

    with pytest.raises(IllegalTransition, match="no active version beside which v2"):
        registry.set_canary("alpha", "v2", 0.05, reason="a")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_impossible_share_is_refused(registry, share):
    with pytest.raises(ImpossibleShare, match="between 0 and 1"):
        registry.set_canary("alpha", "v2", share, reason="a")

    assert shares(registry) == {"v3": 0.0, "v2": 0.0}


def test_canary_needs_a_reason_a_version_and_something_to_stop(registry):
    with pytest.raises(ReasonMissing):
        registry.set_canary("alpha", "v2", 0.05, reason=" ")
    with pytest.raises(UnknownVersion):
        registry.set_canary("alpha", "v9", 0.05, reason="a")
    with pytest.raises(UnknownVersion):
        registry.stop_canary("nobody")
    with pytest.raises(IllegalTransition, match="no canary to stop"):
        registry.stop_canary("alpha")


@pytest.fixture
def call(database_url):
    """Run `models canary`."""
    environment = {"DATABASE_URL": database_url, "COLUMNS": "200", "NO_COLOR": "1", "LOGNAME": "ada"}

    def run(*arguments):
        return CliRunner(env=environment).invoke(models.app, ["canary", *arguments])

    return run


def test_operator_sets_and_stops_a_canary(call, registry):
    setting = call("alpha", "v2", "--share", "0.05", "--reason", "looks better")
    standing = shares(registry)
    stopping = call("alpha", "--stop", "--json")

    assert setting.stdout == "alpha v2 answers 5.00% of the requests where a worker has it loaded, v1 the others\n"
    assert standing == {"v2": 0.05, "v3": 0.0}
    assert json.loads(stopping.stdout)["action"] == "canary_stopped"
    assert shares(registry) == {"v2": 0.0, "v3": 0.0}
    assert [change.actor for change in registry.history("alpha", limit=2)] == ["ada", "ada"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["alpha"], 2),
        (["alpha", "v2"], 2),
        (["alpha", "v2", "--share", "0.1", "--stop"], 2),
        (["alpha", "v2", "--share", "0.1"], 2),
        (["alpha", "v2", "--share", "1.5", "--reason", "x"], 2),
        (["alpha", "v9", "--share", "0.1", "--reason", "x"], 3),
        (["alpha", "v1", "--share", "0.1", "--reason", "x"], 4),
        (["alpha", "--stop"], 4),
    ],
)
@pytest.mark.usefixtures("registry")
def test_wrong_canary_is_one_sentence_and_an_exit_code(call, arguments, code):
    result = call(*arguments)

    assert result.exit_code == code
    assert result.stderr.startswith("signal-worker: ")
    assert result.stderr.count("\n") == 1


def history_of(registry):
    return [(row.action, row.version, row.to_version, row.reason) for row in reversed(registry.history("alpha"))]


def test_failed_activation_of_another_version_records_why_the_canary_stopped(registry):
    registry.set_canary("alpha", "v2", 0.05, reason="first look", by="ada")
    registry.activate("alpha", "v3")

    registry.fail("alpha", "v3", "golden sample differs", by="w1")

    assert history_of(registry)[2:] == [
        ("activated", "v3", "v3", None),
        ("failed", "v3", None, "golden sample differs"),
        ("canary_stopped", "v2", None, "v3 was failed while it was active: golden sample differs"),
        ("rolled_back", "v1", "v1", "v3 failed: golden sample differs"),
    ]
    assert registry.history("alpha")[1].actor == "w1"
    assert registry.active("alpha").version == "v1"
    assert shares(registry) == {"v2": 0.0}


def test_deactivation_records_why_the_canary_stopped(registry):
    registry.set_canary("alpha", "v2", 0.05, reason="first look")

    registry.deactivate("alpha", reason="market closed")

    assert history_of(registry)[-1] == (
        "canary_stopped",
        "v2",
        None,
        "v1 was deactivated while it was active: market closed",
    )


def test_failure_of_a_version_that_is_not_active_stops_no_canary(registry):
    registry.set_canary("alpha", "v2", 0.05, reason="first look")

    registry.fail("alpha", "v3", "bad")

    assert [row[0] for row in history_of(registry)] == ["activated", "canary_set", "failed"]
    assert shares(registry) == {"v2": 0.05}
