"""Evaluation of a program over bars: one session of a window, or a range of sessions of a panel.

Owns: cutting symbols into blocks and sessions into chunks, the threads.
Must not know: expressions, feature sets, files, clocks.
Invariant: blocks, chunks and threads change the speed and nothing else.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.errors import ExpressionError
from strategies.expressions.machine import AGES, PLACE, load_ages, load_field, run
from strategies.expressions.program import Layout, Program
from strategies.market.bars import FloatArray, IntArray

Features = NDArray[np.float32]

#: Symbols a block for one session: enough to pay for a block, few enough for the second-level cache. A second thread
#: pays from the lower number on.
LEAST_SESSION_LANES, SESSION_LANES = 64, 128
#: Symbols a block, and symbols times sessions a chunk, for a range: a chunk of the output stays in the cache.
RANGE_LANES, RANGE_CELLS = 16, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """The bars to evaluate on: fields `[symbols, sessions]`, which of their rows, where each symbol begins."""

    fields: Mapping[str, FloatArray]
    #: Rows of the fields, in the order of the output, `[symbols]`.
    rows: IntArray
    #: Index of each symbol's first existing session, `[symbols]`, in the order of the output.
    first: IntArray
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How the work is cut: symbols a block, sessions a chunk."""

    lanes: int
    chunk: int


def evaluate(
    program: Program, bars: Bars, first: int, count: int, *, threads: int = 1, cut: Cut | None = None
) -> Features:
    """Return the columns for `count` sessions from index `first` on, `[sessions, symbols, columns]`.

    Sessions outside the bars do not exist: windows shrink, and shifts into them are NaN.

    Raises:
        ExpressionError: The bars lack a field that the columns use.
    """
    missing = sorted({name for name, _ in program.fields} - set(bars.fields))
    if missing:
        raise ExpressionError(f"the bars have no {', '.join(missing)}; they have {', '.join(sorted(bars.fields))}")
    out = np.empty((count, bars.rows.size, program.columns), np.float32)
    cut = cut or _cut(bars.rows.size, count, threads)
    blocks = _Blocks(program, bars, (first, count), cut, out)
    _share(blocks, threads)
    return out


def _cut(symbols: int, count: int, threads: int) -> Cut:
    share = max(1, -(-symbols // max(threads, 1)))
    if count <= 1:
        return Cut(lanes=min(SESSION_LANES, max(share, LEAST_SESSION_LANES)), chunk=1)
    lanes = min(RANGE_LANES, share)
    return Cut(lanes=lanes, chunk=min(RANGE_CELLS // lanes, count))


class _Blocks:
    def __init__(self, program: Program, bars: Bars, sessions: tuple[int, int], cut: Cut, out: Features) -> None:
        self.program, self.bars, self.cut, self.out = program, bars, cut, out
        self.start, self.count = sessions
        self.layout: Layout = program.layout(cut.chunk, self.count)
        self.fields = [(_frozen(bars.fields[name]), buffer) for name, buffer in program.fields]
        symbols = bars.rows.size
        self.starts = range(0, symbols if self.count and program.columns else 0, cut.lanes)

    def work(self, starts: Iterator[int]) -> None:
        """Compute blocks until none is left."""
        lanes = min(self.cut.lanes, self.bars.rows.size)
        scratch = np.empty(self.layout.rows * lanes)
        work = np.empty(self.program.work)
        for start in starts:
            self.block(start, scratch, work)

    def block(self, start: int, scratch: FloatArray, work: FloatArray) -> None:
        program, buffers = self.program, self.layout.buffers
        rows = self.bars.rows[start : start + self.cut.lanes]
        first = self.bars.first[start : start + self.cut.lanes]
        begin, length, place = self.span(AGES)
        load_ages(self.bars.sessions, first, begin, length, place, scratch)
        for values, buffer in self.fields:
            begin, length, place = self.span(buffer)
            load_field(values, rows, first, begin, length, place, scratch)
        frame = np.array([rows.size, self.cut.chunk, self.count, self.bars.rows.size, program.columns, start], np.int64)
        flat = self.out.reshape(-1)
        run(frame, program.instructions, program.results, buffers, program.values, scratch, work, flat)

    def span(self, buffer: int) -> tuple[int, int, int]:
        back, ahead = self.program.back[buffer], self.program.ahead[buffer]
        return self.start - back, back + self.count + ahead, int(self.layout.buffers[buffer, PLACE])


def _share(blocks: _Blocks, threads: int) -> None:
    # A range iterator steps in one C call under the interpreter lock: each block goes to whichever thread is free.
    starts = iter(blocks.starts)
    failures: list[BaseException] = []

    def help_out() -> None:
        try:
            blocks.work(starts)
        except BaseException as failure:  # noqa: BLE001 - raised again by the caller's thread, below
            failures.append(failure)

    helpers = [threading.Thread(target=help_out, daemon=True) for _ in range(min(threads, len(blocks.starts)) - 1)]
    for helper in helpers:
        helper.start()
    help_out()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def _frozen(values: FloatArray) -> FloatArray:
    # One machine program for all callers: Numba compiles anew for writable or strided arrays.
    view = np.ascontiguousarray(values, dtype=np.float64).view()
    view.setflags(write=False)
    return view
