"""The expressions that the engine and Qlib are compared on: every operator, by how near the two must be.

Owns: the texts and the tolerance of each group.
Must not know: engines, recordings.
Invariant: each operator of `strategies.expressions.operators` occurs in at least one group.

Element-wise results are bit for bit, but for logarithms and powers (NumPy's float32 ones are off by a few units in the
last place, and differ between processors). Windows are compared at float32 rounding of the input's scale, since Qlib's
running sums drift and ours do not. docs/parity.md shows by how much each shipped feature differs on real bars.
"""

from typing import NamedTuple


class Tolerance(NamedTuple):
    """How far a value may be from Qlib's: `relative * |value| + absolute`."""

    relative: float
    absolute: float
    #: Field whose largest magnitude (of a symbol) multiplies `absolute`.
    scale: str | None = None


EXACT = [
    "$close + $open", "$close - 2", "2 - $close", "3 * $volume", "$close / $volume", "1 / $volume", "$close ** 2",
    "$close ** 0.5", "Abs($close - $open)", "Sign($close - $open)", "Sign(Mean($close, 3) - $close)",
    "Greater($open, $close)", "Less($close, Mean($close, 4))", "Greater($close - Ref($close, 1), 0)",
    "$close > Ref($close, 1)", "$close >= $open", "$close < 50.1", "50 <= $close", "$close == Ref($close, 1)",
    "$close != $open", "And($close > $open, $volume > 1e6)", "($close > $open) | ($close > Ref($close, 1))",
    "Not($close > $open)", "If($close > $open, $high, 0.1)", "If($close - $open, $high, 1)", "If($close > $open, 1, 0)",
    "Ref($close, 1)", "Ref($close, 30)", "Delta($close, 5)", "Ref(Mean($close, 3), 2)", "Ref($close > $open, 2)",
    "($close > $open) + 1", "($close > $open) * 0.5", "($close > $open) + ($close > Ref($close, 1))",
    "($close > $open) * ($close > Ref($close, 1))", "($close > $open) / 3", "($close > $open) * $close",
    "(($close > $open) + 1) * $close", "Max($close, 7)", "Min($close, 7)", "IdxMax($close, 9)", "IdxMin($low, 9)",
    "Rank($close, 12)", "Rank($close, 3)", "Count($volume, 6)", "Quantile($close, 10, 0.8)", "Quantile($close, 7, 0)",
    "Quantile($close, 7, 1)", "Med($close, 6)", "Mean($close > Ref($close, 1), 8)", "Sum($close > $open, 5)",
    "Mean($close, 1)", "Max($close > $open, 4)", "IdxMax($close > $open, 4)", "Rank($close > $open, 5)",
    "0.1 + $close * 3.3 / $open - 1e-12", "$close * 1e39", "$volume * 1e-44 * $volume",
]  # fmt: skip
NEAR = [
    "Log($close)", "Log($volume + 1)", "Log(Mean($volume, 3))", "Log($close > $open)", "$close ** 1.7", "$close ** -1",
    "2 ** ($close / $open)", "$close ** ($open / $high)", "Mean($close, 5) / $close", "Sum($volume, 9)",
    "Mean(Std($close, 4), 6)", "EMA($close, 3)", "EMA($close, 0.4)", "EMA(Mean($close, 3), 5)", "WMA($close, 7)",
    "WMA(Ref($volume, 3), 2)", "Mad($close, 8)", "Mad($volume, 3)",
]  # fmt: skip
#: Spread by nature: their error in Qlib is that of differences between large sums.
SPREADS = [
    "Std($close, 5)", "Var($close, 12)", "Std($volume, 30)", "Slope($close, 9)", "Resi($close, 9)", "Resi($close, 2)",
    "Cov($close, $open, 8)", "Std(Mean($close, 3), 6)", "Slope(Std($close, 5), 6)",
]  # fmt: skip
RATIOS = [
    "Rsquare($close, 9)", "Rsquare($close, 30)", "Corr($close, $open, 7)", "Corr($close, Log($volume + 1), 20)",
    "Corr($close / Ref($close, 1), Log($volume / Ref($volume, 1) + 1), 10)", "Skew($close, 9)", "Kurt($close, 9)",
]  # fmt: skip
#: Windows that grow from a symbol's first bar.
EXPANDING = [
    "Mean($close, 0)", "Std($close, 0)", "Max($close, 0)", "IdxMax($close, 0)", "Rank($close, 0)", "Med($close, 0)",
    "Slope($close, 0)", "Rsquare($open, 0)", "Resi($close, 0)", "EMA($close, 0)", "WMA($close, 0)",
    "Count($close, 0)", "Cov($close, $open, 0)", "Quantile($close, 0, 0.3)",
]  # fmt: skip
#: Of labels alone: they look ahead.
AHEAD = ["Ref($close, -2)/Ref($close, -1)-1", "Ref(Mean($close > $open, 4), -3) + Mean(Ref($close, -2), 3)"]

OPERANDS = ["$close", "Mean($close, 3)", "($close > $open)", "(($close > $open) + 1)", "2", "0.5"]
_PAIRS = ["Add", "Sub", "Mul", "Div", "Power", "Greater", "Less", "Gt", "Eq"]
_SINGLES = [
    "Abs({})", "Sign({})", "Log({})", "Ref({}, 2)", "Delta({}, 2)", "Mean({}, 2)", "Rank({}, 2)", "Slope({}, 2)",
]  # fmt: skip


def typed() -> list[str]:
    """Return the expressions whose types are compared: every kind of operand in every kind of operator."""
    both = [(left, right) for left in OPERANDS for right in OPERANDS]
    # Python folds two numbers before Qlib sees them.
    pairs = [f"{name}({a}, {b})" for name in _PAIRS for a, b in both if {a, b} - {"2", "0.5"}]
    singles = [pattern.format(operand) for pattern in _SINGLES for operand in OPERANDS[:4]]
    return pairs + singles + [f"If($close > $open, {left}, {right})" for left, right in both]


#: Of Alpha158, the families whose bits differ from Qlib's in ordinary windows; a difference of pandas' running sums.
INEXACT = {"CORR": Tolerance(0, 2e-5), "CORD": Tolerance(0, 2e-5), "RESI": Tolerance(1e-6, 1e-12)}


def tolerance(name: str, text: str) -> Tolerance | None:
    """Return how near a recorded column must be, None for bit for bit.

    Args:
        name: Of a shipped feature, else the expression again.
        text: The expression.
    """
    if name != text:
        return INEXACT.get(name.rstrip("0123456789"))
    if text in NEAR:
        return Tolerance(1e-6, 1e-12)
    if text in SPREADS:
        return Tolerance(1e-6, 1e-9, "volume" if "volume" in text else "close")
    if text in RATIOS:
        return Tolerance(1e-4, 1e-5)
    return Tolerance(2e-6, 1e-6) if text in EXPANDING else None
