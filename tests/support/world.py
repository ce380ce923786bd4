"""A small world that can be served: a snapshot, trained bundles, a registry that says which is active.

Owns: building it once and copying it for tests.
Must not know: workers.
Invariant: bundles are really trained and proven; versions differ in every prediction.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from contracts import SignalRequest, weights_digest
from strategies.alpha_baseline.train import Places, train_baseline
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from strategies.models.bundle_store import load_bundle
from strategies.models.configuration import TrainingConfig
from tests.support.market import make_bars, write_snapshot
from tests.support.serving import NOW
from worker.registry.registry import Registration, Registry
from worker.serving.pipeline import DeliveryRecord, ServingRules, compute, signal_vector
from worker.serving.slots import ActiveBundle

STRATEGY = "alpha_baseline"
SYMBOLS = ("AAPL", "IBM", "MSFT", "ORCL")
#: Long after the world's last session.
_LATER = datetime(2020, 1, 1, tzinfo=UTC)


def build_world(folder: Path, versions: Sequence[str] = ("v1",)) -> Path:
    """Write a snapshot of 300 sessions and bundles of these versions trained on it; return the folder.

    They are trained once in a process for each set of versions, and copied afterwards.
    """
    for path, (mode, content) in _trained(tuple(versions)).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        (folder / path).chmod(mode)
    return folder


@cache
def _trained(versions: tuple[str, ...]) -> Mapping[Path, tuple[int, bytes]]:
    """Return the mode and content of every file of a world by its path there."""
    with TemporaryDirectory() as folder:
        _train(Path(folder), versions)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder): (path.stat().st_mode, path.read_bytes()) for path in files}


def _train(folder: Path, versions: Sequence[str]) -> None:
    bars = {symbol: make_bars(sessions=300, seed=row) for row, symbol in enumerate(SYMBOLS)}
    write_snapshot(folder / "data", bars)
    places = Places(data_dir=folder / "data", artifacts_dir=folder / "artifacts")
    for number, version in enumerate(versions):
        parameters: dict[str, bool | int | float | str] = {"bagging_fraction": 0.7, "bagging_freq": 1}
        config = TrainingConfig(rounds=5, seed=number, num_threads=1, num_leaves=4, parameters=parameters)
        train_baseline(config, places, version=version)


def register(registry: Registry, version: str, path: str | None = None) -> None:
    """Register a version of the world's strategy."""
    stated = Registration(strategy=STRATEGY, version=version, model_path=path or f"models/{STRATEGY}/{version}")
    registry.register(stated)


#: Rejected at once by a worker that is ready, without computing anything.
WRONG = {"strategy": STRATEGY, "symbols": "ZZZZ"}


def activate_world(database_url: str) -> None:
    """Register the world's v1 and activate it, so that its workers are ready to answer."""
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")


def served_from(folder: Path) -> dict[str, str]:
    """Return the settings of workers that serve from a folder of `build_world` and work elsewhere."""
    return {"data_dir": str(folder / "data"), "artifacts_dir": str(folder / "artifacts")}


def catalogue(folder: Path, version: str = "v1") -> dict[str, dict[str, str]]:
    """Return expected outcome to a request that has it, computed here and not by a worker."""
    snapshot = latest_snapshot(folder / "data")
    panel = load_panel(snapshot, SessionCalendar(snapshot.calendar))
    bundle = load_bundle(folder / "artifacts" / "models" / STRATEGY / version)
    active = ActiveBundle(bundle=bundle, activation=1, since=NOW)
    rules = ServingRules(calendar=SessionCalendar(snapshot.calendar))
    delivery = DeliveryRecord(worker="w", code_version="1", queue_ms=0, compute_ms=0, deliveries=1)
    requests: dict[str, dict[str, str]] = {
        "unknown_symbol": {"strategy": STRATEGY, "symbols": "ZZZZ"},
        "unknown_strategy": {"strategy": "nobody"},
        "unknown_field": {"strategy": STRATEGY, "symbol": "AAPL"},
    }
    for session in panel.sessions[-20:]:
        for symbols in (SYMBOLS, SYMBOLS[:2], SYMBOLS[1:]):
            request = SignalRequest(request_id="r", strategy=STRATEGY, symbols=symbols, as_of=session.astype(object))
            vector = signal_vector(compute(request, active, panel, rules, _LATER), delivery, rules, _LATER)
            requests[weights_digest(vector.weights)] = {
                "strategy": STRATEGY,
                "symbols": ",".join(symbols),
                "as_of": str(session),
            }
    return requests
