"""Errors of the worker room.

Owns: one class for each way in which an edge fails: settings, server, registry, slots.
Must not know: codes on the wire (`worker/serving/rejections.py` maps).
Invariant: driver errors are translated where the driver is called, with their cause kept.
"""

from strategies.suggestions import did_you_mean


class WorkerError(Exception):
    """An edge that failed."""


class SettingsError(WorkerError):
    """Settings that cannot be true; reported in one sentence before any connection is made."""


class StreamUnavailable(WorkerError):
    """The stream server cannot take or give entries now; the work stays pending and is tried again.

    Attributes:
        reason: The error's class as the server or the driver names it (`READONLY`, `ConnectionError`, …).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class GroupVanished(StreamUnavailable):
    """The consumer group is gone (`NOGROUP`): a flush, an older server, or a destroyed group."""


class RegistryUnavailable(WorkerError):
    """The model registry cannot be asked now; what serves stays as it is."""


class RegistryRefusal(WorkerError):
    """The model registry answered, and the answer is no; the same call will not succeed later by itself."""


class UnknownVersion(RegistryRefusal):
    """A strategy or version that the registry does not have."""


class VersionExists(RegistryRefusal):
    """A version that is registered already; versions are immutable."""


class InvalidRegistration(RegistryRefusal):
    """A name, path or document that the registry does not accept; names which and why."""

    def __init__(self, sentence: str, constraint: str | None = None) -> None:
        super().__init__(sentence)
        self.constraint = constraint


class IllegalTransition(RegistryRefusal):
    """A change of status that the registry's state machine forbids."""


class ReasonMissing(RegistryRefusal):
    """A change that is only allowed with a reason."""


class ImpossibleShare(RegistryRefusal):
    """A share of requests that no canary can have."""


class MigrationFailed(WorkerError):
    """A migration that the database refused; the files before it stay applied."""


class UnknownStrategy(WorkerError):
    """A strategy that the registry has no version of."""

    def __init__(self, strategy: str, known: tuple[str, ...]) -> None:
        hint = did_you_mean(strategy, known)
        super().__init__(f"unknown strategy {strategy}: the registry knows {', '.join(known) or 'none'}{hint}")
        self.strategy, self.known = strategy, known


class StrategyNotServed(WorkerError):
    """A strategy that this worker is not configured to serve."""


class NoActiveBundle(WorkerError):
    """A strategy of which no version is active, or whose active version did not load."""


class NoSnapshot(WorkerError):
    """No complete snapshot of bars is loaded."""


class DeadlineExceeded(WorkerError):
    """The request's deadline passed before its vector could be published."""


class DeliveriesExhausted(WorkerError):
    """The entry was delivered too often without an outcome."""


class RequestTimeout(WorkerError):
    """No outcome of a request appeared within the time the caller gave."""
