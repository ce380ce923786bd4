"""`signal-worker models`: which versions there are, and which of them serves."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._activation import Timeout, Wait, await_activation
from worker.cli._common import ExitCode, Json, Namespace, VerbGroup, operator, print_json, refuse, settings_of, warn
from worker.cli._registry import near_names, registry
from worker.cli._tables import Column, print_table, right
from worker.cli.models_compare import compare
from worker.cli.models_drift import drift
from worker.cli.models_mlflow import fetch, read_uri
from worker.cli.models_package import package
from worker.cli.models_promote import promote
from worker.cli.models_status import status

if TYPE_CHECKING:
    from worker.registry.models import Activation, ModelVersion, Registration

app = typer.Typer(cls=VerbGroup, help="Model versions: register, activate, roll back.", no_args_is_help=True)
app.command()(status)
app.command()(package)
app.command()(fetch)
app.command()(compare)
app.command()(promote)
app.command()(drift)

Strategy = Annotated[str, typer.Argument(help="Name of the strategy.")]
Version = Annotated[str, typer.Argument(help="Version of the strategy.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the history.")]
NeededReason = Annotated[str, typer.Option(help="Why; kept in the history.")]
By = Annotated[str | None, typer.Option(help="Who; your login name by default.")]


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
    """Register a bundle or a bare LightGBM file, from disk or MLflow, in testing: once it has proven itself here.

    JSON: strategy, version, status, model_path, mlflow_run_id, mlflow_experiment_id, metrics, config, created_at,
    created_by, activated_at, deactivated_at, notes.

    Example: signal-worker models register artifacts/models/alpha_baseline/v1
    """
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
    _warn_of_ties(registered)
    if as_json:
        print_json(registered)
    else:
        typer.echo(f"registered {registered.strategy} {registered.version} in testing, from {registered.model_path}")


def _warn_of_ties(registered: "ModelVersion") -> None:
    from strategies.analysis.evaluation import ranking_fault

    if fault := ranking_fault(registered.metrics or {}):
        name = f"{registered.strategy} {registered.version}"
        typer.echo(f"signal-worker: warning: {name} cannot rank its symbols: {fault}", err=True)


@app.command("list")
def list_versions(
    strategy: Annotated[str | None, typer.Argument(help="Name of the strategy; all by default.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """List the versions in the order in which they were registered.

    JSON: a list of: strategy, version, status, model_path, mlflow_run_id, mlflow_experiment_id, metrics, config,
    created_at, created_by, activated_at, deactivated_at, notes.

    Example: signal-worker models list alpha_baseline
    """
    with registry() as models:
        versions = models.list(strategy)
        hint = "" if versions else near_names(models, strategy)
    if as_json:
        print_json(versions)
    else:
        _print_versions(versions)
    if strategy and not versions:
        warn(f"strategy {strategy} has no versions{hint}")


@app.command()
def show(strategy: Strategy, version: Version, *, as_json: Json = False) -> None:
    """Show all that is registered of one version.

    JSON: strategy, version, status, model_path, mlflow_run_id, mlflow_experiment_id, metrics, config, created_at,
    created_by, activated_at, deactivated_at, notes.

    Example: signal-worker models show alpha_baseline v1 --json
    """
    with registry(strategy, version) as models:
        found = models.show(strategy, version)
    if as_json:
        print_json(found)
    else:
        _print_version(found)


@app.command()
def activate(
    strategy: Strategy,
    version: Version,
    reason: Reason = None,
    by: By = None,
    namespace: Namespace = None,
    *,
    wait: Wait = None,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Let a version serve from now on, in place of the one that does.

    With --wait it succeeds once every living worker serves it; else exit code 1 or 7, and the workers by name.

    JSON: strategy, version, activation, model_path, mlflow_run_id, config, metrics, activated_at.

    Example: signal-worker models activate alpha_baseline v2 --reason "better rank IC"
    """
    with registry(strategy, version) as models:
        before = models.active(strategy)
        active = models.activate(strategy, version, by or operator(), reason)
    unchanged = before is not None and before.activation == active.activation
    if as_json:
        print_json(active)
    served = await_activation(active, namespace, wait=wait, timeout=timeout)
    if as_json:
        return
    if unchanged:
        typer.echo(f"{strategy} {version} was active already, since activation {active.activation}{served}")
    else:
        typer.echo(f"{strategy} {active.version} is active, activation {active.activation}{served}")


@app.command()
def rollback(
    strategy: Strategy,
    reason: Reason = None,
    by: By = None,
    namespace: Namespace = None,
    *,
    wait: Wait = None,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Let the version serve again that was active before, by history.

    With --wait it succeeds once every living worker serves it; else exit code 1 or 7, and the workers by name.

    JSON: strategy, version, activation, model_path, mlflow_run_id, config, metrics, activated_at.

    Example: signal-worker models rollback alpha_baseline --reason "v2 drifted"
    """
    with registry(strategy) as models:
        active = models.rollback(strategy, by or operator(), reason)
    if as_json:
        print_json(active)
    served = await_activation(active, namespace, wait=wait, timeout=timeout)
    if not as_json:
        typer.echo(f"{strategy} {active.version} is active again, activation {active.activation}{served}")


@app.command()
def deactivate(strategy: Strategy, reason: Reason = None, by: By = None, *, as_json: Json = False) -> None:
    """Let no version of the strategy serve.

    JSON: activation, strategy, version, action, from_status, to_status, from_version, to_version, actor,
    session_role, reason, at, share.

    Example: signal-worker models deactivate alpha_baseline --reason "market closed"
    """
    with registry(strategy) as models:
        _print_change(models.deactivate(strategy, by or operator(), reason), as_json=as_json)


@app.command()
def fail(strategy: Strategy, version: Version, reason: NeededReason, by: By = None, *, as_json: Json = False) -> None:
    """Mark a version as one that must not serve.

    JSON: activation, strategy, version, action, from_status, to_status, from_version, to_version, actor,
    session_role, reason, at, share.

    Example: signal-worker models fail alpha_baseline v2 --reason "trained on wrong bars"
    """
    with registry(strategy, version) as models:
        _print_change(models.fail(strategy, version, reason, by or operator()), as_json=as_json)


@app.command()
def retry(strategy: Strategy, version: Version, reason: NeededReason, by: By = None, *, as_json: Json = False) -> None:
    """Put a failed version back to testing.

    JSON: activation, strategy, version, action, from_status, to_status, from_version, to_version, actor,
    session_role, reason, at, share.

    Example: signal-worker models retry alpha_baseline v2 --reason "files restored"
    """
    with registry(strategy, version) as models:
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
    """Let a version in testing answer a share of the requests, chosen by request id; --stop ends it.

    JSON: activation, strategy, version, action, from_status, to_status, from_version, to_version, actor,
    session_role, reason, at, share.

    Example: signal-worker models canary alpha_baseline v2 --share 0.05 --reason "first look"
    """
    with registry(strategy, version) as models:
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
    """Show the latest changes of status, newest first.

    JSON: a list of: activation, strategy, version, action, from_status, to_status, from_version, to_version, actor,
    session_role, reason, at, share.

    Example: signal-worker models history alpha_baseline --limit 10
    """
    with registry() as models:
        changes = models.history(strategy, limit=limit)
        hint = "" if changes else near_names(models, strategy)
    if as_json:
        print_json(changes)
    else:
        _print_history(changes, strategy)
    if strategy and not changes:
        warn(f"strategy {strategy} has no versions{hint}")


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
        refuse(error, code=ExitCode.NOT_FOUND)
    except BundleError as error:
        refuse(error, code=ExitCode.FAILED)


def _print_change(change: "Activation", *, as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    serving = f"{change.to_version} is active" if change.to_version else "no version is active"
    typer.echo(f"{change.strategy} {change.version} is {change.to_status}, activation {change.activation}; {serving}")


def _print_versions(versions: "tuple[ModelVersion, ...]") -> None:
    columns = ("strategy", "version", "status", "from (UTC)", "until (UTC)", Column("model path", text=True))
    rows = [
        (row.strategy, row.version, row.status, _minute(row.activated_at), _minute(row.deactivated_at), row.model_path)
        for row in versions
    ]
    print_table(columns, rows)


def _print_version(version: "ModelVersion") -> None:
    rows: list[tuple[str, object]] = [
        ("version", f"{version.strategy} {version.version}"),
        ("status", version.status),
        ("model path", version.model_path),
        ("registered", f"{_time(version.created_at)} by {version.created_by}"),
        ("activated at", _time(version.activated_at)),
        ("deactivated at", _time(version.deactivated_at)),
        ("MLflow run", version.mlflow_run_id),
    ]
    for name, value in (*version.metrics.items(), *version.config.items()):
        rows.append((name, f"{value:.6g}" if isinstance(value, float) else value))
    rows.append(("notes", version.notes))
    print_table(("field", Column("value", text=True)), rows)


def _print_history(changes: "tuple[Activation, ...]", strategy: str | None) -> None:
    columns: list[Column | str] = [*right("no."), "at (UTC)", "version", "change", "active", "by"]
    rows = [
        (
            row.activation,
            _minute(row.at),
            row.version if strategy else f"{row.strategy} {row.version}",
            row.action.replace("_", " "),
            f"{row.from_version or 'none'} -> {row.to_version or 'none'}",
            row.actor,
            row.reason or "",
        )
        for row in changes
    ]
    print_table([*columns, Column("reason", text=True)], rows, title=strategy or "")


def _minute(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else None


def _time(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else None
