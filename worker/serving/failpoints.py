"""Places at which a test may make a worker fail.

Owns: the names of the steps between read and commit, and what may happen there.
Must not know: entries, streams.
Invariant: without the setting `failpoints` nothing can happen; with it the same seed fails at the same steps.
"""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from enum import StrEnum

from worker.errors import SettingsError


class Step(StrEnum):
    """Where a request may be when its worker fails."""

    #: Entries were read, none is decoded.
    READ = "read"
    #: The outcome is there, nothing is published.
    COMPUTED = "computed"
    #: The server published it, the worker has not noted that.
    COMMITTED = "committed"


class InjectedFailure(RuntimeError):
    """Raised by a failpoint; represents any bug."""


Failpoint = Callable[[Step], None]

_FORM = re.compile(r"(?P<step>[a-z]+)=(?P<act>kill|raise|sleep:(?P<ms>\d{1,6}))@(?P<share>0?\.\d+|1)")


def failpoints(specification: str) -> Failpoint:
    """Return what to call at each step.

    Args:
        specification: Empty, or e.g. `seed=7,computed=kill@0.01,committed=sleep:300@0.1`: at a share of the times a
            step is reached the process is killed, an error raised, or the thread sleeps for milliseconds.

    Raises:
        SettingsError: It is not of that form.
    """
    if not specification:
        return _nothing
    seed, *rules = specification.split(",")
    if not re.fullmatch(r"seed=\d{1,18}", seed):
        raise SettingsError(f"failpoints was {specification!r}, must begin with seed=<number>")
    found = [_FORM.fullmatch(rule) for rule in rules]
    if not all(found) or not {match["step"] for match in found if match} <= set(Step):
        raise SettingsError(f"failpoints was {specification!r}, a rule is e.g. computed=kill@0.01")
    # Each process draws its own sequence, so that a restarted one does not fail at the same step for ever.
    return _Failpoints([match for match in found if match], random.Random(f"{seed}-{os.getpid()}"))  # noqa: S311 - no secret


class _Failpoints:
    def __init__(self, rules: list[re.Match[str]], rng: random.Random) -> None:
        self._rules, self._rng = rules, rng

    def __call__(self, step: Step) -> None:
        for rule in self._rules:
            if rule["step"] == step and self._rng.random() < float(rule["share"]):
                self._act(rule, step)

    def _act(self, rule: re.Match[str], step: Step) -> None:
        if rule["act"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if rule["act"] == "raise":
            raise InjectedFailure(f"failpoint {step}")
        time.sleep(int(rule["ms"]) / 1000)


def _nothing(_step: Step) -> None:
    pass
