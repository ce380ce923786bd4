"""Versions whose model path is an MLflow URI: resolved and pinned at registration, served without MLflow."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import lightgbm as lgb
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from strategies.errors import BundleError, BundleNotFound, DigestMismatch
from strategies.models import bundle_files
from strategies.models.bundle_store import fetched_path, save_bundle
from strategies.models.mlflow_connection import quiet_mlflow
from tests.support.fleet import Fleet
from tests.support.models import change_file, forge_file, make_booster, make_content
from tests.support.registry import sql
from tests.support.serving import Streams
from tests.support.world import STRATEGY, SYMBOLS, build_world
from worker.cli import models
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.lifecycle.loader import prove
from worker.operations.replay.lineage import LineageResolver
from worker.registry.registry import Registration, Registry
from worker.settings import inherited_environment

AWAY = "http://127.0.0.1:9"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of MLflow in SQLite, and a way to log a folder to it."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    with quiet_mlflow():
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment = client.create_experiment("research", (folder / "artifacts").as_uri())

        def log(bundle, path="bundle"):
            run_id = client.create_run(experiment).info.run_id
            client.log_artifacts(run_id, str(bundle), path)
            return run_id

        def publish(name, run_id):
            return client.create_model_version(name, f"runs:/{run_id}/bundle", run_id).version

        yield SimpleNamespace(client=client, uri=uri, experiment=experiment, log=log, publish=publish, folder=folder)


@pytest.fixture(scope="module")
def flavour(store):
    """A booster logged as `mlflow.lightgbm` does, without a bundle; its URI."""
    return log_flavour(store, make_booster())


@pytest.fixture
def artifacts(tmp_path):
    return tmp_path / "artifacts"


@pytest.fixture
def call(database_url, artifacts, store):
    def run(*arguments, **environment):
        settings = {
            "DATABASE_URL": database_url,
            "SIGNALS_ARTIFACTS_DIR": str(artifacts),
            "MLFLOW_TRACKING_URI": store.uri,
            "COLUMNS": "200",
        }
        return CliRunner(env=settings | environment).invoke(models.app, arguments)

    return run


@pytest.fixture
def activated(database_url):
    """Activate a version and return what a worker reads of it."""

    def run(version, strategy="alpha_baseline"):
        with Registry(database_url) as registry:
            return registry.activate(strategy, version)

    return run


def bundle_in(folder, version="v1", seed=0):
    return save_bundle(folder, make_content(version=version, seed=seed))


def log_flavour(store, booster):
    """Log a model as `mlflow.lightgbm` does, without a bundle, and return its URI."""
    mlflow.set_tracking_uri(store.uri)
    try:
        # MLflow warns of its own type hints when a flavour is first imported.
        with warnings.catch_warnings(action="ignore"), mlflow.start_run(experiment_id=store.experiment):
            # Without these it starts a process to find out what the model imports.
            return mlflow.lightgbm.log_model(booster, name="model", pip_requirements=["lightgbm"]).model_uri
    finally:
        mlflow.set_tracking_uri(None)


def test_run_is_registered_pinned_and_served_while_mlflow_is_unavailable(call, activated, store, artifacts, tmp_path):
    run_id = store.log(bundle_in(tmp_path / "research"))

    result = call("register", "--uri", f"runs:/{run_id}/bundle", "--json")

    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout)
    assert (row["model_path"], row["version"], row["status"]) == (f"runs:/{run_id}/bundle", "v1", "testing")
    assert (row["mlflow_run_id"], row["mlflow_experiment_id"]) == (run_id, store.experiment)
    assert row["config"]["mlflow_source"] == f"runs:/{run_id}/bundle"
    place = fetched_path(artifacts, "alpha_baseline", row["config"]["bundle_sha256"])
    assert sorted(file.name for file in place.iterdir()) == [
        "bundle.json", "golden.parquet", "model.txt", "reference.parquet"
    ]  # fmt: skip
    bundle = prove(activated("v1").ref, artifacts, allow_unproven=False)
    assert bundle.proven
    assert bundle.bundle_sha256 == row["config"]["bundle_sha256"]


def test_alias_that_moves_afterwards_moves_nothing_here(call, activated, store, artifacts, tmp_path):
    store.client.create_registered_model("moving")
    for version in ("v1", "v2"):
        store.publish("moving", store.log(bundle_in(tmp_path / "research", version, seed=int(version[1]))))
    store.client.set_registered_model_alias("moving", "champion", "1")

    result = call("register", "--uri", "models:/moving@champion", "--json")
    store.client.set_registered_model_alias("moving", "champion", "2")

    config = json.loads(result.stdout)["config"]
    assert config["mlflow_source"] == "models:/moving/1"
    active = activated("v1")
    assert active.model_path == "models:/moving@champion"
    assert prove(active.ref, artifacts, allow_unproven=False).version == "v1"
    shutil.rmtree(artifacts / "models")
    assert call("fetch", "alpha_baseline", "v1").exit_code == 0
    assert prove(active.ref, artifacts, allow_unproven=False).bundle_sha256 == config["bundle_sha256"]
    assert json.loads(call("register", "--uri", "models:/moving@champion", "--json").stdout)["version"] == "v2"


def test_another_digest_at_the_place_is_refused(call, activated, store, artifacts, tmp_path):
    run_id = store.log(bundle_in(tmp_path / "research"))
    row = json.loads(call("register", "--uri", f"runs:/{run_id}/bundle", "--json").stdout)
    place = fetched_path(artifacts, "alpha_baseline", row["config"]["bundle_sha256"])
    other = bundle_in(tmp_path / "other", seed=3)
    for file in other.iterdir():
        change_file(place, file.name, file.read_bytes())

    with pytest.raises(DigestMismatch, match=r"bundle\.json has SHA-256"):
        prove(activated("v1").ref, artifacts, allow_unproven=True)


def test_machine_without_the_files_waits_until_they_are_fetched(call, activated, store, tmp_path):
    uri = f"runs:/{store.log(bundle_in(tmp_path / 'research'))}/bundle"
    assert call("register", "--uri", uri).exit_code == 0
    active, here = activated("v1"), tmp_path / "another machine"

    with pytest.raises(BundleNotFound, match="models fetch alpha_baseline v1"):
        prove(active.ref, here, allow_unproven=False)
    away = call("fetch", "alpha_baseline", "v1", SIGNALS_ARTIFACTS_DIR=str(here), MLFLOW_TRACKING_URI=AWAY)
    fetched = call("fetch", "alpha_baseline", "v1", SIGNALS_ARTIFACTS_DIR=str(here))

    assert (away.exit_code, away.stdout) == (1, "")
    assert f"{uri} cannot be fetched from MLflow" in away.stderr
    assert fetched.exit_code == 0, fetched.stderr
    assert prove(active.ref, here, allow_unproven=False).proven


def test_run_whose_files_changed_is_not_fetched(call, store, artifacts, tmp_path):
    run_id = store.log(bundle_in(tmp_path / "research"))
    assert call("register", "--uri", f"runs:/{run_id}/bundle").exit_code == 0
    shutil.rmtree(artifacts / "models")
    # Not over it: the files of a bundle may not be written to, but by root.
    shutil.rmtree(store.folder / "artifacts" / run_id)
    store.client.log_artifacts(run_id, str(bundle_in(tmp_path / "other", seed=3)), "bundle")

    result = call("fetch", "alpha_baseline", "v1")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "alpha_baseline v1 was registered as" in result.stderr
    assert not (artifacts / "models").exists()


def test_bundle_that_does_not_prove_itself_is_neither_registered_nor_kept(
    call, store, artifacts, tmp_path, database_url
):
    folder = bundle_in(tmp_path / "research")
    forge_file(folder, "model.txt", make_booster(seed=5).model_to_string().encode())

    result = call("register", "--uri", f"runs:/{store.log(folder)}/bundle")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "prediction" in result.stderr
    assert list((artifacts / "models" / "alpha_baseline").iterdir()) == []
    assert sql(database_url, "SELECT count(*) FROM model_registry") == [(0,)]


def test_lightgbm_flavour_is_a_bare_model_that_serves_only_where_that_is_allowed(call, activated, flavour, artifacts):
    unnamed = call("register", "--uri", flavour)
    result = call("register", "--uri", flavour, "--strategy", "plain", "--version", "v7", "--json")

    assert unnamed.exit_code == 2
    assert "give --strategy and --version" in unnamed.stderr
    row = json.loads(result.stdout)
    assert (row["model_path"], row["config"]["proven"]) == (flavour, False)
    active = activated("v7", "plain")
    with pytest.raises(BundleError, match="allow_unproven is off"):
        prove(active.ref, artifacts, allow_unproven=False)
    bundle = prove(active.ref, artifacts, allow_unproven=True)
    rows = np.random.default_rng(1).normal(size=(5, 158)).astype(np.float32)
    assert not bundle.proven
    np.testing.assert_array_equal(bundle.predict(rows), make_booster().predict(rows, num_threads=1))


def test_model_of_a_run_is_found_in_the_store_that_was_named(call, flavour, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_id = store.client.get_logged_model(flavour.removeprefix("models:/")).source_run_id
    named = ("--strategy", "plain", "--version", "of-a-run", "--json")

    result = call("register", "--uri", f"runs:/{run_id}/model", *named)
    other = call("register", "--uri", f"runs:/{run_id}/another", *named)

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["mlflow_run_id"] == run_id
    assert "neither bundle.json nor MLmodel" in other.stderr
    assert list(tmp_path.glob("*.db")) == []


def test_bare_model_with_another_digest_is_refused(call, activated, flavour, artifacts):
    row = json.loads(call("register", "--uri", flavour, "--strategy", "plain", "--version", "v1", "--json").stdout)
    name = f"mlflow-{row['config']['bundle_sha256']}.txt"
    change_file(artifacts / "models" / "plain", name, make_booster(seed=9).model_to_string().encode())

    with pytest.raises(DigestMismatch):
        prove(activated("v1", "plain").ref, artifacts, allow_unproven=True)


def test_pickled_model_is_never_opened(call, store, artifacts):
    rows = np.random.default_rng(0).normal(size=(50, 158))
    estimator = lgb.LGBMRegressor(n_estimators=2, verbosity=-1).fit(rows, rows[:, 0])

    result = call("register", "--uri", log_flavour(store, estimator), "--strategy", "plain", "--version", "v1")

    assert result.exit_code == 1
    assert "holds a pickled" in result.stderr
    assert not artifacts.exists() or not (artifacts / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--uri", "runs:/0000/bundle"), 3, "MLflow has nothing at runs:/0000/bundle"),
        (("--uri", "models:/nobody/1"), 3, "MLflow has nothing at models:/nobody/1"),
        (("--uri", "models:/nobody@champion"), 3, "MLflow has nothing at"),
        (("--uri", f"models:/m-{'0' * 32}"), 3, "MLflow has nothing at"),
        (("--uri", "models:/nobody/latest"), 1, "is no MLflow URI"),
        (("--uri", "runs:/0000/../../etc"), 1, "is no MLflow URI"),
        (("--uri", "file:///etc/passwd"), 1, "is no MLflow URI"),
        (("--uri", "runs:/0000/bundle", "--path", "x"), 2, "one of them"),
        (("folder", "--uri", "runs:/0000/bundle"), 2, "one of them"),
    ],
)
def test_address_that_leads_nowhere_is_one_sentence(call, arguments, code, words):
    result = call("register", *arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_mlflow_that_is_unavailable_is_one_sentence(call):
    result = call("register", "--uri", "runs:/0000/bundle", MLFLOW_TRACKING_URI=AWAY)

    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "cannot be fetched from MLflow" in result.stderr


def test_file_beyond_its_limit_is_not_downloaded(call, store, artifacts, tmp_path, monkeypatch):
    run_id = store.log(bundle_in(tmp_path / "research"))
    monkeypatch.setitem(bundle_files.SIZE_LIMITS, "model.txt", 100)

    result = call("register", "--uri", f"runs:/{run_id}/bundle")

    assert result.exit_code == 1
    assert "at most 100 are read" in result.stderr
    assert not (artifacts / "models").exists()


def test_strategy_that_is_a_path_writes_nothing(call, flavour, tmp_path):
    result = call("register", "--uri", flavour, "--strategy", "../../out", "--version", "v1")

    assert result.exit_code == 1
    assert "is no name" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("config", [{}, {"bundle_sha256": "../../etc"}, {"bundle_sha256": 7}])
def test_row_without_a_pinned_digest_is_refused(database_url, activated, artifacts, config):
    with Registry(database_url) as registry:
        registry.register(
            Registration(strategy="alpha_baseline", version="v1", model_path="models:/anything/1", config=config)
        )

    with pytest.raises(BundleError, match="register it by `signal-worker models register --uri`"):
        prove(activated("v1").ref, artifacts, allow_unproven=True)


def test_worker_waits_for_the_files_and_serves_what_was_pinned(
    call, activated, store, tmp_path, valkey_url, database_url, namespace
):
    world = build_world(tmp_path / "world")
    run_id = store.log(world / "artifacts" / "models" / STRATEGY / "v1")
    shutil.rmtree(world / "artifacts")
    elsewhere = {"SIGNALS_ARTIFACTS_DIR": str(tmp_path / "research")}
    assert call("register", "--uri", f"runs:/{run_id}/bundle", **elsewhere).exit_code == 0
    active = activated("v1", STRATEGY)
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    fleet = Fleet(endpoints, world, namespace=namespace, reconcile_seconds="0.5")
    fleet.environment["MLFLOW_TRACKING_URI"] = AWAY
    try:
        worker = fleet.start("run")
        worker.await_event("fleet_event", kind="models.failed", activation=active.activation)
        assert sql(database_url, "SELECT status FROM model_registry") == [("active",)]

        here = {"SIGNALS_ARTIFACTS_DIR": str(world / "artifacts")}
        assert call("fetch", STRATEGY, "v1", **here).exit_code == 0

        worker.await_event("fleet_event", kind="models.loaded", activation=active.activation)
        streams = Streams(valkey_url, namespace)
        streams.add({"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)})
        assert wait_until(streams.results, 40.0)
        (vector,) = streams.results()
        assert vector.bundle_sha256 == active.config["bundle_sha256"]
        replayed, trouble = LineageResolver(world / "artifacts", world / "data").bundle(vector)
        assert (replayed.bundle_sha256, trouble) == (vector.bundle_sha256, "")
    finally:
        fleet.end()


def test_new_local_store_is_made_without_a_word(tmp_path):
    program = (
        "import sys; from pathlib import Path; from strategies.models.mlflow_connection import connect, quiet_mlflow\n"
        "with quiet_mlflow():\n    print(len(connect(Path(sys.argv[1]), None).client.search_experiments()))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=inherited_environment() | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("1\n", "")
