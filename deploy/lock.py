"""Writes the locks: `deploy/lock-<name>.txt`, plain requirements with hashes for every Python and platform.

    .venv/bin/python deploy/lock.py           the newest versions that pyproject.toml allows (needs uv and a registry)
    .venv/bin/python deploy/lock.py --check   exit 1 where pyproject.toml changed after a lock was written

All extras are solved together first, so that a package has one version in every lock.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The oldest Python: each lock holds for it and for every later one.
OLDEST = "3.11.0"
EXTRAS = ("serving", "demo", "tracking", "alpaca", "dev", "bench", "research")
GROUPS = ("build", "uv", "openmp")
#: Solved without what they depend on, since only files of them are used.
ALONE = ("openmp",)
INPUTS = "# requirements of pyproject.toml: sha256 "


def inputs_digest() -> str:
    """Return the digest of everything in pyproject.toml that a lock depends on."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = content["project"]
    inputs = [project[name] for name in ("requires-python", "dependencies", "optional-dependencies")]
    written = json.dumps([*inputs, content["dependency-groups"]], sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()


def lock_file(name: str) -> Path:
    """Return where the lock of an extra or a group is."""
    return ROOT / "deploy" / f"lock-{name}.txt"


def stale() -> list[str]:
    """Return the names of locks that are missing, or were written for other requirements."""
    header = INPUTS + inputs_digest()
    names = (*EXTRAS, *GROUPS)
    return [
        name
        for name in names
        if not lock_file(name).exists() or header not in lock_file(name).read_text(encoding="utf-8").splitlines()
    ]


def compile_lock(uv: str, *options: str) -> str:
    """Return what uv solves, without the names of registries and of files that are gone afterwards."""
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST, "--generate-hashes"]
    command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links", *options]
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    solved = subprocess.run(command, cwd=ROOT, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout
    return "".join(line for line in solved.splitlines(keepends=True) if not line.startswith("    #   -c "))


def write_locks(uv: str) -> None:
    """Solve everything together, then each lock within that solution."""
    header = f"# Written by `make lock`; for pip and uv alike.\n{INPUTS}{inputs_digest()}\n"
    with tempfile.TemporaryDirectory() as folder:
        together = Path(folder) / "together.txt"
        groups = [option for name in GROUPS for option in ("--group", name)]
        together.write_text(compile_lock(uv, "pyproject.toml", "--all-extras", *groups), encoding="utf-8")
        for name in EXTRAS:
            chosen = () if name == "serving" else ("--extra", name)
            content = compile_lock(uv, "pyproject.toml", "--constraint", str(together), *chosen)
            lock_file(name).write_text(header + content, encoding="utf-8")
        for name in GROUPS:
            alone = ("--no-deps",) if name in ALONE else ()
            content = compile_lock(uv, "--constraint", str(together), *alone, "--group", name)
            lock_file(name).write_text(header + content, encoding="utf-8")
    for name in (*EXTRAS, *GROUPS):
        print(f"{lock_file(name).relative_to(ROOT)}: {lock_file(name).read_text().count('==')} packages")


def main(arguments: list[str]) -> int:
    """Write or check the locks, and return the exit code."""
    if arguments == ["--check"]:
        found = stale()
        for name in found:
            print(f"{lock_file(name).relative_to(ROOT)} is not of this pyproject.toml: make lock", file=sys.stderr)
        return bool(found)
    private = ROOT / ".uv" / "bin" / "uv"
    uv = str(private) if private.exists() else shutil.which("uv")
    if uv is None:
        print("locks are written by uv, which is neither in .uv nor on the PATH", file=sys.stderr)
        return 1
    write_locks(uv)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
