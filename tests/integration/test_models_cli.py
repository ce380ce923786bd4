import json
from datetime import date

import pytest
from typer.testing import CliRunner

from strategies.alpha_baseline.train import Provenance, train
from strategies.models.bundle_store import save_bundle
from strategies.models.configuration import TrainingConfig
from tests.support.market import make_panel
from tests.support.registry import register, sql
from tests.support.serving import make_active
from worker.cli import db, models
from worker.cli._common import ExitCode
from worker.registry.registry import Registry


@pytest.fixture(scope="module")
def trained():
    """A small model, really trained: what a bundle is saved from."""
    panel = make_panel([f"S{number}" for number in range(5)], sessions=140, first=date(2012, 1, 3))
    return train(panel, TrainingConfig(rounds=3, num_leaves=4), Provenance(version="v1")).content


@pytest.fixture
def call(database_url, tmp_path):
    """Run a verb with settings of its own; the artifacts directory is `tmp_path / "artifacts"`."""
    environment = {
        "DATABASE_URL": database_url,
        "SIGNALS_ARTIFACTS_DIR": str(tmp_path / "artifacts"),
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "LOGNAME": "ada",
    }

    def run(app, *arguments):
        return CliRunner(env=environment).invoke(app, arguments)

    return run


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as client:
        register(client, "alpha", "v1", "v2")
        yield client


def test_migrate_applies_once_and_status_shows_it(empty_database_url):
    def run(*arguments):
        return CliRunner(env={"DATABASE_URL": empty_database_url}).invoke(db.app, arguments)

    before, first, second, after = run("status"), run("migrate"), run("migrate"), run("status", "--json")

    assert (before.exit_code, first.exit_code, second.exit_code, after.exit_code) == (1, 0, 0, 0)
    assert first.stdout.splitlines()[0] == "applied 001_create_model_registry"
    assert second.stdout == "nothing to apply\n"
    assert all(row["applied_at"].endswith("Z") for row in json.loads(after.stdout))


def test_bundle_is_registered_from_its_own_statements(call, trained, tmp_path):
    folder = save_bundle(tmp_path / "artifacts", trained)

    result = call(models.app, "register", str(folder), "--mlflow-run-id", "0a1b", "--notes", "first", "--json")

    row = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (row["strategy"], row["version"], row["status"]) == ("alpha_baseline", "v1", "testing")
    assert row["model_path"] == "models/alpha_baseline/v1"
    assert (row["created_by"], row["mlflow_run_id"], row["notes"]) == ("ada", "0a1b", "first")
    assert row["metrics"] == trained.lineage.metrics
    assert row["config"]["proven"] is True
    assert len(row["config"]["bundle_sha256"]) == 64


def test_registering_a_version_again_is_a_conflict(call, trained, tmp_path):
    folder = save_bundle(tmp_path / "artifacts", trained)

    results = [call(models.app, "register", str(folder)) for _ in range(2)]

    assert [result.exit_code for result in results] == [0, 4]
    assert results[0].stdout == "registered alpha_baseline v1 in testing, from models/alpha_baseline/v1\n"
    assert results[1].stderr == "signal-worker: alpha_baseline v1 is registered already\n"


def test_bundle_that_does_not_prove_itself_is_not_registered(call, trained, tmp_path, database_url):
    folder = save_bundle(tmp_path / "artifacts", trained)
    (folder / "model.txt").chmod(0o644)
    folder.chmod(0o755)
    (folder / "model.txt").write_text(trained.model.replace("learning_rate", "learning_rat3"), encoding="ascii")

    result = call(models.app, "register", str(folder))

    assert (result.exit_code, result.stdout) == (1, "")
    assert "model.txt has SHA-256" in result.stderr
    assert sql(database_url, "SELECT count(*) FROM model_registry") == [(0,)]


def test_bundle_outside_the_artifacts_directory_is_refused(call, trained, tmp_path):
    folder = save_bundle(tmp_path / "elsewhere", trained)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "link").symlink_to(folder)

    for path in (folder, tmp_path / "artifacts" / "link"):
        result = call(models.app, "register", str(path))

        assert result.exit_code == 1
        assert "is outside the artifacts directory" in result.stderr


def test_bare_model_is_registered_under_the_name_it_is_given(call, tmp_path):
    file = tmp_path / "artifacts" / "plain.txt"
    file.parent.mkdir()
    make_active().bundle.booster.save_model(file)

    result = call(models.app, "register", "--strategy", "alpha", "--version", "v7", "--path", "plain.txt", "--json")

    row = json.loads(result.stdout)
    assert (row["strategy"], row["version"], row["model_path"]) == ("alpha", "v7", "plain.txt")
    assert row["config"]["proven"] is False


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("folder", "--path", "x"), 2),
        (("folder", "--strategy", "x"), 2),
        (("--strategy", "x", "--path", "x"), 2),
        (("no/such/folder",), 3),
        (("--strategy", "x", "--version", "v1", "--path", "none.txt"), 3),
    ],
)
def test_impossible_registration_names_why(call, arguments, code):
    result = call(models.app, "register", *arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("signal-worker: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("registry")
def test_activation_rollback_and_deactivation_are_announced(call):
    calls = [
        ("activate", "alpha", "v1"),
        ("activate", "alpha", "v2", "--reason", "better IC"),
        ("activate", "alpha", "v2"),
        ("rollback", "alpha"),
        ("deactivate", "alpha"),
        ("fail", "alpha", "v2", "--reason", "drifted"),
        ("retry", "alpha", "v2", "--reason", "was the data"),
    ]

    told = [call(models.app, *arguments).stdout for arguments in calls]

    assert told == [
        "alpha v1 is active, activation 1\n",
        "alpha v2 is active, activation 2\n",
        "alpha v2 was active already, since activation 2\n",
        "alpha v1 is active again, activation 3\n",
        "alpha v1 is inactive, activation 4; no version is active\n",
        "alpha v2 is failed, activation 5; no version is active\n",
        "alpha v2 is testing, activation 6; no version is active\n",
    ]


def test_who_and_why_are_kept(call, registry):
    call(models.app, "activate", "alpha", "v1")
    call(models.app, "activate", "alpha", "v2", "--by", "grace", "--reason", "better IC")

    assert [(change.actor, change.reason) for change in registry.history("alpha")] == [
        ("grace", "better IC"),
        ("ada", None),
    ]


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("activate", "alpha", "v9"), 3),
        (("show", "alpha", "v9"), 3),
        (("rollback", "nobody"), 3),
        (("rollback", "alpha"), 4),
        (("deactivate", "alpha"), 4),
        (("retry", "alpha", "v1", "--reason", "x"), 4),
        (("fail", "alpha", "v1", "--reason", " "), 2),
        (("fail", "alpha", "v1"), 2),
        (("show", "alpha", "v\x00"), 2),
    ],
)
def test_refusal_is_one_sentence_with_its_exit_code(call, arguments, code):
    result = call(models.app, *arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "proposal"),
    [
        (("show", "alhpa", "v1"), ExitCode.NOT_FOUND, "did you mean alpha?"),
        (("activate", "alpha", "V1"), ExitCode.NOT_FOUND, "did you mean v1?"),
        (("rollback", "Alpha"), ExitCode.NOT_FOUND, "did you mean alpha?"),
        (("list", "alpah"), ExitCode.OK, "did you mean alpha?"),
        (("history", "alpah"), ExitCode.OK, "did you mean alpha?"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_misspelt_strategy_or_version_is_proposed(call, arguments, code, proposal):
    result = call(models.app, *arguments)

    assert result.exit_code == code
    assert proposal in result.stderr


def test_tables_and_json_show_the_same_rows(call, registry):
    registry.activate("alpha", "v1", by="ada", reason="first")

    listed, shown, history = (
        call(models.app, "list"),
        call(models.app, "show", "alpha", "v1"),
        call(models.app, "history", "alpha"),
    )
    rows = json.loads(call(models.app, "list", "alpha", "--json").stdout)
    changes = json.loads(call(models.app, "history", "--json").stdout)

    assert [(row["version"], row["status"]) for row in rows] == [("v1", "active"), ("v2", "testing")]
    assert "models/alpha/v2" in listed.stdout
    assert "alpha v1" in shown.stdout
    assert "none -> v1" in history.stdout
    assert [(change["activation"], change["reason"]) for change in changes] == [(1, "first")]
    assert json.loads(call(models.app, "show", "alpha", "v1", "--json").stdout) == rows[0]


def test_unreachable_database_is_one_sentence_and_a_code_of_its_own():
    runner = CliRunner(env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})

    for app, arguments in ((models.app, ["list"]), (db.app, ["migrate"]), (db.app, ["status"])):
        result = runner.invoke(app, arguments)

        assert (result.exit_code, result.stdout) == (ExitCode.UNAVAILABLE, "")
        assert result.stderr.count("\n") == 1
        assert "refused" in result.stderr


def test_missing_database_is_a_wrong_call(tmp_path):
    runner = CliRunner(env={"DATABASE_URL": "", "SIGNALS_LOCAL_DIR": str(tmp_path)})

    result = runner.invoke(models.app, ["list"])

    assert result.exit_code == 2
    assert "DATABASE_URL is not set" in result.stderr
