"""Pairs computed here and now: both versions asked for the last sessions of a snapshot.

Owns: asking two bundles the same, by the straight line that serves, and how long each took.
Must not know: streams, the registry, measures.
Invariant: every session is asked of both versions; one on which either cannot answer is counted and left out.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from contracts import SignalRequest
from strategies.analysis.comparison import ModelOutput, Pair
from strategies.errors import StrategyError
from strategies.market.bars import Panel
from strategies.models.bundle import Bundle
from worker.operations.comparison.counts import Counts
from worker.serving.pipeline import ServingRules, compute
from worker.serving.slots import ActiveBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputation:
    """Two versions, and what both are asked."""

    bundles: tuple[Bundle, Bundle]
    panel: Panel
    rules: ServingRules
    #: The panel's last sessions.
    sessions: int
    now: datetime

    def pairs(self, counts: Counts) -> Iterator[Pair]:
        """Yield what both answer for each session, for the universe of each bundle."""
        asked = [session.astype(object) for session in self.panel.sessions[-self.sessions :]]
        for bundle in self.bundles:
            # Not timed: a first prediction sets the booster's predictor up.
            self._answer(bundle, _request(bundle, asked[-1]))
        for session in asked:
            found = [self._answer(bundle, _request(bundle, session)) for bundle in self.bundles]
            if found[0] is None or found[1] is None:
                counts.unanswered += 1
            else:
                yield Pair(question="universe", session=session, left=found[0], right=found[1])

    def _answer(self, bundle: Bundle, request: SignalRequest) -> ModelOutput | None:
        active = ActiveBundle(bundle=bundle, activation=0, since=self.now)
        begun = time.perf_counter()
        try:
            found = compute(request, active, self.panel, self.rules, self.now)
        except StrategyError:
            return None
        return ModelOutput(
            symbols=found.window.symbols,
            predictions=found.predictions,
            weights=found.portfolio.weights,
            compute_ms=(time.perf_counter() - begun) * 1000,
        )


def _request(bundle: Bundle, session: object) -> SignalRequest:
    return SignalRequest.model_validate({"request_id": "recomputed", "strategy": bundle.strategy, "as_of": session})
