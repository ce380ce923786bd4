"""Which requests a candidate answers, and which it computes in the shadow.

Owns: the one hash of request ids.
Must not know: what is computed.
Invariant: the choice depends on request id, role and share alone: every worker, producer and reader comes to the same,
and a larger share contains all requests of a smaller one.
"""

import hashlib

from contracts import ServedAs
from worker.serving.slots import ActiveBundle, Candidate, Slot


def bucket(request_id: str, role: ServedAs) -> float:
    """Return the place of a request id between 0 (included) and 1 (left out), the same on every machine.

    The first four bytes, big-endian, of the SHA-256 of `<role>:<request id>` in UTF-8, divided by 2 to the 32nd. The
    role makes the requests that a canary answers independent of those that are shadowed.
    """
    digest = hashlib.sha256(f"{role.value}:{request_id}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32


def in_share(request_id: str, role: ServedAs, share: float) -> bool:
    """Return whether a request id belongs to a role's share of all requests."""
    return bucket(request_id, role) < share


def canary_for(slot: Slot, request_id: str) -> Candidate | None:
    """Return the candidate that is to answer a request, if one is."""
    for candidate in slot.candidates:
        if candidate.canary_share and in_share(request_id, ServedAs.CANARY, candidate.canary_share):
            return candidate
    return None


def bundle_for(slot: Slot, request_id: str) -> ActiveBundle:
    """Return the bundle that is to answer a request, in its role."""
    candidate = canary_for(slot, request_id)
    return slot.active if candidate is None else candidate.beside(slot.active, ServedAs.CANARY)
