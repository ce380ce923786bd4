"""Workers with a broken commit, to show that the checker sees what it should: `python -m tests.support.broken_worker`.

Owns: two ways of committing that lose or double outcomes under faults.
Must not know: how a run goes on.
Invariant: everything but the commit is the real worker.
"""

import os
import sys
from collections.abc import Callable, Mapping

from contracts import GROUP, SignalVector
from contracts.codec import encode
from worker.cli.main import main
from worker.server import translated
from worker.serving import results
from worker.serving.entries import Entry
from worker.serving.results import Commit, CommitStatus, Outcome, Results

#: Chance that the process dies between the two commands of a broken commit.
DEATHS = 0.02


def acknowledge_first(self: Results, entry: Entry, outcome: Outcome, *, deadline_ms: int | None = None) -> Commit:
    """Acknowledge, then publish: what dies between is lost."""
    del deadline_ms
    with translated():
        self._client.xack(self._names.requests, GROUP, entry.id)  # type: ignore[attr-defined]  # set below
        if int.from_bytes(os.urandom(2)) < DEATHS * 65536:
            os._exit(1)
        return _publish(self, outcome)


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


BROKEN: Mapping[str, Callable[..., Commit]] = {"acknowledge_first": acknowledge_first, "forget": forget}


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
