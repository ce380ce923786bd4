"""The registry, for one verb.

Owns: its connection, and the hint where a strategy or a version is misspelt.
Must not know: what is asked of the registry.
Invariant: what the registry refuses leaves as its own error; `_common` has the exit codes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from strategies.suggestions import did_you_mean
from worker.cli._common import database_url_of, settings_of
from worker.errors import UnknownVersion

if TYPE_CHECKING:
    from worker.registry.registry import Registry


@contextmanager
def registry(strategy: str | None = None, version: str | None = None) -> "Iterator[Registry]":
    """Yield the registry; where it does not know the names, the error proposes near ones.

    Raises:
        WorkerError: The registry is unavailable, or refuses.
    """
    from worker.registry.registry import Registry

    with Registry(database_url_of(settings_of()), name="signal-worker models") as client:
        try:
            yield client
        except UnknownVersion as error:
            raise UnknownVersion(f"{error}{near_names(client, strategy, version)}") from error


def near_names(client: "Registry", strategy: str | None, version: str | None = None) -> str:
    """Return the end of a sentence that proposes the registered strategy or version that is near."""
    if strategy is None:
        return ""
    versions = client.list(strategy)
    if not versions:
        return did_you_mean(strategy, client.strategies())
    return did_you_mean(version, [row.version for row in versions]) if version else ""
