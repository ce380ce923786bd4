"""How soon the fleet answers again: after a worker was killed, after the stream server was.

Owns: the servers and workers of the measurement, what is killed and when.
Must not know: models, bars; nobody registered the strategy that is asked for, so that each request has its outcome
without them, over the same way from read to commit.
Invariant: the workers are those of the command line with their default settings; an outcome's time is that of its entry
id, by the server's clock, which is this machine's.
"""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts import GROUP, StreamNames
from contracts.entry_ids import EntryId
from tests.benchmarks.children import ChildFailed
from tests.benchmarks.figures import Figure, spell_seconds
from tests.support.world import WRONG, activate_world, build_world, served_from
from worker.embedded import Endpoints, LocalStack
from worker.embedded.processes import wait_until
from worker.embedded.servers import find_servers
from worker.errors import StreamUnavailable
from worker.registry.migrations import migrate
from worker.settings import Settings, inherited_environment
from worker.transport.client import Client, connect, text_of

NAMESPACE = "recovery"
KILLED_WORKERS, KILLED_SERVERS = 4, 6
#: Goals in seconds: beyond the lease of what a killed worker held, and after the server takes connections again.
AFTER_LEASE, AFTER_RESTART = 1.0, 1.0
PATIENCE = 300.0
#: Reads a request and keeps it, until it is killed.
HOLDING = {"SIGNALS_FAILPOINTS": "seed=1,read=sleep:600000@1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stand:
    """The servers of a measurement."""

    stack: LocalStack
    endpoints: Endpoints
    names: StreamNames
    client: Client
    #: Where its workers' bars and models are.
    folder: Path

    def ask(self) -> str:
        """Add a request and return its id."""
        return text_of(
            self.client.execute_command(
                "XADD", self.names.requests, "*", *[text for pair in WRONG.items() for text in pair]
            )
        )

    def answered_at(self, request: str) -> float | None:
        """Return when the request had its outcome, in epoch seconds; None: not yet."""
        entry = self.client.hget(self.names.request(request), "entry")
        return EntryId.parse(text_of(entry)).ms / 1000 if entry else None

    def await_answer(self, request: str) -> float:
        """Return when the request had its outcome.

        Raises:
            ChildFailed: It has none.
        """
        _require(lambda: self.answered_at(request) is not None, f"request {request} was not answered")
        return self.answered_at(request) or 0.0

    def pending(self) -> int:
        """Return how many requests workers hold."""
        found: Mapping[str, int] = self.client.xpending(self.names.requests, GROUP)
        return found["pending"]


def recovery_figures() -> Iterator[Figure]:
    """Yield both times, median and worst.

    Raises:
        ChildFailed: A worker did not serve, or a request was never answered.
    """
    lease = Settings.model_fields["lease_ms"].default / 1000
    with _stand() as stand:
        yield _figure(
            f"outcome of what a killed worker held, after the kill (lease {lease:g} s)",
            _after_kills_of_workers(stand),
            lease + AFTER_LEASE,
        )
        yield _figure(
            "outcome of the first request after the stream server was killed, after it takes connections",
            _after_kills_of_the_server(stand),
            AFTER_RESTART,
        )


def _figure(work: str, seconds: list[float], goal: float) -> Figure:
    median, worst = statistics.median(seconds), max(seconds)
    return Figure(
        work=work,
        value=f"median {spell_seconds(median)}, worst of {len(seconds)} {spell_seconds(worst)}",
        goal=spell_seconds(goal),
        met=worst <= goal,
    )


def _after_kills_of_workers(stand: _Stand) -> list[float]:
    """Return the seconds from each kill to the outcome of what the worker held."""
    held, killed_at = [], []
    with _workers(stand, KILLED_WORKERS, HOLDING) as holders:
        for _ in holders:
            held.append(stand.ask())
            _require(lambda: stand.pending() == len(held), "no worker took the request")
        with _workers(stand, 1):
            for holder in holders:
                time.sleep(random.uniform(0, 2))
                holder.kill()
                killed_at.append(time.time())
            answered = [stand.await_answer(request) for request in held]
    # Which worker took which request is not asked: all wait for the same lease, the first to be killed the longest.
    return [at - killed for at, killed in zip(sorted(answered), killed_at, strict=True)]


def _after_kills_of_the_server(stand: _Stand) -> list[float]:
    """Return the seconds from the first connection that a started server takes to the outcome of a request."""
    seconds = []
    with _workers(stand, 1), ThreadPoolExecutor(1) as beside:
        for number in range(KILLED_SERVERS):
            stand.await_answer(stand.ask())
            find_servers(stand.stack.directory)["valkey"].kill()
            _require(lambda: "valkey" not in find_servers(stand.stack.directory), "the server lived on")
            time.sleep(number)  # longer and longer, so that workers have given up trying at once
            asked = beside.submit(_ask_as_soon_as_possible, stand)
            stand.stack.start()
            begun, request = asked.result(PATIENCE)
            seconds.append(stand.await_answer(request) - begun)
    return seconds


def _ask_as_soon_as_possible(stand: _Stand) -> tuple[float, str]:
    """Return when the server took a connection and commands, and the request that was added right after."""
    while True:
        try:
            stand.client.ping()
            return time.time(), stand.ask()
        except StreamUnavailable:
            time.sleep(0.001)


def _require(condition: Callable[[], bool], otherwise: str) -> None:
    if not wait_until(condition, PATIENCE):
        raise ChildFailed(f"{otherwise} within {PATIENCE:.0f} s")


@contextmanager
def _stand() -> Iterator[_Stand]:
    with tempfile.TemporaryDirectory(prefix="signal-worker-recovery-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL's own user must be able to enter
        stack = LocalStack(Path(folder) / "servers")
        with stack as endpoints:
            migrate(endpoints.database_url)
            world = build_world(Path(folder) / "world")
            activate_world(endpoints.database_url)
            client = connect(endpoints.redis_url, "recovery")
            yield _Stand(stack=stack, endpoints=endpoints, names=StreamNames(NAMESPACE), client=client, folder=world)
            client.close()


@contextmanager
def _workers(
    stand: _Stand, count: int, more: Mapping[str, str] | None = None
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Yield workers that serve; they are killed afterwards."""
    environment = inherited_environment() | {
        "REDIS_URL": stand.endpoints.redis_url,
        "DATABASE_URL": stand.endpoints.database_url,
        "SIGNALS_NAMESPACE": NAMESPACE,
        **{f"SIGNALS_{name.upper()}": value for name, value in served_from(stand.folder).items()},
        **(more or {}),
    }
    before = len(_started(stand))
    silent = subprocess.DEVNULL
    command = [sys.executable, "-m", "worker", "run"]
    children = [subprocess.Popen(command, env=environment, stdout=silent, stderr=silent) for _ in range(count)]
    try:
        _require(lambda: len(_started(stand)) == before + count, "the workers did not serve")
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def _started(stand: _Stand) -> list[object]:
    entries = stand.client.execute_command("XRANGE", stand.names.events, "-", "+")
    return [entry_id for entry_id, flat in entries if b"worker.started" in flat]
