"""Processes of the local stack: starting, recognising and ending them.

Owns: how a server is bound to the life of the process that started it, and who may be sent a signal.
Must not know: which server it is.
Invariant: a signal reaches only a process whose command line is the one we started; a recycled process id never does.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import psutil

from worker.embedded.accounts import Account

#: Time a server has to obey one signal before the next, harder one, in seconds.
GRACE_SECONDS = 10.0

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

#: A process and the signals that end it, the gentlest first.
Target = tuple[psutil.Process, tuple[signal.Signals, ...]]

# A child is reaped by the process that started it, whichever stack object stops it.
_children: dict[int, subprocess.Popen[bytes]] = {}


class AccountOptions(TypedDict):
    """Arguments of `subprocess`."""

    user: int | None
    group: int | None
    extra_groups: list[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One process to start."""

    command: tuple[str, ...]
    #: Takes both output streams; a pipe would block the process once nobody reads it.
    log: Path
    #: None: this user.
    account: Account | None = None
    #: Sent by the kernel (Linux) when the thread that starts the process ends; None: the process stays.
    death_signal: signal.Signals | None = None
    #: None: nothing of ours, see `clean_environment`.
    environment: Mapping[str, str] | None = None
    folder: Path = Path("/")


def launch(order: Launch) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that a terminal's Ctrl-C reaches us alone."""
    reap_all()
    with order.log.open("ab") as log:
        child = subprocess.Popen(
            order.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=order.folder,
            env=clean_environment() if order.environment is None else order.environment,
            start_new_session=True,
            # Runs after the switch of user, which would clear what it sets.
            preexec_fn=bind_to_parent(order.death_signal),  # noqa: PLW1509 - one system call, resolved beforehand
            **account_options(order.account),
        )
    _children[child.pid] = child
    return child


def clean_environment() -> dict[str, str]:
    """Return the environment of servers: nothing of ours, so that no PG… or LC_… variable changes them."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def account_options(account: Account | None) -> AccountOptions:
    """Return the arguments with which `subprocess` switches user."""
    if account is None:
        return {"user": None, "group": None, "extra_groups": None}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def can_bind_to_parent() -> bool:
    """Return whether the kernel ends servers with us: Linux, and the thread that starts them must live as long."""
    return _LIBC is not None and threading.current_thread() is threading.main_thread()


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when the thread that started it ends.

    Killed, not asked to stop: a hung worker would not react, and a killed one loses nothing.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def bind_to_parent(number: signal.Signals | None) -> Callable[[], None] | None:
    """Return what a child does before it becomes its program, to get that signal when this thread ends."""
    if number is None or _LIBC is None:
        return None
    prctl, parent, wanted = _LIBC.prctl, os.getpid(), int(number)

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, wanted)
        if os.getppid() != parent:  # it ended before the kernel knew: no signal would ever come
            os._exit(1)

    return bind


def find(pid: int | None, marks: Sequence[str]) -> psutil.Process | None:
    """Return the process if it lives and its command line holds all marks in order, its program's name first."""
    if pid is None or pid <= 1:
        return None
    reap(pid)
    try:
        process = psutil.Process(pid)
        command = process.cmdline()
        if process.status() == psutil.STATUS_ZOMBIE or not command:
            return None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    if Path(command[0]).name != marks[0]:
        return None
    rest = iter(command[1:])
    return process if all(mark in rest for mark in marks[1:]) else None


def end(process: psutil.Process, signals: tuple[signal.Signals, ...], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """Send the signals in turn, each with its grace, until the process is gone."""
    end_all([(process, signals)], grace_seconds=grace_seconds)


def end_all(targets: Sequence[Target], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """Send every target its next signal, and wait, until all are gone or out of signals.

    No threads: none can be started while the interpreter shuts down.
    """
    left = list(targets)
    for turn in range(max((len(signals) for _, signals in left), default=0)):
        for process, signals in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signals[min(turn, len(signals) - 1)])
        wait_until(partial(_all_gone, left), grace_seconds)
        left = [target for target in left if not _gone(target[0])]


def reap(pid: int) -> None:
    """Take the exit status of a child of ours, if it ended."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        _children.pop(pid, None)


def reap_all() -> None:
    """Take the exit status of every child of ours that ended, whoever ended it."""
    for pid in list(_children):
        reap(pid)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return True


def _all_gone(targets: Sequence[Target]) -> bool:
    return all(_gone(process) for process, _ in targets)


def _gone(process: psutil.Process) -> bool:
    reap(process.pid)
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
