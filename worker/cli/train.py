"""`signal-worker train`: a snapshot becomes a model bundle. The last line on stdout is the command that registers it.

A run that MLflow cannot record ends with 0 and a warning on stderr.
"""

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import DataDir, ExitCode, Json, print_json, refuse, settings_of, warn
from worker.cli._tables import print_line, print_table, right

if TYPE_CHECKING:
    from strategies.alpha_baseline.train import TrainingRun
    from strategies.models import samples
    from strategies.models.configuration import TrainingConfig
    from strategies.models.manifest import BundleManifest, Period, WalkForwardRecord
    from worker.settings import Settings

BASELINE = "alpha_baseline"
#: What the stages of training are called on the screen.
STAGES = {
    "bars": "load bars",
    "features": "features",
    "folds": "folds",
    "rounds": "boosting rounds",
    "evaluation": "evaluation",
}
#: Where `$vwap` came from, in words.
VWAP = {
    "none": "vwap is the bars' own",
    "typical_price": "(high + low + close) / 3 in place of vwap",
    "close": "the close in place of vwap",
}
#: Metrics that are fractions, shown in percent.
PERCENT = (
    "cumulative_return",
    "cumulative_return_before_costs",
    "annualised_return",
    "max_drawdown",
    "win_share",
)


def train(
    strategy: Annotated[str, typer.Argument(help="Which strategy, e.g. alpha_baseline.")],
    config: Annotated[Path | None, typer.Option(help="YAML file; default the strategy's training.yaml.")] = None,
    data_dir: DataDir = None,
    artifacts_dir: Annotated[Path | None, typer.Option(help="Default SIGNALS_ARTIFACTS_DIR.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the bundle; default the next free v<N>.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Id or run date; default the latest.")] = None,
    top_n: Annotated[int | None, typer.Option(min=0, help="Symbols bought.")] = None,
    bottom_n: Annotated[int | None, typer.Option(min=0, help="Symbols sold short.")] = None,
    *,
    mlflow: Annotated[bool | None, typer.Option(help="Log the run to MLflow; default where it is installed.")] = None,
    as_json: Json = False,
) -> None:
    """Train a strategy's model on a snapshot and write its bundle.

    JSON: strategy, version, path, model_sha256, training, metrics, walk_forward, mlflow_run_id, register.

    Example: signal-worker train alpha_baseline --no-mlflow
    """
    _let_waiting_threads_sleep()
    from pydantic import ValidationError

    from strategies.errors import BundleError, DataError, ExpressionError, StrategyError, TrainingError

    settings = settings_of(data_dir=data_dir, artifacts_dir=artifacts_dir)
    try:
        chosen = _override(_config(strategy, config), top_n=top_n, bottom_n=bottom_n)
    except TrainingError as error:
        refuse(error)
    except ValidationError as error:
        refuse(f"configuration: {error.errors(include_url=False)[0]['msg']}")
    try:
        run = run_training(chosen, settings, version=version, snapshot=snapshot, mlflow=mlflow)
    except (TrainingError, BundleError, DataError, ExpressionError, StrategyError) as error:
        refuse(error, code=ExitCode.FAILED)
    command = _register_command(run, artifacts_dir)
    if as_json:
        print_json(_as_json(run, command))
        return
    _show(run)
    # Whole, so that a shell can run it.
    typer.echo(command)


def _let_waiting_threads_sleep() -> None:
    """Keep LightGBM's threads from spinning while they wait for one another, unless the environment states a policy.

    On a machine with other work, spinning takes several times the processor time of the training itself. OpenMP reads
    this when it is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251 - OpenMP reads the environment alone


def run_training(
    config: "TrainingConfig",
    settings: "Settings",
    *,
    version: str | None = None,
    snapshot: str | None = None,
    mlflow: bool | None = None,
) -> "TrainingRun":
    """Train with progress shown on stderr, log the run, and return it.

    A run that MLflow cannot record is warned of once, and succeeds all the same. `mlflow` None logs where MLflow is
    installed or MLFLOW_TRACKING_URI names a server.

    Raises:
        TrainingError: No model can be trained.
        BundleError: The version is taken, or the bundle does not prove itself.
        DataError: No snapshot, or one that cannot be read.
    """
    from strategies.alpha_baseline.train import Places, train_baseline

    places = Places(data_dir=settings.data_dir, artifacts_dir=settings.artifacts_dir)
    with _progress() as progress:
        run = train_baseline(
            config, places, version=version, snapshot=snapshot, git_revision=git_revision(), progress=progress
        )
    if mlflow is None:
        mlflow = settings.mlflow_tracking_uri is not None or find_spec("mlflow") is not None
    return replace(run, mlflow_run_id=_log(run, settings)) if mlflow else run


def _as_json(run: "TrainingRun", command: str) -> dict[str, Any]:
    manifest = _manifest(run)
    return {
        "strategy": manifest.strategy,
        "version": manifest.version,
        "path": run.path,
        "model_sha256": run.bundle.model_sha256,
        "training": manifest.training,
        "metrics": manifest.metrics,
        "walk_forward": manifest.walk_forward,
        "mlflow_run_id": run.mlflow_run_id,
        "register": command,
    }


def _register_command(run: "TrainingRun", artifacts_dir: Path | None) -> str:
    """Return the line for a shell that registers the bundle, with the run that trained it where one was logged."""
    # Registering takes the directory from the settings alone.
    where = [] if artifacts_dir is None else [f"SIGNALS_ARTIFACTS_DIR={shlex.quote(str(artifacts_dir))}"]
    logged = [] if run.mlflow_run_id is None else ["--mlflow-run-id", run.mlflow_run_id]
    return " ".join([*where, shlex.join(["signal-worker", "models", "register", str(run.path), *logged])])


def _log(run: "TrainingRun", settings: "Settings") -> str | None:
    from strategies.alpha_baseline.tracking import TrackingFailed, log_run

    try:
        return log_run(run.bundle, run.path, run.trained, tracking_uri=settings.mlflow_tracking_uri)
    except TrackingFailed as error:
        warn(f"warning: {error}; the bundle is whole, in {run.path}")
        return None


def git_revision() -> str | None:
    """Return the commit of this code, with `-dirty` where files differ from it; None outside a clone of its own."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _config(strategy: str, path: Path | None) -> "TrainingConfig":
    from strategies.alpha_baseline.train import baseline_config
    from strategies.errors import TrainingError
    from strategies.models.configuration import load_training_config
    from strategies.suggestions import did_you_mean

    if path is None and strategy != BASELINE:
        only = f"only {BASELINE} has: give --config{did_you_mean(strategy, (BASELINE,))}"
        raise TrainingError(f"strategy {strategy} has no configuration of its own, {only}")
    config = baseline_config() if path is None else load_training_config(path)
    if config.strategy != strategy:
        raise TrainingError(f"{path} configures strategy {config.strategy}, the command names {strategy}")
    return config


def _override(config: "TrainingConfig", **sides: int | None) -> "TrainingConfig":
    given = {name: side for name, side in sides.items() if side is not None}
    construction = config.construction.model_dump() | given
    return type(config).model_validate(config.model_dump() | {"construction": construction})


@contextmanager
def _progress() -> "Iterator[samples.Progress]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    # On stderr, so that what is printed can be piped, and only where somebody watches.
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(STAGES[stage], total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def _manifest(run: "TrainingRun") -> "BundleManifest":
    manifest = run.bundle.manifest
    assert manifest is not None  # noqa: S101 - a bundle that was just saved has one
    return manifest


def _show(run: "TrainingRun") -> None:
    manifest = _manifest(run)
    training = manifest.training
    if manifest.walk_forward:
        print_line("The bundle's model, trained after the folds")
    print_line(f"train       {_period(training.train)}, {training.train_rows} rows")
    print_line(f"valid       {_period(training.valid)}, {training.best_iteration} rounds kept")
    print_line(f"test        {_period(training.test)}")
    if manifest.walk_forward:
        _print_folds(manifest.walk_forward)
    _print_metrics(manifest)
    typer.echo()
    for line in _worth(manifest):
        print_line(line)
    print_line(f"prediction  {manifest.prediction_kind}, {manifest.label.horizon or 'without a stated horizon'}")
    print_line(f"vwap        {VWAP[run.bundle.vwap_stand_in]}")
    print_line(f"bundle      {run.path}")
    print_line(f"model       {run.bundle.model_sha256[:16]}, proven on {_golden_rows(run)} golden rows")
    if run.mlflow_run_id:
        print_line(f"MLflow run  {run.mlflow_run_id}")


def _worth(manifest: "BundleManifest") -> "Iterator[str]":
    """Yield what the metrics come to, in sentences."""
    from strategies.analysis.evaluation import ranking_fault

    rank_ic, chance = manifest.metrics["rank_ic"], manifest.metrics["rank_ic_by_chance"]
    if rank_ic is not None and chance is not None:
        more = "beyond" if rank_ic > chance else "not beyond"
        yield f"worth       rank IC {rank_ic:+.4f}, {more} the ±{chance:.4f} of 19 in 20 random orders"
    if fault := ranking_fault(manifest.metrics):
        typer.echo(f"signal-worker: warning: this model cannot rank its symbols: {fault}", err=True)


def _golden_rows(run: "TrainingRun") -> int:
    return len(run.trained.content.golden.windows)


def _print_folds(record: "WalkForwardRecord") -> None:
    kept = f"purge {record.purge_sessions}, embargo {record.embargo_sessions} sessions"
    periods = [
        (number, _period(fold.train), _period(fold.valid), fold.embargoed_sessions)
        for number, fold in enumerate(record.folds, start=1)
    ]
    title = f"Walk-forward, {record.window}; {kept}"
    typer.echo()
    print_table([*right("fold"), "train", "valid", *right("embargoed")], periods, title=title)
    results = [
        (
            number,
            _period(fold.test),
            fold.train_rows,
            *(_spell(name, fold.metrics[name]) for name in ("rank_ic", "cumulative_return")),
        )
        for number, fold in enumerate(record.folds, start=1)
    ]
    typer.echo()
    print_table([*right("fold"), "test", *right("training rows", "rank IC", "return")], results)


def _period(period: "Period") -> str:
    return f"{period.first} to {period.last}"


def _print_metrics(manifest: "BundleManifest") -> None:
    folds = manifest.walk_forward
    periods = "Held-out test period" if folds is None else f"Test periods of {len(folds.folds)} folds together"
    rows = [
        (
            name.replace("_", " "),
            _spell(name, value),
            *([_spell(name, folds.final_metrics[name])] if folds else []),
        )
        for name, value in manifest.metrics.items()
    ]
    figures = right("value", *(["final model, its test"] if folds else []))
    typer.echo()
    print_table(["metric", *figures], rows, title=f"{periods}, top-N/bottom-N portfolio after costs")


def _spell(name: str, value: float | None) -> str:
    if value is None:
        return "not measurable"
    if name in PERCENT:
        return f"{value:.2%}"
    return f"{value:.0f}" if value.is_integer() else f"{value:.4f}"
