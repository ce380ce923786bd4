"""Mutants of the server's scripts: small changes, each of which a test must notice.

    python -m tests.mutants.scripts [--only NAME...]

Owns: the table of changes and the run of the scripts' tests on each of them.
Must not know: what scripts are for.
Invariant: a change that no longer fits its script is an error, so that the table follows the scripts; each mutant runs
in a forked process of its own, and no file is changed. Exit code 1 where fewer than 95 % are noticed.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import servers, serving, world
from tests.support.market import load_kernels
from worker.embedded import Endpoints
from worker.transport.scripts import Script

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path("worker/transport/lua")
HOT_PATH, OTHERS = "tests/integration/test_worker_scripts.py", "tests/integration/test_stream_scripts.py"
LEAVING = "tests/integration/test_leave_scripts.py"
#: What the tests' fixtures import: once here, and in no fork again.
IMPORTED = (serving, world)
#: Scripts whose tests are in `OTHERS`.
ELSEWHERE = frozenset({"trim_stream", "redrive", "begin_application", "finish_application"})
#: Scripts whose tests are in `LEAVING`.
OF_LEAVING = frozenset({"leave", "reject_expired"})
#: Modules are imported before pytest could rewrite their assertions, which none of them has.
OPTIONS = (
    *("-xq", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:cov"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
#: Share of mutants that tests notice at least.
GOAL = 0.95


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one script."""

    script: str
    old: str
    #: Empty: `old` is deleted.
    new: str = ""
    #: Why no test can notice it, where none does.
    why: str = ""


MUTANTS = (
    Mutant("leave", "if #owned == 0 then", "if false then"),
    Mutant("leave", ", ARGV[3], ARGV[3], 1, ARGV[2])", ", ARGV[3], ARGV[3], 1)"),
    Mutant("leave", "if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then", "if false then"),
    Mutant("leave", "if kind ~= 'hash' and kind ~= 'none' then", "if false then"),
    Mutant("leave", "if ARGV[4] ~= '' then", "if false then"),
    Mutant("leave", "  redis.call('SADD', KEYS[3], ARGV[3])\n"),
    Mutant("leave", "  redis.call('PEXPIRE', KEYS[3], ARGV[5])\n"),
    Mutant("leave", "ARGV[4], 0, ARGV[3], 'JUSTID')", "ARGV[4], 0, ARGV[3])"),
    Mutant("leave", "if ARGV[8] ~= '' and waited >= tonumber(ARGV[8]) then", "if false then"),
    Mutant("leave", "waited >= tonumber(ARGV[8])", "waited > tonumber(ARGV[8])"),
    Mutant("leave", "redis.call('HSET', KEYS[2], 'left_at_ms', string.format('%.0f', since))\n"),
    Mutant("leave", "if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[9]) then", "if false then"),
    Mutant("leave", "math.max(tonumber(ARGV[7]), math.floor(waited / 2))", "tonumber(ARGV[7])"),
    Mutant("leave", "  pause = math.min(pause, tonumber(ARGV[8]) - waited)\n"),
    Mutant(
        "leave",
        "math.max(0, tonumber(ARGV[5]) - pause)",
        "tonumber(ARGV[5]) - pause",
        "a negative idle time is taken for 0",
    ),
    Mutant("leave", "math.max(0, tonumber(ARGV[6]) - 1)", "ARGV[6]"),
    Mutant("reject_expired", "if now <= tonumber(ARGV[4]) then", "if false then"),
    Mutant("reject_expired", "if kind ~= 'hash' and kind ~= 'none' then", "if false then"),
    Mutant("reject_expired", "if redis.call('HGET', KEYS[2], 'entry') then", "if false then"),
    Mutant("reject_expired", "redis.call('PEXPIRE', KEYS[2], ARGV[3])\n"),
    Mutant("reject_expired", "'state', 'rejected', ", ""),
    Mutant("commit_outcome", "if kind ~= 'hash' and kind ~= 'none' then", "if false then"),
    Mutant("commit_outcome", "if kind ~= 'hash' and kind ~= 'none' then", "if kind ~= 'none' then"),
    Mutant("commit_outcome", "if remembered[1] then", "if false then"),
    Mutant("commit_outcome", "  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])\n"),
    Mutant("commit_outcome", "remembered[2] and remembered[2] ~= ARGV[7]", "remembered[2] ~= ARGV[7]"),
    Mutant("commit_outcome", "remembered[2] and remembered[2] ~= ARGV[7]", "false"),
    Mutant("commit_outcome", "if #ARGV < 10 then", "if #ARGV < 11 then", "a field and its value at least"),
    Mutant("commit_outcome", "if #ARGV < 10 then", "if #ARGV < 12 then"),
    Mutant("commit_outcome", "if #ARGV < 10 then", "if false then"),
    Mutant("commit_outcome", "if #owned == 0 then", "if false then"),
    Mutant("commit_outcome", ", ARGV[3], ARGV[3], 1, ARGV[2])", ", ARGV[3], ARGV[3], 1)"),
    Mutant("commit_outcome", "ARGV[4] == 'done' and "),
    Mutant("commit_outcome", "ARGV[6] ~= '' and now > tonumber(ARGV[6])", "false"),
    Mutant("commit_outcome", "now > tonumber(ARGV[6])", "now < tonumber(ARGV[6])"),
    Mutant("commit_outcome", "tonumber(time[1]) * 1000 +", "tonumber(time[1]) +"),
    Mutant("commit_outcome", "redis.call('PEXPIRE', KEYS[3], ARGV[5])\n"),
    Mutant("commit_outcome", "redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])\nreturn {'comm", "return {'comm"),
    Mutant("commit_outcome", ", 'asked_sha256', ARGV[7],\n  'purpose', ARGV[8])", ")"),
    Mutant("commit_outcome", ",\n  'purpose', ARGV[8])", ")"),
    Mutant("commit_outcome", "if ARGV[9] ~= '' then", "if false then"),
    Mutant("commit_outcome", "'MAXLEN', '~', ARGV[9], "),
    Mutant("nack", "if #owned == 0 then", "if false then"),
    Mutant("nack", ", ARGV[3], ARGV[3], 1, ARGV[2])", ", ARGV[3], ARGV[3], 1)"),
    Mutant("nack", "== 0 then\n  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])", "== 0 then"),
    Mutant("nack", "if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then", "if false then"),
    Mutant("nack", "if ARGV[6] ~= '' then", "if true then"),
    Mutant("nack", "if kind ~= 'hash' and kind ~= 'none' then", "if false then"),
    Mutant("nack", "if kind ~= 'hash' and kind ~= 'none' then", "if kind ~= 'none' then"),
    Mutant("nack", "    redis.call('PEXPIRE', KEYS[2], ARGV[7])\n"),
    Mutant("nack", "if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[7]) then", "if true then"),
    Mutant("nack", "if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[7]) then", "if false then"),
    Mutant("nack", "'IDLE', ARGV[4], "),
    Mutant("nack", "'RETRYCOUNT', ARGV[5], "),
    Mutant("nack_all", "if row[1] ~= ARGV[4] then", "if true then"),
    Mutant("nack_all", "if row[1] ~= ARGV[4] then", "if false then"),
    Mutant("nack_all", "math.max(0, count - 1)", "math.max(1, count - 1)"),
    Mutant("nack_all", "if #redis.call('XRANGE', KEYS[1], row[1], row[1]) > 0 then", "if true then"),
    Mutant("nack_all", "ARGV[6], 0, row[1]", "ARGV[2], 0, row[1]"),
    Mutant("nack_all", "'IDLE', ARGV[3], "),
    Mutant("nack_all", "'RETRYCOUNT', count, "),
    Mutant("nack_all", "'-', '+', ARGV[5], ARGV[2])", "'-', '+', ARGV[5])"),
    Mutant("nack_all", "'-', '+', ARGV[5], ARGV[2])", "'-', '+', 1000, ARGV[2])"),
    Mutant("renew_leases", "pending[1][2] ~= ARGV[2]", "false"),
    Mutant("renew_leases", "    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[place], 'JUSTID')\n"),
    Mutant("renew_leases", ", 'JUSTID')", ")"),
    Mutant("renew_leases", "and #redis.call('XRANGE', KEYS[1], ARGV[place], ARGV[place]) > 0 "),
    Mutant("renew_leases", "elseif #pending > 0 and", "elseif", "XCLAIM ignores an entry that is not pending"),
    Mutant("renew_leases", "for place = 3, #ARGV do", "for place = 4, #ARGV do"),
    Mutant("take_own", "if #pending == 0 then", "if false then"),
    Mutant("take_own", ", ARGV[3], ARGV[3], 1, ARGV[2])", ", ARGV[3], ARGV[3], 1)"),
    Mutant("take_own", "math.max(pending[1][4], tonumber(ARGV[4]))", "pending[1][4]"),
    Mutant("take_own", "math.max(pending[1][4], tonumber(ARGV[4]))", "tonumber(ARGV[4])"),
    Mutant(
        "take_own",
        "  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])\n",
        why="since Redis 7 XCLAIM itself drops an entry that was cut from the stream",
    ),
    Mutant("take_own", ", 'RETRYCOUNT', count)", ")"),
    Mutant("remove_consumer", "if ARGV[3] ~= '1' and ", "if "),
    Mutant("remove_consumer", "redis.call('EXISTS', KEYS[2]) == 1", "false"),
    Mutant("remove_consumer", "1, ARGV[2]) > 0 then", "1, ARGV[2]) > 1 then"),
    Mutant("remove_consumer", "1, ARGV[2]) > 0 then", "1) > 0 then"),
    Mutant("trim_stream", "  if #a ~= #b then\n    return #a < #b\n  end\n"),
    Mutant("trim_stream", "return #a < #b", "return #a > #b"),
    Mutant("trim_stream", "return a < b", "return tonumber(a) < tonumber(b)"),
    Mutant("trim_stream", "    a, b = left_seq, right_seq\n"),
    Mutant("trim_stream", "if redis.call('EXISTS', KEYS[1]) == 0 then", "if false then"),
    Mutant("trim_stream", "math.max(0, now - tonumber(ARGV[1]))", "now"),
    Mutant("trim_stream", "math.max(0, now - tonumber(ARGV[1]))", "now - tonumber(ARGV[1])"),
    Mutant("trim_stream", "local allowed = ARGV[3] == ''", "local allowed = true"),
    Mutant("trim_stream", "allowed or group['name'] == ARGV[3]", "allowed"),
    Mutant("trim_stream", "  if less(needed, aged) then\n    unread", "  if true then\n    unread"),
    Mutant(
        "trim_stream",
        "#unread > 0 and less(unread[1][1], aged)",
        "#unread > 0",
        "only an entry of the very millisecond differs",
    ),
    Mutant("trim_stream", "#unread > 0 and less(unread[1][1], aged)", "false"),
    Mutant("trim_stream", "late = late or less(oldest, aged)\n", "\n"),
    Mutant("trim_stream", "late = late or less(oldest, aged)\n", "late = true\n"),
    Mutant("trim_stream", "      needed = oldest\n"),
    Mutant("trim_stream", "if group['pending'] > 0 then", "if group['pending'] > 1 then"),
    Mutant("trim_stream", "    behind[#behind + 1] = group['name']\n"),
    Mutant("trim_stream", "    cut = needed\n"),
    Mutant("trim_stream", "if limit == 0 or not allowed then", "if not allowed then"),
    Mutant("trim_stream", "if limit == 0 or not allowed then", "if limit == 0 then"),
    Mutant("trim_stream", "  gone = redis.call('XTRIM', KEYS[1], 'MINID', '=', cut)\n"),
    Mutant("redrive", "if remembered[1] == 'done' then", "if false then"),
    Mutant("redrive", "ARGV[1], ARGV[1]) == 0 then", "ARGV[1], ARGV[1]) == 1 then"),
    Mutant("redrive", "remembered[3] == ARGV[1] and remembered[4] or ''", "remembered[4] or ''"),
    Mutant("redrive", "remembered[3] == ARGV[1] and remembered[4] or ''", "''"),
    Mutant("redrive", "remembered[2] and remembered[2] ~= ARGV[1]", "false"),
    Mutant("redrive", "remembered[2] and remembered[2] ~= ARGV[1]", "remembered[2] ~= ARGV[1]"),
    Mutant("redrive", "redis.call('HDEL', KEYS[3], 'state', 'stream', 'entry', 'last_error')\n"),
    Mutant("redrive", "redis.call('HINCRBY', KEYS[3], 'redrives', 1)\n"),
    Mutant("redrive", "if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[3]) then", "if true then"),
    Mutant("redrive", "  redis.call('PEXPIRE', KEYS[3], ARGV[3])\n"),
    Mutant("redrive", "redis.call('XDEL', KEYS[2], ARGV[1])\n"),
    Mutant("begin_application", "  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])\n"),
    Mutant("begin_application", "  redis.call('PEXPIRE', KEYS[2], ARGV[8])\n"),
    Mutant("begin_application", "inbox[1] and inbox[1] ~= ARGV[4]", "false"),
    Mutant("begin_application", "  redis.call('HINCRBY', KEYS[2], 'conflicts', 1)\n"),
    Mutant("begin_application", "inbox[2] and inbox[2] ~= 'applying'", "false"),
    Mutant("begin_application", "inbox[2] and inbox[2] ~= 'applying'", "inbox[2]"),
    Mutant("begin_application", "if #owned == 0 then", "if false then"),
    Mutant("begin_application", "book[5] ~= ARGV[2] and "),
    Mutant("begin_application", " and now < tonumber(book[6])"),
    Mutant("begin_application", "tonumber(ARGV[5]) > as_of", "tonumber(ARGV[5]) >= as_of"),
    Mutant("begin_application", "tonumber(ARGV[6]) > activation", "tonumber(ARGV[6]) >= activation"),
    Mutant("begin_application", "(tonumber(ARGV[5]) == as_of and tonumber(ARGV[6]) > activation)", "false"),
    Mutant("begin_application", "    record('not_newer')\n"),
    Mutant("begin_application", "if judged >= tonumber(ARGV[7]) then", "if false then"),
    Mutant("begin_application", "if judged >= tonumber(ARGV[7]) then", "if now >= tonumber(ARGV[7]) then"),
    Mutant("begin_application", "ARGV[11] ~= '' and tonumber(ARGV[11]) or now", "tonumber(ARGV[11])"),
    Mutant("begin_application", "  record('expired')\n"),
    Mutant("begin_application", "if attempts == 0 then", "if true then"),
    Mutant("begin_application", "record('applying')\n"),
    Mutant("begin_application", "now + tonumber(ARGV[9])", "now"),
    Mutant("begin_application", "local opening = book[4] or ''", "local opening = ''"),
    Mutant("finish_application", "if redis.call('HGET', KEYS[2], 'state') == 'applied' then", "if false then"),
    Mutant("finish_application", "book[3] and book[3] ~= ARGV[2]", "false"),
    Mutant("finish_application", "overtaken or tonumber(ARGV[5]) < as_of", "overtaken or false"),
    Mutant("finish_application", "tonumber(ARGV[6]) <= activation", "tonumber(ARGV[6]) < activation"),
    Mutant("finish_application", "redis.call('PEXPIRE', KEYS[2], ARGV[8])\n"),
    Mutant("finish_application", "if not overtaken then", "if true then"),
    Mutant("finish_application", "  redis.call('HDEL', KEYS[3], 'opening', 'holder', 'held_until')\n"),
    Mutant("finish_application", "redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])\nreturn over", "return over"),
)


def main(words: Sequence[str] | None = None) -> int:
    """Run the tests on every mutant, print each verdict, and return how the run ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.scripts", description="Mutants of the scripts.")
    parser.add_argument("--only", nargs="+", help="names of scripts")
    options = parser.parse_args(words)
    chosen = [mutant for mutant in MUTANTS if options.only is None or mutant.script in options.only]
    load_kernels()
    with servers.shared_endpoints() as endpoints:
        if any(_run(each, None, endpoints) for each in (HOT_PATH, OTHERS, LEAVING)):
            raise RuntimeError("the tests fail without any change")
        noticed = sum(_notices(mutant, endpoints) for mutant in chosen)
    print(f"{noticed} of {len(chosen)} noticed; the goal is {GOAL:.0%}")  # noqa: T201
    return int(noticed < GOAL * len(chosen))


def mutated(mutant: Mutant, text: str) -> str:
    """Return the script's text with the change.

    Raises:
        ValueError: The text to change is not in the script.
    """
    before, found, after = text.partition(mutant.old)
    if not found:
        raise ValueError(f"{mutant.script}.lua has no {mutant.old!r}: the table is older than the script")
    return f"{before}{mutant.new}{after}"


def _notices(mutant: Mutant, endpoints: Endpoints) -> bool:
    tests = OTHERS if mutant.script in ELSEWHERE else LEAVING if mutant.script in OF_LEAVING else HOT_PATH
    code = _run(tests, mutant, endpoints)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"the tests of {mutant.script} did not run: exit code {code}")
    verdict = "noticed" if code else "SURVIVED"
    why = f"  [{mutant.why}]" if mutant.why else ""
    print(f"{verdict:<9} {mutant.script}: {mutant.old.strip()!r} -> {mutant.new.strip()!r}{why}", flush=True)  # noqa: T201
    return bool(code)


def _run(tests: str, mutant: Mutant | None, endpoints: Endpoints) -> int:
    """Return the exit code of the tests in a forked process, whose imports are made already."""
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(BaseException):
            servers.shared_endpoints = lambda: contextlib.nullcontext(endpoints)  # type: ignore[assignment]  # for conftest
            if mutant is not None:
                _replace(mutant)
            code = int(pytest.main([*OPTIONS, tests]))
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _replace(mutant: Mutant) -> None:
    original = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / SCRIPTS).glob("*.lua")}
    texts = original | {mutant.script: mutated(mutant, original[mutant.script])}
    Script.source = classmethod(lambda cls: texts[cls.name])  # type: ignore[assignment,method-assign]  # as it was cached


if __name__ == "__main__":
    sys.exit(main())
