"""A run under faults: producers, workers and a hand that breaks things, all from one seed.

Owns: the kinds of faults, their order, the restart of what they killed, and healing at the end.
Must not know: how workers keep their promise; `checker` judges.
Invariant: the same seed asks the same requests and injects the same faults in the same order.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from contracts import GROUP
from tests.support.fleet import Fleet, Process
from tests.support.proxy import Proxy
from tests.support.servers import PrivateServers
from tests.support.serving import Streams
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until

#: Share of requests that the producer adds twice, and of entries that are garbage.
DOUBLED, GARBAGE = 0.05, 0.02

Fields = Mapping[bytes | str, bytes | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does."""

    seed: int
    requests: int
    workers: int = 2
    #: Faults injected; one after the other while requests are coming in.
    faults: int = 40
    #: How often each kind of fault is chosen, in the order of `Chaos._break`.
    weights: tuple[float, ...] = (4, 4, 6, 3, 3, 4, 6, 3, 1, 2, 1, 1, 3, 3)
    #: Steps at which workers fail by themselves, see `worker.serving.failpoints`.
    failpoints: str = "computed=kill@0.0003,committed=kill@0.0003,computed=raise@0.001"
    #: Time that the workers have at the end for what is left, in seconds; and again for what was asked once more.
    healed_seconds: float = 120.0
    module: str = "worker"
    verb: tuple[str, ...] = ("run",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was asked and done."""

    #: Request id to the digest or code its outcome should have.
    expected: Mapping[str, str]
    #: Kind of fault to how often it was injected.
    faults: Counter[str]
    restarts: int
    seconds: float


class Chaos:
    """One run; `run` returns what was asked, and leaves the streams for the checker."""

    def __init__(self, servers: PrivateServers, folder: Path, plan: Plan, catalogue: Mapping[str, Fields]) -> None:
        """Take private servers, a folder with data and artifacts, and expected outcome to a request that has it."""
        self._servers, self._plan, self._catalogue = servers, plan, catalogue
        self._rng = random.Random(plan.seed)
        self._streams = Streams(servers.endpoints.redis_url, "signals")
        self._proxies = [Proxy(servers.endpoints.redis_url) for _ in range(plan.workers)]
        self._fleets = [
            Fleet(
                Endpoints(redis_url=proxy.url, database_url=servers.endpoints.database_url),
                folder,
                lease_ms=800,
                worker_name=f"w{place}",
                reconcile_seconds=2,
            )
            for place, proxy in enumerate(self._proxies)
        ]
        self._workers: list[Process | None] = [None] * plan.workers
        self._expected: dict[str, str] = {}
        self._asked: dict[str, Fields] = {}
        self.faults: Counter[str] = Counter()
        self._restarts = 0
        self._failing = True

    def run(self) -> Outcome:
        """Ask, break, heal."""
        begun = time.monotonic()
        self._keep_running()
        batch = max(1, self._plan.requests // max(1, self._plan.faults))
        while len(self._expected) < self._plan.requests:
            self._produce(min(batch, self._plan.requests - len(self._expected)))
            if sum(self.faults.values()) < self._plan.faults:
                self._break()
            self._keep_running()
        self._heal()
        self._finish()
        return Outcome(
            expected=self._expected,
            faults=self.faults,
            restarts=self._restarts,
            seconds=round(time.monotonic() - begun, 1),
        )

    def close(self) -> None:
        """End everything that still runs."""
        for fleet in self._fleets:
            fleet.end()
        for proxy in self._proxies:
            proxy.close()

    def _produce(self, count: int) -> None:
        entries: list[Fields] = []
        for _ in range(count):
            outcome = self._rng.choice(list(self._catalogue))
            request_id = f"r{self._plan.seed}-{len(self._expected)}"
            fields: Fields = {**self._catalogue[outcome], "request_id": request_id}
            self._expected[request_id] = outcome
            self._asked[request_id] = fields
            entries += [fields] * (2 if self._rng.random() < DOUBLED else 1)
        self._rng.shuffle(entries)
        for fields in entries:
            self._add(fields)
            if self._rng.random() < GARBAGE:
                self._add_garbage()

    def _add(self, fields: Fields) -> None:
        # As a producer does that keeps its request id: say it again until the server has answered once.
        for _ in range(200):
            try:
                self._streams.add(fields)
            except (redis.RedisError, OSError):
                time.sleep(0.05)
            else:
                return
        raise TimeoutError("the server took no request for 10 s")

    def _add_garbage(self) -> None:
        request_id = f"g{self._plan.seed}-{len(self._expected)}"
        fields: Fields = {
            b"request_id": request_id.encode(),
            b"strategy": b"alpha_baseline",
            b"symbols": self._rng.randbytes(20) + b"\xff",
        }
        self._expected[request_id] = "malformed_request"
        self._asked[request_id] = fields
        self._add(fields)

    def _break(self) -> None:
        """Inject the next fault."""
        kinds: Mapping[str, Callable[[], None]] = {
            "worker killed": self._kill_worker,
            "worker stopped longer than its lease": self._stop_worker,
            "connections cut": lambda: self._some_proxy().cut(),
            "network deaf": self._deafen,
            "network slow": self._slow,
            "scripts flushed": lambda: self._tell("SCRIPT", "FLUSH"),
            "clients killed": lambda: self._tell("CLIENT", "KILL", "TYPE", "normal"),
            "server paused": lambda: self._tell("CLIENT", "PAUSE", "300", "ALL"),
            "group destroyed": lambda: self._tell("XGROUP", "DESTROY", "signals:requests", GROUP),
            "server full": self._fill,
            "server killed": self._kill_server,
            "registry killed": self._kill_registry,
            "control garbage": lambda: self._tell("XADD", "signals:control", "*", "type", "no such thing"),
            "reload": lambda: self._tell("XADD", "signals:control", "*", "type", "reload"),
        }
        kind = self._rng.choices(list(kinds), weights=self._plan.weights)[0]
        kinds[kind]()
        self.faults[kind] += 1

    def _tell(self, *command: str) -> None:
        with suppress(redis.RedisError, OSError):
            self._streams.client.execute_command(*command)  # type: ignore[no-untyped-call]  # the driver's own border

    def _some_proxy(self) -> Proxy:
        return self._rng.choice(self._proxies)

    def _kill_worker(self) -> None:
        worker = self._rng.choice(self._workers)
        if worker is not None and worker.running():
            worker.signal(signal.SIGKILL)
            worker.wait()

    def _stop_worker(self) -> None:
        worker = self._rng.choice(self._workers)
        if worker is not None and worker.running():
            worker.signal(signal.SIGSTOP)
            time.sleep(1.0)
            worker.signal(signal.SIGCONT)

    def _deafen(self) -> None:
        proxy = self._some_proxy()
        proxy.deaf.set()
        time.sleep(self._rng.uniform(0.1, 1.2))
        proxy.deaf.clear()

    def _slow(self) -> None:
        proxy = self._some_proxy()
        proxy.delay_seconds, proxy.trickle_bytes = 0.005, 200
        time.sleep(0.3)
        proxy.heal()

    def _fill(self) -> None:
        self._tell("CONFIG", "SET", "maxmemory", "1")
        time.sleep(0.3)
        self._tell("CONFIG", "SET", "maxmemory", "0")

    def _kill_server(self) -> None:
        self._servers.kill("valkey")
        self._servers.start()

    def _kill_registry(self) -> None:
        self._servers.kill("postgres")
        self._servers.start()

    def _keep_running(self) -> None:
        """Start every worker that died, under its own name."""
        for place, worker in enumerate(self._workers):
            if worker is None or not worker.running():
                self._restarts += worker is not None
                points = f"seed={self._plan.seed + self._restarts},{self._plan.failpoints}" if self._failing else ""
                settings = {"failpoints": points} if points else {}
                self._workers[place] = self._fleets[place].start(*self._plan.verb, module=self._plan.module, **settings)

    def _heal(self) -> None:
        """Stop breaking: workers without failpoints, and the producer's last word on what has no outcome yet."""
        self._failing = False
        self._tell("CONFIG", "SET", "maxmemory", "0")
        for proxy in self._proxies:
            proxy.heal()
        for worker in self._workers:
            if worker is not None and worker.running():
                worker.signal(signal.SIGTERM)
        for worker in self._workers:
            if worker is not None:
                worker.wait()
        self._keep_running()
        self._restarts -= len(self._workers)
        if not wait_until(self._answered, self._plan.healed_seconds):
            for request_id in self._unanswered():
                self._add(self._asked[request_id])
            wait_until(self._answered, self._plan.healed_seconds)

    def _answered(self) -> bool:
        time.sleep(0.2)
        client = self._streams.client
        with suppress(redis.RedisError):
            outcomes = int(client.xlen("signals:results")) + int(client.xlen("signals:rejections"))
            return outcomes >= len(self._expected) and self._streams.pending() == 0 and self._lag() == 0
        return False

    def _lag(self) -> int:
        (group,) = self._streams.client.xinfo_groups("signals:requests")
        lag = group.get("lag")
        return 0 if lag is None and group["last-delivered-id"] == self._last_id() else int(lag or 0)

    def _last_id(self) -> bytes:
        last: bytes = self._streams.client.xinfo_stream("signals:requests")["last-generated-id"]
        return last

    def _unanswered(self) -> list[str]:
        with self._streams.client.pipeline(transaction=False) as pipe:
            for request_id in self._expected:
                pipe.hexists(f"signals:request:{request_id}", "entry")
            return [request_id for request_id, known in zip(self._expected, pipe.execute(), strict=True) if not known]

    def _finish(self) -> None:
        for worker in self._workers:
            if worker is not None and worker.running():
                worker.signal(signal.SIGTERM)
                worker.wait()
