"""A fresh environment without the research extra: its size, and how soon the worker's program is there.

Owns: making the environment and throwing it away.
Must not know: servers, models.
Invariant: neither Qlib nor MLflow is installed there, so nothing that serves can need them.
"""

import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.children import ChildFailed
from tests.benchmarks.figures import Figure, spell_bytes, spell_seconds

PROJECT = Path(__file__).resolve().parents[2]
SIZE_GOAL, START_GOAL = 500e6, 3.0
#: All that `signal-worker run` imports before it connects, then what must not be among it.
PROGRAM = (
    "import sys, worker.app, worker.cli.main, strategies.expressions.feature_sets as sets\n"
    "sets.feature_set('alpha158')\n"
    "bad = [name for name in ('qlib', 'mlflow', 'torch') if name in sys.modules]\n"
    "sys.exit(f'imported {bad}' if bad else 0)\n"
)


def install_figures() -> Iterator[Figure]:
    """Yield the size of an install without extras, and the time in which it imports all that serving needs.

    Raises:
        ChildFailed: The project could not be installed, or imports what it must not.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "venv"
        venv.create(place, with_pip=True)
        empty = sum(_sizes(place).values())
        python = str(place / "bin" / "python")
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(PROJECT)])
        sizes = _sizes(place)
        size = sum(sizes.values()) - empty
        yield Figure(
            work="install without the research extra (an empty environment taken off)",
            value=f"{spell_bytes(size)}, of it {spell_bytes(sizes['byte code'])} byte code that Python makes,"
            f" {spell_bytes(sizes['tests'])} the libraries' own tests",
            goal=spell_bytes(SIZE_GOAL),
            met=size <= SIZE_GOAL,
        )
        yield _start(python)


def start_figure() -> Figure:
    """Return how soon this environment's interpreter has imported all that serving needs."""
    return _start(sys.executable)


def _start(python: str) -> Figure:
    seconds = []
    for _ in range(6):
        begun = time.perf_counter()
        _run([python, "-c", PROGRAM])
        seconds.append(time.perf_counter() - begun)
    warm = statistics.median(seconds[1:])
    return Figure(
        work="start of `signal-worker run` to its first connection (imports, Alpha158 defined), without Qlib",
        value=f"{spell_seconds(warm)} warm, {spell_seconds(seconds[0])} the first time",
        goal=spell_seconds(START_GOAL),
        met=warm <= START_GOAL,
    )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tempfile.gettempdir())
    if done.returncode:
        raise ChildFailed(f"`{' '.join(command[:4])} …` ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes below a folder by what an image may leave out."""
    sizes = {"byte code": 0, "tests": 0, "needed": 0}
    for path in folder.rglob("*"):
        if not path.is_dir():
            sizes[_kind(path)] += path.lstat().st_size
    return sizes


def _kind(path: Path) -> str:
    if path.suffix == ".pyc":
        return "byte code"
    return "tests" if "tests" in path.parts else "needed"
