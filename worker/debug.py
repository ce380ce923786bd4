"""Producer, worker and gateway in one process, for a debugger: `python -m worker.debug`.

Owns: one request's whole way through threads of this process, on the local servers.
Must not know: what any of the three does.
Invariant: whatever is not running is started and ends with the process; models and bars are those of the settings.

Set a breakpoint anywhere in `worker/` or `strategies/`, then run it as a module. Every line of the log is shown.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog

from contracts import SignalVector
from worker.app import Worker
from worker.client import GatewayOptions, PaperBroker, SignalClient, paper_gateway
from worker.embedded import Endpoints, LocalStack, StackNotRunning, resolve_endpoints
from worker.errors import RequestTimeout, WorkerError
from worker.registry.migrations import migrate
from worker.registry.registry import Registry
from worker.runtime import configure_logs
from worker.settings import Settings, load_settings

#: Time that a request may take, in seconds: long, since a breakpoint may be in its way.
TIMEOUT_SECONDS = 3600.0
#: Capital of the paper broker, and the price of every share.
EQUITY, PRICE = 1_000_000.0, 100.0

_log = structlog.get_logger()


def debug(settings: Settings, strategy: str, symbols: tuple[str, ...]) -> SignalVector:
    """Return the vector that a worker of this process answers a request with, once a paper gateway has taken it.

    A gateway applies no vector whose `valid_until` has passed: on old bars it takes the vector as expired.

    Args:
        settings: Of the environment; the servers are the local ones unless their URLs are set.
        strategy: An active version of it must be registered.
        symbols: Those of the request; none: the model's universe.

    Raises:
        WorkerError: No version of the strategy is active, or the request was rejected.
    """
    with _servers(settings) as endpoints:
        migrate(endpoints.database_url)
        _require_active(endpoints, strategy)
        worker = Worker(settings, endpoints)
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()
        try:
            with SignalClient(
                endpoints.redis_url, namespace=settings.namespace, partition=settings.partition
            ) as client:
                return _ask_and_trade(client, strategy, symbols)
        finally:
            worker.stop()
            thread.join()


def _ask_and_trade(client: SignalClient, strategy: str, symbols: tuple[str, ...]) -> SignalVector:
    broker = PaperBroker()
    request_id = client.submit(strategy, list(symbols) or None)
    outcome = client.result(request_id, timeout=TIMEOUT_SECONDS)
    if not isinstance(outcome, SignalVector):
        raise WorkerError(f"the request was rejected ({outcome.code.value}): {outcome.reason}")
    prices: Mapping[str, float] = {signal.symbol: PRICE for signal in outcome.weights}
    options = GatewayOptions(consumer="debug")
    with paper_gateway(client, broker, equity=EQUITY, prices=lambda: prices, name="debug", options=options) as gateway:
        dispositions = Counter(each.value for each in gateway.run_once())
    _log.info("debug_done", request_id=request_id, vectors_taken=dict(dispositions), positions=dict(broker.positions))
    return outcome


@contextmanager
def _servers(settings: Settings) -> Iterator[Endpoints]:
    """Give the servers that the settings name or that run here, else start them for as long as this process lives."""
    try:
        endpoints = resolve_endpoints(settings.redis_url, settings.database_url, settings.local_dir)
    except StackNotRunning:
        with LocalStack(settings.local_dir) as started:
            yield started
    else:
        yield endpoints


def _require_active(endpoints: Endpoints, strategy: str) -> None:
    with Registry(endpoints.database_url, name="signal-worker debug") as registry:
        if registry.active(strategy) is None:
            raise WorkerError(f"no version of {strategy} is active here; `make demo KEEP=1` trains and activates one")


def main(arguments: list[str]) -> int:
    """Run one request for `[STRATEGY [SYMBOL...]]` and return the exit code."""
    strategy, *symbols = arguments or ["alpha_baseline"]
    try:
        settings = load_settings(log_level="DEBUG", default_as_of="snapshot")
        configure_logs(settings.log_level, settings.log_format)
        vector = debug(settings, strategy, tuple(symbols))
    except (WorkerError, RequestTimeout) as error:
        sys.stderr.write(f"signal-worker: {error}\n")
        return 1
    sys.stdout.write(vector.model_dump_json(indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
