"""Workers that lie about what computed a vector, to show that the judge sees it.

Owns: ways of publishing a vector as that of another model, and never hearing of a second activation.
Must not know: how a run goes on.
Invariant: everything but these is the real worker.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from contracts import SignalVector
from worker.cli.main import main
from worker.lifecycle.plan import Report
from worker.lifecycle.reconciler import Reconciler
from worker.serving.committer import Results
from worker.serving.outcomes import Commit, Publication
from worker.serving.request_stream import Entry

Change = Callable[[SignalVector], dict[str, object]]


def _another_bit(vector: SignalVector) -> dict[str, object]:
    first, *rest = vector.weights
    other = first.model_copy(update={"predicted_return": math.nextafter(first.predicted_return, 1.0)})
    return {"weights": (other, *rest)}


STAMPS: Mapping[str, Change] = {
    "activation": lambda vector: {"activation": vector.activation - 1},
    "version": lambda vector: {"model_version": "v1" if vector.model_version != "v1" else "v2"},
    "digest": lambda vector: {"model_sha256": vector.model_sha256[::-1]},
    "bit": _another_bit,
}


def stamp_in_turn() -> None:
    """Change every vector of this process before it is published, each in another way than the one before."""
    publish, turns = Results.publish, itertools.cycle(STAMPS.values())

    def changed(self: Results, entry: Entry, publication: Publication, *, deadline_ms: int | None = None) -> Commit:
        if isinstance(publication, SignalVector):
            publication = publication.model_copy(update=next(turns)(publication))
        return publish(self, entry, publication, deadline_ms=deadline_ms)

    Results.publish = changed  # type: ignore[method-assign]  # that is the point


def grow_deaf() -> None:
    """Let every worker of this process look at the registry until it serves, and never again."""
    reconcile = Reconciler.reconcile

    def once(self: Reconciler, **how: Any) -> Report:
        return Report(registry_reached=True) if self._slots.active else reconcile(self, **how)

    Reconciler.reconcile = once  # type: ignore[method-assign]  # that is the point


if __name__ == "__main__":
    stamp_in_turn()
    grow_deaf()
    main()
