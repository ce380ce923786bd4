"""A real worker on real servers: how long from XADD to the result, and until it serves.

Owns: the servers of the measurement, the worker's process, the requests.
Must not know: the engine's figures, pages.
Invariant: everything started here ends here; the worker is the one of the command line, with its default settings but
for the as-of of the snapshot.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import FleetEventType, SignalVector, StreamNames
from strategies.models.bundle_store import load_bundle
from tests.benchmarks.backlog import backlog_figure
from tests.benchmarks.children import ChildFailed
from tests.benchmarks.figures import Figure, spell_seconds
from tests.benchmarks.swap import load_figure, save_large_bundle, swap_figure
from worker.client import SignalClient
from worker.embedded import Endpoints, LocalStack
from worker.settings import inherited_environment
from worker.transport.client import Client, connect

STRATEGY, NAMESPACE = "alpha_baseline", "bench"
SYMBOLS = (5, 500)
REQUESTS, WARM_UPS = 300, 20
READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Where the measurement runs."""

    endpoints: Endpoints
    environment: Mapping[str, str]
    artifacts: Path

    def type(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "worker", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ChildFailed(f"`signal-worker {' '.join(words)}` ended with {done.returncode}: {done.stderr[-300:]}")


def latency_figures(data_dir: Path, symbols: tuple[str, ...], *, backlog: int) -> Iterator[Figure]:
    """Yield the worker's start, its latencies and a backlog, for a model trained on this snapshot.

    Raises:
        ChildFailed: A step of the way to a serving worker failed.
    """
    with _servers(data_dir) as job:
        job.type("db", "migrate")
        job.type("train", STRATEGY, "--no-mlflow", "--version", "v1")
        job.type("models", "register", str(job.artifacts / "models" / STRATEGY / "v1"))
        job.type("models", "activate", STRATEGY, "v1", "--reason", "measurement")
        yield _start(job)
        with _worker(job, "measured"), SignalClient(job.endpoints.redis_url, namespace=NAMESPACE) as client:
            results = connect(job.endpoints.redis_url, "bench", block_ms=10_000)
            for count in SYMBOLS:
                yield _latency(client, results, symbols[:count])
            yield swap_figure(load_bundle(job.artifacts / "models" / STRATEGY / "v1", check=False, prove=False))
            for count in SYMBOLS:
                yield _load(job, client, results, symbols[:count])
            results.close()
        if backlog:
            yield _backlog(job, symbols[: SYMBOLS[0]], backlog)


@contextmanager
def _servers(data_dir: Path) -> Iterator[_Job]:
    with tempfile.TemporaryDirectory(prefix="signal-worker-bench-") as folder:
        place = Path(folder)
        place.chmod(0o711)  # PostgreSQL's own user must be able to enter
        with LocalStack(place / "servers") as endpoints:
            environment = inherited_environment() | {
                "REDIS_URL": endpoints.redis_url,
                "DATABASE_URL": endpoints.database_url,
                "SIGNALS_NAMESPACE": NAMESPACE,
                "SIGNALS_DATA_DIR": str(data_dir.resolve()),
                "SIGNALS_ARTIFACTS_DIR": str(place / "artifacts"),
                "SIGNALS_DEFAULT_AS_OF": "snapshot",
            }
            yield _Job(endpoints=endpoints, environment=environment, artifacts=place / "artifacts")


@contextmanager
def _worker(job: _Job, name: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "worker", "run", "--name", name]
    silent = subprocess.DEVNULL
    child = subprocess.Popen(command, env=job.environment, stdout=silent, stderr=silent)
    events = connect(job.endpoints.redis_url, "bench:events", block_ms=1000)
    try:
        _await_started(events, StreamNames(NAMESPACE).events, name)
        yield child
    finally:
        events.close()
        child.terminate()
        child.wait(timeout=60)


def _start(job: _Job) -> Figure:
    """Return the time from the start of a process to a worker that has proven its model; the first fills caches."""
    seconds = []
    for attempt in range(3):
        begun = time.perf_counter()
        with _worker(job, f"start-{attempt}"):
            seconds.append(time.perf_counter() - begun)
    return Figure(
        work="start of a worker, to a proven model on a loaded snapshot, warm cache",
        value=f"{spell_seconds(statistics.median(seconds[1:]))} (first {spell_seconds(seconds[0])})",
    )


def _await_started(events: Client, stream: str, name: str) -> None:
    """Read the fleet's events until this worker says that it serves."""
    after: bytes | str = "0-0"
    deadline = time.monotonic() + READY_SECONDS
    wanted = {b"type": FleetEventType.STARTED.value.encode(), b"worker": name.encode()}
    while time.monotonic() < deadline:
        answer: Any = events.xread({stream: after}, block=1000)
        for _, entries in answer or ():
            after = entries[-1][0]
            if any(wanted.items() <= _fields(values).items() for _, values in entries):
                return
    raise ChildFailed(f"worker {name} did not serve within {READY_SECONDS:.0f} s")


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return an entry's fields, which the worker's connections read as a flat list."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _backlog(job: _Job, symbols: tuple[str, ...], requests: int) -> Figure:
    server = connect(job.endpoints.redis_url, "bench:backlog")
    try:
        return backlog_figure(server, StreamNames(NAMESPACE), symbols, requests, lambda: _worker(job, "backlog"))
    finally:
        server.close()


def _load(job: _Job, client: SignalClient, results: Client, symbols: tuple[str, ...]) -> Figure:
    """Return the latencies while the worker loads a large model, which then gives way to the small one."""
    version = f"large-{len(symbols)}"
    large = save_large_bundle(job.artifacts, job.artifacts / "models" / STRATEGY / "v1", version)
    job.type("models", "register", str(large))

    def ask() -> tuple[float, SignalVector]:
        return _ask(client, results, symbols)

    def activate() -> None:
        job.type("models", "activate", STRATEGY, version, "--reason", "measurement")
        job.type("control", "reload")

    figure = load_figure(ask, activate, (large / "model.txt").stat().st_size, len(symbols))
    job.type("models", "rollback", STRATEGY, "--reason", "measurement")
    job.type("control", "reload", "--wait")
    return figure


def _latency(client: SignalClient, results: Client, symbols: tuple[str, ...]) -> Figure:
    answers = [_ask(client, results, symbols) for _ in range(WARM_UPS + REQUESTS)][WARM_UPS:]
    cuts = statistics.quantiles([seconds for seconds, _ in answers], n=100)
    computed = [vector.compute_ms / 1e3 for _, vector in answers]
    return Figure(
        work=f"worker, XADD to result, {len(symbols)} symbols",
        value=f"p50 {spell_seconds(cuts[49])}, p99 {spell_seconds(cuts[98])};"
        f" computing p50 {spell_seconds(statistics.median(computed))}",
    )


def _ask(client: SignalClient, results: Client, symbols: tuple[str, ...]) -> tuple[float, SignalVector]:
    """Send one request and return the seconds until its result stood on the stream, and the result."""
    stream = StreamNames(NAMESPACE).results
    last = results.xrevrange(stream, count=1)
    after: bytes | str = last[0][0] if last and last[0][0] else b"0-0"
    begun = time.perf_counter()
    sent = client.submit(STRATEGY, symbols, on_ineligible="exclude")
    if not results.xread({stream: after}, block=10_000, count=1):
        raise ChildFailed(f"request {sent} for {len(symbols)} symbols had no result within 10 s")
    elapsed = time.perf_counter() - begun
    outcome = client.result(sent, timeout=10)
    if not isinstance(outcome, SignalVector):
        raise ChildFailed(f"request {sent} was rejected: {outcome}")
    return elapsed, outcome
