"""What a prediction is called: it follows from the objective, the label and how labels were transformed.

Owns: the kind of a prediction, which labels are returns, their horizon in words.
Must not know: boosters, files, configurations.
Invariant: nothing is a return unless a stated label is one, untransformed, and the objective estimates the label.
"""

from strategies.errors import ExpressionError
from strategies.expressions.parse import Call, Field, Number, Tree, parse
from strategies.models.manifest import LabelProcessor, PredictionKind

#: LightGBM's objectives whose output is an estimate of the label itself.
REGRESSIONS = frozenset({"regression", "regression_l1", "huber", "fair", "quantile", "mape"})
#: Those whose output is between 0 and 1.
PROBABILITIES = frozenset({"binary", "cross_entropy"})
_PRICES = frozenset({"open", "high", "low", "close", "vwap"})


def kind_of(objective: str, *, label: str | None, label_processor: LabelProcessor = "none") -> PredictionKind:
    """Return what a model's output is.

    Args:
        objective: LightGBM's name, with or without its parameters: `binary sigmoid:1`.
        label: The label's expression; None: nobody stated it.
        label_processor: How labels were transformed within each session before training.
    """
    name = objective.partition(" ")[0]
    if name in PROBABILITIES:
        return "probability"
    estimated = name in REGRESSIONS and label is not None and label_processor == "none"
    return "return" if estimated and label is not None and is_return(label) else "score"


def is_return(expression: str) -> bool:
    """Return whether a label is the return between two prices: a/b - 1, (a - b)/b or Log(a/b)."""
    return _prices(expression) is not None


def horizon_of(expression: str) -> str | None:
    """Return over which prices a return runs, in words, T being the as-of session; None: it is no return."""
    prices = _prices(expression)
    if prices is None:
        return None
    bought, sold = (f"{field} of T{ahead:+d}" if ahead else f"{field} of T" for field, ahead in prices)
    return f"{bought} to {sold}"


def _prices(expression: str) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Return field and sessions ahead of the price bought at, and of the later one sold at; None: no return."""
    try:
        tree = parse(expression)
    except ExpressionError:
        return None
    match tree:
        case Call("Sub", (Call("Div", (sold, bought)), Number(1))) | Call("Log", (Call("Div", (sold, bought)),)):
            pass
        case Call("Div", (Call("Sub", (sold, bought)), again)) if _price(again) == _price(bought):
            pass
        case _:
            return None
    first, last = _price(bought), _price(sold)
    return (first, last) if first and last and first[1] < last[1] else None


def _price(tree: Tree) -> tuple[str, int] | None:
    """Return field and sessions ahead of a price; None: it is something else."""
    match tree:
        case Field(name) if name in _PRICES:
            return name, 0
        case Call("Ref", (Field(name), Number(int(shift)))) if name in _PRICES:
            return name, -shift
    return None
