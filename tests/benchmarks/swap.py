"""A new model while a worker serves: the swap itself, and what loading a large one costs the requests beside it.

Owns: the large bundle, the requests before and during its load.
Must not know: how a worker loads.
Invariant: only requests that the old model answered count; the large bundle proves itself as every other does.
"""

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from contracts import SignalVector
from strategies.models.bundle import Bundle
from strategies.models.bundle_store import (
    BundleContent,
    load_bundle,
    load_golden,
    parse_booster,
    save_bundle,
)
from strategies.models.manifest import MODEL_FILE, Lineage
from tests.benchmarks.figures import Figure, spell_bytes, spell_seconds
from tests.benchmarks.timing import timed
from worker.serving.slots import ActiveBundle, Slots

#: Size of the large model's text.
LARGE_BYTES = 100_000_000
#: Requests before the load, at least; most during it, should it never end.
QUIET, MOST = 1000, 20_000
#: Longest that the swap itself may take.
SWAP_SECONDS = 1e-3
#: Most that the slowest of a hundred requests may take while a model loads, as a multiple of what it takes otherwise.
RISE = 2.0

#: Sends one request and returns its seconds, and its vector.
Ask = Callable[[], tuple[float, SignalVector]]


def save_large_bundle(artifacts_dir: Path, small: Path, version: str, *, size_bytes: int = LARGE_BYTES) -> Path:
    """Save a bundle whose trees are those of a small one over and over, and return its folder."""
    bundle = load_bundle(small, check=False, prove=False)
    text = repeated_trees((small / MODEL_FILE).read_text(encoding="ascii"), size_bytes)
    large = replace(bundle, booster=parse_booster(text.encode()))
    golden = load_golden(small, bundle)
    content = BundleContent(
        lineage=Lineage(
            **({name: getattr(bundle.manifest, name) for name in Lineage.model_fields} | {"version": version})
        ),
        model=text,
        golden=replace(golden, predictions=large.predict(golden.features)),
        reference=bundle.reference,
    )
    return save_bundle(artifacts_dir, content)


def repeated_trees(model: str, size_bytes: int) -> str:
    """Return a LightGBM text model of about this size, made of the trees of another."""
    head, rest = model.split("\n\n", 1)
    body, tail = rest.split("end of trees", 1)
    trees = re.split(r"^Tree=\d+\n", body, flags=re.MULTILINE)[1:]
    count = max(1, size_bytes * len(trees) // len(body))
    blocks = [f"Tree={number}\n{trees[number % len(trees)]}" for number in range(count)]
    sizes = " ".join(str(len(block)) for block in blocks)
    head = re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", head, flags=re.MULTILINE)
    return f"{head}\n\n{''.join(blocks)}end of trees{tail}"


def swap_figure(bundle: Bundle) -> Figure:
    """Return how long the swap takes: from a bundle that is proven to the next request that it serves."""
    slots, now = Slots(), datetime.now(UTC)
    ready = [ActiveBundle(bundle=bundle, activation=number, since=now) for number in (1, 2)]

    def swap() -> None:
        for active in ready:
            slots.put(active)

    seconds = timed(swap).median / len(ready)
    return Figure(
        work="swap of a proven model between two requests",
        value=spell_seconds(seconds),
        goal=spell_seconds(SWAP_SECONDS),
        met=seconds < SWAP_SECONDS,
    )


def load_figure(ask: Ask, activate: Callable[[], None], size_bytes: int, symbols: int) -> Figure:
    """Return the latencies while a large model loads, beside those before.

    Args:
        ask: Sends one request.
        activate: Lets the worker load the large model, and returns at once.
        size_bytes: Of its text.
        symbols: That each request asks for.
    """
    quiet = [ask()[0] for _ in range(QUIET)]
    before = ask()[1].model_version
    activate()
    begun = time.perf_counter()
    during: list[float] = []
    seconds, vector = ask()
    while vector.model_version == before and len(during) < MOST:
        during.append(seconds)
        seconds, vector = ask()
    taken = time.perf_counter() - begun
    (p50, p99), (quiet_p50, quiet_p99) = _quantiles(during), _quantiles(quiet)
    return Figure(
        work=f"worker, XADD to result, {symbols} symbols, while a model of {spell_bytes(size_bytes)} loads",
        value=f"p50 {spell_seconds(p50)}, p99 {spell_seconds(p99)}; without p50 {spell_seconds(quiet_p50)},"
        f" p99 {spell_seconds(quiet_p99)}; the load takes {spell_seconds(taken)}",
        goal=f"p99 {RISE:g} x that without",
        met=p99 <= RISE * quiet_p99,
    )


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49], cuts[98]
