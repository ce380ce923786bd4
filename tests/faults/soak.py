"""`make soak`: the long run under faults, and its report.

Owns: the sizes of the long run, its rounds, and the page that it prints.
Must not know: how faults are made (`tests.support.chaos`) or judged (`tests.support.checker`).
Invariant: the page says what was counted, whatever came out; the exit code says whether the promise held.
"""

import platform
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tests.support.chaos import Chaos, Outcome, Plan
from tests.support.servers import PrivateServers, copy_prepared, prepare, short_lived_directory
from tests.support.world import STRATEGY, build_world, catalogue, register
from worker.lifecycle.migrations import migrate
from worker.lifecycle.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
#: Mostly what costs no time, so that thousands fit; of every kind enough.
WEIGHTS = {
    "clients killed": 28,
    "connections cut": 28,
    "scripts flushed": 12,
    "control garbage": 10,
    "control connection cut": 8,
    "reload": 3,
    "network deaf": 2,
    "network slow": 1.5,
    "server paused": 1.5,
    "worker killed": 1.2,
    "server full": 1,
    "worker stopped longer than its lease": 0.8,
    "control stream deleted": 0.5,
    "group destroyed": 0.5,
    "requests trimmed, pending ones too": 0.5,
    "server killed": 0.5,
    "server emptied": 0.3,
    "server back from an older file": 0.3,
    "replica promoted": 0.2,
    "registry killed": 0.2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run on servers of its own."""

    seed: int
    #: The stream server's family, and when its append-only file reaches the disk.
    server: str
    outcome: Outcome


#: The server of each round in turn: whether of Redis's family, and when its file reaches the disk.
SERVERS = ((False, "everysec"), (True, "always"), (False, "always"), (True, "everysec"))


def soak(
    requests: Annotated[int, typer.Option(help="Requests asked.")] = 1_000_000,
    faults: Annotated[int, typer.Option(help="Faults injected.")] = 10_000,
    rounds: Annotated[int, typer.Option(help="Runs on fresh servers into which they are divided.")] = 40,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
    seed: Annotated[int | None, typer.Option(help="Repeat a run.")] = None,
) -> None:
    """Ask and break, judge by the streams, write docs/soak.md; exit 1 if a request was lost, doubled or wrong."""
    first = secrets.randbits(32) if seed is None else seed
    done: list[Round] = []
    with tempfile.TemporaryDirectory() as world, short_lived_directory() as prepared:
        build_world(Path(world))
        prepare(prepared)
        for number in range(rounds):
            family, appendfsync = SERVERS[number % len(SERVERS)]
            plan = Plan(
                seed=first + number,
                requests=-(-requests // rounds),
                faults=-(-faults // rounds),
                workers=workers,
                weights=WEIGHTS,
                appendfsync=appendfsync,
                healed_seconds=300.0,
            )
            outcome = run(plan, Path(world), prepared, redis_family=family)
            server = f"{'Redis' if family else 'Valkey'}, appendfsync {appendfsync}"
            done.append(Round(seed=plan.seed, server=server, outcome=outcome))
            typer.echo(f"{number + 1}/{rounds} seed {plan.seed} {server}: {outcome.verdict}, {outcome.seconds} s")
            PAGE.write_text(report(done, workers), encoding="utf-8")
    typer.echo(report(done, workers))
    raise typer.Exit(not all(one.outcome.verdict.holds for one in done))


def run(plan: Plan, world: Path, prepared: Path, *, redis_family: bool) -> Outcome:
    """Return what was asked and done, and what the streams say of it; logs of a run that failed are kept."""
    with short_lived_directory() as directory, tempfile.TemporaryDirectory() as logs:
        copy_prepared(prepared, directory)
        servers = PrivateServers(directory, redis_family=redis_family)
        folder = Path(logs)
        for name in ("data", "artifacts"):
            (folder / name).symlink_to(world / name)
        try:
            migrate(servers.endpoints.database_url)
            with Registry(servers.endpoints.database_url) as registry:
                register(registry, "v1")
                registry.activate(STRATEGY, "v1")
            chaos = Chaos(servers, folder, plan, catalogue(world))
            try:
                outcome = chaos.run()
            finally:
                chaos.close()
            if not outcome.verdict.holds:
                kept = shutil.copytree(folder, tempfile.mkdtemp(prefix="soak-"), symlinks=True, dirs_exist_ok=True)
                typer.echo(f"logs of the workers: {kept}")
            return outcome
        finally:
            servers.close()


def report(rounds: Sequence[Round], workers: int) -> str:
    """Return the page."""
    outcomes = [one.outcome for one in rounds]
    verdicts = [outcome.verdict for outcome in outcomes]
    faults = sum((outcome.faults for outcome in outcomes), Counter[str]())
    seconds = sum(outcome.seconds for outcome in outcomes)
    counts = {
        "requests": sum(verdict.requests for verdict in verdicts),
        "vectors": sum(verdict.answered for verdict in verdicts),
        "rejections": sum(verdict.rejected for verdict in verdicts),
        "faults injected from outside": faults.total(),
        "workers started again": sum(outcome.restarts for outcome in outcomes),
        "lost": sum(len(verdict.lost) for verdict in verdicts),
        "doubled": sum(len(verdict.doubled) for verdict in verdicts),
        "other than computed directly": sum(len(verdict.wrong) for verdict in verdicts),
        "answered though nobody asked": sum(len(verdict.strange) for verdict in verdicts),
        "left pending": sum(verdict.pending for verdict in verdicts),
        "repeated with an equal outcome, after a server had lost the first": sum(
            len(verdict.repeated) for verdict in verdicts
        ),
    }
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )
    length = f"{workers} workers, {seconds:,.0f} s in {len(rounds)} rounds, each on fresh servers"
    peak = f"{max(outcome.peak_bytes for outcome in outcomes) / 1e6:,.0f} MB"
    return f"""# The long run under faults

Printed by `make soak`; do not edit.
{machine}, {length}, seeds {rounds[0].seed} to {rounds[-1].seed}.
Workers also fail by themselves: `{Plan(seed=0, requests=0).failpoints}`; the most memory of one was {peak}.
After the faults of a round the producer sends again, under the same ids, what has no outcome.
The judge reads the streams alone, and before a fault that makes a server forget: what was seen then counts.

{_table("count", counts)}

{_table("fault", dict(sorted(faults.items())))}

{_table("server", _by_server(rounds), "requests")}
"""


def _by_server(rounds: Sequence[Round]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in rounds:
        found[one.server] += one.outcome.verdict.requests
    return dict(sorted(found.items()))


def _table(what: str, counts: dict[str, int], unit: str = "times") -> str:
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in counts.items())
    return f"| {what} | {unit} |\n| --- | --- |\n{rows}"


if __name__ == "__main__":
    typer.run(soak)
