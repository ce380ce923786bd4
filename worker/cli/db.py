"""`signal-worker db`: the registry's schema."""

from typing import TYPE_CHECKING

import typer

from worker.cli._common import ExitCode, Json, VerbGroup, database_url_of, print_json, settings_of, warn
from worker.cli._tables import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(cls=VerbGroup, help="The registry's schema.", no_args_is_help=True)


@app.command()
def migrate(*, as_json: Json = False) -> None:
    """Apply the migrations that the database lacks; a second call changes nothing.

    JSON: applied, missing_roles.

    Example: signal-worker db migrate
    """
    from worker.registry.migrations import migrate as apply
    from worker.registry.migrations import missing_roles

    database_url = database_url_of(settings_of())
    applied, missing = apply(database_url), missing_roles(database_url)
    if as_json:
        print_json({"applied": applied, "missing_roles": missing})
    else:
        _show(applied)
    if missing:
        statements = "; ".join(f"CREATE ROLE {role} NOLOGIN" for role in missing)
        warn(
            f"skipped the roles {', '.join(missing)}: this login may not create roles. To run workers with less "
            f"than an owner's rights, let a login that may run: {statements}; then `signal-worker db migrate` again"
        )


def _show(applied: "Sequence[str]") -> None:
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("nothing to apply")


@app.command()
def status(*, as_json: Json = False) -> None:
    """Show which migrations the database has; exit code 1 if it lacks one.

    JSON: a list of: name, applied_at.

    Example: signal-worker db status
    """
    from worker.registry.migrations import migrations

    found = migrations(database_url_of(settings_of()))
    if as_json:
        print_json(found)
    else:
        times = (f"{row.applied_at:%Y-%m-%d %H:%M:%S} UTC" if row.applied_at else None for row in found)
        print_table(("migration", "applied at"), [(row.name, time) for row, time in zip(found, times, strict=True)])
    if any(migration.applied_at is None for migration in found):
        raise typer.Exit(ExitCode.FAILED)
