"""`python -m tests.faults.impaired`: workers that cannot answer beside two that can, and what came of every request.

Owns: the size of the long run and what it prints.
Must not know: how workers are impaired (`tests.support.impaired`).
Invariant: the exit code is 0 where every request came to what a healthy fleet would give.
"""

import secrets
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tests.support.impaired import Impaired, Plan, Result, build_impaired
from tests.support.servers import PrivateServers, short_lived_directory
from worker.registry.migrations import migrate


def impaired(
    requests: Annotated[int, typer.Option(help="Requests in all.")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="Repeat a run.")] = None,
) -> None:
    """Ask while one worker of three is impaired in each way in turn; exit 1 if anything was unlike a healthy fleet."""
    plan = Plan(seed=secrets.randbits(32) if seed is None else seed, requests=requests)
    typer.echo(f"seed {plan.seed}")
    result = run(plan)
    typer.echo(report(result))
    raise typer.Exit(not result.right)


def run(plan: Plan) -> Result:
    """Return what came of a run on servers of its own."""
    with tempfile.TemporaryDirectory() as folder, short_lived_directory() as directory:
        world = build_impaired(Path(folder))
        servers = PrivateServers(directory)
        try:
            migrate(servers.endpoints.database_url)
            made = Impaired(servers.endpoints, "signals", world, plan)
            try:
                return made.run()
            finally:
                made.close()
        finally:
            servers.close()


def report(result: Result) -> str:
    """Return the counts, a line each."""
    counts = {
        "requests": result.requests,
        "vectors": result.vectors,
        "rejections that a healthy fleet gives too": result.rejections - len(result.unlike_healthy),
        "outcomes unlike a healthy fleet's": len(result.unlike_healthy),
        "requests without an outcome": len(result.lost),
        "requests with two outcomes": len(result.doubled),
        "vectors of an older snapshot": len(result.older),
        "versions whose status a worker changed": len(result.changes),
    }
    lines = [f"{what}: {count:,}" for what, count in counts.items()]
    lines += [f"left by the worker with {way}: {left or 'nothing was read'}" for way, left in result.left.items()]
    return "\n".join([*lines, f"{result.seconds:g} s"])


if __name__ == "__main__":
    typer.run(impaired)
