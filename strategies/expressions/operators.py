"""The operators of `qlib.data.ops` that the engine knows: arguments, result types, meaning.

Owns: one row an operator, and NumPy's rules for the type of a result.
Must not know: graphs, kernels, columns.
Invariant: an operator's result has the type Qlib's own gives on float32 bars
(tests/parity/test_recorded_definitions.py); what Qlib refuses, is refused.
"""

from dataclasses import dataclass

#: Types of values. `weak` types are those of a written number: it takes the type of what it meets.
FLOAT32, FLOAT64, BOOL, INT64, WEAK_INT, WEAK_FLOAT = "float32", "float64", "bool", "int64", "int", "float"
WEAK = frozenset({WEAK_INT, WEAK_FLOAT})

#: Longest window and longest lookback of a column, in sessions (about 10 and 20 years).
MAX_WINDOW, MAX_LOOKBACK = 2520, 5040


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The arguments and the meaning of an operator.

    In `arguments`, x is a series, v a series or a number, N a window in sessions, S a shift in sessions, D a window or
    a decay between 0 and 1, q a share between 0 and 1.
    """

    arguments: str
    meaning: str
    least_window: int = 1


def _element(arguments: str, meaning: str) -> Operator:
    return Operator(arguments=arguments, meaning=meaning)


def _window(meaning: str, arguments: str = "xN", least_window: int = 1) -> Operator:
    return Operator(arguments=arguments, meaning=meaning, least_window=least_window)


#: Windows count sessions of the exchange calendar. Rows before a symbol's first bar do not exist; a missing bar is a
#: row of NaN. Infinities count as missing, as in pandas, unless stated otherwise. Every window with at least one value
#: has a result (min_periods 1). Windows are float64. What differs from Qlib is pinned in
#: tests/parity/expressions.py and test_recorded_operators.py, the warm-up of EMA in
#: tests/unit/expressions/test_accuracy.py.
OPERATORS: dict[str, Operator] = {
    "Abs": _element("x", "Magnitude."),
    "Sign": _element("x", "-1, 0 or 1 of the value as float32; NaN stays NaN."),
    "Log": _element(
        "x",
        "Natural logarithm. Differs from Qlib: correctly rounded from float64, where NumPy's float32 logarithm depends"
        " on the processor and may be off by some units in the last place; a comparison's logarithm is float32.",
    ),
    "Power": _element("vv", "Left to the power of right. Differs from Qlib: rounded from float64, as Log."),
    "Add": _element("vv", "Sum; of two comparisons: or."),
    "Sub": _element("vv", "Difference; of two comparisons: refused, as by NumPy."),
    "Mul": _element("vv", "Product; of two comparisons: and."),
    "Div": _element("vv", "Quotient, with infinities for a division by zero."),
    "Greater": _element("vv", "The greater of the two (not a comparison); NaN if either is NaN."),
    "Less": _element("vv", "The lesser of the two (not a comparison); NaN if either is NaN."),
    "Gt": _element("vv", "1 where left > right, else 0; NaN compares as 0, so the first bar has a value."),
    "Ge": _element("vv", "1 where left >= right, else 0."),
    "Lt": _element("vv", "1 where left < right, else 0."),
    "Le": _element("vv", "1 where left <= right, else 0."),
    "Eq": _element("vv", "1 where left == right, else 0."),
    "Ne": _element("vv", "1 where left != right, else 0; NaN differs from everything, so 1."),
    "And": _element(
        "xx", "1 where both comparisons hold. Differs from Qlib: refused for numbers that are no comparison."
    ),
    "Or": _element("xx", "1 where either comparison holds. Differs from Qlib: refused as And."),
    "Not": _element("x", "1 where the comparison does not hold. Differs from Qlib: refused as And."),
    "If": _element("xvv", "Left where the condition is not zero, else right; a NaN condition is true, as in NumPy."),
    "Ref": _window(
        "The value N sessions ago; NaN where that row does not exist. A negative N looks ahead: labels only."
        " Differs from Qlib: of a comparison it is float32, where pandas makes Python objects.",
        "xS",
    ),
    "Delta": _window("Value less the value N sessions ago.", "xS"),
    "Mean": _window("Mean. Differs from Qlib: summed anew in each window, pandas carries a running sum along."),
    "Sum": _window("Sum. Differs from Qlib as Mean."),
    "Std": _window(
        "Standard deviation, one degree of freedom taken off; NaN for one value. Differs from Qlib: exactly 0 in a"
        " constant window, where the running sums of pandas may leave a remainder."
    ),
    "Var": _window("Square of Std, see there."),
    "Skew": _window("Sample skewness from 3 values on; NaN in a constant window.", least_window=3),
    "Kurt": _window("Sample excess kurtosis from 4 values on; NaN in a constant window.", least_window=4),
    "Max": _window("Greatest finite value."),
    "Min": _window("Least finite value."),
    "IdxMax": _window(
        "Place of the greatest value, counted from the oldest existing row (1-based); the oldest of equals. A missing"
        " bar inside the window wins the place, as NaN does in NumPy's argmax."
    ),
    "IdxMin": _window("Place of the least value, see IdxMax."),
    "Quantile": _window("Quantile of the finite values, interpolated linearly.", "xNq"),
    "Med": _window("Median of the finite values."),
    "Mad": _window("Mean absolute deviation from the mean (not the median)."),
    "Rank": _window("Rank of the newest value as a share of the values, ties averaged; NaN if it is missing."),
    "Count": _window("Number of values that are not NaN, infinities included; 0 for none."),
    "Slope": _window(
        "Slope of the regression on 1..N; missing rows are skipped; NaN below 2 values. Differs from Qlib: an infinity"
        " makes only the windows it is in NaN, Qlib's running sums stay NaN for ever."
    ),
    "Rsquare": _window("R squared of the regression on 1..N; NaN where Std is within 2e-5 of 0 (absolute); as Slope."),
    "Resi": _window("Residual of the newest row; NaN if it is missing. Differs from Qlib as Slope."),
    "WMA": _window("Mean (not sum) of the values times weights that grow by equal steps and sum to 1 over all rows."),
    "EMA": _window(
        "Exponentially weighted mean, of span N or of decay D. Differs from Qlib: looks back until the weights left"
        " out sum to 1e-8, not to the first bar; that warm-up is part of the lookback.",
        "xD",
    ),
    "Corr": _window(
        "Correlation over rows where both are finite; NaN where the Std of either (alone) is within 2e-5 of 0.", "xyN"
    ),
    "Cov": _window("Covariance over rows where both are finite, one degree of freedom taken off.", "xyN"),
}

_COMPARISONS = frozenset({"Gt", "Ge", "Lt", "Le", "Eq", "Ne"})
_LOGIC = frozenset({"And", "Or", "Not"})
_REFUSED_FOR_BOOL = frozenset({"Sub", "Div", "Power"})


def promote(left: str, right: str) -> str:
    """Return NumPy's common type of two operands, written numbers being weak."""
    kinds = {left, right}
    if FLOAT64 in kinds or kinds == {INT64, FLOAT32} or (WEAK_FLOAT in kinds and kinds & {BOOL, INT64}):
        return FLOAT64
    if FLOAT32 in kinds:
        return FLOAT32
    if INT64 in kinds or kinds == {BOOL, WEAK_INT}:
        return INT64
    return FLOAT64 if WEAK_FLOAT in kinds else (INT64 if WEAK_INT in kinds else BOOL)


def result_type(name: str, kinds: tuple[str, ...]) -> str | None:
    """Return the type of an element-wise result, or None where Qlib (or NumPy below it) has none."""
    if name in _LOGIC:
        return BOOL if all(kind == BOOL for kind in kinds) else None
    if name in _COMPARISONS:
        return BOOL
    if name == "Sign":
        return FLOAT32
    if name == "Log":
        return FLOAT32 if kinds[0] in {BOOL, FLOAT32} else FLOAT64
    if name == "If":
        return promote(kinds[1], kinds[2])
    if len(kinds) == 1:
        return kinds[0]
    common = promote(*kinds)
    if common == BOOL and name in _REFUSED_FOR_BOOL:
        return None
    return FLOAT64 if name == "Div" and common == INT64 else common
