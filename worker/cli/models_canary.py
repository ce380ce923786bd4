"""`signal-worker models canary`: let a version in testing answer a share of the requests, or stop that.

Exit codes: 0 done, 1 failed, 2 wrong call, 3 not found, 4 conflict.
"""

from typing import Annotated

import typer

from worker.cli.registry_calls import operator, print_json, registry
from worker.cli.session import refuse


def canary(
    strategy: Annotated[str, typer.Argument(help="Name of the strategy.")],
    version: Annotated[str | None, typer.Argument(help="Version in testing.")] = None,
    share: Annotated[float | None, typer.Option(help="Share of the requests that it answers, e.g. 0.05.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the history.")] = None,
    by: Annotated[str | None, typer.Option(help="Who; your login name by default.")] = None,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="Let the active version answer all again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
