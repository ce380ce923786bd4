"""`signal-worker db`: the registry's schema."""

from typing import Annotated

import typer

from worker.cli._registry import FAILED, database_url, print_json, refusals

app = typer.Typer(help="The registry's schema.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def migrate() -> None:
    """Apply the migrations that the database lacks; a second call changes nothing."""
    from worker.registry.migrations import migrate as apply
    from worker.registry.migrations import missing_roles

    with refusals():
        applied = apply(database_url())
        missing = missing_roles(database_url())
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("nothing to apply")
    if missing:
        statements = "; ".join(f"CREATE ROLE {role} NOLOGIN" for role in missing)
        typer.echo(
            f"skipped the roles {', '.join(missing)}: this login may not create roles. To run workers with less "
            f"than an owner's rights, let a login that may run: {statements}; then `signal-worker db migrate` again",
            err=True,
        )


@app.command()
def status(*, as_json: Json = False) -> None:
    """Show which migrations the database has; exit code 1 if it lacks one."""
    from rich.console import Console
    from rich.table import Table

    from worker.registry.migrations import migrations

    with refusals():
        found = migrations(database_url())
    if as_json:
        print_json(list(found))
    else:
        table = Table("migration", "applied at")
        for migration in found:
            table.add_row(
                migration.name, f"{migration.applied_at:%Y-%m-%d %H:%M:%S} UTC" if migration.applied_at else "-"
            )
        Console().print(table)
    if any(migration.applied_at is None for migration in found):
        raise typer.Exit(FAILED)
