"""The lists that Qlib generates and the types that it gives, as recorded, against the engine's."""

import json

import pytest

from strategies.errors import ExpressionError
from strategies.expressions.feature_sets import feature_set
from strategies.expressions.graph import Semantics, build
from tests.parity.expressions import typed
from tests.parity.recording import RECORDINGS

STATED = json.loads((RECORDINGS / "definitions.json").read_text())
#: Python objects and half floats, which the engine makes float32.
WIDENED = {"object": "float32", "float16": "float32", "int8": "int64"}


@pytest.mark.parametrize("name", ["alpha158", "alpha360"])
def test_shipped_lists_are_what_qlib_generates(name):
    shipped = feature_set(name, vwap_stand_in="none")

    assert [list(pair) for pair in zip(shipped.names, shipped.expressions, strict=True)] == STATED["lists"][name]


def test_every_typed_expression_is_recorded():
    assert list(STATED["types"]) == typed()


@pytest.mark.parametrize("expression", typed())
def test_operators_have_the_type_qlib_gives(expression):
    theirs = STATED["types"][expression]

    if theirs == "refused":
        with pytest.raises(ExpressionError, match="has no meaning"):
            our_type(expression)
    else:
        assert our_type(expression) == WIDENED.get(theirs, theirs)


def our_type(expression):
    graph = build([("column", expression)], Semantics())
    return graph.nodes[graph.roots[0]].kind
