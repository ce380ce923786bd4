"""The facts of a worker that heartbeat and metrics both show.

Owns: one row a fact: where it is read, its field of the heartbeat, its metric.
Must not know: how either is sent.
Invariant: a fact is named, described and read in this table alone; labels are of closed sets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from contracts import RejectionCode, ServedAs
from worker.fleet.status import WorkerStatus
from worker.serving.shadow import ShadowResult
from worker.transport.scripts import CommitStatus

#: A number, one for each value of a label, or nothing where the server does not know it.
Value = float | int | Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One row of the table."""

    read: Callable[[WorkerStatus], Value]
    #: Field of the heartbeat; empty: only metrics show it.
    field: str = ""
    #: Name of the metric without prefix and suffix; empty: only the heartbeat shows it.
    metric: str = ""
    kind: Literal["counter", "gauge"] = "counter"
    #: What the metric means.
    meaning: str = ""
    #: Label of the metric; empty: it has none.
    label: str = ""
    #: Values of the label that are shown before they are counted.
    values: tuple[str, ...] = ()


FACTS = (
    Fact(
        metric="outcomes",
        meaning="Outcomes published, by `answered` or rejection code.",
        label="code",
        values=tuple(code.value for code in RejectionCode),
        read=lambda status: {"answered": status.counters.answered, **status.counters.codes},
    ),
    Fact(field="answered", read=lambda status: status.counters.answered),
    Fact(field="rejected", read=lambda status: status.counters.rejected),
    Fact(field="codes", read=lambda status: dict(status.counters.codes)),
    Fact(
        field="parts",
        metric="vectors",
        meaning="Vectors published, by the role of the model that computed them.",
        label="served_as",
        values=(ServedAs.ACTIVE.value, ServedAs.CANARY.value),
        read=lambda status: dict(status.counters.parts),
    ),
    Fact(
        field="canary_fallbacks",
        metric="canary_fallbacks",
        meaning="Requests of a canary's share that the active version answered: the canary could not.",
        read=lambda status: status.counters.canary_fallbacks,
    ),
    Fact(field="dropped", read=lambda status: status.counters.dropped),
    Fact(
        field="drops",
        metric="outcomes_dropped",
        meaning="Outcomes not published: the id had one (to another question: conflict), or no lease.",
        label="status",
        values=(CommitStatus.DUPLICATE.value, CommitStatus.CONFLICT.value, CommitStatus.FENCED.value),
        read=lambda status: dict(status.counters.drops),
    ),
    Fact(
        field="failures",
        metric="failures",
        meaning="Entries whose processing raised and that were nacked.",
        read=lambda status: status.counters.failed,
    ),
    Fact(
        field="left",
        metric="left_entries",
        meaning="Entries not answered here: given to a worker that can, or waiting for one.",
        label="result",
        values=("given", "waiting"),
        read=lambda status: dict(status.counters.left),
    ),
    Fact(
        field="deliveries",
        metric="deliveries",
        meaning="Entries read: new, own of a former process or a lost reply, claimed from others, given by others.",
        label="kind",
        values=("new", "own", "claimed", "given"),
        read=lambda status: dict(status.counters.deliveries),
    ),
    Fact(
        field="lease_losses",
        metric="lease_losses",
        meaning="Entries in flight that another worker claimed.",
        read=lambda status: status.leases.lost,
    ),
    Fact(
        field="trimmed_pending",
        metric="trimmed_pending_entries",
        meaning="Requests cut from their stream while pending, which no worker can answer.",
        read=lambda status: status.stream.trimmed_pending,
    ),
    Fact(
        field="malformed_control_events",
        metric="malformed_control_events",
        meaning="Control events that could not be read.",
        read=lambda status: status.control.malformed,
    ),
    Fact(
        field="in_flight",
        metric="in_flight_entries",
        kind="gauge",
        meaning="Entries read and not yet answered here.",
        read=lambda status: len(status.leases.in_flight()),
    ),
    Fact(
        field="lag",
        metric="lag_entries",
        kind="gauge",
        meaning="Entries of the group not yet delivered, as of the last heartbeat.",
        read=lambda status: status.backlog.lag,
    ),
    Fact(
        field="pending",
        metric="pending_entries",
        kind="gauge",
        meaning="Entries of the group delivered and not acknowledged, as of the last heartbeat.",
        read=lambda status: status.backlog.pending,
    ),
    Fact(field="reconnects", read=lambda status: status.outages["requests"].count),
    Fact(field="outages", read=lambda status: dict(status.outages["requests"].reasons)),
    Fact(
        field="shadows",
        metric="shadows",
        meaning="Answered requests for a version in testing: published, dropped at a full queue, declined or failed by "
        "the candidate, unpublished since the server did not take it.",
        label="result",
        values=tuple(result.value for result in ShadowResult),
        read=lambda status: dict(status.shadows.counts),
    ),
    Fact(
        metric="shadow_waiting",
        kind="gauge",
        meaning="Answered requests that wait to be shadowed.",
        read=lambda status: status.shadows.waiting(),
    ),
    Fact(field="trimmed", read=lambda status: sum(status.janitor.trimmed.copy().values())),
    Fact(
        metric="trimmed_entries",
        meaning="Entries this worker cut as the janitor.",
        label="stream",
        read=lambda status: dict(status.janitor.trimmed),
    ),
    Fact(
        field="removed_consumers",
        metric="removed_consumers",
        meaning="Dead consumers this worker removed.",
        read=lambda status: status.janitor.removed,
    ),
    Fact(
        metric="alive",
        kind="gauge",
        meaning="Whether /livez answers so.",
        read=lambda status: int(not status.liveness.reasons()),
    ),
    Fact(
        metric="ready",
        kind="gauge",
        meaning="Whether /readyz answers so.",
        read=lambda status: int(not status.readiness.reasons()),
    ),
)


def heartbeat_fields(status: WorkerStatus) -> dict[str, float | int | str | None]:
    """Return the facts as the heartbeat has them; those of a label as `value=number`, without zeros."""
    return {fact.field: _text(fact.read(status)) for fact in FACTS if fact.field}


def listed(counts: Mapping[str, int]) -> str:
    """Return counts as the heartbeat has them."""
    return ",".join(f"{name}={count}" for name, count in sorted(counts.items()) if count)


def _text(value: Value) -> float | int | str | None:
    return listed(value) if isinstance(value, Mapping) else value
