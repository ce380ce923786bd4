"""`signal-worker train`: from a snapshot on disk to a proven bundle and an MLflow run."""

import json
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import bokeh_sampledata
import numpy as np
import pytest
import typer
import yaml
from mlflow import MlflowClient
from typer.testing import CliRunner

from strategies.alpha_baseline import train as train_module
from strategies.alpha_baseline.tracking import TrackingFailed, log_run
from strategies.alpha_baseline.train import Places, baseline_config, train_baseline
from strategies.errors import BundleExists
from strategies.market.importing import import_bars
from strategies.models.bundle_store import load_bundle, save_bundle
from strategies.models.configuration import TrainingConfig, load_training_config
from strategies.models.mlflow_connection import local_store
from tests.support.command_lines import verbs
from tests.support.market import make_bars, write_snapshot
from tests.support.models import SMALL, make_bundle, make_model
from worker.cli import train as command
from worker.cli.main import app as main
from worker.registry.registry import Registry

app = typer.Typer()
app.command()(command.train)
QUICK = "strategy: alpha_baseline\nrounds: 3\nnum_threads: 1\nuniverse: [AAPL, GOOG, IBM, MSFT]\n"


FOLDS = {"train_sessions": 110, "valid_sessions": 20, "test_sessions": 40, "embargo_sessions": 5}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Places:
    folder = tmp_path_factory.mktemp("train")
    symbols = ("AAPL", "GOOG", "IBM", "MSFT", "ORCL")
    write_snapshot(folder / "data", {symbol: make_bars(seed=seed, sessions=260) for seed, symbol in enumerate(symbols)})
    (folder / "quick.yaml").write_text(QUICK, encoding="utf-8")
    return Places(data_dir=folder / "data", artifacts_dir=folder / "artifacts")


def run(places: Places, *options: str, strategy: str = "alpha_baseline"):
    folders = ("--data-dir", str(places.data_dir), "--artifacts-dir", str(places.artifacts_dir))
    return CliRunner().invoke(app, [strategy, *folders, *options], env={"COLUMNS": "200"})


def quick(places: Places) -> tuple[str, str]:
    return "--config", str(places.data_dir.parent / "quick.yaml")


def test_baseline_differs_from_the_defaults_by_what_it_learns_and_stops_by():
    chosen = {"label_processor": "cs_rank", "early_stopping_metric": "rank_ic", "min_rounds": 50}

    assert baseline_config() == TrainingConfig(**chosen)
    assert baseline_config().prediction_kind == "score"


def test_published_benchmark_of_qlib_can_be_trained(places, tmp_path):
    path = Path(train_module.__file__).with_name("qlib_benchmark.yaml")
    config = load_training_config(path)

    learner = config.lightgbm_parameters()
    assert (config.label_processor, config.rounds, config.early_stopping_rounds) == ("cs_zscore", 1000, 50)
    assert (learner["objective"], learner["metric"], learner["learning_rate"]) == ("regression", "l2", 0.2)
    assert (learner["max_depth"], learner["num_leaves"]) == (8, 210)
    assert (learner["lambda_l1"], learner["lambda_l2"]) == (205.6999, 580.9768)
    assert (learner["feature_fraction"], learner["bagging_fraction"]) == (0.8879, 0.8789)
    here = config.model_copy(update={"periods": None, "rounds": 2, "vwap_stand_in": "close",
                                     "parameters": {**config.parameters, "lambda_l1": 0.0}})  # fmt: skip
    trained = train_baseline(here, Places(data_dir=places.data_dir, artifacts_dir=tmp_path))
    assert trained.bundle.strategy == "qlib_benchmark"
    assert trained.bundle.prediction_kind == "score"


def test_command_writes_a_proven_bundle_and_shows_what_it_is_worth(places):
    result = run(places, *quick(places), "--version", "cli", "--no-mlflow", "--top-n", "1", "--bottom-n", "2")

    assert result.exit_code == 0, result.output
    path = places.artifacts_dir / "models" / "alpha_baseline" / "cli"
    bundle = load_bundle(path)
    assert bundle.proven
    assert bundle.universe == ("AAPL", "GOOG", "IBM", "MSFT")
    assert (bundle.construction.top_n, bundle.construction.bottom_n) == (1, 2)
    for words in ("rank ic", "sharpe", "(high + low + close) / 3 in place of vwap", str(path)):
        assert words in result.output


def test_model_that_cannot_rank_is_warned_of_when_trained_registered_and_looked_at(places, tmp_path, database_url):
    (tmp_path / "one.yaml").write_text(f"{QUICK}num_leaves: 2\n".replace("rounds: 3", "rounds: 1"), encoding="utf-8")
    fault = "cannot rank its symbols: "

    trained = run(places, "--config", str(tmp_path / "one.yaml"), "--version", "ties", "--no-mlflow")
    path = places.artifacts_dir / "models" / "alpha_baseline" / "ties"
    environment = {"SIGNALS_ARTIFACTS_DIR": str(places.artifacts_dir), "DATABASE_URL": database_url}
    registered = CliRunner().invoke(main, ["models", "register", str(path)], env=environment)
    folders = ["--data-dir", str(places.data_dir), "--artifacts-dir", str(places.artifacts_dir)]
    reported = CliRunner().invoke(main, ["report", str(path), *folders, "--output", str(tmp_path / "page.html")])

    assert (trained.exit_code, registered.exit_code, reported.exit_code) == (0, 0, 0), reported.output
    (sentence,) = [line for line in trained.stderr.splitlines() if fault in line]
    figures = sentence.partition(fault)[2]
    assert re.fullmatch(
        r"[12]\.\d distinct predictions a session: equal predictions left \d+% of the book to .*", figures
    )
    assert f"alpha_baseline ties {fault}{figures}" in registered.stderr
    assert f"This model {fault}{figures}." in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_model_that_ranks_is_warned_of_nowhere(places, tmp_path):
    (tmp_path / "many.yaml").write_text(f"{QUICK}min_rounds: 40\n".replace("rounds: 3", "rounds: 40"), encoding="utf-8")

    trained = run(places, "--config", str(tmp_path / "many.yaml"), "--version", "ranks", "--no-mlflow")

    assert trained.exit_code == 0
    assert "cannot rank" not in trained.output


def test_folded_training_is_readable_at_80_columns(places, tmp_path):
    (tmp_path / "folds.yaml").write_text(QUICK + yaml.safe_dump({"walk_forward": FOLDS}), encoding="utf-8")
    folders = ("--data-dir", str(places.data_dir), "--artifacts-dir", str(places.artifacts_dir))
    words = ["alpha_baseline", *folders, "--config", str(tmp_path / "folds.yaml"), "--version", "narrow", "--no-mlflow"]

    shown = CliRunner().invoke(app, words, env={"COLUMNS": "80"})

    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.stdout.splitlines() if str(places.artifacts_dir) not in line]
    assert max(map(len, lines)) <= 80
    assert "…" not in shown.stdout
    assert "rank ic by chance" in shown.stdout


def test_json_of_a_training_has_the_stated_fields(places):
    done = run(places, *quick(places), "--version", "json", "--no-mlflow", "--json")

    (stated,) = [verb.json for verb in verbs() if verb.name == "train"]
    assert set(json.loads(done.stdout)) == set(stated.removesuffix(".").split(", "))


def test_last_line_registers_the_bundle_with_its_run(places, database_url, monkeypatch):
    monkeypatch.setattr("strategies.alpha_baseline.tracking.log_run", lambda *_, **__: "0123456789abcdef")
    trained = run(places, *quick(places), "--version", "next")
    assert trained.exit_code == 0, trained.output

    where, program, *words = shlex.split(trained.stdout.splitlines()[-1])
    name, _, directory = where.partition("=")
    registered = CliRunner().invoke(main, words, env={name: directory, "DATABASE_URL": database_url})

    assert program == "signal-worker"
    assert registered.exit_code == 0, registered.output
    with Registry(database_url) as registry:
        assert registry.show("alpha_baseline", "next").mlflow_run_id == "0123456789abcdef"


@pytest.mark.parametrize("walk_forward", [None, FOLDS])
def test_same_command_twice_gives_the_same_digest(places, tmp_path, walk_forward):
    config = TrainingConfig(rounds=3, walk_forward=walk_forward)

    runs = [
        train_baseline(config, Places(data_dir=places.data_dir, artifacts_dir=tmp_path / name), version="v")
        for name in ("first", "second")
    ]

    assert runs[0].bundle.bundle_sha256 == runs[1].bundle.bundle_sha256
    assert runs[0].bundle.model_sha256 == runs[1].bundle.model_sha256


def test_command_shows_every_fold_and_stores_it(places):
    file = places.data_dir.parent / "folds.yaml"
    file.write_text(QUICK + f"walk_forward: {json.dumps(FOLDS)}\n", encoding="utf-8")

    result = run(places, "--config", str(file), "--version", "folded", "--no-mlflow")

    assert result.exit_code == 0, result.output
    path = places.artifacts_dir / "models" / "alpha_baseline" / "folded" / "bundle.json"
    folds = json.loads(path.read_text(encoding="utf-8"))["walk_forward"]["folds"]
    assert len(folds) == 3
    for fold in folds:
        for period in ("train", "valid", "test"):
            assert f"{fold[period]['first']} to {fold[period]['last']}" in result.output
    for words in (
        "purge 2, embargo 5 sessions",
        "Test periods of 3 folds together",
        "The bundle's model, trained after the folds",
    ):
        assert words in result.output


def test_revision_names_which_code_and_whether_it_was_changed(tmp_path, monkeypatch):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    file = tmp_path / "worker" / "cli" / "train.py"
    file.parent.mkdir(parents=True)
    file.write_text("one", encoding="utf-8")
    monkeypatch.setattr(command, "__file__", str(file))
    outside = command.git_revision()
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    clean = command.git_revision()
    file.write_text("two", encoding="utf-8")

    assert outside is None
    assert clean == git("rev-parse", "HEAD")
    assert command.git_revision() == f"{clean}-dirty"


def test_taken_version_is_refused_before_anything_is_trained(places):
    stages: list[str] = []
    make_bundle(places.artifacts_dir, version="taken")

    with pytest.raises(BundleExists):
        train_baseline(
            baseline_config(), places, version="taken", progress=lambda stage, _done, _total: stages.append(stage)
        )

    assert stages == []


def test_version_counts_on_by_itself(places):
    config = baseline_config().model_copy(update={"rounds": 2, "strategy": "counted"})

    names = [train_baseline(config, places).path.name for _ in range(2)]

    assert names == ["v1", "v2"]


@pytest.mark.parametrize(
    ("options", "strategy", "code", "words"),
    [
        ((), "another", 2, "strategy another has no configuration"),
        (("--top-n", "0", "--bottom-n", "0"), "alpha_baseline", 2, "top_n and bottom_n are both 0"),
        (("--config", "/nowhere.yaml"), "alpha_baseline", 2, "/nowhere.yaml cannot be read"),
        (("--snapshot", "1999-01-01"), "alpha_baseline", 1, "1999-01-01"),
    ],
)
def test_wrong_call_gets_one_sentence(places, options, strategy, code, words):
    result = run(places, *options, strategy=strategy)

    assert result.exit_code == code
    assert result.stderr.startswith("signal-worker: ")
    assert words in result.stderr


def test_configuration_of_another_strategy_is_refused(places):
    result = run(places, *quick(places), strategy="another")

    assert result.exit_code == 2
    assert "configures strategy alpha_baseline, the command names another" in result.stderr


def test_run_is_logged_with_parameters_metrics_plots_and_bundle(tmp_path):
    trained = make_model()
    path = save_bundle(tmp_path, trained.content)
    bundle = load_bundle(path, check=False)

    run_id = log_run(bundle, path, trained, tracking_uri=None)

    client = MlflowClient(tracking_uri=local_store(tmp_path))
    logged = client.get_run(run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.params["learning_rate"] == "0.05"
    assert logged.data.params["seed"] == "42"
    assert logged.data.metrics["ic"] == pytest.approx(bundle.manifest.metrics["ic"])
    losses = client.get_metric_history(run_id, "validation_l2")
    assert [each.value for each in losses] == pytest.approx(trained.validation)
    assert logged.data.tags["bundle_sha256"] == bundle.bundle_sha256
    (tmp_path / "stored").mkdir()
    stored = Path(client.download_artifacts(run_id, "bundle", str(tmp_path / "stored")))
    assert load_bundle(stored, check=False).bundle_sha256 == bundle.bundle_sha256
    plots = {file.path: file.file_size for file in client.list_artifacts(run_id, "plots")}
    assert plots.keys() == {
        f"plots/{name}.png"
        for name in ("ic", "quantile_returns", "cumulative_return", "feature_importance", "validation")
    }
    assert min(plots.values()) > 5000


def test_every_fold_is_logged_as_a_step(tmp_path):
    config = TrainingConfig.model_validate(SMALL.model_dump() | {"rounds": 3, "walk_forward": FOLDS})
    trained = make_model(config)
    path = save_bundle(tmp_path, trained.content)

    run_id = log_run(load_bundle(path, check=False), path, trained, tracking_uri=None)

    client = MlflowClient(tracking_uri=local_store(tmp_path))
    folds = trained.content.lineage.walk_forward.folds
    by_fold = {each.step: each.value for each in client.get_metric_history(run_id, "fold_rank_ic")}
    assert by_fold == {step: pytest.approx(fold.metrics["rank_ic"]) for step, fold in enumerate(folds, start=1)}
    logged = client.get_run(run_id).data
    assert logged.metrics["final_rank_ic"] == pytest.approx(trained.test.metrics["rank_ic"])
    assert logged.metrics["rank_ic"] == pytest.approx(trained.walk_forward.stitched.metrics["rank_ic"])
    assert (logged.params["folds"], logged.params["embargo_sessions"]) == (str(len(folds)), "5")


@pytest.mark.parametrize("uri", ["sqlite:///{file}/mlflow.db", "http://127.0.0.1:9", "no-such-scheme://store"])
def test_store_that_cannot_be_reached_leaves_the_bundle_whole(tmp_path, uri):
    path = make_bundle(tmp_path)
    bundle = load_bundle(path, check=False)
    address = uri.format(file=path / "model.txt")

    with pytest.raises(TrackingFailed, match="was not logged to"):
        log_run(bundle, path, make_model(), tracking_uri=address)

    assert load_bundle(path, check=False).proven


def test_command_warns_once_and_succeeds_while_mlflow_is_unavailable(places):
    folders = ("--data-dir", str(places.data_dir), "--artifacts-dir", str(places.artifacts_dir))
    words = ["alpha_baseline", *folders, *quick(places), "--version", "untracked"]

    result = CliRunner().invoke(app, words, env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "COLUMNS": "200"})

    path = places.artifacts_dir / "models" / "alpha_baseline" / "untracked"
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].endswith(f"signal-worker models register {path}")
    assert load_bundle(path).proven
    (warning,) = [line for line in result.stderr.splitlines() if "not logged" in line]
    assert warning.startswith("signal-worker: warning: the run was not logged to http://127.0.0.1:9")
    assert warning.endswith(f"the bundle is whole, in {path}")


@pytest.mark.parametrize(("asked", "warnings"), [((), 0), (("--mlflow",), 1)])
def test_command_mentions_a_missing_mlflow_only_where_it_was_asked_for(places, monkeypatch, asked, warnings):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it where a test names a store

    result = run(places, *quick(places), "--version", f"without{len(asked)}", *asked)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith(f"without{len(asked)}")
    assert result.stderr.count("mlflow is not installed: pip install 'signal-worker[tracking]'") == warnings


def test_real_bars_train_a_model_that_knows_its_snapshot(tmp_path):
    source = Path(bokeh_sampledata.__file__).parent / "_data" / "stocks.csv.gz"
    report = import_bars(source, tmp_path / "data", run_date=date(2013, 3, 2))

    trained = train_baseline(
        baseline_config(), Places(data_dir=tmp_path / "data", artifacts_dir=tmp_path / "artifacts")
    )

    manifest = json.loads((trained.path / "bundle.json").read_text(encoding="utf-8"))
    assert manifest["training"]["snapshot_id"] == report.snapshot_id
    assert manifest["training"]["universe"] == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    assert manifest["training"]["valid"]["first"] > manifest["training"]["train"]["last"]
    assert np.isfinite(manifest["metrics"]["rank_ic"])
    assert len(trained.trained.content.golden.windows) >= 64
