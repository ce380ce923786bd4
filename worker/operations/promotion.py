"""An activation based on evidence: it happens only while the registry is as it was when evidence was gathered.

Owns: what is remembered of a strategy before a decision, and the activation that checks it.
Must not know: evidence, criteria, bundles.
Invariant: the check and the activation are one transaction. activate_model() takes the lock that every change of the
registry takes, and only then is the history read: what another one committed before is seen and undoes the activation,
what comes later waits for it. An activation undone leaves neither a number, nor a history row, nor an outbox row.
"""

from dataclasses import dataclass
from typing import LiteralString

from worker.errors import WorkerError
from worker.registry.models import ActiveModel, ModelVersion
from worker.registry.postgres import answering, connect
from worker.registry.registry import Registry

_ACTIVATE: LiteralString = "SELECT public.activate_model(%s, %s, %s, %s) AS number"
#: The row is ours if this transaction wrote it: of a version that is active already, the function returns its number.
_CHANGES: LiteralString = """
    SELECT coalesce(max(activation) FILTER (WHERE activation < %(number)s), 0) AS before,
        coalesce(bool_or(xmin = pg_current_xact_id()::xid) FILTER (WHERE activation = %(number)s), false) AS ours
    FROM public.model_activations WHERE strategy_name = %(strategy)s
"""


class RegistryChanged(WorkerError):
    """The strategy was changed since evidence was gathered; nothing was activated."""


class NothingActive(WorkerError):
    """A strategy of which no version is active, so that there is nothing to compare a candidate with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionBaseline:
    """A strategy as the registry had it before evidence was gathered."""

    active: ActiveModel
    #: The active version's row.
    serving: ModelVersion
    candidate: ModelVersion
    #: Number of the latest change of any of the strategy's versions.
    change: int


def promotion_baseline(registry: Registry, strategy: str, version: str) -> PromotionBaseline:
    """Return the state of a strategy, for a decision on one of its versions.

    Raises:
        UnknownVersion: The registry does not hold the version.
        NothingActive: No version of the strategy is active.
        RegistryUnavailable: The database cannot be asked.
    """
    # First of all: a change between these questions is then seen as one since.
    changes = registry.history(strategy, limit=1)
    candidate, active = registry.show(strategy, version), registry.active(strategy)
    if active is None:
        raise NothingActive(
            f"no version of {strategy} is active, so there is nothing to compare {version} with: "
            f"signal-worker models activate {strategy} {version}"
        )
    return PromotionBaseline(
        active=active,
        serving=registry.show(strategy, active.version),
        candidate=candidate,
        change=changes[0].activation if changes else 0,
    )


def promote(database_url: str, before: PromotionBaseline, *, reason: str, by: str | None = None) -> int:
    """Activate the candidate if the strategy is unchanged since, and return the activation's number.

    Raises:
        RegistryChanged: It does not.
        IllegalTransition: The candidate failed since.
        RegistryUnavailable: The database cannot be asked.
    """
    strategy, version = before.candidate.strategy, before.candidate.version
    connection = connect(database_url, "signal-worker promote")
    try:
        with answering(connection) as asked, asked.transaction():
            row = asked.execute(_ACTIVATE, (strategy, version, reason, by)).fetchone() or {}
            number = int(row["number"])
            found = asked.execute(_CHANGES, {"number": number, "strategy": strategy}).fetchone() or {}
            if not found["ours"] or found["before"] != before.change:
                raise RegistryChanged(
                    f"{strategy} was changed since its evidence was gathered (change {before.change} was the latest "
                    f"then, with {before.active.version} active): nothing was activated, gather evidence again"
                )
    finally:
        connection.close()
    return number
