"""Measurements in processes of their own, asked for from here.

Owns: starting them, their environment, reading their answers.
Must not know: what they measure.
Invariant: a child has this interpreter and this environment but for what is named.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from worker.settings import inherited_environment

#: Longest measurement; Qlib on 505 symbols takes the most.
TIMEOUT_SECONDS = 1800


class ChildFailed(Exception):
    """A measurement ended without an answer."""


def measured(name: str, arguments: Mapping[str, object], *, cache: Path | None = None) -> dict[str, float]:
    """Run one measurement of `child` and return what it says.

    Args:
        name: Of the measurement.
        arguments: Of the measurement, by name.
        cache: Folder of compiled code; default the one beside the sources.

    Raises:
        ChildFailed: It ended with an error.
    """
    environment = inherited_environment() | ({"NUMBA_CACHE_DIR": str(cache)} if cache else {})
    command = [sys.executable, "-m", "tests.benchmarks.child", name, json.dumps(arguments)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        raise ChildFailed(f"{name} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
