"""What processing an entry ends in.

Owns: one type for each end.
Must not know: how an outcome comes about, how it is committed.
Invariant: an entry that was processed has exactly one of these.
"""

from dataclasses import dataclass
from typing import TypeAlias

from contracts import Rejection, SignalVector
from worker.serving.shadow import ShadowTask
from worker.transport.scripts import CommitStatus

#: What is published for a request.
Publication: TypeAlias = SignalVector | Rejection


@dataclass(frozen=True, slots=True)
class Commit:
    """The server's reply to a commit."""

    status: CommitStatus
    #: Entry id of the publication; empty where there is none.
    outcome_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A vector, and what the candidates may compute too once it is published."""

    vector: SignalVector
    task: ShadowTask
    #: Epoch milliseconds after which the vector is worthless; None: never.
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A request that cannot be answered honestly."""

    rejection: Rejection


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Processing raised: the entry is left to another try, by whoever claims it."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A request that another worker answers, or answers better; the entry is left without being tried."""

    #: Worker that answers it; empty: none is known, and it waits for one.
    heir: str = ""
    #: Outcome if nobody can within the grace; None where there is an heir.
    rejection: Rejection | None = None
    #: Whether a worker will be able to by itself, so that it waits for as long as that takes.
    patient: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """The request id had an outcome already; the entry is acknowledged."""

    request_id: str
    commit: Commit


Outcome: TypeAlias = Answered | Rejected | Left | Elsewhere | Duplicate
