"""`python -m tests.faults.activations`: many activations under faults, and the page about them.

Owns: the sizes of the long run and the page that it prints.
Must not know: how faults are made (`tests.support.campaign`) or judged (`tests.support.attribution`).
Invariant: the page says what was counted, whatever came out; the exit code says whether the promise held.
"""

import platform
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tests.support.attribution import Verdict, judge
from tests.support.campaign import RECONCILE_SECONDS, STRATEGIES, Campaign, Outcome, Plan, build_campaign
from tests.support.servers import PrivateServers, short_lived_directory
from tests.support.serving import Streams
from worker.registry.migrations import migrate

PAGE = Path(__file__).parents[2] / "docs" / "activations.md"


def activations(
    activations: Annotated[int, typer.Option(help="Activations in a row.")] = 300,
    versions: Annotated[int, typer.Option(help="Versions of each strategy, which take turns.")] = 50,
    faults: Annotated[int, typer.Option(help="Faults injected.")] = 120,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 3,
    burst: Annotated[int, typer.Option(help="Requests between two activations at most.")] = 60,
    pace_seconds: Annotated[float, typer.Option(help="Longest wait for an activation to answer a request.")] = 4.0,
    seed: Annotated[int | None, typer.Option(help="Repeat a run.")] = None,
    output: Annotated[Path, typer.Option(help="The page.")] = PAGE,
) -> None:
    """Activate and break, judge by streams, registry and files, write the page; exit 1 if anything was wrong."""
    plan = Plan(
        seed=secrets.randbits(32) if seed is None else seed,
        activations=activations,
        versions=versions,
        workers=workers,
        faults=faults,
        burst=burst,
        pace_seconds=pace_seconds,
    )
    typer.echo(f"seed {plan.seed}")
    outcome, verdict = run(plan)
    page = report(plan, outcome, verdict)
    output.write_text(page, encoding="utf-8")
    typer.echo(page)
    raise typer.Exit(bool(verdict.faults) or outcome.converged_seconds is None)


def run(plan: Plan) -> tuple[Outcome, Verdict]:
    """Return what was done, and what streams, registry and files say of it."""
    with tempfile.TemporaryDirectory() as folder, short_lived_directory() as directory:
        world = build_campaign(Path(folder), plan.versions)
        servers = PrivateServers(directory)
        try:
            migrate(servers.endpoints.database_url)
            campaign = Campaign(servers, world, plan)
            try:
                outcome = campaign.run()
            finally:
                campaign.close()
            streams = Streams(servers.endpoints.redis_url, "signals")
            return outcome, judge(streams, servers.endpoints.database_url, world, outcome.asked)
        finally:
            servers.close()


def report(plan: Plan, outcome: Outcome, verdict: Verdict) -> str:
    """Return the page."""
    wrong = {
        "requests without an outcome": verdict.lost,
        "requests with two outcomes": verdict.doubled,
        "requests rejected": verdict.rejected,
        "outcomes that nobody asked for": verdict.strange,
        "vectors of an activation that the registry does not know": verdict.unknown,
        "vectors with other digests than their version's": verdict.mislabelled,
        "vectors older than their activation": verdict.early,
        "vectors that differ when computed again": verdict.different,
        "workers that went back to an earlier activation": verdict.went_back,
        "numbers missing in the history": verdict.gaps,
        "sound versions marked failed": verdict.failed,
        "activations never published, or published out of order": verdict.untold,
        "rows left in the outbox": verdict.unpublished,
        "entries left pending": verdict.pending,
    }
    counts = {
        "activations": f"{verdict.activations:,}",
        "of them served at least one request": f"{verdict.served:,}",
        "requests": f"{verdict.requests:,}",
        "vectors, computed again bit for bit": f"{verdict.answered:,}, {verdict.identical:,}",
        "faults injected from outside": f"{sum(outcome.faults.values()):,}",
        "workers and publishers started again": f"{outcome.restarts:,}",
        "last activation on every worker, without a control event": f"after {outcome.converged_seconds} s",
        **{what: f"{len(found):,}" for what, found in wrong.items()},
    }
    rows = "\n".join(f"| {what} | {count} |" for what, count in counts.items())
    kinds = "\n".join(f"| {kind} | {count:,} |" for kind, count in sorted(outcome.faults.items()))
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"""# Activations under faults

Printed by `python -m tests.faults.activations`; do not edit.
{datetime.now(UTC):%Y-%m-%d}, {machine}, seed {plan.seed}, {outcome.seconds:,.0f} s.
{plan.workers} workers, 2 publishers, {len(STRATEGIES)} strategies of {plan.versions} versions each.
Workers look at the registry every {RECONCILE_SECONDS:g} s, besides each control event.
Workers also fail by themselves: `{plan.failpoints}`.
The checker trusts only entries, registry rows and files; it computes every vector again from its lineage.

| count | |
| --- | --- |
{rows}

| fault | times |
| --- | --- |
{kinds}
"""


if __name__ == "__main__":
    typer.run(activations)
