"""`signal-worker train`: a snapshot becomes a model bundle. The last line on stdout is the command that registers it.

Exit codes: 0 done, with a warning on stderr where MLflow could not be reached; 1 failed, 2 wrong call.
"""

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from worker.cli._common import refuse, settings_of

if TYPE_CHECKING:
    from strategies.alpha_baseline.train import TrainingRun
    from strategies.models import samples
    from strategies.models.configuration import TrainingConfig
    from strategies.models.manifest import BundleManifest, WalkForwardRecord
    from worker.settings import Settings

BASELINE = "alpha_baseline"
FAILED = 1
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
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the snapshots; default SIGNALS_DATA_DIR.")] = None,
    artifacts_dir: Annotated[Path | None, typer.Option(help="Default SIGNALS_ARTIFACTS_DIR.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the bundle; default the next free v<N>.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Id or run date; default the latest.")] = None,
    top_n: Annotated[int | None, typer.Option(min=0, help="Symbols bought.")] = None,
    bottom_n: Annotated[int | None, typer.Option(min=0, help="Symbols sold short.")] = None,
    *,
    mlflow: Annotated[bool, typer.Option(help="Log the run to MLflow.")] = True,
) -> None:
    """Train a strategy's model on a snapshot and write its bundle."""
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
        refuse(error, code=FAILED)
    typer.echo(_register_command(run, artifacts_dir))


def run_training(
    config: "TrainingConfig",
    settings: "Settings",
    *,
    version: str | None = None,
    snapshot: str | None = None,
    mlflow: bool = True,
    console: Console | None = None,
) -> "TrainingRun":
    """Train with progress shown, print what the model was worth, log the run, and return it.

    A run that MLflow cannot record is warned of once, and succeeds all the same.

    Raises:
        TrainingError: No model can be trained.
        BundleError: The version is taken, or the bundle does not prove itself.
        DataError: No snapshot, or one that cannot be read.
    """
    from strategies.alpha_baseline.train import Places, train_baseline

    console = console or Console(highlight=False)
    places = Places(data_dir=settings.data_dir, artifacts_dir=settings.artifacts_dir)
    with _progress(console) as progress:
        run = train_baseline(
            config, places, version=version, snapshot=snapshot, git_revision=git_revision(), progress=progress
        )
    _show(run, console)
    return replace(run, mlflow_run_id=_log(run, settings, console)) if mlflow else run


def _register_command(run: "TrainingRun", artifacts_dir: Path | None) -> str:
    """Return the line for a shell that registers the bundle, with the run that trained it where one was logged."""
    # Registering takes the directory from the settings alone.
    where = [] if artifacts_dir is None else [f"SIGNALS_ARTIFACTS_DIR={shlex.quote(str(artifacts_dir))}"]
    logged = [] if run.mlflow_run_id is None else ["--mlflow-run-id", run.mlflow_run_id]
    return " ".join([*where, shlex.join(["signal-worker", "models", "register", str(run.path), *logged])])


def _log(run: "TrainingRun", settings: "Settings", console: Console) -> str | None:
    from strategies.alpha_baseline.tracking import TrackingFailed, log_run

    try:
        with console.status("log the run to MLflow …"):
            run_id = log_run(run.bundle, run.path, run.trained, tracking_uri=settings.mlflow_tracking_uri)
    except TrackingFailed as error:
        typer.echo(f"signal-worker: warning: {error}; the bundle is whole, in {run.path}", err=True)
        return None
    console.print(f"MLflow run  {run_id}")
    return run_id


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

    if path is None and strategy != BASELINE:
        raise TrainingError(f"strategy {strategy} has no configuration of its own, only {BASELINE} has: give --config")
    config = baseline_config() if path is None else load_training_config(path)
    if config.strategy != strategy:
        raise TrainingError(f"{path} configures strategy {config.strategy}, the command names {strategy}")
    return config


def _override(config: "TrainingConfig", **sides: int | None) -> "TrainingConfig":
    given = {name: side for name, side in sides.items() if side is not None}
    construction = config.construction.model_dump() | given
    return type(config).model_validate(config.model_dump() | {"construction": construction})


@contextmanager
def _progress(console: Console) -> "Iterator[samples.Progress]":
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(STAGES[stage], total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def _show(run: "TrainingRun", console: Console) -> None:
    manifest = run.bundle.manifest
    assert manifest is not None  # noqa: S101 - a bundle that was just saved has one
    training = manifest.training
    periods = [(name, getattr(training, name)) for name in ("train", "valid", "test")]
    dates = ", ".join(f"{name} {period.first} to {period.last}" for name, period in periods)
    final = "final model: " if manifest.walk_forward else ""
    console.print(f"{final}{dates}; {training.train_rows} training rows, {training.best_iteration} rounds kept")
    if manifest.walk_forward:
        console.print(_folds_table(manifest.walk_forward))
    console.print(_metrics_table(manifest))
    console.print(f"prediction  {manifest.prediction_kind}, {manifest.label.horizon}; {VWAP[run.bundle.vwap_stand_in]}")
    console.print(f"bundle      {run.path}", soft_wrap=True)
    console.print(f"model       {run.bundle.model_sha256[:16]}, proven on {_golden_rows(run)} golden rows")


def _golden_rows(run: "TrainingRun") -> int:
    return len(run.trained.content.golden.windows)


def _folds_table(record: "WalkForwardRecord") -> Table:
    kept = f"purge {record.purge_sessions}, embargo {record.embargo_sessions} sessions"
    table = Table(title=f"Walk-forward, {record.window}; {kept}")
    for name in ("fold", "train", "valid", "test", "embargoed", "rows", "rank ic", "return"):
        table.add_column(name)
    for number, fold in enumerate(record.folds, start=1):
        periods = [f"{period.first} to {period.last}" for period in (fold.train, fold.valid, fold.test)]
        worth = [_spell(name, fold.metrics[name]) for name in ("rank_ic", "cumulative_return")]
        table.add_row(str(number), *periods, str(fold.embargoed_sessions), str(fold.train_rows), *worth)
    return table


def _metrics_table(manifest: "BundleManifest") -> Table:
    folds = manifest.walk_forward
    table = Table(
        title=("Held-out test period" if folds is None else f"Test periods of {len(folds.folds)} folds together")
        + ", top-N/bottom-N portfolio after costs"
    )
    table.add_column("metric")
    table.add_column("value", justify="right")
    if folds:
        table.add_column("final model, its test", justify="right")
    for name, value in manifest.metrics.items():
        final = [_spell(name, folds.final_metrics[name])] if folds else []
        table.add_row(name.replace("_", " "), _spell(name, value), *final)
    return table


def _spell(name: str, value: float | None) -> str:
    if value is None:
        return "not measurable"
    if name in PERCENT:
        return f"{value:.2%}"
    return f"{value:.0f}" if value.is_integer() else f"{value:.4f}"
