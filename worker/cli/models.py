"""`signal-worker models`: which versions there are, and which of them serves.

Exit codes: 0 done, 1 failed, 2 wrong call, 3 not found, 4 conflict.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import refuse, settings_of
from worker.cli._registry import FAILED, NOT_FOUND, operator, print_json, registry
from worker.cli.models_compare import compare
from worker.cli.models_drift import drift
from worker.cli.models_mlflow import fetch, read_uri
from worker.cli.models_promote import promote
from worker.cli.models_status import status

if TYPE_CHECKING:
    from rich.table import Table

    from worker.registry.models import Activation, ModelVersion, Registration

app = typer.Typer(help="Model versions: register, activate, roll back.", no_args_is_help=True)
app.command()(status)
app.command()(fetch)
app.command()(compare)
app.command()(promote)
app.command()(drift)

Strategy = Annotated[str, typer.Argument(help="Name of the strategy.")]
Version = Annotated[str, typer.Argument(help="Version of the strategy.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the history.")]
NeededReason = Annotated[str, typer.Option(help="Why; kept in the history.")]
By = Annotated[str | None, typer.Option(help="Who; your login name by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def register(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of a bundle, below the artifacts directory.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Strategy of a bare LightGBM file.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of a bare LightGBM file.")] = None,
    path: Annotated[Path | None, typer.Option(help="A bare LightGBM file, instead of a bundle.")] = None,
    uri: Annotated[
        str | None,
        typer.Option(help="A bundle or LightGBM model in MLflow: runs:/<run id>/<path>, models:/<name>/<n>."),
    ] = None,
    mlflow_run_id: Annotated[str | None, typer.Option(help="Run that trained it.")] = None,
    mlflow_experiment_id: Annotated[str | None, typer.Option(help="Experiment of that run.")] = None,
    notes: Annotated[str | None, typer.Option(help="Anything worth knowing; may be changed later.")] = None,
    by: By = None,
    *,
    as_json: Json = False,
) -> None:
    """Register a bundle or a bare LightGBM file, from disk or MLflow, in testing: once it has proven itself here."""
    from worker.registry.models import Registration

    stated = Registration(
        strategy=strategy or "",
        version=version or "",
        model_path="",
        mlflow_run_id=mlflow_run_id,
        mlflow_experiment_id=mlflow_experiment_id,
        created_by=by or operator(),
        notes=notes,
    )
    if uri is not None and (bundle or path):
        refuse("register takes a folder, --path or --uri, one of them")
    registration = _read(bundle, path, stated) if uri is None else read_uri(uri, stated)
    with registry() as models:
        registered = models.register(registration)
    if as_json:
        print_json(registered)
    else:
        typer.echo(f"registered {registered.strategy} {registered.version} in testing, from {registered.model_path}")


@app.command("list")
def list_versions(
    strategy: Annotated[str | None, typer.Argument(help="Name of the strategy; all by default.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """List the versions in the order in which they were registered."""
    with registry() as models:
        versions = models.list(strategy)
    if as_json:
        print_json(list(versions))
    else:
        _print(_versions_table(versions))


@app.command()
def show(strategy: Strategy, version: Version, *, as_json: Json = False) -> None:
    """Show all that is registered of one version."""
    with registry() as models:
        found = models.show(strategy, version)
    if as_json:
        print_json(found)
    else:
        _print(_version_table(found))


@app.command()
def activate(
    strategy: Strategy, version: Version, reason: Reason = None, by: By = None, *, as_json: Json = False
) -> None:
    """Let a version serve from now on, in place of the one that does."""
    with registry() as models:
        before = models.active(strategy)
        active = models.activate(strategy, version, by or operator(), reason)
    unchanged = before is not None and before.activation == active.activation
    if as_json:
        print_json(active)
    elif unchanged:
        typer.echo(f"{strategy} {version} was active already, since activation {active.activation}")
    else:
        typer.echo(f"{strategy} {active.version} is active, activation {active.activation}")


@app.command()
def rollback(strategy: Strategy, reason: Reason = None, by: By = None, *, as_json: Json = False) -> None:
    """Let the version serve again that was active before, by history."""
    with registry() as models:
        active = models.rollback(strategy, by or operator(), reason)
    if as_json:
        print_json(active)
    else:
        typer.echo(f"{strategy} {active.version} is active again, activation {active.activation}")


@app.command()
def deactivate(strategy: Strategy, reason: Reason = None, by: By = None, *, as_json: Json = False) -> None:
    """Let no version of the strategy serve."""
    with registry() as models:
        _print_change(models.deactivate(strategy, by or operator(), reason), as_json=as_json)


@app.command()
def fail(strategy: Strategy, version: Version, reason: NeededReason, by: By = None, *, as_json: Json = False) -> None:
    """Mark a version as one that must not serve."""
    with registry() as models:
        _print_change(models.fail(strategy, version, reason, by or operator()), as_json=as_json)


@app.command()
def retry(strategy: Strategy, version: Version, reason: NeededReason, by: By = None, *, as_json: Json = False) -> None:
    """Put a failed version back to testing."""
    with registry() as models:
        _print_change(models.retry(strategy, version, reason, by or operator()), as_json=as_json)


@app.command()
def canary(
    strategy: Strategy,
    version: Annotated[str | None, typer.Argument(help="Version in testing.")] = None,
    share: Annotated[float | None, typer.Option(help="Share of the requests that it answers, e.g. 0.05.")] = None,
    reason: Reason = None,
    by: By = None,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="Let the active version answer all again.")] = False,
    as_json: Json = False,
) -> None:
    """Let a version in testing answer a share of the requests, chosen by request id; --stop ends it."""
    with registry() as models:
        if stop and version is None and share is None:
            change = models.stop_canary(strategy, by or operator(), reason)
        elif not stop and version is not None and share is not None:
            change = models.set_canary(strategy, version, share, reason=reason or "", by=by or operator())
        else:
            refuse("canary takes a version with --share and --reason, or --stop alone")
    if as_json:
        print_json(change)
    elif change.share is None:
        typer.echo(f"{strategy} {change.version} is no canary any more; {change.to_version} answers every request")
    else:
        typer.echo(
            f"{strategy} {change.version} answers {change.share:.2%} of the requests where a worker has it loaded, "
            f"{change.to_version} the others"
        )


@app.command()
def history(
    strategy: Annotated[str | None, typer.Argument(help="Name of the strategy; all by default.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most changes shown.")] = 50,
    *,
    as_json: Json = False,
) -> None:
    """Show the latest changes of status, newest first."""
    with registry() as models:
        changes = models.history(strategy, limit=limit)
    if as_json:
        print_json(list(changes))
    else:
        _print(_history_table(changes))


def _read(bundle: Path | None, path: Path | None, stated: "Registration") -> "Registration":
    bare = (path, stated.strategy, stated.version)
    if any(bare) if bundle is not None else not all(bare):
        refuse(
            "register takes the folder of a bundle, --strategy, --version and --path of a bare LightGBM file, or --uri"
        )

    from strategies.errors import BundleError, BundleNotFound
    from worker.operations.registration import registration_of_bare_model, registration_of_bundle

    artifacts_dir = settings_of().artifacts_dir
    try:
        if bundle is not None:
            return registration_of_bundle(bundle, artifacts_dir, stated)
        return registration_of_bare_model(path or Path(), artifacts_dir, stated)
    except BundleNotFound as error:
        refuse(error, code=NOT_FOUND)
    except BundleError as error:
        refuse(error, code=FAILED)


def _print_change(change: "Activation", *, as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    serving = f"{change.to_version} is active" if change.to_version else "no version is active"
    typer.echo(f"{change.strategy} {change.version} is {change.to_status}, activation {change.activation}; {serving}")


def _print(table: "Table") -> None:
    from rich.console import Console

    Console().print(table)


def _versions_table(versions: "tuple[ModelVersion, ...]") -> "Table":
    from rich.table import Table

    table = Table("strategy", "version", "status", "activated at", "deactivated at", "model path")
    for row in versions:
        table.add_row(
            row.strategy, row.version, row.status, _time(row.activated_at), _time(row.deactivated_at), row.model_path
        )
    return table


def _version_table(version: "ModelVersion") -> "Table":
    from rich.table import Table

    table = Table("field", "value", show_header=False)
    table.add_row("version", f"{version.strategy} {version.version}")
    table.add_row("status", version.status)
    table.add_row("model path", version.model_path)
    table.add_row("registered", f"{_time(version.created_at)} by {version.created_by}")
    table.add_row("activated at", _time(version.activated_at))
    table.add_row("deactivated at", _time(version.deactivated_at))
    table.add_row("MLflow run", version.mlflow_run_id or "-")
    for name, value in (*version.metrics.items(), *version.config.items()):
        table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    table.add_row("notes", version.notes or "-")
    return table


def _history_table(changes: "tuple[Activation, ...]") -> "Table":
    from rich.table import Table

    table = Table("no.", "at", "version", "what", "active", "by", "reason")
    table.columns[1].no_wrap = True
    for row in changes:
        table.add_row(
            str(row.activation),
            _time(row.at),
            f"{row.strategy} {row.version}",
            row.action.replace("_", " "),
            f"{row.from_version or 'none'} -> {row.to_version or 'none'}",
            row.actor,
            row.reason or "",
        )
    return table


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "-"
