"""The engine's types of values against those of Qlib's own operators."""

import numpy as np
import pytest

from strategies.errors import ExpressionError
from strategies.expressions.graph import Meaning, build
from tests.support.qlib_oracle import qlib_series
from tests.support.rough_panels import rough_panel

pytestmark = pytest.mark.filterwarnings("ignore")

OPERANDS = ["$close", "Mean($close, 3)", "($close > $open)", "(($close > $open) + 1)", "2", "0.5"]
PAIRS = ["Add", "Sub", "Mul", "Div", "Power", "Greater", "Less", "Gt", "Eq"]
SINGLES = ["Abs({})", "Sign({})", "Log({})", "Ref({}, 2)", "Delta({}, 2)", "Mean({}, 2)", "Rank({}, 2)", "Slope({}, 2)"]
#: Python objects and half floats, which the engine makes float32.
WIDENED = {"object": "float32", "float16": "float32", "int8": "int64"}


def our_type(expression: str) -> str:
    graph = build([("column", expression)], Meaning())
    return graph.nodes[graph.roots[0]].kind


def their_type(expression: str) -> str:
    panel = rough_panel(1)
    bars = {name: np.abs(values[0]) for name, values in panel.fields.items()}
    with np.errstate(all="ignore"):
        found = str(qlib_series(expression, bars).dtype)
    return WIDENED.get(found, found)


def assert_same_type(expression: str) -> None:
    try:
        theirs = their_type(expression)
    except (TypeError, NotImplementedError):
        with pytest.raises(ExpressionError, match="has no meaning"):
            our_type(expression)
    else:
        assert our_type(expression) == theirs


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("left", OPERANDS)
@pytest.mark.parametrize("right", OPERANDS)
def test_pair_operators_have_the_type_qlib_gives(name, left, right):
    if left in {"2", "0.5"} and right in {"2", "0.5"}:
        return  # Python folds these before Qlib sees them

    assert_same_type(f"{name}({left}, {right})")


@pytest.mark.parametrize("pattern", SINGLES)
@pytest.mark.parametrize("operand", OPERANDS[:4])
def test_single_operators_have_the_type_qlib_gives(pattern, operand):
    assert_same_type(pattern.format(operand))


@pytest.mark.parametrize("left", OPERANDS)
@pytest.mark.parametrize("right", OPERANDS)
def test_choices_have_the_type_qlib_gives(left, right):
    assert_same_type(f"If($close > $open, {left}, {right})")
