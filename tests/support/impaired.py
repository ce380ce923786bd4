"""Workers that cannot answer, each for another reason, beside workers that can; all from one seed.

Owns: the ways in which a worker is impaired, the requests, the count of what came of them.
Must not know: how workers leave requests to each other.
Invariant: what a request may come to is known before it is asked, as a healthy fleet would answer it.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from contracts import RejectionCode
from tests.support.campaign import STRATEGIES, SYMBOLS, build_campaign
from tests.support.fleet import PATIENCE, Fleet, Process
from tests.support.market import make_bars, write_snapshot
from tests.support.registry import register
from tests.support.serving import Streams
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.registry.registry import Registry
from worker.transport.client import text_of

#: Way to what starts such a worker of a fleet under a name.
WAYS: Mapping[str, Callable[[Fleet, str], Process]] = {
    "a strategy that the registry does not know": lambda fleet, name: _start(fleet, name, strategies="nope"),
    "another strategy alone": lambda fleet, name: _start(fleet, name, strategies=STRATEGIES[1]),
    "no model files": lambda fleet, name: _start(fleet, name, artifacts_dir=fleet.folder / "empty"),
    "an older snapshot": lambda fleet, name: _start(fleet, name, data_dir=fleet.folder / "older"),
    "the calendar of another exchange": lambda fleet, name: _start(fleet, name, calendar="XHKG"),
    "a child that does not start": lambda fleet, name: fleet.execute(
        "run", module="tests.support.childless_worker", worker_name=name
    ),
}
#: Bad requests to the code that every worker gives them, and how often they come.
BAD: Mapping[RejectionCode, Mapping[str, str]] = {
    RejectionCode.UNKNOWN_SYMBOL: {"strategy": STRATEGIES[0], "symbols": "ZZZZ"},
    RejectionCode.UNKNOWN_FIELD: {"strategy": STRATEGIES[0], "symbol": "AAPL"},
    RejectionCode.AS_OF_BEFORE_DATA: {"strategy": STRATEGIES[1], "symbols": "AAPL,IBM", "as_of": "2000-01-03"},
}
_BAD_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does."""

    seed: int
    requests: int = 10_000
    #: Workers that can answer; they live through the whole run.
    sound: int = 2
    #: Whether the impaired ones come all at once, or each in its turn.
    at_once: bool = False
    #: Requests that are asked at once at most.
    burst: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run; anything but `requests`, `vectors` and `rejections` is wrong where it is not empty."""

    requests: int
    vectors: int
    rejections: int
    #: Request id to what it came to, where a healthy fleet gives something else.
    unlike_healthy: Mapping[str, str]
    #: Request ids without an outcome, and with two.
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    #: Vectors of another snapshot than the newest.
    older: tuple[str, ...]
    #: Changes of the registry besides the first activations.
    changes: tuple[str, ...]
    #: Way to entries that such a worker left to others, by how.
    left: Mapping[str, str]
    seconds: float

    @property
    def right(self) -> bool:
        """Whether every request came to what a healthy fleet would give."""
        return not (self.unlike_healthy or self.lost or self.doubled or self.older or self.changes)


def build_impaired(folder: Path) -> Path:
    """Write what sound workers have, an older snapshot without one symbol, and no models; return the folder."""
    older = {symbol: make_bars(sessions=290, seed=row) for row, symbol in enumerate(SYMBOLS[:-1])}
    write_snapshot(folder / "older", older, run_date=date(2030, 1, 1))
    (folder / "empty").mkdir()
    return build_campaign(folder, 1)


class Impaired:
    """One run; the servers are the caller's."""

    def __init__(self, endpoints: Endpoints, namespace: str, folder: Path, plan: Plan) -> None:
        """Take a migrated database and a folder of `build_impaired`."""
        self._plan, self._rng = plan, random.Random(plan.seed)
        self._streams, self._registry = Streams(endpoints.redis_url, namespace), Registry(endpoints.database_url)
        self._fleet = Fleet(endpoints, folder, measured=False, namespace=namespace, lease_ms=5000, grace_seconds=2)
        self._expected: dict[str, str] = {}

    def run(self) -> Result:
        """Ask while impaired workers take part, and count what came of it."""
        begun = time.monotonic()
        for strategy in STRATEGIES:
            register(self._registry, strategy, "v1")
            self._registry.activate(strategy, "v1")
        for number in range(self._plan.sound):
            self._fleet.worker(worker_name=f"sound-{number}")
        left: dict[str, str] = {}
        rounds = [tuple(WAYS)] if self._plan.at_once else [(way,) for way in WAYS]
        for number, ways in enumerate(rounds):
            left |= self._round(ways, self._plan.requests * (number + 1) // len(rounds) - len(self._expected))
        return self._result(left, time.monotonic() - begun)

    def close(self) -> None:
        """End everything that still runs."""
        self._fleet.end()
        self._registry.close()

    def _round(self, ways: tuple[str, ...], requests: int) -> dict[str, str]:
        impaired = {way: WAYS[way](self._fleet, f"impaired-{list(WAYS).index(way)}") for way in ways}
        for process in impaired.values():
            process.await_event("fleet_event", kind="worker.started")
        while requests:
            count = min(requests, self._plan.burst)
            for _ in range(count):
                self._ask()
            requests -= count
            assert wait_until(lambda: self._outcomes() >= len(self._expected), PATIENCE), "requests without an outcome"
        left = {way: self._left(f"impaired-{list(WAYS).index(way)}") for way in ways}
        for process in impaired.values():
            process.end()
        return left

    def _left(self, worker: str) -> str:
        """Return what a worker left to others, as its heartbeat states it."""
        found = self._streams.client.hget(self._streams.names.worker(worker), "left")
        return text_of(found) if found else ""

    def _ask(self) -> None:
        if self._rng.random() < _BAD_SHARE:
            code = self._rng.choice(list(BAD))
            fields, expected = BAD[code], code.value
        else:
            symbols = self._rng.sample(SYMBOLS, self._rng.randint(2, len(SYMBOLS)))
            fields, expected = {"strategy": self._rng.choice(STRATEGIES), "symbols": ",".join(symbols)}, "vector"
        (entry,) = self._streams.add({name.encode(): value for name, value in fields.items()})
        self._expected[entry] = expected

    def _outcomes(self) -> int:
        names = self._streams.names
        return sum(int(self._streams.client.xlen(stream)) for stream in (names.results, names.rejections))

    def _result(self, left: Mapping[str, str], seconds: float) -> Result:
        vectors, rejections = self._streams.results(), self._streams.rejections()
        found = [(vector.request_id, "vector") for vector in vectors]
        found += [(rejection.request_id, rejection.code.value) for rejection in rejections]
        times = Counter(request_id for request_id, _ in found)
        newest = max(Counter(vector.snapshot_id for vector in vectors).items(), key=lambda row: row[1])[0]
        history = self._registry.history(limit=1000)
        return Result(
            requests=len(self._expected),
            vectors=len(vectors),
            rejections=len(rejections),
            unlike_healthy={name: came for name, came in found if self._expected.get(name) != came},
            lost=tuple(name for name in self._expected if name not in times),
            doubled=tuple(name for name, count in times.items() if count > 1),
            older=tuple(vector.request_id for vector in vectors if vector.snapshot_id != newest),
            changes=tuple(f"{row.action} {row.strategy} {row.version}" for row in history[: -len(STRATEGIES)]),
            left=left,
            seconds=round(seconds, 1),
        )


def _start(fleet: Fleet, name: str, **settings: str | Path) -> Process:
    return fleet.start("run", **{"module": "worker", "worker_name": name, **settings})  # type: ignore[arg-type]  # as a test would
