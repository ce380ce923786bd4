"""Evidence on two versions as workers would have left it on the streams.

Owns: pairs of vectors of a world's versions, one on the results, the other on the shadow stream.
Must not know: how pairs are found and measured.
Invariant: both vectors of a pair answer the same request on the same bars.
"""

from collections.abc import Iterable
from datetime import datetime

from contracts import ServedAs, SignalVector
from tests.support.published import Press
from tests.support.serving import Streams


class Shadowing:
    """Publishes what the active version answers, and what a candidate computes beside it."""

    def __init__(self, press: Press, streams: Streams, at: datetime) -> None:
        self._press, self._streams, self._at = press, streams, at

    def pairs(self, sessions: Iterable[int], *, right_ms: float = 3.0) -> None:
        """Publish one pair as of each of these sessions of the world's panel; the active version takes 2 ms."""
        for session in sessions:
            self.results(self.vector(session), compute_ms=2.0)
            self.shadow(self.vector(session, version="v2"), compute_ms=right_ms)

    def vector(self, session: int, *, version: str = "v1", request_id: str | None = None) -> SignalVector:
        """Return the answer of one version as of one session."""
        return self._press.vector(request_id or f"of{session}", version=version, session=session)

    def results(self, vector: SignalVector, **changes: object) -> str:
        """Publish a vector of the active version."""
        return self._press.publish(vector.model_copy(update=changes), self._at)

    def shadow(self, vector: SignalVector, **changes: object) -> str:
        """Publish a vector of a candidate."""
        shadowed = vector.model_copy(update={"served_as": ServedAs.SHADOW, **changes})
        return self._press.publish(shadowed, self._at, self._streams.names.shadow)
