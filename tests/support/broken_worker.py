"""Workers with a broken commit, to show that the checker sees what it should: `python -m tests.support.broken_worker`.

Owns: two ways of committing that lose or double outcomes, and one that is right in a process that dies of it.
Must not know: how a run goes on.
Invariant: everything but the commit is the real worker; only `die` ends its process.
"""

import os
import random
import sys
from collections.abc import Callable, Mapping

from contracts import GROUP, SignalVector
from contracts.codec import encode
from worker.cli.main import main
from worker.serving import committer as results
from worker.serving.committer import Commit, Outcome, Results
from worker.serving.intake import Entry
from worker.transport.client import translated
from worker.transport.scripts import CommitStatus

#: Share of the commits that lose their outcome.
LOSSES = 0.02
#: Chance that the process dies before a commit, and again after it; a new one costs seconds of the machine.
DEATHS = 0.01

# Each process draws its own sequence, so that a restarted one does not fail at the same commit for ever.
_rng = random.Random(f"1-{os.getpid()}")
_commit = Results.commit


def acknowledge_first(self: Results, entry: Entry, outcome: Outcome, *, deadline_ms: int | None = None) -> Commit:
    """Acknowledge, and seldom never come to publish; the process lives on and all else is right."""
    if _rng.random() >= LOSSES:
        return _commit(self, entry, outcome, deadline_ms=deadline_ms)
    with translated():
        self._client.xack(self._names.requests, GROUP, entry.id)  # type: ignore[attr-defined]  # set below
    return Commit(CommitStatus.COMMITTED, "")


def die(self: Results, entry: Entry, outcome: Outcome, *, deadline_ms: int | None = None) -> Commit:
    """Commit as the real worker does, in a process that often dies just before or just after."""
    _die_seldom()
    commit = _commit(self, entry, outcome, deadline_ms=deadline_ms)
    _die_seldom()
    return commit


def _die_seldom() -> None:
    if _rng.random() < DEATHS:
        os._exit(1)


def forget(self: Results, entry: Entry, outcome: Outcome, *, deadline_ms: int | None = None) -> Commit:
    """Publish without looking whether the request id has an outcome: duplicates are answered twice."""
    del deadline_ms
    with translated():
        commit = _publish(self, outcome)
        self._client.xack(self._names.requests, GROUP, entry.id)  # type: ignore[attr-defined]  # set below
        return commit


def _publish(self: Results, outcome: Outcome) -> Commit:
    stream = self._names.results if isinstance(outcome, SignalVector) else self._names.rejections
    added = self._client.xadd(stream, encode(outcome))  # type: ignore[attr-defined]  # set below
    return Commit(CommitStatus.COMMITTED, added.decode())


BROKEN: Mapping[str, Callable[..., Commit]] = {"acknowledge_first": acknowledge_first, "die": die, "forget": forget}


def break_commit(way: str) -> None:
    """Replace the commit of every worker of this process."""
    made = results.Results.__init__

    def remember_client(self: Results, commands: object, *rest: object, **named: object) -> None:
        made(self, commands, *rest, **named)  # type: ignore[arg-type]  # handed through
        self._client = commands  # type: ignore[attr-defined]  # the broken commits' own

    results.Results.__init__ = remember_client  # type: ignore[method-assign]  # that is the point
    results.Results.commit = BROKEN[way]  # type: ignore[method-assign]  # that is the point


if __name__ == "__main__":
    break_commit(sys.argv.pop(1))
    main()
