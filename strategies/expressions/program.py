"""From the graph to tables: which passes run in which order, in which buffers.

Owns: gathering windows of one input into passes, the order of work, the sharing of buffers.
Must not know: panels, symbols, threads.
Invariant: the tables depend on the columns alone, not on what is evaluated; only their layout knows the chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from strategies.expressions import kernels, windows
from strategies.expressions.graph import Graph, Node
from strategies.expressions.kernels import Values
from strategies.expressions.machine import AGES, BACK, BLANK, CHUNKED, CONSTANT, KIND, LOADED, PLACE, ROUND, Table
from strategies.expressions.sorting import SORT_STRIP

_ELEMENTS = {
    "Add": kernels.ADD, "Sub": kernels.SUB, "Mul": kernels.MUL, "Div": kernels.DIV, "Power": kernels.POWER,
    "Greater": kernels.GREATER, "Less": kernels.LESS, "Gt": kernels.GT, "Ge": kernels.GE, "Lt": kernels.LT,
    "Le": kernels.LE, "Eq": kernels.EQ, "Ne": kernels.NE, "And": kernels.AND, "Or": kernels.OR, "Abs": kernels.ABS,
    "Sign": kernels.SIGN, "Log": kernels.LOG, "Not": kernels.NOT, "Sqrt": kernels.SQRT, "Ref": kernels.REF,
    "If": kernels.IF, "Guard": kernels.GUARD, "Blank": kernels.COPY,
}  # fmt: skip
#: Operations that make a value out of NaN.
_BLANKED = frozenset({"Gt", "Ge", "Lt", "Le", "Eq", "Ne", "And", "Or", "Not", "If", "Power", "Blank"})
_WINDOWS = {
    "Sum": (kernels.SUMS, windows.SUM), "Count": (kernels.SUMS, windows.COUNT),
    "Mean": (kernels.MOMENTS, windows.MEAN), "Var": (kernels.MOMENTS, windows.VAR),
    "Std": (kernels.MOMENTS, windows.STD), "Slope": (kernels.TREND, windows.SLOPE),
    "Rsquare": (kernels.TREND, windows.RSQUARE), "Resi": (kernels.TREND, windows.RESI),
    "Max": (kernels.PEAKS, windows.MAX), "IdxMax": (kernels.PEAKS, windows.IDXMAX),
    "Min": (kernels.PEAKS, windows.MIN), "IdxMin": (kernels.PEAKS, windows.IDXMIN),
    "Rank": (kernels.RANKS, windows.RANK), "Quantile": (kernels.ORDER, windows.QUANTILE),
    "Med": (kernels.ORDER, windows.MED), "Corr": (kernels.PAIRS, windows.CORR), "Cov": (kernels.PAIRS, windows.COV),
    "Skew": (kernels.SHAPE, windows.SKEW), "Kurt": (kernels.SHAPE, windows.KURT),
    "Mad": (kernels.SHAPE, windows.MAD), "WMA": (kernels.WEIGHTED, windows.WMA), "EMA": (kernels.DECAY, windows.EMA),
}  # fmt: skip
#: Families whose pass depends on the length of the window, so that lengths cannot share it.
_ONE_LENGTH = frozenset({kernels.SHAPE, kernels.WEIGHTED, kernels.DECAY, kernels.SPAN_DECAY})
#: Layouts kept for one program.
MAX_LAYOUTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Positions of buffers for one chunk size and number of rows."""

    buffers: Table
    #: Size of scratch, in rows.
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the machine runs; see `machine` for the columns of the tables."""

    instructions: Table
    results: Table
    values: Values
    #: Rows kept before and after, and kind, of each buffer.
    back: tuple[int, ...]
    ahead: tuple[int, ...]
    kinds: tuple[int, ...]
    #: Buffers that share a place have one number; -1 for a place of one's own.
    slots: tuple[int, ...]
    #: Index among the values, of constants.
    constants: tuple[int, ...]
    #: Buffer and rows that a shift into the past looks at: it reads another buffer's memory, nothing is copied.
    views: tuple[tuple[int, int] | None, ...]
    #: Field name to its buffer.
    fields: tuple[tuple[str, int], ...]
    columns: int
    #: Values that sorted windows need beside scratch.
    work: int
    #: Layouts made so far: making one takes longer than evaluating a few symbols.
    layouts: dict[tuple[int, int], Layout] = field(default_factory=dict, repr=False, compare=False)

    @property
    def lookback(self) -> int:
        """Return the sessions a value looks at, its own included."""
        return max(self.back[buffer] for _, buffer in self.fields) + 1

    @property
    def lookahead(self) -> int:
        """Return the sessions after its own that a value looks at."""
        return max(self.ahead[buffer] for _, buffer in self.fields)

    def layout(self, chunk: int, rows: int) -> Layout:
        """Place the buffers for chunks of `chunk` rows of `rows` in all."""
        known = self.layouts.get((chunk, rows))
        if known is not None:
            return known
        if len(self.layouts) >= MAX_LAYOUTS:
            self.layouts.clear()
        return self.layouts.setdefault((chunk, rows), self._placed(chunk, rows))

    def _placed(self, chunk: int, rows: int) -> Layout:
        table = np.zeros((len(self.kinds), 4), np.int64)
        free, places = 0, {}
        for buffer, kind in enumerate(self.kinds):
            view = self.views[buffer]
            if view is not None:
                source = table[view[0]]
                table[buffer] = (source[PLACE] + source[BACK] - view[1], 0, 0, source[KIND])
                continue
            length = self.back[buffer] + self.ahead[buffer] + (rows if kind == LOADED else min(chunk, rows))
            slot = self.slots[buffer]
            if slot < 0 or slot not in places:
                places[slot] = free
                free += length
            middle = (length, self.constants[buffer]) if kind == CONSTANT else (self.back[buffer], self.ahead[buffer])
            table[buffer] = (places[slot], *middle, kind)
        return Layout(buffers=table, rows=free)


def assemble(graph: Graph) -> Program:
    """Return the program that computes the graph's columns."""
    return _Assembler(graph).program()


@dataclass(frozen=True, slots=True)
class _Task:
    """One instruction to be: an element-wise node, or the windows that share a pass."""

    family: int
    inputs: tuple[int, ...]
    members: tuple[int, ...]


class _Assembler:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.reach = graph, graph.reach()
        self.values: list[float] = [1.0, -1.0]
        self.instructions: list[tuple[int, ...]] = []
        self.results: list[tuple[int, ...]] = []
        #: Buffer 0 is for the ages, so node `n` has buffer `n + 1`.
        self.slots = [-1] * (len(graph.nodes) + 1)
        self.constants = [0] * (len(graph.nodes) + 1)

    def program(self) -> Program:
        nodes = self.graph.nodes
        for place, node in enumerate(nodes):
            if node.op == "Const":
                self.constants[place + 1] = self.value([float(node.parameters[0])])
        order = self.ordered(self.tasks())
        for task in order:
            self.emit(task)
        self.store([place for place, node in enumerate(nodes) if node.op == "Field" or _is_view(node)])
        self.share_places()
        kinds = [LOADED, *({"Field": LOADED, "Const": CONSTANT}.get(node.op, CHUNKED) for node in nodes)]
        back, ahead = [reach[0] for reach in self.reach], [reach[1] for reach in self.reach]
        lengths = [int(node.parameters[0]) for node in nodes if node.op in {"Quantile", "Med"}]
        return Program(
            instructions=np.array(self.instructions, np.int64),
            results=np.array(self.results or [(0, 0, 0, 0)], np.int64),
            values=np.array(self.values),
            back=(max(back), *back),
            ahead=(max(ahead), *ahead),
            kinds=tuple(kinds),
            slots=tuple(self.slots),
            constants=tuple(self.constants),
            views=(None, *((n.inputs[0] + 1, int(n.parameters[0])) if _is_view(n) else None for n in nodes)),
            fields=tuple((str(node.parameters[0]), n + 1) for n, node in enumerate(nodes) if node.op == "Field"),
            columns=len(self.graph.roots),
            work=max(windows.ACCUMULATORS, (max(lengths, default=0) + 2) * SORT_STRIP),
        )

    def value(self, values: list[float]) -> int:
        self.values.extend(values)
        return len(self.values) - len(values)

    def tasks(self) -> list[_Task]:
        passes: dict[tuple[object, ...], list[int]] = {}
        for place, node in enumerate(self.graph.nodes):
            if node.op in {"Field", "Const"} or _is_view(node):
                continue
            passes.setdefault(self.pass_key(place, node), []).append(place)
        return [
            _Task(self.family(self.graph.nodes[members[0]]), self.graph.nodes[members[0]].inputs, tuple(members))
            for members in passes.values()
        ]

    def family(self, node: Node) -> int:
        if node.op == "EMA" and node.parameters[1] == 0.0:
            return kernels.SPAN_DECAY
        return _WINDOWS[node.op][0] if node.op in _WINDOWS else _ELEMENTS[node.op]

    def pass_key(self, place: int, node: Node) -> tuple[object, ...]:
        if node.op not in _WINDOWS:
            return (place,)
        family = self.family(node)
        apart = node.parameters if family in _ONE_LENGTH else ()
        return family, node.inputs, node.op in {"Min", "IdxMin"}, apart, self.reach[place]

    def ordered(self, tasks: list[_Task]) -> list[_Task]:
        """Order the tasks so that element-wise work follows at once on what it waits for: buffers live short."""
        makers = {member: task for task in tasks for member in task.members}
        waiting = {id(task): {id(makers[i]) for i in map(self.seen, task.inputs) if i in makers} for task in tasks}
        done: set[int] = set()
        order: list[_Task] = []
        remaining = list(tasks)
        while remaining:
            ready = [task for task in remaining if waiting[id(task)] <= done]
            simple = [task for task in ready if task.family < kernels.SUMS]
            for task in simple or ready[:1]:
                order.append(task)
                done.add(id(task))
                remaining.remove(task)
        return order

    def seen(self, place: int) -> int:
        """Return the node whose buffer contains a node's value."""
        while _is_view(self.graph.nodes[place]):
            place = self.graph.nodes[place].inputs[0]
        return place

    def emit(self, task: _Task) -> None:
        buffers = [place + 1 for place in task.inputs]
        first, second, third, *_ = (*buffers, AGES, AGES)
        if task.family >= kernels.SUMS:
            begin = len(self.results)
            self.results.extend(sorted(self.result(member) for member in task.members))
            second = second if len(buffers) > 1 else first
            row = (task.family, task.members[0] + 1, first, second, AGES, begin, len(task.members), 0)
        else:
            node = self.graph.nodes[task.members[0]]
            shift = int(node.parameters[0]) if node.op == "Ref" else 0
            blanked = node.op in _BLANKED or shift < 0
            finish = (ROUND if node.rounded else 0) | (BLANK if blanked else 0)
            row = (task.family, task.members[0] + 1, first, second, third, shift, 0, finish)
        self.instructions.append(row)
        self.store(task.members)

    def store(self, places: Sequence[int]) -> None:
        for column, root in enumerate(self.graph.roots):
            if root in places:
                self.instructions.append((kernels.STORE, AGES, root + 1, AGES, AGES, column, 0, 0))

    def result(self, place: int) -> tuple[int, ...]:
        node = self.graph.nodes[place]
        parameter = 1 if node.op in {"Min", "IdxMin"} else 0
        if node.op == "Quantile":
            parameter = self.value([float(node.parameters[1])])
        elif node.op == "EMA" and node.parameters[1] != 0.0:
            parameter = self.value(_decaying(float(node.parameters[1]), int(node.parameters[0])))
        return int(node.parameters[0]), _WINDOWS[node.op][1], place + 1, parameter

    def share_places(self) -> None:
        """Give buffers that nothing looks at any more to later results; those that reach over rows keep theirs."""
        last_use: dict[int, int] = {}
        made: dict[int, list[int]] = {}
        for step, row in enumerate(self.instructions):
            op, out, first, second, third, begin, count = row[:7]
            if op >= kernels.SUMS:
                made[step] = [result[2] for result in self.results[begin : begin + count]]
            elif op != kernels.STORE:
                made[step] = [out]
            last_use.update(dict.fromkeys((first, second, third), step))
        free: list[int] = []
        slots = 0
        for step in range(len(self.instructions)):
            for buffer in made.get(step, ()):
                if self.reach[buffer - 1] == (0, 0):
                    self.slots[buffer] = free.pop() if free else slots
                    slots += self.slots[buffer] == slots
            for buffer, at in last_use.items():
                if at == step and self.slots[buffer] >= 0:
                    free.append(self.slots[buffer])


def _is_view(node: Node) -> bool:
    # A shift into the future is copied, since rows that do not exist yet must be blanked.
    return node.op == "Ref" and int(node.parameters[0]) > 0


def _decaying(decay: float, rows: int) -> list[float]:
    weights = [1.0]
    for _ in range(rows - 1):
        weights.append(weights[-1] * (1.0 - decay))
    return weights
