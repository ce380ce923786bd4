"""A run under faults: producers, workers and a hand that breaks things, all from one seed.

Owns: what is asked and when something is broken, the restart of what was killed, and healing at the end.
Must not know: how faults are done (`breakage`), how workers keep their promise; `checker` judges.
Invariant: the same seed asks the same requests and injects the same faults in the same order; nothing is asked again
before the judge has said what is lost.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.breakage import Hand, Scene
from tests.support.checker import Ledger, Verdict
from tests.support.fleet import Fleet
from tests.support.proxy import Proxy
from tests.support.servers import PrivateServers
from tests.support.serving import Streams
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable

#: Share of requests that the producer adds twice, and of entries that are garbage.
DOUBLED, GARBAGE = 0.05, 0.02
#: No worker may be seen with as much resident memory.
PEAK_BYTES = 700_000_000
#: How often each kind of fault is chosen in a short run.
SHORT: Mapping[str, float] = {
    "worker killed": 4,
    "worker stopped longer than its lease": 3,
    "connections cut": 6,
    "network deaf": 3,
    "network slow": 3,
    "scripts flushed": 4,
    "clients killed": 6,
    "server paused": 3,
    "group destroyed": 1,
    "requests trimmed, pending ones too": 1,
    "server full": 2,
    "server emptied": 1,
    "server killed": 1,
    "server back from an older file": 1,
    "replica promoted": 1,
    "registry killed": 1,
    "control connection cut": 2,
    "control stream deleted": 1,
    "control garbage": 2,
    "reload": 2,
}

Fields = Mapping[bytes | str, bytes | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does."""

    seed: int
    requests: int
    workers: int = 2
    #: Faults injected; one after the other while requests are coming in.
    faults: int = 40
    #: Kind of fault to how often it is chosen.
    weights: Mapping[str, float] = field(default_factory=lambda: SHORT)
    #: Kinds injected once each before others are drawn; they count among the faults.
    first: Sequence[str] = ()
    #: Requests that may be unread before more are asked, so that faults meet requests all along.
    backlog: int = 1000
    #: When the server's append-only file reaches the disk.
    appendfsync: str = "everysec"
    #: Steps at which workers fail by themselves, see `worker.serving.failpoints`.
    failpoints: str = "read=kill@0.0003,computed=kill@0.0003,committed=kill@0.0003,computed=raise@0.001"
    #: Time that the workers have at the end for what is left, in seconds; and again for what is asked once more.
    healed_seconds: float = 120.0
    module: str = "worker"
    verb: tuple[str, ...] = ("run",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was asked, done, and said of it."""

    verdict: Verdict
    #: Kind of fault to how often it was injected.
    faults: Counter[str]
    restarts: int
    seconds: float
    #: Most resident memory that a worker was seen with.
    peak_bytes: int
    #: Requests without an outcome that a server had forgotten, and that were asked again at the end.
    sent_again: int

    @property
    def holds(self) -> bool:
        """Whether each request has exactly the one outcome it should have, and memory stayed within its bound."""
        return self.verdict.holds and 0 < self.peak_bytes < PEAK_BYTES


class Chaos:
    """One run; `run` returns what became of it."""

    def __init__(self, servers: PrivateServers, folder: Path, plan: Plan, catalogue: Mapping[str, Fields]) -> None:
        """Take private servers, a folder with data and artifacts, and expected outcome to a request that has it."""
        self._plan, self._catalogue = plan, catalogue
        self._rng = random.Random(plan.seed)
        url = servers.endpoints.redis_url
        door = Proxy(url)
        self._streams = Streams(door.url, "signals")
        self._expected: dict[str, str] = {}
        self._scene = Scene(
            servers=servers,
            door=door,
            streams=self._streams,
            proxies=[Proxy(url) for _ in range(plan.workers)],
            workers=[None] * plan.workers,
            ledger=Ledger(self._streams, self._expected),
            produce=self._produce,
            appendfsync=plan.appendfsync,
        )
        self._fleets = [
            Fleet(
                Endpoints(redis_url=proxy.url, database_url=servers.endpoints.database_url),
                folder,
                measured=False,
                lease_ms=800,
                worker_name=f"w{place}",
                reconcile_seconds=2,
            )
            for place, proxy in enumerate(self._scene.proxies)
        ]
        self._hand = Hand(self._scene, self._rng)
        self._waiting = list(plan.first)
        self._asked: dict[str, Fields] = {}
        self._faults: Counter[str] = Counter()
        self._restarts = self._peak_bytes = self._sent_again = 0
        self._failing = True

    def run(self) -> Outcome:
        """Ask, break, heal, judge."""
        begun = time.monotonic()
        self._hand.set_up_server()
        self._keep_running()
        self._produce(10)
        wait_until(
            self._worked_through_by_whoever_lives, self._plan.healed_seconds
        )  # faults are for workers that serve
        batch = max(1, self._plan.requests // max(1, self._plan.faults))
        while len(self._expected) < self._plan.requests or sum(self._faults.values()) < self._plan.faults:
            self._produce(batch)
            if sum(self._faults.values()) < self._plan.faults:
                self._break()
            self._weigh()
            self._keep_running()
            wait_until(self._keeps_pace, 5.0)
        self._heal()
        self._finish()
        return Outcome(
            verdict=self._scene.ledger.verdict(),
            faults=self._faults,
            restarts=self._restarts,
            seconds=round(time.monotonic() - begun, 1),
            peak_bytes=self._peak_bytes,
            sent_again=self._sent_again,
        )

    def close(self) -> None:
        """End everything that still runs."""
        for fleet in self._fleets:
            fleet.end()
        for proxy in (self._scene.door, *self._scene.proxies):
            proxy.close()

    def _produce(self, count: int) -> None:
        entries: list[Fields] = []
        for _ in range(count):
            outcome = self._rng.choice(list(self._catalogue))
            request_id = f"r{self._plan.seed}-{len(self._expected)}"
            entries += [self._ask(request_id, outcome, self._catalogue[outcome])] * (
                2 if self._rng.random() < DOUBLED else 1
            )
            if self._rng.random() < GARBAGE:
                entries.append(self._garbage())
        self._rng.shuffle(entries)
        self._add(entries)

    def _ask(self, request_id: str, outcome: str, fields: Fields) -> Fields:
        asked: Fields = {**fields, b"request_id": request_id.encode()}
        self._expected[request_id], self._asked[request_id] = outcome, asked
        return asked

    def _garbage(self) -> Fields:
        request_id = f"g{self._plan.seed}-{len(self._expected)}"
        fields: Fields = {b"strategy": b"alpha_baseline", b"symbols": self._rng.randbytes(20) + b"\xff"}
        return self._ask(request_id, "malformed_request", fields)

    def _add(self, entries: Sequence[Fields]) -> None:
        # As a producer does that keeps its request ids: say all of them again until the server has taken all.
        for _ in range(200):
            try:
                with self._streams.client.pipeline(transaction=False) as pipe:
                    for fields in entries:
                        flat = [text for pair in fields.items() for text in pair]
                        pipe.execute_command("XADD", self._streams.names.requests, "*", *flat)  # type: ignore[no-untyped-call]
                    pipe.execute()
            except (StreamUnavailable, OSError):
                time.sleep(0.05)
            else:
                return
        raise TimeoutError("the server took no request for 10 s")

    def _break(self) -> None:
        """Inject the next fault."""
        weights = self._plan.weights
        kind = self._waiting.pop(0) if self._waiting else self._rng.choices([*weights], [*weights.values()])[0]
        self._hand.kinds[kind]()
        self._faults[kind] += 1

    def _keep_running(self) -> None:
        """Start every worker that died, under its own name."""
        workers = self._scene.workers
        for place, worker in enumerate(workers):
            if worker is not None and worker.running():
                continue
            self._restarts += worker is not None
            points = f"seed={self._plan.seed + self._restarts},{self._plan.failpoints}" if self._failing else ""
            settings = {"failpoints": points} if points else {}
            workers[place] = self._fleets[place].start(*self._plan.verb, module=self._plan.module, **settings)

    def _heal(self) -> None:
        """Stop breaking: workers without failpoints, the judgement, then once more what a server had forgotten."""
        self._failing = False
        self._hand.tell("CONFIG", "SET", "maxmemory", "0")
        for proxy in self._scene.proxies:
            proxy.heal()
        self._finish()
        self._keep_running()
        self._restarts -= len(self._scene.workers)
        ledger = self._scene.ledger
        wait_until(self._worked_through_by_whoever_lives, self._plan.healed_seconds)
        ledger.judge()
        if excused := ledger.excused():
            self._sent_again = len(excused)
            self._add([self._asked[request_id] for request_id in excused])
            wait_until(self._worked_through_by_whoever_lives, self._plan.healed_seconds)
        ledger.read()

    def _weigh(self) -> None:
        for worker in self._scene.workers:
            if worker is not None and worker.running():
                with suppress(psutil.Error):
                    self._peak_bytes = max(self._peak_bytes, psutil.Process(worker.pid).memory_info().rss)

    def _worked_through_by_whoever_lives(self) -> bool:
        self._weigh()
        self._keep_running()
        return self._worked_through()

    def _worked_through(self) -> bool:
        time.sleep(0.2)
        with suppress(StreamUnavailable, ValueError):
            return self._streams.pending() == 0 and self._lag() == 0
        return False

    def _keeps_pace(self) -> bool:
        with suppress(StreamUnavailable, ValueError):
            return self._lag() < self._plan.backlog
        return True

    def _lag(self) -> int:
        (group,) = self._streams.client.xinfo_groups("signals:requests")
        lag = group.get("lag")
        return int(group["last-delivered-id"] != self._last_id()) if lag is None else int(lag)

    def _last_id(self) -> bytes:
        last: bytes = self._streams.client.xinfo_stream("signals:requests")["last-generated-id"]
        return last

    def _finish(self) -> None:
        workers = [worker for worker in self._scene.workers if worker is not None and worker.running()]
        for worker in workers:
            worker.signal(signal.SIGTERM)
        for worker in workers:
            worker.wait()
