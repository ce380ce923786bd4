"""Which versions this worker refuses just now, and whether this machine may testify against any.

Owns: one reason for each refused version, for the heartbeat, `/readyz` and the next look; the machine's own proof.
Must not know: what becomes of a refused version.
Invariant: a version that serves or is wanted no more is not refused; a machine is proven once, before it testifies.
"""

import threading
import time
from collections.abc import Callable, Collection

import structlog

from contracts import RefusedModel
from strategies.errors import BundleError, GoldenSampleMismatch, MachineUnproven

Key = tuple[str, str]

_log = structlog.get_logger()
#: Longest reason that is kept, in characters.
_REASON_CHARACTERS = 500


class Refusals:
    """Refused versions by strategy and version; any thread may read and note them."""

    def __init__(self) -> None:
        """Begin without any."""
        self._lock = threading.Lock()
        #: With the activation that each was refused under.
        self._refused: dict[Key, tuple[RefusedModel, int | None]] = {}

    def note(self, strategy: str, version: str, error: BundleError, *, activation: int | None) -> bool:
        """Remember why a version is refused here, and return whether that is news: another reason or activation."""
        refused = RefusedModel(
            strategy=strategy,
            version=version,
            golden=isinstance(error, GoldenSampleMismatch),
            reason=str(error)[:_REASON_CHARACTERS],
        )
        with self._lock:
            before = self._refused.get((strategy, version))
            self._refused[strategy, version] = refused, activation
        return before != (refused, activation)

    def keep(self, wanted: Collection[Key]) -> None:
        """Forget every version that is not wanted any more, or serves."""
        with self._lock:
            self._refused = {key: refused for key, refused in self._refused.items() if key in wanted}

    def listed(self) -> tuple[RefusedModel, ...]:
        """Return all of them, by strategy and version."""
        with self._lock:
            return tuple(refused for _, (refused, _) in sorted(self._refused.items(), key=lambda item: item[0]))

    def reason(self, strategy: str) -> str:
        """Return why versions of a strategy are refused; empty: none is."""
        return "; ".join(f"{each.version}: {each.reason}" for each in self.listed() if each.strategy == strategy)


class Machine:
    """What this machine's own proof came to; any thread may ask."""

    def __init__(self, prove: Callable[[], None]) -> None:
        """Take the proof; it runs when it is first asked for."""
        self._prove, self._lock = prove, threading.Lock()
        self._fault: str | None = None

    def fault(self) -> str:
        """Return why this machine may not testify against a model; empty: it may."""
        with self._lock:
            if self._fault is None:
                self._fault = self._proven()
            return self._fault

    def _proven(self) -> str:
        began = time.perf_counter()
        try:
            self._prove()
        except MachineUnproven as error:
            _log.warning("machine_unproven", reason=str(error))
            return str(error)
        _log.info("machine_proven", duration_ms=round((time.perf_counter() - began) * 1000, 3))
        return ""
