"""Many activations in a row while everything that takes part is killed, all from one seed.

Owns: the versions that take turns, the load of requests, the kinds of faults, healing, the last activation of all.
Must not know: how workers keep their promise; `attribution` judges.
Invariant: the same seed activates the same versions, asks the same requests and injects the same faults in the same
order.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from strategies.models.bundle_store import save_bundle
from tests.support.fleet import PATIENCE, Fleet, Process
from tests.support.market import make_bars, write_snapshot
from tests.support.models import make_content
from tests.support.registry import register, sql
from tests.support.servers import PrivateServers
from tests.support.serving import Streams
from worker.client import SignalClient
from worker.embedded.processes import wait_until
from worker.errors import RegistryUnavailable, StreamUnavailable
from worker.registry.registry import Registry
from worker.transport.client import pairs_of

STRATEGIES = ("alpha_baseline", "beta")
SYMBOLS = ("AAPL", "IBM", "MSFT", "ORCL")
#: Really trained models; a version holds one of them.
MODELS = 4
#: Pause of a worker between two looks at the registry, in seconds.
RECONCILE_SECONDS = 3.0
_PUBLISHERS = 2
_SESSIONS_OF_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does."""

    seed: int
    activations: int = 100
    #: Versions of each strategy, which take turns.
    versions: int = 4
    workers: int = 3
    faults: int = 20
    #: Requests between two activations at most, one of them at least.
    burst: int = 12
    #: Longest wait for an activation to answer its first request before the next one is made, in seconds.
    pace_seconds: float = 1.0
    #: Steps at which workers fail by themselves, see `worker.serving.failpoints`; empty: none.
    failpoints: str = "computed=kill@0.001,committed=kill@0.001"
    #: Time that the workers have for the last activation, beyond a look at the registry.
    patience_seconds: float = PATIENCE
    module: str = "worker"
    verb: tuple[str, ...] = ("run",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was asked and done."""

    #: Request ids that the server accepted.
    asked: tuple[str, ...]
    faults: Counter[str]
    #: Workers and publishers started again.
    restarts: int
    #: From the last activation, which no publisher told, until every worker served it; None: one never did.
    converged_seconds: float | None
    seconds: float


def build_campaign(folder: Path, versions: int) -> Path:
    """Write a snapshot, and bundles of every strategy and version; return the folder."""
    write_snapshot(folder / "data", {symbol: make_bars(sessions=300, seed=row) for row, symbol in enumerate(SYMBOLS)})
    for shift, strategy in enumerate(STRATEGIES):
        for number in range(versions):
            content = make_content(strategy=strategy, version=f"v{number + 1}", seed=(number + shift) % MODELS)
            save_bundle(folder / "artifacts", content)
    return folder


class Campaign:
    """One run; `run` returns what was asked, and leaves streams and registry for the judge."""

    def __init__(self, servers: PrivateServers, folder: Path, plan: Plan) -> None:
        """Take migrated private servers and a folder of `build_campaign`."""
        self._servers, self._plan = servers, plan
        self._rng = random.Random(plan.seed)
        self._streams = Streams(servers.endpoints.redis_url, "signals")
        self._registry = Registry(servers.endpoints.database_url)
        self._fleet = Fleet(
            servers.endpoints,
            folder,
            measured=False,
            lease_ms=1500,
            reconcile_seconds=RECONCILE_SECONDS,
            max_deliveries=20,
        )
        self._workers: list[Process | None] = [None] * plan.workers
        self._publishers: list[Process | None] = [None] * _PUBLISHERS
        self._active: dict[str, str] = {}
        self._asked: dict[str, Mapping[str | bytes, str | bytes]] = {}
        self._faults: Counter[str] = Counter()
        self._restarts = 0
        self._failing = True
        self._kinds: Mapping[str, Callable[[], None]] = {
            "worker killed": lambda: self._kill(self._workers),
            "worker stopped longer than its lease": self._stop_worker,
            "publisher killed": lambda: self._kill(self._publishers),
            "stream server killed": self._kill_streams,
            "registry killed": self._kill_registry,
            "sessions of the registry ended": self._end_sessions,
            "connections to the stream server cut": lambda: self._tell("CLIENT", "KILL", "TYPE", "normal"),
            "reload by hand": lambda: self._tell("XADD", "signals:control", "*", "type", "reload"),
            "garbage on the control stream": lambda: self._tell(
                "XADD", "signals:control", "*", "type", "no such thing"
            ),
        }

    def run(self) -> Outcome:
        """Activate, ask, break; then heal, and activate once more with nobody to tell it."""
        begun = time.monotonic()
        for strategy in STRATEGIES:
            names = tuple(f"v{number + 1}" for number in range(self._plan.versions))
            register(self._registry, strategy, *names)
            for name in names:  # each once before anybody serves: none stays in testing
                self._activate(strategy, name)
        self._keep_running()
        self._ask(self._plan.burst)
        for due in self._schedule():
            self._next_activation()
            self._ask(self._rng.randint(1, self._plan.burst))
            if due:
                self._kinds[due]()
                self._faults[due] += 1
                self._keep_running()
        self._heal()
        converged = self._converge()
        return Outcome(
            asked=tuple(self._asked),
            faults=self._faults,
            restarts=self._restarts,
            converged_seconds=converged,
            seconds=round(time.monotonic() - begun, 1),
        )

    def close(self) -> None:
        """End everything that still runs."""
        self._fleet.end()
        self._registry.close()

    def _schedule(self) -> Sequence[str | None]:
        """Return the fault that follows each activation; every kind comes before one comes again."""
        due: list[str] = []
        while len(due) < min(self._plan.faults, self._plan.activations):
            due += self._rng.sample(list(self._kinds), len(self._kinds))
        faults: list[str | None] = list(due[: min(self._plan.faults, self._plan.activations)])
        places = sorted(self._rng.sample(range(self._plan.activations), len(faults)))
        by_place = dict(zip(places, faults, strict=True))
        return [by_place.get(place) for place in range(self._plan.activations)]

    def _next_activation(self, *, asked: bool = True) -> None:
        """Activate another version of a strategy, and give it the time to answer a request."""
        strategy = self._rng.choice(STRATEGIES)
        others = [f"v{number + 1}" for number in range(self._plan.versions)]
        others.remove(self._active[strategy])
        number = self._activate(strategy, self._rng.choice(others))
        deadline = time.monotonic() + self._plan.pace_seconds
        while asked and self._last_answer() < number and time.monotonic() < deadline:
            self._ask(1, strategy)
            wait_until(lambda: self._last_answer() >= number, 0.1)

    def _activate(self, strategy: str, version: str) -> int:
        """Say it until the registry has answered: an activation whose answer was lost keeps its number."""
        for _ in range(400):
            try:
                activation = self._registry.activate(strategy, version, by="campaign").activation
            except RegistryUnavailable:
                time.sleep(0.05)
            else:
                self._active[strategy] = version
                return activation
        raise TimeoutError("the registry took no activation for 20 s")

    def _last_answer(self) -> int:
        with suppress(StreamUnavailable, OSError):
            for _, flat in self._streams.client.execute_command("XREVRANGE", "signals:results", "+", "-", "COUNT", 1):
                return int(dict(pairs_of(flat))[b"activation"])
        return 0

    def _ask(self, count: int, strategy: str | None = None) -> None:
        for _ in range(count):
            request_id = f"r{self._plan.seed}-{len(self._asked)}"
            self._asked[request_id] = {
                "request_id": request_id,
                "strategy": strategy or self._rng.choice(STRATEGIES),
                "symbols": ",".join(self._rng.sample(SYMBOLS, self._rng.randint(2, len(SYMBOLS)))),
            }
            self._add(request_id)

    def _add(self, request_id: str) -> None:
        # As a producer does that keeps its request id: say it again until the server has answered once.
        for _ in range(400):
            try:
                self._streams.add(self._asked[request_id])
            except (StreamUnavailable, OSError):
                time.sleep(0.05)
            else:
                return
        raise TimeoutError("the server took no request for 20 s")

    def _tell(self, *command: str) -> None:
        with suppress(StreamUnavailable, OSError):
            self._streams.client.execute_command(*command)

    def _kill(self, processes: Sequence[Process | None]) -> None:
        process = self._rng.choice(processes)
        if process is not None and process.running():
            process.signal(signal.SIGKILL)
            process.wait()

    def _stop_worker(self) -> None:
        worker = self._rng.choice(self._workers)
        if worker is not None and worker.running():
            worker.signal(signal.SIGSTOP)
            self._next_activation()
            time.sleep(1.6)  # longer than the lease: that is the fault
            worker.signal(signal.SIGCONT)

    def _kill_streams(self) -> None:
        """Activate while the stream server is away: the publisher has to remember it."""
        self._servers.kill("valkey")
        self._next_activation(asked=False)
        self._servers.start()

    def _kill_registry(self) -> None:
        """Ask while the registry is away: what serves goes on serving."""
        self._servers.kill("postgres")
        self._ask(self._plan.burst)
        self._servers.start()

    def _end_sessions(self) -> None:
        sql(self._servers.endpoints.database_url, _SESSIONS_OF_OTHERS)

    def _keep_running(self) -> None:
        """Start every process that died, workers under their own names."""
        for place, worker in enumerate(self._workers):
            if worker is None or not worker.running():
                self._restarts += worker is not None
                points = f"seed={self._plan.seed + self._restarts},{self._plan.failpoints}"
                failing = {"failpoints": points} if self._failing and self._plan.failpoints else {}
                self._workers[place] = self._fleet.start(
                    *self._plan.verb, module=self._plan.module, worker_name=f"w{place}", **failing
                )
        for place, publisher in enumerate(self._publishers):
            if publisher is None or not publisher.running():
                self._restarts += publisher is not None
                self._publishers[place] = self._fleet.start("publish-registry", "--poll-seconds", "0.5")

    def _heal(self) -> None:
        """Stop breaking, and wait for what is left."""
        self._failing = False
        for worker in self._workers:
            if worker is not None and worker.running():
                worker.end()
        restarts = self._restarts
        self._keep_running()
        self._restarts = restarts
        for worker in self._workers:
            if worker is not None:  # one that starts later would find the last activation by its first look
                worker.await_event("fleet_event", kind="worker.started")
        if not wait_until(self._answered, PATIENCE):
            for request_id in self._asked:
                if not self._streams.client.hexists(f"signals:request:{request_id}", "entry"):
                    self._add(request_id)
            wait_until(self._answered, PATIENCE)

    def _answered(self) -> bool:
        with suppress(StreamUnavailable):
            client = self._streams.client
            outcomes = int(client.xlen("signals:results")) + int(client.xlen("signals:rejections"))
            return outcomes >= len(self._asked) and self._streams.pending() == 0
        return False

    def _converge(self) -> float | None:
        """Activate with no publisher left, ask once more, and let the publishers tell the rest."""
        for publisher in self._publishers:
            if publisher is not None:
                publisher.signal(signal.SIGKILL)
                publisher.wait()
        begun = time.monotonic()
        self._next_activation()
        converged = wait_until(self._equal, RECONCILE_SECONDS + self._plan.patience_seconds)
        seconds = round(time.monotonic() - begun, 2)
        self._ask(self._plan.burst)
        self._keep_running()
        self._restarts -= len(self._publishers)
        wait_until(self._answered, PATIENCE)
        wait_until(self._published, PATIENCE)
        for worker in self._workers:
            if worker is not None:
                worker.end()
        return seconds if converged else None

    def _equal(self) -> bool:
        with suppress(StreamUnavailable), SignalClient(self._servers.endpoints.redis_url) as client:
            expected = {(one.strategy, one.version, one.activation) for one in self._registry.active_models().values()}
            beats = client.workers()
            found = [{(one.strategy, one.version, one.activation) for one in beat.serving} for beat in beats]
            return len(beats) == self._plan.workers and all(serving == expected for serving in found)
        return False

    def _published(self) -> bool:
        waiting = "SELECT count(*) FROM registry_outbox WHERE published_at IS NULL"
        return sql(self._servers.endpoints.database_url, waiting) == [(0,)]
