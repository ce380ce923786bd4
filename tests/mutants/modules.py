"""Mutants of pure modules, made and run by mutmut as `[tool.mutmut]` of pyproject.toml names them.

    python -m tests.mutants.modules

Owns: the share of mutants that tests must notice, and why the survivors known today change nothing.
Must not know: what the modules are for.
Invariant: exit code 1 where fewer are noticed, or mutmut itself fails.
"""

import json
import subprocess
import sys
from pathlib import Path

#: Share of mutants that tests notice at least.
GOAL = 0.95
STATS = Path("mutants/mutmut-cicd-stats.json")
#: Part of the changed line to why nobody can notice it.
ARGUED = {
    "np.datetime64(first, )": "numpy takes the unit of days from a date by itself",
    "np.datetime64(last, )": "numpy takes the unit of days from a date by itself",
    'text.decode(errors="replace")': "no character beyond ASCII is part of an id, however it was decoded",
    'text.decode("ASCII"': "codecs are found whatever their case",
    "np.asarray(symbols, dtype=None)": "a sequence of texts has the type of texts without being asked",
    "np.asarray(symbols, )": "a sequence of texts has the type of texts without being asked",
    "np.zeros(len(symbols), dtype=None)": "float64 is NumPy's default",
    "np.zeros(len(symbols), )": "float64 is NumPy's default",
    "embargoes[: number + 1]": "the embargo after a later test period cannot reach an earlier fold's training",
    "np.arange(period.start, period.stop, dtype=None)": "int64 is NumPy's default",
    "np.arange(period.start, period.stop, )": "int64 is NumPy's default",
    "raw[: 5 * QUOTED]": "the characters shown are in the first 4 bytes each",
    'decode("ASCII")': "codecs are found whatever their case",
    'decode(errors="backslashreplace")': "UTF-8 is Python's default",
    'float("NAN")': "numbers are read whatever their case",
    "ensure_ascii=None": "None is as false as False",
    "allow_nan=None": "None is as false as False",
}


def main() -> int:
    """Run mutmut, print each survivor with its change, and return how the run ends."""
    if _mutmut("run", capture=False).returncode:
        print("mutmut failed", file=sys.stderr)  # noqa: T201
        return 1
    _mutmut("export-cicd-stats")
    stats = json.loads(STATS.read_text(encoding="utf-8"))
    for line in _mutmut("results").stdout.splitlines():
        name, _, state = line.strip().partition(": ")
        if state in {"survived", "no tests"}:
            _print_survivor(name, state)
    noticed = stats["killed"] + stats["timeout"]
    share = noticed / max(1, stats["total"] - stats["skipped"])
    print(f"{noticed} of {stats['total']} noticed, {share:.1%}; the goal is {GOAL:.0%}")  # noqa: T201
    return int(share < GOAL)


def _print_survivor(name: str, state: str) -> None:
    changed = [line[1:].strip() for line in _mutmut("show", name).stdout.splitlines() if line.startswith("+ ")]
    reason = next((why for text, why in ARGUED.items() if any(text in line for line in changed)), "")
    print(f"{state} {name}: {' '.join(changed)}{reason and f'  [{reason}]'}")  # noqa: T201


def _mutmut(*words: str, capture: bool = True) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mutmut", *words]
    return subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE if capture else None)


if __name__ == "__main__":
    sys.exit(main())
