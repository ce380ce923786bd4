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
from worker.serving.committer import Results
from worker.serving.outcomes import Commit, Publication
from worker.serving.request_stream import Entry
from worker.transport.scripts import CommitStatus

#: Share of the commits that lose their outcome.
LOSSES = 0.02
#: Chance that the process dies before a commit, and again after it; a new one costs seconds of the machine.
DEATHS = 0.01

# Each process draws its own sequence, so that a restarted one does not fail at the same commit for ever.
_rng = random.Random(f"1-{os.getpid()}")
_commit = Results.publish


def acknowledge_first(
    self: Results, entry: Entry, publication: Publication, *, deadline_ms: int | None = None
) -> Commit:
    """Acknowledge, and seldom never come to publish; the process lives on and all else is right."""
    if _rng.random() >= LOSSES:
        return _commit(self, entry, publication, deadline_ms=deadline_ms)
    self._commands.xack(self._names.requests, GROUP, entry.id)
    return Commit(CommitStatus.COMMITTED, "")


def die(self: Results, entry: Entry, publication: Publication, *, deadline_ms: int | None = None) -> Commit:
    """Commit as the real worker does, in a process that often dies just before or just after."""
    _die_seldom()
    commit = _commit(self, entry, publication, deadline_ms=deadline_ms)
    _die_seldom()
    return commit


def _die_seldom() -> None:
    if _rng.random() < DEATHS:
        os._exit(1)


def forget(self: Results, entry: Entry, publication: Publication, *, deadline_ms: int | None = None) -> Commit:
    """Publish without looking whether the request id has an outcome: duplicates are answered twice."""
    del deadline_ms
    commit = _publish(self, publication)
    self._commands.xack(self._names.requests, GROUP, entry.id)
    return commit


def _publish(self: Results, publication: Publication) -> Commit:
    stream = self._names.results if isinstance(publication, SignalVector) else self._names.rejections
    flat = [text for pair in encode(publication).items() for text in pair]
    added = self._commands.execute_command("XADD", stream, "*", *flat)
    return Commit(CommitStatus.COMMITTED, added.decode())


BROKEN: Mapping[str, Callable[..., Commit]] = {"acknowledge_first": acknowledge_first, "die": die, "forget": forget}


def break_commit(way: str) -> None:
    """Replace the commit of every worker of this process."""
    Results.publish = BROKEN[way]  # type: ignore[method-assign]  # that is the point


if __name__ == "__main__":
    break_commit(sys.argv.pop(1))
    main()
