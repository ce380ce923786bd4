import json
from datetime import UTC, datetime

import pytest

from tests.support.serving import make_active
from worker.lifecycle.last_known_good import LastKnownGood
from worker.registry.models import ActiveModel

BUNDLE = make_active().bundle


def activated(strategy="alpha_baseline", version="v1", activation=7):
    return ActiveModel(
        strategy=strategy,
        version=version,
        activation=activation,
        model_path=f"models/{strategy}/{version}",
        mlflow_run_id="0a",
        config={"bundle_sha256": "of the registry", "more": 1},
        metrics={"ic": 0.1},
        activated_at=datetime(2024, 1, 2, tzinfo=UTC),
    )


@pytest.fixture
def proven(tmp_path):
    return LastKnownGood(tmp_path / "proven" / "{signals}")


def test_what_was_proven_last_is_remembered_by_digest(proven):
    proven.remember(activated(activation=6), BUNDLE)
    proven.remember(activated(version="v2"), BUNDLE)
    proven.remember(activated("beta"), BUNDLE)

    alpha, beta = proven.models()

    assert (alpha.strategy, alpha.version, alpha.activation) == ("alpha_baseline", "v2", 7)
    assert alpha.model_path == "models/alpha_baseline/v2"
    assert alpha.config == {"bundle_sha256": BUNDLE.bundle_sha256}
    assert beta.strategy == "beta"


def test_forgotten_strategy_does_not_come_back(proven):
    proven.remember(activated(), BUNDLE)
    proven.forget("alpha_baseline")
    proven.forget("alpha_baseline")

    assert proven.models() == ()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"strategy": "../../etc"}', "\x00"])
def test_file_that_is_no_memory_is_passed_over(proven, content):
    proven.remember(activated(), BUNDLE)
    proven.remember(activated("beta"), BUNDLE)
    (proven._folder / "beta.json").write_text(content)

    assert [model.strategy for model in proven.models()] == ["alpha_baseline"]


def test_field_of_another_release_is_not_guessed_at(proven):
    proven.remember(activated(), BUNDLE)
    file = proven._folder / "alpha_baseline.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"half": True}))

    assert proven.models() == ()


def test_folder_that_cannot_be_written_costs_nothing_else(tmp_path):
    (tmp_path / "file").write_text("")
    proven = LastKnownGood(tmp_path / "file" / "proven")

    proven.remember(activated(), BUNDLE)

    assert proven.models() == ()
