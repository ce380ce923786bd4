"""Vectors on a stream without a worker: computed as one computes them, published as entries of chosen days.

Owns: the straight line from a request to an entry of the results stream, and the command line beside it.
Must not know: how replay or the archive work.
Invariant: the entry holds what a worker would have published from the same files.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from typer.testing import CliRunner, Result

from contracts import SignalRequest, SignalVector
from contracts.codec import encode
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from strategies.models.bundle_store import load_bundle
from tests.support.serving import NOW, Streams
from tests.support.world import STRATEGY, SYMBOLS
from worker.cli.main import app
from worker.serving.pipeline import DeliveryRecord, ServingRules, compute, signal_vector
from worker.serving.slots import ActiveBundle

_DELIVERY = DeliveryRecord(worker="w", code_version="0.0.1", queue_ms=0, compute_ms=0, deliveries=1)
_LATER = datetime(2020, 1, 1, tzinfo=UTC)


class Press:
    """Publishes vectors of a world's bundles on its latest snapshot."""

    def __init__(self, folder: Path, streams: Streams) -> None:
        self._folder, self._streams = folder, streams
        snapshot = latest_snapshot(folder / "data")
        calendar = SessionCalendar(snapshot.calendar)
        self._panel, self._rules = load_panel(snapshot, calendar), ServingRules(calendar=calendar)
        self._bundles: dict[str, ActiveBundle] = {}

    def vector(self, request_id: str, *, version: str = "v1", session: int = -1) -> SignalVector:
        """Return the vector of the world's symbols as of a session of its panel."""
        if version not in self._bundles:
            bundle = load_bundle(self._folder / "artifacts" / "models" / STRATEGY / version)
            self._bundles[version] = ActiveBundle(bundle=bundle, activation=1, since=NOW)
        as_of = self._panel.sessions[session].astype(object)
        request = SignalRequest(request_id=request_id, strategy=STRATEGY, symbols=SYMBOLS, as_of=as_of)
        found = compute(request, self._bundles[version], self._panel, self._rules, _LATER)
        return signal_vector(found, _DELIVERY, self._rules, _LATER)

    def publish(self, vector: SignalVector, at: datetime, stream: str | None = None) -> str:
        """Append a vector, to the results by default, as if the server's clock had said this; return its entry id."""
        client, names = self._streams.client, self._streams.names
        fields = dict(encode(vector).items())
        entry = client.xadd(stream or names.results, fields, id=f"{int(at.timestamp() * 1000)}-*")  # type: ignore[arg-type]  # invariant dict
        return entry.decode() if isinstance(entry, bytes) else entry


def command_line(folder: Path, streams: Streams, redis_url: str, **settings: str) -> Callable[..., Result]:
    """Return a function that calls `signal-worker` in the world of a folder."""
    environment = {
        "REDIS_URL": redis_url,
        "SIGNALS_NAMESPACE": streams.names.namespace,
        "SIGNALS_DATA_DIR": str(folder / "data"),
        "SIGNALS_ARTIFACTS_DIR": str(folder / "artifacts"),
        "SIGNALS_LOCAL_DIR": str(folder / "local"),
        "COLUMNS": "250",
        "NO_COLOR": "1",
        **settings,
    }

    def call(*arguments: str) -> Result:
        return CliRunner(env=environment).invoke(app, arguments)

    return call
