"""`make soak`: the long run under faults, and its report.

Owns: the sizes of the long run and the page that it prints.
Must not know: how faults are made (`tests.support.chaos`) or judged (`tests.support.checker`).
Invariant: the page says what was counted, whatever came out; the exit code says whether the promise held.
"""

import platform
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tests.support.chaos import Chaos, Outcome, Plan
from tests.support.checker import Verdict, check
from tests.support.servers import PrivateServers, short_lived_directory
from tests.support.serving import Streams
from tests.support.world import STRATEGY, build_world, catalogue, register
from worker.lifecycle.migrations import migrate
from worker.lifecycle.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"


def soak(
    requests: Annotated[int, typer.Option(help="Requests asked.")] = 1_000_000,
    faults: Annotated[int, typer.Option(help="Faults injected.")] = 10_000,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
    seed: Annotated[int | None, typer.Option(help="Repeat a run.")] = None,
) -> None:
    """Ask and break, judge by the streams, write docs/soak.md; exit 1 if a request was lost, doubled or wrong."""
    plan = Plan(
        seed=secrets.randbits(32) if seed is None else seed,
        requests=requests,
        faults=faults,
        workers=workers,
        healed_seconds=600.0,
        # Mostly what costs no time, so that thousands fit; of every kind enough.
        weights=(2, 1, 30, 2, 3, 15, 30, 3, 0.2, 2, 0.5, 0.3, 8, 3),
    )
    typer.echo(f"seed {plan.seed}")
    outcome, verdict = run(plan)
    page = report(plan, outcome, verdict)
    PAGE.write_text(page, encoding="utf-8")
    typer.echo(page)
    raise typer.Exit(not verdict.holds)


def run(plan: Plan) -> tuple[Outcome, Verdict]:
    """Return what was asked and done, and what the streams say of it."""
    with tempfile.TemporaryDirectory() as folder, short_lived_directory() as directory:
        world = build_world(Path(folder))
        servers = PrivateServers(directory)
        try:
            migrate(servers.endpoints.database_url)
            with Registry(servers.endpoints.database_url) as registry:
                register(registry, "v1")
                registry.activate(STRATEGY, "v1")
            chaos = Chaos(servers, world, plan, catalogue(world))
            try:
                outcome = chaos.run()
            finally:
                chaos.close()
            return outcome, check(Streams(servers.endpoints.redis_url, "signals"), outcome.expected)
        finally:
            servers.close()


def report(plan: Plan, outcome: Outcome, verdict: Verdict) -> str:
    """Return the page."""
    kinds = "\n".join(f"| {kind} | {count:,} |" for kind, count in sorted(outcome.faults.items()))
    counts = {
        "requests": verdict.requests,
        "answered": verdict.answered,
        "rejected": verdict.rejected,
        "faults injected from outside": sum(outcome.faults.values()),
        "workers started again": outcome.restarts,
        "lost": len(verdict.lost),
        "doubled": len(verdict.doubled),
        "other than computed directly": len(verdict.wrong),
        "answered though nobody asked": len(verdict.strange),
        "left pending": verdict.pending,
    }
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )
    rows = "\n".join(f"| {what} | {count:,} |" for what, count in counts.items())
    return f"""# The long run under faults

Printed by `make soak`; do not edit.
{machine}, seed {plan.seed}, {plan.workers} workers, {outcome.seconds:,.0f} s.
Workers also fail by themselves: `{plan.failpoints}`.
After the faults the producer sends again, under the same ids, what has no outcome; the checker reads the streams alone.

| count | |
| --- | --- |
{rows}

| fault | times |
| --- | --- |
{kinds}
"""


if __name__ == "__main__":
    typer.run(soak)
