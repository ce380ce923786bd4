"""The compiled program's interpreter: one call computes all columns of a block of symbols.

Owns: the tables' layout, the walk over chunks of sessions, the passes over windows.
Must not know: expressions, column names, panels.
Invariant: what one row of one symbol gets depends on that symbol's rows inside the lookback alone, never on the
chunk, the block or the other lanes; rows that do not exist are NaN in every buffer of fields and choices.
"""

from collections.abc import Callable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from strategies.expressions import kernels, sorting, windows
from strategies.expressions.kernels import Values, compiled, entry
from strategies.expressions.sorting import SORT_STRIP
from strategies.expressions.windows import ACCUMULATORS, STRIP

Table = NDArray[np.int64]

#: Columns of the instruction table: operation, result buffer, up to three input buffers, two parameters (a shift, a
#: column, or a run of the result table) and how the result is finished.
OP, OUT, FIRST, SECOND, THIRD, START, COUNT, FINISH = range(8)
#: Bits of FINISH.
ROUND, BLANK = 1, 2
#: Columns of the buffer table: place in scratch (rows), rows kept before and after the chunk, kind. A constant has its
#: rows and its index among the values in the middle two.
PLACE, BACK, AHEAD, KIND = range(4)
#: Kinds of buffers: made anew each chunk, loaded once for the whole range, one value in all rows.
CHUNKED, LOADED, CONSTANT = range(3)
#: Columns of the result table of windows: window length, what to write, result buffer, index among the values.
WINDOW, RESULT, RESULT_OUT, PARAMETER = range(4)
#: Places in the frame: lanes, rows a chunk, rows asked for, symbols and columns of the output, first symbol.
LANES, CHUNK, ROWS, SYMBOLS, COLUMNS, OFFSET = range(6)
#: The buffer of ages, see `load_ages`.
AGES = 0


@entry
def load_field(
    field: NDArray[np.float64], rows: Table, first: Table, start: int, count: int, place: int, scratch: Values
) -> None:
    """Copy one field of a block of symbols into scratch, `count` sessions from `start` on, as float32 values.

    Rows outside the field, and before a symbol's first bar, become NaN.
    """
    lanes, sessions = rows.size, field.shape[1]
    for lane in range(lanes):
        row, begin = rows[lane], max(first[lane], 0)
        for k in range(count):
            session = start + k
            exists = session >= begin and session < sessions
            scratch[(place + k) * lanes + lane] = np.float64(np.float32(field[row, session])) if exists else np.nan


@entry
def load_ages(sessions: int, first: Table, start: int, count: int, place: int, scratch: Values) -> None:
    """Write how many rows of each symbol exist before each row; -1 for a row that does not exist itself."""
    lanes = first.size
    for k in range(count):
        for lane in range(lanes):
            age = start + k - max(first[lane], 0)
            scratch[(place + k) * lanes + lane] = float(age) if age >= 0 and start + k < sessions else -1.0


@compiled
def at(buffers: Table, buffer: int, row: int, chunk_start: int) -> int:
    """Return where a row of a buffer stands in scratch, in rows; `row` counts from the first row asked for."""
    if buffers[buffer, KIND] == CONSTANT:
        return buffers[buffer, PLACE]  # type: ignore[no-any-return]
    origin = chunk_start if buffers[buffer, KIND] == CHUNKED else 0
    return buffers[buffer, PLACE] + row - origin + buffers[buffer, BACK]  # type: ignore[no-any-return]


@compiled
def begin_pass(op: int, acc: Values) -> None:
    """Empty the accumulators of a strip."""
    for i in range(ACCUMULATORS):
        acc[i] = 0.0
    if op == kernels.PEAKS:
        for i in range(STRIP):
            acc[i] = np.nan
            acc[i + windows.K2] = -1.0


@compiled
def add_lag(op: int, x: Values, y: Values, ages: Values, lag: int, window: int, weight: float, acc: Values) -> None:
    """Add one lag of one strip to the accumulators of a family of windows; `y` of ranks is their newest row."""
    if op == kernels.SUMS:
        windows.sums_lag(x, acc)
    elif op == kernels.MOMENTS:
        windows.moments_lag(x, acc)
    elif op == kernels.TREND:
        windows.trend_lag(x, float(lag), acc)
    elif op == kernels.PEAKS:
        windows.peaks_lag(x, ages, weight, float(lag), acc)
    elif op == kernels.RANKS:
        windows.ranks_lag(x, y, acc)
    elif op == kernels.PAIRS:
        windows.pairs_lag(x, y, acc)
    elif op == kernels.SHAPE:
        windows.shape_lag(x, acc)
    else:
        add_weighted_lag(op, x, ages, lag, window, weight, acc)


@compiled
def add_weighted_lag(op: int, x: Values, ages: Values, lag: int, window: int, weight: float, acc: Values) -> None:
    """Add one lag of one strip to the accumulators of a weighted mean."""
    if op == kernels.WEIGHTED:
        windows.weighted_lag(x, ages, window, float(lag), acc)
    elif op == kernels.DECAY:
        windows.decay_lag(x, weight, acc)
    else:
        windows.span_decay_lag(x, ages, window, float(lag), acc)


@compiled
def write_result(op: int, kind: int, window: int, newest: Values, ages: Values, acc: Values, out: Values) -> None:
    """Write one result of a family of windows for one strip."""
    if op == kernels.SUMS:
        windows.sums_result(kind, acc, out)
    elif op == kernels.MOMENTS:
        windows.moments_result(kind, acc, out)
    elif op == kernels.TREND:
        windows.trend_result(kind, newest, acc, out)
    elif op == kernels.PEAKS:
        windows.peaks_result(kind, window, ages, acc, out)
    elif op == kernels.RANKS:
        windows.ranks_result(newest, acc, out)
    elif op == kernels.PAIRS:
        windows.pairs_result(kind, acc, out)
    elif op == kernels.SHAPE:
        windows.shape_result(kind, acc, out)
    elif op == kernels.WEIGHTED:
        windows.weighted_result(window, ages, acc, out)
    else:
        windows.decay_result(acc, out)


@compiled
def centre(scratch: Values, begin: int, size: int, lanes: int, window: int, acc: Values) -> None:
    """Prepare the second pass of the shape family: leave count and mean of the window in the accumulators."""
    for lag in range(window):
        windows.moments_lag(scratch[begin - lag * lanes : begin - lag * lanes + size], acc)
    windows.moments_result(windows.MEAN, acc, acc[windows.K1 : windows.K1 + STRIP])
    for i in range(windows.K2, ACCUMULATORS):
        acc[i] = 0.0


@compiled
def roll(
    instruction: Table,
    results: Table,
    places: Table,
    values: Values,
    lanes: int,
    size: int,
    scratch: Values,
    acc: Values,
) -> None:
    """Run one family of windows over `size` values; `places` has the inputs' and results' first values in scratch."""
    op, count, parameter = instruction[OP], results.shape[0], results[0, PARAMETER]
    for strip in range(0, size, STRIP):
        width = min(STRIP, size - strip)
        first, second, third = places[0] + strip, places[1] + strip, places[2] + strip
        newest, ages = scratch[first : first + width], scratch[third : third + width]
        begin_pass(op, acc)
        if op == kernels.SHAPE:
            centre(scratch, first, width, lanes, results[0, WINDOW], acc)
        lag = 0
        for k in range(count):
            window = results[k, WINDOW]
            while lag < window:
                x = scratch[first - lag * lanes : first - lag * lanes + width]
                behind = 0 if op == kernels.RANKS else lag * lanes
                y = scratch[second - behind : second - behind + width]
                weight = values[parameter + lag] if op == kernels.DECAY else values[parameter]
                add_lag(op, x, y, ages, lag, window, weight, acc)
                lag += 1
            begin = places[3 + k] + strip
            write_result(op, results[k, RESULT], window, newest, ages, acc, scratch[begin : begin + width])


@compiled
def roll_sorted(
    results: Table, places: Table, values: Values, lanes: int, size: int, scratch: Values, work: Values
) -> None:
    """Run the order statistics of one input over `size` values, see `roll`."""
    counts, carried, ordered = work[:SORT_STRIP], work[SORT_STRIP : 2 * SORT_STRIP], work[2 * SORT_STRIP :]
    for strip in range(0, size, SORT_STRIP):
        width = min(SORT_STRIP, size - strip)
        counts[:] = 0.0
        lag = 0
        for k in range(results.shape[0]):
            while lag < results[k, WINDOW]:
                first = places[0] + strip - lag * lanes
                sorting.insert_lag(scratch[first : first + width], lag, counts, carried, ordered)
                lag += 1
            begin = places[3 + k] + strip
            out = scratch[begin : begin + width]
            if results[k, RESULT] == windows.QUANTILE:
                sorting.quantile_result(values[results[k, PARAMETER]], counts, ordered, out)
            else:
                sorting.median_result(counts, ordered, out)


@compiled
def element(instruction: Table, first: Values, second: Values, third: Values, ages: Values, out: Values) -> None:
    """Run one element-wise operation and finish its result."""
    op = instruction[OP]
    if op <= kernels.DIV:
        kernels.arithmetic(op, first, second, out)
    elif op <= kernels.POWER:
        kernels.extremes(op, first, second, out)
    elif op <= kernels.LE:
        kernels.compare(op, first, second, out)
    elif op <= kernels.OR:
        kernels.combine(op, first, second, out)
    elif op <= kernels.SQRT:
        kernels.unary(op, first, out)
    elif op == kernels.IF:
        kernels.choose(first, second, third, out)
    elif op == kernels.GUARD:
        kernels.guard(first, second, third, out)
    else:
        kernels.copy(first, out)
    if instruction[FINISH] & ROUND:
        kernels.round_to_float32(out)
    if instruction[FINISH] & BLANK:
        kernels.blank_before_first(ages, out)


@compiled
def compute(
    instruction: Table,
    results: Table,
    buffers: Table,
    values: Values,
    where: tuple[int, int, int, int],
    scratch: Values,
    work: Values,
) -> None:
    """Compute one instruction at (lanes, first row, rows, first row of the chunk)."""
    lanes, row, rows, chunk_start = where
    op, size = instruction[OP], rows * lanes
    shift = instruction[START] if op == kernels.REF else 0
    first = at(buffers, instruction[FIRST], row - shift, chunk_start) * lanes
    second = at(buffers, instruction[SECOND], row, chunk_start) * lanes
    third = at(buffers, instruction[THIRD], row, chunk_start) * lanes
    if op < kernels.SUMS:
        out = at(buffers, instruction[OUT], row, chunk_start) * lanes
        ages = at(buffers, AGES, row - shift, chunk_start) * lanes
        element(
            instruction,
            scratch[first : first + size],
            scratch[second : second + size],
            scratch[third : third + size],
            scratch[ages : ages + size],
            scratch[out : out + size],
        )
        if shift < 0:
            # What lies ahead of a row that does not exist has no value there either.
            own_ages = at(buffers, AGES, row, chunk_start) * lanes
            kernels.blank_before_first(scratch[own_ages : own_ages + size], scratch[out : out + size])
        return
    own = results[instruction[START] : instruction[START] + instruction[COUNT]]
    places = np.empty(3 + own.shape[0], np.int64)
    places[0], places[1], places[2] = first, second, third
    for k in range(own.shape[0]):
        places[3 + k] = at(buffers, own[k, RESULT_OUT], row, chunk_start) * lanes
    if op == kernels.ORDER:
        roll_sorted(own, places, values, lanes, size, scratch, work)
    else:
        roll(instruction, own, places, values, lanes, size, scratch, work)


@compiled
def store(
    frame: Table, column: int, begin: int, row: int, count: int, scratch: Values, out: NDArray[np.float32]
) -> None:
    """Write one column of a chunk as float32."""
    lanes, columns = frame[LANES], frame[COLUMNS]
    for k in range(count):
        target = ((row + k) * frame[SYMBOLS] + frame[OFFSET]) * columns + column
        for lane in range(lanes):
            out[target + lane * columns] = scratch[begin + k * lanes + lane]


@compiled
def fill_constants(buffers: Table, values: Values, lanes: int, scratch: Values) -> None:
    """Write every constant into all rows of its buffer."""
    for k in range(buffers.shape[0]):
        if buffers[k, KIND] == CONSTANT:
            begin = buffers[k, PLACE] * lanes
            scratch[begin : begin + buffers[k, BACK] * lanes] = values[buffers[k, AHEAD]]


@compiled
def carry_over(buffers: Table, rows: int, lanes: int, scratch: Values) -> None:
    """Move the rows that the next chunk still looks at to the front of their buffers."""
    for k in range(buffers.shape[0]):
        if buffers[k, KIND] == CHUNKED:
            begin = buffers[k, PLACE] * lanes
            for i in range(begin, begin + (buffers[k, BACK] + buffers[k, AHEAD]) * lanes):
                scratch[i] = scratch[i + rows * lanes]


def _stamp() -> str:
    """Return a digest of all kernels: Numba keys a cached machine program by this file alone, not by those it calls."""
    digest = sha256()
    for module in (kernels, windows, sorting):
        for name, value in sorted(vars(module).items()):
            code = getattr(getattr(value, "py_func", None), "__code__", None)
            if code is not None:
                digest.update(f"{name}{code.co_code.hex()}{code.co_consts}{code.co_names}".encode())
            elif isinstance(value, int | float):
                digest.update(f"{name}{value}".encode())
    return digest.hexdigest()


def _machine(stamp: str) -> Callable[..., None]:
    @entry
    def run(
        frame: Table,
        instructions: Table,
        results: Table,
        buffers: Table,
        values: Values,
        scratch: Values,
        work: Values,
        out: NDArray[np.float32],
    ) -> None:
        _ = stamp
        lanes, rows, chunk = frame[LANES], frame[ROWS], frame[CHUNK]
        fill_constants(buffers, values, lanes, scratch)
        for start in range(0, rows, chunk):
            stop = min(start + chunk, rows)
            for k in range(instructions.shape[0]):
                instruction = instructions[k]
                target = instruction[OUT]
                if instruction[OP] == kernels.STORE:
                    begin = at(buffers, instruction[FIRST], start, start) * lanes
                    store(frame, instruction[START], begin, start, stop - start, scratch, out)
                    continue
                low = start + buffers[target, AHEAD] if start > 0 else -buffers[target, BACK]
                count = stop + buffers[target, AHEAD] - low
                compute(instruction, results, buffers, values, (lanes, low, count, start), scratch, work)
            if stop < rows:
                carry_over(buffers, chunk, lanes, scratch)

    return run


#: Computes `frame[ROWS]` rows of all columns for one block of symbols whose fields are loaded into scratch.
run = _machine(_stamp())
