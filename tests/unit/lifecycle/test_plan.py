from datetime import UTC, datetime

import pytest

from tests.support.serving import make_active
from worker.lifecycle.plan import Desired, Plan, RejectedVersion, diff
from worker.registry.models import ActiveModel

STRATEGY = "alpha_baseline"


def model(version="v1", activation=1, strategy=STRATEGY):
    return ActiveModel(
        strategy=strategy,
        version=version,
        activation=activation,
        model_path=f"models/{strategy}/{version}",
        mlflow_run_id=None,
        config={},
        metrics={},
        activated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def desired(*models, withdrawn=()):
    active = {each.strategy: each for each in models}
    return Desired(active=active, candidates={}, strategies=frozenset(active), withdrawn=frozenset(withdrawn))


@pytest.fixture(scope="module")
def serving():
    return {STRATEGY: make_active()}  # v1, activation 1


def test_equal_states_need_no_change(serving):
    assert diff(desired(model()), serving, {}) == Plan()


def test_strategy_that_nothing_serves_is_activated():
    assert diff(desired(model()), {}, {}).activate == (model(),)


@pytest.mark.parametrize(("version", "activation"), [("v2", 2), ("v1", 2), ("v2", 1)])
def test_another_version_or_number_is_activated(serving, version, activation):
    wanted = model(version, activation)

    assert diff(desired(wanted), serving, {}).activate == (wanted,)


def test_other_strategies_stay_as_they_are(serving):
    added = model(strategy="momentum")

    assert diff(desired(model(), added), serving, {}) == Plan(activate=(added,))


def test_withdrawn_strategy_is_removed_only_if_it_serves(serving):
    assert diff(desired(withdrawn=[STRATEGY, "never_served"]), serving, {}) == Plan(remove=(STRATEGY,))


def test_strategy_without_an_active_version_serves_on_unless_withdrawn(serving):
    assert diff(desired(), serving, {}) == Plan()


def test_rejected_version_is_named_and_not_tried_again(serving):
    rejected = {STRATEGY: RejectedVersion(version="v2", activation=2, reason="digest differs")}

    plan = diff(desired(model("v2", 2)), serving, rejected)

    assert plan == Plan(errors=("alpha_baseline v2 was refused before: digest differs",))


@pytest.mark.parametrize(("version", "activation"), [("v3", 3), ("v2", 3)])
def test_rejection_ends_with_another_version_or_activation(serving, version, activation):
    rejected = {STRATEGY: RejectedVersion(version="v2", activation=2, reason="digest differs")}

    assert diff(desired(model(version, activation)), serving, rejected).activate == (model(version, activation),)


def test_rejected_version_that_serves_by_now_is_no_error(serving):
    rejected = {STRATEGY: RejectedVersion(version="v1", activation=1, reason="digest differs")}

    assert diff(desired(model()), serving, rejected) == Plan()
