"""`make soak`: the long run under faults, and its report.

Owns: the sizes of the long run, its rounds, and the page that it prints.
Must not know: how faults are made (`tests.support.chaos`) or judged (`tests.support.checker`).
Invariant: the page says what was counted, whatever came out; the exit code says whether the promise held.
"""

import json
import platform
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from tests.support.chaos import PEAK_BYTES, Chaos, Outcome, Plan
from tests.support.servers import PrivateServers, copy_prepared, prepare, short_lived_directory
from tests.support.world import STRATEGY, build_world, catalogue, register
from worker.embedded.identity import FILE_NAME, StackIdentity, read_identity, write_identity
from worker.registry.migrations import migrate
from worker.registry.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
GUARANTEES = PAGE.with_name("guarantees.md")
#: What stands between these lines of it is printed.
SUM_BEGINS, SUM_ENDS = "<!-- printed by `make soak` -->", "<!-- end of what is printed -->"
BOOK = Path(".local") / "soak.jsonl"
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


#: The server of each round in turn: whether of Redis's family, and when its file reaches the disk.
SERVERS = ((False, "everysec"), (True, "always"), (False, "always"), (True, "everysec"))
#: Rarely, since a worker that starts again costs seconds of the machine.
FAILPOINTS = "read=kill@0.00005,computed=kill@0.00005,committed=kill@0.00005,computed=raise@0.001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run on servers of its own, in counts."""

    seed: int
    #: The stream server's family, and when its append-only file reaches the disk.
    server: str
    seconds: float
    requests: int
    answered: int
    rejected: int
    lost: int
    doubled: int
    repeated: int
    wrong: int
    strange: int
    pending: int
    restarts: int
    peak_bytes: int
    #: Requests that a server had forgotten without an outcome; asked again at the end, and not lost.
    sent_again: int
    faults: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether each request has exactly the one outcome it should have, and memory stayed within its bound."""
        sound = not (self.lost or self.doubled or self.wrong or self.strange or self.pending)
        return sound and 0 < self.peak_bytes < PEAK_BYTES


def soak(
    requests: Annotated[int, typer.Option(help="Requests asked.")] = 1_000_000,
    faults: Annotated[int, typer.Option(help="Faults injected.")] = 10_000,
    rounds: Annotated[int, typer.Option(help="Runs on fresh servers into which they are divided.")] = 40,
    processes: Annotated[int, typer.Option(help="Runs at the same time; most of a run is waiting.")] = 3,
    seed: Annotated[int | None, typer.Option(help="Seed of the first run.")] = None,
    book: Annotated[Path, typer.Option(help="Finished runs, a line each; a soak that was ended goes on.")] = BOOK,
) -> None:
    """Ask and break, judge by the streams, write docs/soak.md; exit 1 if anything was lost, doubled, wrong, too big."""
    done = (
        [Round(**json.loads(line)) for line in book.read_text(encoding="utf-8").splitlines()] if book.exists() else []
    )
    first = secrets.randbits(32) if seed is None else seed
    book.parent.mkdir(exist_ok=True)
    sizes = {"requests": -(-requests // rounds), "faults": -(-faults // rounds)}
    with (
        tempfile.TemporaryDirectory() as folder,
        short_lived_directory() as prepared,
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
    ):
        world = build_world(Path(folder))
        prepare(prepared)
        waiting = [
            pool.submit(run, _plan(first, number, sizes), world, prepared, redis_family=SERVERS[number % 4][0])
            for number in range(len(done), rounds)
        ]
        for finished in as_completed(waiting):
            done.append(finished.result())
            with book.open("a", encoding="utf-8") as written:
                written.write(json.dumps(asdict(done[-1])) + "\n")
            typer.echo(f"{len(done)}/{rounds} {done[-1]}")
            publish(done)
    publish(done)
    typer.echo(report(done))
    raise typer.Exit(not all(one.holds for one in done))


def _plan(first: int, number: int, sizes: Mapping[str, int]) -> Plan:
    return Plan(
        seed=first + number,
        requests=sizes["requests"],
        faults=sizes["faults"],
        weights=WEIGHTS,
        appendfsync=SERVERS[number % len(SERVERS)][1],
        failpoints=FAILPOINTS,
        healed_seconds=300.0,
    )


def run(plan: Plan, world: Path, prepared: Path, *, redis_family: bool) -> Round:
    """Return what was asked and done, and what the streams say of it; logs of a run that failed are kept."""
    with short_lived_directory() as directory, tempfile.TemporaryDirectory() as logs:
        copy_prepared(prepared, directory)
        _part_from_other_rounds(directory)
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
            if not outcome.holds:
                kept = shutil.copytree(folder, tempfile.mkdtemp(prefix="soak-"), symlinks=True, dirs_exist_ok=True)
                typer.echo(f"seed {plan.seed}: {outcome.verdict}; logs of the workers: {kept}")
            return _round(plan, outcome, servers.family)
        finally:
            servers.close()


def _part_from_other_rounds(directory: Path) -> None:
    """Give copied servers ports and a password of their own.

    Rounds that run at the same time would share them: a server that is killed leaves its port to another round's,
    which then answers to the password and is taken for it.
    """
    copied = read_identity(directory)
    if copied is None:
        raise FileNotFoundError(f"{directory} has no {FILE_NAME}, so no servers were prepared in it")
    fresh = StackIdentity.make()
    # The password of the databases stands in the copied cluster.
    write_identity(directory, replace(fresh, postgres_password=copied.postgres_password))


def _round(plan: Plan, outcome: Outcome, family: str) -> Round:
    verdict = outcome.verdict
    return Round(
        seed=plan.seed,
        server=f"{family}, appendfsync {plan.appendfsync}",
        seconds=outcome.seconds,
        requests=verdict.requests,
        answered=verdict.answered,
        rejected=verdict.rejected,
        lost=len(verdict.lost),
        doubled=len(verdict.doubled),
        repeated=len(verdict.repeated),
        wrong=len(verdict.wrong),
        strange=len(verdict.strange),
        pending=verdict.pending,
        restarts=outcome.restarts,
        peak_bytes=outcome.peak_bytes,
        sent_again=outcome.sent_again,
        faults=dict(outcome.faults),
    )


def publish(rounds: Sequence[Round]) -> None:
    """Write the page, and its sum into the page of guarantees."""
    PAGE.write_text(report(rounds), encoding="utf-8")
    before, _, rest = GUARANTEES.read_text(encoding="utf-8").partition(SUM_BEGINS)
    after = rest.partition(SUM_ENDS)[2]
    GUARANTEES.write_text(f"{before}{SUM_BEGINS}{summary(rounds)}{SUM_ENDS}{after}", encoding="utf-8")


def summary(rounds: Sequence[Round]) -> str:
    """Return the page's sum, one sentence a line."""
    requests, faults = sum(one.requests for one in rounds), sum(sum(one.faults.values()) for one in rounds)
    lost, doubled, wrong = (sum(getattr(one, name) for one in rounds) for name in ("lost", "doubled", "wrong"))
    repeated = sum(one.repeated for one in rounds)
    outcomes = f"{lost:,} lost, {doubled:,} doubled, {wrong:,} wrong"
    return f"""
The last long run asked {requests:,} requests under {faults:,} faults: {outcomes}.
After a server had lost the first outcome, {repeated:,} appeared again, equal.
"""


def report(rounds: Sequence[Round]) -> str:
    """Return the page."""
    faults, servers = Counter[str](), Counter[str]()
    for one in rounds:
        faults.update(one.faults)
        servers[one.server] += one.requests
    counts = {
        "requests": sum(one.requests for one in rounds),
        "vectors": sum(one.answered for one in rounds),
        "rejections": sum(one.rejected for one in rounds),
        "faults injected from outside": faults.total(),
        "workers started again": sum(one.restarts for one in rounds),
        "lost": sum(one.lost for one in rounds),
        "doubled": sum(one.doubled for one in rounds),
        "other than computed directly": sum(one.wrong for one in rounds),
        "answered though nobody asked": sum(one.strange for one in rounds),
        "left pending": sum(one.pending for one in rounds),
        "sent again after a server had forgotten the request": sum(one.sent_again for one in rounds),
        "repeated with an equal outcome, after a server had lost the first": sum(one.repeated for one in rounds),
    }
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )
    seconds = sum(one.seconds for one in rounds)
    length = f"{len(rounds)} rounds of 2 workers, each on fresh servers, {seconds:,.0f} s together"
    peak = f"{max(one.peak_bytes for one in rounds) / 1e6:,.0f} MB, and {PEAK_BYTES / 1e6:,.0f} MB fail the run"
    return f"""# The long run under faults

Printed by `make soak`; do not edit.
{machine}: {length}.
Workers also fail by themselves at random steps, by dying and by raising; the most memory of one was {peak}.
The checker reads the streams alone, also before a fault that makes a server forget: what it read then counts.
Lost is a request without an outcome that is neither unread nor pending; this is checked before anything is sent again.
Excused is only a request that was on the server, unanswered, before such a fault and not after it.
At the end of a round the producer sends it again under the same id, and it must be answered then.

{_table("count", counts)}

{_table("fault", dict(sorted(faults.items())))}

{_table("server", dict(sorted(servers.items())), "requests")}
"""


def _table(what: str, counts: Mapping[str, int], unit: str = "times") -> str:
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in counts.items())
    return f"| {what} | {unit} |\n| --- | --- |\n{rows}"


if __name__ == "__main__":
    typer.run(soak)
