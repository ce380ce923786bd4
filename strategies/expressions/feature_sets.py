"""Feature sets and labels: named expressions, compiled once, evaluated over bars.

Owns: the identity of a feature set, the entry points that training, backfill and serving share.
Must not know: files, models, requests.
Invariant: one session evaluated alone has the bits of the same session in any range, whatever the other symbols,
their order, the chunks, the threads or the process (tests/unit/expressions/test_bit_identity.py).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from typing import Literal

import numpy as np

from strategies.errors import ExpressionError
from strategies.expressions.alphas import ALPHA158, ALPHA360
from strategies.expressions.evaluate import Bars, Features, evaluate
from strategies.expressions.graph import Semantics, build
from strategies.expressions.operators import MAX_WINDOW
from strategies.expressions.program import Program, assemble
from strategies.market.bars import IntArray, Panel, Window
from strategies.suggestions import did_you_mean

#: Raised whenever the same expression may give other bits than before; part of every identity.
SEMANTICS = 1
#: Most columns of one feature set.
MAX_COLUMNS = 4096

VwapStandIn = Literal["none", "typical_price", "close"]
Precision = Literal["qlib", "float64"]

#: What `$vwap` becomes where the bars have none.
VWAP_STAND_INS = {"none": "$vwap", "typical_price": "(($high+$low+$close)/3)", "close": "$close"}
_SHIPPED = {"alpha158": ALPHA158, "alpha360": ALPHA360}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSet:
    """An ordered list of named expressions, ready to be evaluated; equal if its identity is."""

    name: str
    #: Columns in order, and their expressions, `[features]`.
    names: tuple[str, ...]
    expressions: tuple[str, ...]
    #: Identity: digest of the ordered (name, expression) list, the meaning of operators and the precision.
    sha256: str
    #: Sessions that a value looks at, its own included.
    lookback: int
    #: Fields of the bars that are used, without dollar signs.
    fields: frozenset[str]
    #: How it was defined, see `define`; both are part of the identity.
    precision: Precision = "qlib"
    expanding: int | None = None
    program: Program = field(repr=False, compare=False)

    def evaluate(self, window: Window, *, threads: int = 1) -> Features:
        """Return the features of the window's last session, `[symbols, features]`; NaN where there is no value.

        Raises:
            ExpressionError: The bars lack a field.
        """
        sessions = window.sessions.size
        bars = Bars(
            fields=window.fields,
            rows=np.arange(len(window.symbols), dtype=np.int64),
            first=np.array(window.first, dtype=np.int64),
            sessions=sessions,
        )
        features: Features = evaluate(self.program, bars, sessions - 1, 1, threads=threads)[0]
        return features

    def evaluate_range(
        self, panel: Panel, first: date, last: date, symbols: Sequence[str] | None = None, *, threads: int = 1
    ) -> Features:
        """Return the features of every session from `first` to `last`, `[sessions, symbols, features]`.

        Symbols in the given order, by default all of the panel. Rows before a symbol's first bar are NaN.

        Raises:
            ExpressionError: The bars lack a field.
            UnknownSymbols: At least one symbol has no bars in the panel.
            AsOfBeforeData: `first` is before the panel's first session.
            StaleSnapshot: `last` is after the panel's last session.
        """
        return _range(self.program, panel, (first, last), symbols, threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One expression that may look ahead, for training alone."""

    name: str
    expression: str
    #: Sessions after its own that a value looks at; as many last sessions have no value.
    lookahead: int
    program: Program = field(repr=False, compare=False)

    def evaluate_range(
        self, panel: Panel, first: date, last: date, symbols: Sequence[str] | None = None, *, threads: int = 1
    ) -> Features:
        """Return the labels of every session from `first` to `last`, `[sessions, symbols]`; see `FeatureSet`."""
        return _range(self.program, panel, (first, last), symbols, threads)[:, :, 0]


def feature_set(
    name: str, *, vwap_stand_in: VwapStandIn = "typical_price", precision: Precision = "qlib"
) -> FeatureSet:
    """Return a shipped feature set: `alpha158` or `alpha360`.

    Args:
        name: Which one.
        vwap_stand_in: Replacement of `$vwap`: `none` (the bars have it), `typical_price` ((high + low + close) / 3)
            or `close`. It rewrites the expressions, so it is part of the identity.
        precision: See `define`.

    Raises:
        ExpressionError: There is no such feature set or stand-in.
    """
    if name not in _SHIPPED:
        shipped = f"shipped are {', '.join(_SHIPPED)}{did_you_mean(name, _SHIPPED)}"
        raise ExpressionError(f"no feature set is called {name!r}; {shipped}")
    if vwap_stand_in not in VWAP_STAND_INS:
        raise ExpressionError(f"vwap_stand_in was {vwap_stand_in!r}, it is one of {', '.join(VWAP_STAND_INS)}")
    instead = VWAP_STAND_INS[vwap_stand_in]
    columns = [(column, text.replace("$vwap", instead)) for column, text in _SHIPPED[name]]
    return define(name, columns, precision=precision)


def define(
    name: str,
    columns: Sequence[tuple[str, str]],
    *,
    serving: bool = True,
    precision: Precision = "qlib",
    expanding: int | None = None,
) -> FeatureSet:
    """Return a feature set of one's own.

    Args:
        name: What it is called; not part of the identity.
        columns: Ordered (name, Qlib expression).
        serving: Refuse shifts into the future. Only research may switch that off.
        precision: `qlib` computes each operation in the type Qlib computes it in (float32 bars and element-wise
            arithmetic, float64 windows); `float64` computes all in float64, on the same float32 bars.
        expanding: Sessions that windows of length 0 look back (Qlib: all bars so far); they are refused without it.

    Raises:
        ExpressionError: A column is no expression, uses an operator wrongly or looks ahead; two columns have one name.
    """
    listed = [(str(column), str(text)) for column, text in columns]
    semantics = _semantics(precision, expanding, looks_ahead=not serving)
    _check_names(name, listed)
    program = assemble(build(listed, semantics))
    return FeatureSet(
        name=name,
        names=tuple(column for column, _ in listed),
        expressions=tuple(text for _, text in listed),
        sha256=_identity(listed, semantics),
        lookback=program.lookback,
        fields=frozenset(used for used, _ in program.fields),
        precision=precision,
        expanding=expanding,
        program=program,
    )


def label(expression: str, *, name: str = "LABEL0", precision: Precision = "qlib") -> Label:
    """Return a label, such as `Ref($close, -2)/Ref($close, -1)-1`.

    Raises:
        ExpressionError: It is no expression, or uses an operator wrongly.
    """
    program = assemble(build([(name, expression)], _semantics(precision, None, looks_ahead=True)))
    return Label(name=name, expression=expression, lookahead=program.lookahead, program=program)


def _range(
    program: Program, panel: Panel, sessions: tuple[date, date], symbols: Sequence[str] | None, threads: int
) -> Features:
    rows: IntArray = np.arange(len(panel.symbols), dtype=np.int64) if symbols is None else panel.rows(symbols)
    day, last = np.datetime64(sessions[0], "D"), panel.column(sessions[1])
    panel.column(sessions[0])
    begin = int(np.searchsorted(panel.sessions, day, side="left"))
    bars = Bars(fields=panel.fields, rows=rows, first=panel.first[rows].astype(np.int64), sessions=panel.sessions.size)
    return evaluate(program, bars, begin, max(last + 1 - begin, 0), threads=threads)


def _semantics(precision: str, expanding: int | None, *, looks_ahead: bool) -> Semantics:
    if precision not in {"qlib", "float64"}:
        raise ExpressionError(f"precision was {precision!r}, it is qlib or float64")
    if expanding is not None and not 1 <= expanding <= MAX_WINDOW:
        raise ExpressionError(f"expanding was {expanding} sessions, it lies from 1 to {MAX_WINDOW}")
    return Semantics(precision=precision, expanding=expanding, looks_ahead=looks_ahead)


def _check_names(name: str, columns: list[tuple[str, str]]) -> None:
    if not 1 <= len(columns) <= MAX_COLUMNS:
        raise ExpressionError(f"feature set {name} has {len(columns)} columns, from 1 to {MAX_COLUMNS} are allowed")
    seen: set[str] = set()
    for column, _ in columns:
        if not column or column in seen:
            raise ExpressionError(f"feature set {name}: the column name {column!r} is empty or used twice")
        seen.add(column)


def _identity(columns: list[tuple[str, str]], semantics: Semantics) -> str:
    stated = {
        "columns": columns,
        "expanding": semantics.expanding,
        "precision": semantics.precision,
        "semantics": SEMANTICS,
    }
    return sha256(json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
