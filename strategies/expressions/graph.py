"""One graph for a whole feature set: equal subexpressions of all columns are one node.

Owns: turning syntax trees into nodes, their types and roundings, how far each looks back and ahead.
Must not know: how nodes are scheduled or computed.
Invariant: a node's inputs precede it; every node's reach is finite and known before any bar is seen.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from strategies.errors import ExpressionError
from strategies.expressions.operators import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT64,
    MAX_LOOKBACK,
    MAX_WINDOW,
    OPERATORS,
    WEAK,
    WEAK_FLOAT,
    WEAK_INT,
    promote,
    result_type,
)
from strategies.expressions.parse import Call, Field, Number, Tree, parse, refusal

#: What the weights left out of an EMA's warm-up sum to; float32 resolves 6e-8.
EMA_REMAINDER = 1e-8
#: Exponents for which NumPy multiplies, or takes the root.
_SQUARE, _ROOT = 2.0, 0.5
_LOGIC_OF_BOOL = {"Add": "Or", "Mul": "And", "Greater": "Or", "Less": "And"}


@dataclass(frozen=True, slots=True)
class Node:
    """An operation on other nodes, named by their places."""

    #: An operator's name, or Field, Const, Guard (of Corr and Rsquare), Sqrt, Blank (rows that do not exist).
    op: str
    inputs: tuple[int, ...] = ()
    #: Field: name. Const: value. Windows: length, then share (Quantile) or decay (EMA, 0 = by the rows seen).
    parameters: tuple[str | int | float, ...] = ()
    kind: str = FLOAT64
    #: The result of a float32 operation, to be rounded once.
    rounded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """The choices that decide what an expression's values are, beside its text."""

    #: `qlib`: each operation in the type Qlib computes it in; `float64`: all in float64, on the same float32 bars.
    precision: str = "qlib"
    #: Sessions that a window of length 0 (Qlib: all bars so far) looks back; None refuses them.
    expanding: int | None = None
    #: Whether negative shifts are allowed.
    looks_ahead: bool = False


#: Most distinct operations of one set (Alpha158 has 396): laying them out takes time quadratic in their number, and a
#: hostile bundle must not block a worker's control thread for minutes.
MAX_NODES = 5000


@dataclass(slots=True)
class Graph:
    """The nodes of all columns, and each column's last node."""

    semantics: Semantics
    nodes: list[Node] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    _index: dict[Node, int] = field(default_factory=dict)

    def add(self, node: Node) -> int:
        """Return the place of a node, an equal earlier one if there is one."""
        if node not in self._index:
            self._index[node] = len(self.nodes)
            self.nodes.append(node)
        return self._index[node]

    def add_column(self, column: str, expression: str) -> None:
        """Parse an expression and add its nodes.

        Raises:
            ExpressionError: It is no expression, uses an operator wrongly, or looks where it must not.
        """
        tree = parse(expression, column)
        if isinstance(tree, Number):
            raise refusal(column, expression, tree.position, "a column needs a field of the bars")
        self.roots.append(_Builder(self, column, expression).node(tree))
        if len(self.nodes) > MAX_NODES:
            raise refusal(column, expression, 0, f"brings the set to more than {MAX_NODES} distinct operations")

    def reach(self) -> list[tuple[int, int]]:
        """Return how many rows before and after its own row each node is needed, for one row of every column."""
        reach = [(0, 0)] * len(self.nodes)
        for place in range(len(self.nodes) - 1, -1, -1):
            node, (back, ahead) = self.nodes[place], reach[place]
            before, after = _span(node)
            for source in node.inputs:
                known_back, known_ahead = reach[source]
                reach[source] = max(known_back, back + before, 0), max(known_ahead, ahead + after, 0)
        return reach


def build(columns: list[tuple[str, str]], semantics: Semantics) -> Graph:
    """Return the graph of all columns.

    Raises:
        ExpressionError: A column cannot be built, or looks back further than `MAX_LOOKBACK` sessions.
    """
    graph = Graph(semantics)
    for column, expression in columns:
        graph.add_column(column, expression)
    if _lookback(graph) > MAX_LOOKBACK and len(columns) > 1:
        for single in columns:
            build([single], semantics)
    if _lookback(graph) > MAX_LOOKBACK:
        reason = f"looks back {_lookback(graph)} sessions, at most {MAX_LOOKBACK} are allowed"
        raise refusal(*columns[0], 0, reason)
    return graph


def _lookback(graph: Graph) -> int:
    return max((back for back, _ in graph.reach()), default=0) + 1


def _span(node: Node) -> tuple[int, int]:
    if node.op == "Ref":
        shift = int(node.parameters[0])
        return shift, -shift
    if node.op == "EMA" or (node.op in OPERATORS and "N" in OPERATORS[node.op].arguments):
        return int(node.parameters[0]) - 1, 0
    return 0, 0


class _Builder:
    def __init__(self, graph: Graph, column: str, text: str) -> None:
        self.graph, self.column, self.text = graph, column, text
        self.plain = graph.semantics.precision == "float64"

    def error(self, position: int, reason: str) -> ExpressionError:
        return refusal(self.column, self.text, position, reason)

    def node(self, tree: Tree) -> int:
        if isinstance(tree, Field):
            return self.graph.add(Node("Field", (), (tree.name,), FLOAT64 if self.plain else FLOAT32))
        if isinstance(tree, Number):
            kind = WEAK_INT if isinstance(tree.value, int) else WEAK_FLOAT
            return self.graph.add(Node("Const", (), (float(tree.value),), kind))
        self.check(tree)
        arguments = OPERATORS[tree.name].arguments
        inputs = tuple(self.node(part) for part, sort in zip(tree.arguments, arguments, strict=True) if sort in "xyv")
        if "N" in arguments or "D" in arguments:
            return self.window(tree, inputs)
        return self.shift(tree, inputs[0]) if "S" in arguments else self.element(tree, inputs)

    def check(self, tree: Call) -> None:
        operator = OPERATORS.get(tree.name)
        if operator is None:
            raise self.error(tree.position, f"unknown operator {tree.name}")
        takes, given = len(operator.arguments), len(tree.arguments)
        if takes != given:
            raise self.error(tree.position, f"{tree.name} takes {takes} arguments, {given} were given")
        for part, sort in zip(tree.arguments, operator.arguments, strict=True):
            if sort in "xy" and isinstance(part, Number):
                raise self.error(part.position, f"{tree.name} needs a series here, not the number {part.value}")
            if sort in "NSDq" and not isinstance(part, Number):
                raise self.error(part.position, f"{tree.name} needs a number here")

    def element(self, tree: Call, inputs: tuple[int, ...]) -> int:
        kinds = tuple(self.graph.nodes[place].kind for place in inputs)
        name, kind = tree.name, result_type(tree.name, kinds)
        if kind is None:
            raise self.error(tree.position, f"{name} has no meaning for {' and '.join(kinds)}")
        common = promote(*kinds[-2:]) if len(kinds) > 1 else kinds[0]
        inputs = tuple(self.typed(place, common) for place in inputs)
        if kind == BOOL and name in _LOGIC_OF_BOOL:
            name = _LOGIC_OF_BOOL[name]
        kind = FLOAT64 if self.plain and kind == FLOAT32 else kind
        exponent = self.graph.nodes[inputs[-1]]
        if name == "Power" and exponent.op == "Const":
            return self.power(tree, inputs, kind, float(exponent.parameters[0]))
        rounded = kind == FLOAT32 and name in {"Add", "Sub", "Mul", "Div", "Log"}
        return self.graph.add(Node(name, inputs, (), kind, rounded))

    def power(self, tree: Call, inputs: tuple[int, ...], kind: str, exponent: float) -> int:
        """Take NumPy's short cuts for a written exponent of 2 and 1/2."""
        if kind == INT64 and exponent < 0:
            raise self.error(tree.position, "Power of whole numbers has no negative exponent")
        if exponent == _SQUARE:
            return self.graph.add(Node("Mul", (inputs[0], inputs[0]), (), kind, rounded=kind == FLOAT32))
        if exponent == _ROOT:
            return self.graph.add(Node("Sqrt", inputs[:1], (), kind, rounded=kind == FLOAT32))
        return self.graph.add(Node("Power", inputs, (), kind, rounded=kind == FLOAT32))

    def typed(self, place: int, kind: str) -> int:
        """Return a written number in the type of what it meets."""
        node = self.graph.nodes[place]
        if node.kind not in WEAK:
            return place
        with np.errstate(over="ignore"):
            value = float(np.float32(node.parameters[0])) if kind == FLOAT32 else float(node.parameters[0])
        return self.graph.add(Node("Const", (), (value,), FLOAT64))

    def shift(self, tree: Call, source: int) -> int:
        by = self.number(tree, 1)
        if not isinstance(by, int) or by == 0 or abs(by) > MAX_WINDOW:
            raise self.error(tree.position, f"{tree.name} by {by}: a shift is a whole number from 1 to {MAX_WINDOW}")
        if by < 0 and not self.graph.semantics.looks_ahead:
            raise self.error(tree.position, f"{tree.name} by {by} looks ahead, features never may")
        kind = self.graph.nodes[source].kind
        kind = {BOOL: FLOAT64 if self.plain else FLOAT32, INT64: FLOAT64}.get(kind, kind)
        past = self.graph.add(Node("Ref", (source,), (by,), kind))
        if tree.name == "Ref":
            return past
        kind = promote(self.graph.nodes[source].kind, kind)
        return self.graph.add(Node("Sub", (source, past), (), kind, rounded=kind == FLOAT32))

    def window(self, tree: Call, inputs: tuple[int, ...]) -> int:
        place = len(inputs)
        length = self.number(tree, place)
        if tree.name == "EMA":
            return self.mean_with_decay(tree, inputs, length)
        if length == 0:
            length = self.expanding(tree)
        least = OPERATORS[tree.name].least_window
        if not isinstance(length, int) or not least <= length <= MAX_WINDOW:
            reason = f"{tree.name} over {length}: a window is a whole number from {least} to {MAX_WINDOW}"
            raise self.error(tree.position, reason)
        parameters: tuple[int | float, ...] = (length,)
        if tree.name == "Quantile":
            share = self.number(tree, place + 1)
            if not 0 <= share <= 1:
                raise self.error(tree.position, f"Quantile {share}: a share lies from 0 to 1")
            parameters = (length, float(share))
        result = self.graph.add(Node(tree.name, inputs, parameters))
        guarded = tree.name == "Corr" or (tree.name == "Rsquare" and self.number(tree, place) != 0)
        if guarded:
            deviations = tuple(self.graph.add(Node("Std", (source,), (length,))) for source in inputs)
            return self.graph.add(Node("Guard", (result, deviations[0], deviations[-1])))
        return self.graph.add(Node("Blank", (result,))) if tree.name == "Count" else result

    def mean_with_decay(self, tree: Call, inputs: tuple[int, ...], span: float) -> int:
        if span == 0:
            return self.graph.add(Node("EMA", inputs, (self.expanding(tree), 0.0)))
        if not (0 < span < 1 or (isinstance(span, int) and 1 <= span <= MAX_WINDOW)):
            reason = f"EMA of {span}: a span is a whole number from 1 to {MAX_WINDOW}, a decay lies between 0 and 1"
            raise self.error(tree.position, reason)
        decay = float(span) if 0 < span < 1 else 2.0 / (span + 1.0)
        rows = 1 if decay == 1.0 else math.ceil(math.log(EMA_REMAINDER) / math.log1p(-decay))
        if rows >= MAX_LOOKBACK:
            raise self.error(
                tree.position, f"EMA of {span} has a warm-up of {rows} sessions, at most {MAX_LOOKBACK - 1}"
            )
        return self.graph.add(Node("EMA", inputs, (rows, decay)))

    def expanding(self, tree: Call) -> int:
        sessions = self.graph.semantics.expanding
        if sessions is None or tree.name == "Corr":
            reason = f"{tree.name} over 0 looks back without end: state a number of sessions"
            raise self.error(tree.position, reason if tree.name != "Corr" else "Corr over 0 has no meaning in Qlib")
        return sessions

    def number(self, tree: Call, place: int) -> int | float:
        part = tree.arguments[place]
        if not isinstance(part, Number):  # `check` saw to it
            raise self.error(part.position, f"{tree.name} needs a number here")
        return part.value
