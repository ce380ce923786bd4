from datetime import UTC, datetime

import pytest

from contracts import Heartbeat, ServedModel, WorkerState
from worker.operations.fleet_status import fleet_status
from worker.registry.models import ActiveModel

NOW = datetime(2024, 1, 2, tzinfo=UTC)


def beat(worker="w1", **fields):
    values = {"state": WorkerState.SERVING, "host": "h", "pid": 1, "started_at": NOW, "beaten_at": NOW}
    return Heartbeat(**{"worker": worker, "code_version": "1", **values, **fields})


def served(strategy, version, activation):
    return ServedModel(strategy=strategy, version=version, activation=activation, since=NOW, proven=True)


def active(strategy, version, activation):
    return ActiveModel(
        strategy=strategy,
        version=version,
        activation=activation,
        model_path="p",
        mlflow_run_id=None,
        config={},
        metrics={},
        activated_at=NOW,
    )


def judged(beats, *models):
    found = fleet_status(beats, {model.strategy: model for model in models})
    return [(one.worker, one.strategy, one.equal) for one in found]


@pytest.mark.parametrize(
    ("serving", "models", "equal"),
    [
        ((served("a", "v1", 3),), (active("a", "v1", 3),), True),
        ((served("a", "v1", 3),), (active("a", "v2", 4),), False),
        ((served("a", "v1", 3),), (active("a", "v1", 5),), False),
        ((), (active("a", "v1", 3),), False),
        ((served("a", "v1", 3),), (), False),
    ],
    ids=["same", "older version", "older activation", "nothing", "none active"],
)
def test_worker_is_compared_by_version_and_activation(serving, models, equal):
    assert judged([beat(serving=serving)], *models) == [("w1", "a", equal)]


def test_strategy_a_worker_is_not_configured_for_is_not_asked_of_it():
    beats = [beat("w2"), beat("w1", strategies="b", serving=(served("b", "v1", 1),))]

    found = judged(beats, active("a", "v1", 2), active("b", "v1", 1))

    assert found == [("w1", "b", True), ("w2", "a", False), ("w2", "b", False)]


def test_configured_strategy_that_nobody_activated_is_shown_as_it_should_be():
    assert judged([beat(strategies="b")]) == [("w1", "b", True)]


def test_worker_of_an_earlier_release_is_understood():
    assert judged([beat(models="a=v1.2+x#3,b=v1#4")], active("a", "v1.2+x", 3), active("b", "v1", 4)) == [
        ("w1", "a", True),
        ("w1", "b", True),
    ]


def test_nothing_is_judged_while_the_registry_is_unavailable():
    (found,) = fleet_status([beat(serving=(served("a", "v1", 3),))], None)

    assert found.equal is None
    assert (found.version, found.since, found.proven) == ("v1", NOW, True)


def test_idle_worker_is_still_shown():
    assert judged([beat()]) == [("w1", "", True)]
    (found,) = fleet_status([beat()], None)
    assert found.equal is None
