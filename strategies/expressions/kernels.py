"""Element-wise kernels: one pass over a flat run of values, compiled to vector instructions.

Owns: the operation codes and the loops behind arithmetic, comparisons, choices and rounding.
Must not know: expressions, columns, symbols, sessions; a run is a flat slice of rows times lanes.
Invariant: no fast-math and no contraction, so that every machine and every run length gives the same bits; NaN in is
NaN out but for comparisons and choices, whose rows before a symbol's first bar are blanked by `blank_before_first`.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
_Function = TypeVar("_Function", bound=Callable[..., object])

ADD, SUB, MUL, DIV, GREATER, LESS, POWER = range(7)
GT, GE, LT, LE, EQ, NE, AND, OR = range(10, 18)
ABS, SIGN, LOG, NOT, SQRT = range(20, 25)
REF, IF, GUARD, COPY, STORE = range(30, 35)
#: Families of windows; several window lengths and results of one input share one pass.
SUMS, MOMENTS, TREND, PEAKS, RANKS, ORDER, PAIRS, SHAPE, WEIGHTED, DECAY, SPAN_DECAY = range(40, 51)

#: Qlib's `np.isclose(std, 0, atol=2e-05)`: below it Corr and Rsquare have no value.
GUARD_LIMIT = 2e-5
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_MANTISSA, _IMPLICIT_BIT, _ONE, _TO_SQRT_TWO = (
    0x000FFFFFFFFFFFFF,
    0x0010000000000000,
    0x3FF0000000000000,
    0x00095F6400000000,
)
_SMALLEST_NORMAL, _TWO_54 = 2.2250738585072014e-308, 18014398509481984.0


def compiled(function: _Function) -> _Function:
    """Compile a kernel when an entry point first needs it, in IEEE arithmetic.

    Not cached by itself: Numba would go on using the cached caller of a kernel that has changed.
    """
    return cast("_Function", numba.njit(error_model="numpy", fastmath=False)(function))


def entry(function: _Function) -> _Function:
    """Compile what Python calls, on its first call: runs outside the interpreter lock, cached on disk."""
    return cast("_Function", numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=False)(function))


@compiled
def arithmetic(op: int, left: Values, right: Values, out: Values) -> None:
    """Write `left op right`."""
    if op == ADD:
        for i in range(out.size):
            out[i] = left[i] + right[i]
    elif op == SUB:
        for i in range(out.size):
            out[i] = left[i] - right[i]
    elif op == MUL:
        for i in range(out.size):
            out[i] = left[i] * right[i]
    else:
        for i in range(out.size):
            out[i] = left[i] / right[i]


@compiled
def extremes(op: int, left: Values, right: Values, out: Values) -> None:
    """Write the greater or lesser of two, NaN where either is, as `numpy.maximum`; or a power."""
    if op == GREATER:
        for i in range(out.size):
            out[i] = left[i] if (left[i] >= right[i]) | np.isnan(left[i]) else right[i]
    elif op == LESS:
        for i in range(out.size):
            out[i] = left[i] if (left[i] <= right[i]) | np.isnan(left[i]) else right[i]
    else:
        for i in range(out.size):
            out[i] = left[i] ** right[i]


@compiled
def compare(op: int, left: Values, right: Values, out: Values) -> None:
    """Write 1.0 where the comparison holds, else 0.0; none holds with NaN."""
    if op == GT:
        for i in range(out.size):
            out[i] = 1.0 if left[i] > right[i] else 0.0
    elif op == GE:
        for i in range(out.size):
            out[i] = 1.0 if left[i] >= right[i] else 0.0
    elif op == LT:
        for i in range(out.size):
            out[i] = 1.0 if left[i] < right[i] else 0.0
    else:
        for i in range(out.size):
            out[i] = 1.0 if left[i] <= right[i] else 0.0


@compiled
def combine(op: int, left: Values, right: Values, out: Values) -> None:
    """Write 1.0 where two are equal, differ (NaN differs from all), both hold or either holds, else 0.0."""
    if op == EQ:
        for i in range(out.size):
            out[i] = 1.0 if left[i] == right[i] else 0.0
    elif op == NE:
        for i in range(out.size):
            out[i] = 1.0 if left[i] != right[i] else 0.0
    elif op == AND:
        for i in range(out.size):
            out[i] = 1.0 if (left[i] == 1.0) & (right[i] == 1.0) else 0.0
    else:
        for i in range(out.size):
            out[i] = 1.0 if (left[i] == 1.0) | (right[i] == 1.0) else 0.0


@compiled
def unary(op: int, values: Values, out: Values) -> None:
    """Write a function of one input; Sign sees its input as float32, as Qlib's does."""
    if op == ABS:
        for i in range(out.size):
            out[i] = abs(values[i])
    elif op == SIGN:
        for i in range(out.size):
            x = np.float64(np.float32(values[i]))
            out[i] = 1.0 if x > 0.0 else (-1.0 if x < 0.0 else x)
    elif op == LOG:
        logarithm(values, out)
    elif op == SQRT:
        for i in range(out.size):
            out[i] = np.sqrt(values[i])
    else:
        for i in range(out.size):
            out[i] = 1.0 if values[i] == 0.0 else 0.0


@compiled
def logarithm(values: Values, out: Values) -> None:
    """Write the natural logarithm, below 1 ulp of float64 and the same bits on every machine.

    Source: fdlibm e_log.c (Sun Microsystems, 1993), written without branches so that it becomes vector code. The
    platform's own `log` differs between libraries, and between the vector body and the tail of one loop.
    """
    bits = out.view(np.int64)
    for i in range(out.size):
        x = values[i]
        out[i] = x * _TWO_54 if x < _SMALLEST_NORMAL else x
    for i in range(out.size):
        x, word = values[i], bits[i]
        fraction = word & _MANTISSA
        carry = (fraction + _TO_SQRT_TWO) & _IMPLICIT_BIT
        exponent = np.float64((word >> 52) - 1023 + (carry >> 52))
        exponent = exponent - 54.0 if x < _SMALLEST_NORMAL else exponent
        bits[i] = fraction | (carry ^ _ONE)
        f = out[i] - 1.0
        s = f / (2.0 + f)
        z = s * s
        w = z * z
        even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
        odd = z * (
            6.666666666666735130e-01
            + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
        )
        half = 0.5 * f * f
        result = exponent * _LN2_HIGH - ((half - (s * (half + (even + odd)) + exponent * _LN2_LOW)) - f)
        result = x if x == np.inf else result
        result = -np.inf if x == 0.0 else result
        out[i] = result if x >= 0.0 else np.nan


@compiled
def choose(condition: Values, left: Values, right: Values, out: Values) -> None:
    """Write `left` where the condition is not zero (NaN counts as true, as in `numpy.where`), else `right`."""
    for i in range(out.size):
        out[i] = left[i] if condition[i] != 0.0 else right[i]


@compiled
def guard(values: Values, left_std: Values, right_std: Values, out: Values) -> None:
    """Write the value, or NaN where either rolling standard deviation is within 2e-5 of zero (absolute)."""
    for i in range(out.size):
        flat = (left_std[i] <= GUARD_LIMIT) | (right_std[i] <= GUARD_LIMIT)
        out[i] = np.nan if flat else values[i]


@compiled
def copy(values: Values, out: Values) -> None:
    """Write the values unchanged."""
    for i in range(out.size):
        out[i] = values[i]


@compiled
def round_to_float32(out: Values) -> None:
    """Round in place: the result of a float32 operation (53 bits suffice to round + - * / and sqrt but once)."""
    for i in range(out.size):
        out[i] = np.float64(np.float32(out[i]))


@compiled
def blank_before_first(ages: Values, out: Values) -> None:
    """Blank the rows that do not exist (age below zero): an operator made a value out of their NaN."""
    for i in range(out.size):
        out[i] = np.nan if ages[i] < 0.0 else out[i]
