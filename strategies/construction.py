"""Portfolio construction: predictions of one cross-section become ranks and target weights.

Owns: `Construction` (how many names a side), `Portfolio` (what came out) and the one total order of symbols.
Must not know: models, bars, requests; nothing here reads a file or a clock.
Invariant: no symbol is on both sides; a side that has any symbol sums to +1 (long) or -1 (short) within 1e-12;
the order in which symbols were asked for never changes a symbol's rank or weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strategies.errors import InfeasibleConstruction
from strategies.market.bars import FloatArray, IntArray

#: Most symbols of one side.
MAX_SIDE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Construction:
    """Number of symbols on each side, at equal weight.

    Raises:
        InfeasibleConstruction: A side below 0 or above `MAX_SIDE`, or both sides 0.
    """

    #: Most long symbols, +1/N each; 0 = no long side.
    top_n: int = 3
    #: Most short symbols, -1/N each; 0 = no short side.
    bottom_n: int = 3

    def __post_init__(self) -> None:
        for name, value in (("top_n", self.top_n), ("bottom_n", self.bottom_n)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InfeasibleConstruction(f"{name} is {value!r}, it must be a whole number")
            if not 0 <= value <= MAX_SIDE:
                raise InfeasibleConstruction(f"{name} is {value}, it must lie between 0 and {MAX_SIDE}")
        if self.top_n == 0 and self.bottom_n == 0:
            raise InfeasibleConstruction("top_n and bottom_n are both 0, at least one side must hold a symbol")


@dataclass(frozen=True, slots=True, kw_only=True)
class Portfolio:
    """Ranks and target weights of one cross-section, in the order of the symbols asked for."""

    #: Position by descending prediction, `[symbols]`: 1 = highest, every number from 1 to the count once.
    ranks: IntArray
    #: Target weight, `[symbols]`, as a fraction of the capital of one side; 0 = not held.
    weights: FloatArray
    requested_top_n: int
    requested_bottom_n: int
    #: Symbols used long; fewer than requested when the universe is too small for both sides.
    used_top_n: int
    #: Symbols used short.
    used_bottom_n: int


def construct(symbols: Sequence[str], predictions: FloatArray, construction: Construction) -> Portfolio:
    """Return the ranks and weights of these symbols.

    Rank 1 is the highest prediction; equal predictions rank by symbol, ascending. The first `used_top_n` are held
    long at +1/N each, the last `used_bottom_n` short at -1/N each. See `used_sides` for a universe that is too small.

    Args:
        symbols: Unique, `[symbols]`, at least one.
        predictions: Higher is better, finite, `[symbols]`.
        construction: Symbols wanted on each side.

    Raises:
        InfeasibleConstruction: No symbol, a symbol twice, another number of predictions, or one that is not finite.
    """
    _check(symbols, predictions)
    order = np.lexsort((np.asarray(symbols, dtype=np.str_), -predictions))
    used_top, used_bottom = used_sides(len(symbols), construction)
    ranks = np.empty(len(symbols), dtype=np.int64)
    ranks[order] = np.arange(1, len(symbols) + 1)
    weights = np.zeros(len(symbols), dtype=np.float64)
    if used_top:
        weights[order[:used_top]] = 1.0 / used_top
    if used_bottom:
        weights[order[-used_bottom:]] = -1.0 / used_bottom
    ranks.setflags(write=False)
    weights.setflags(write=False)
    return Portfolio(
        ranks=ranks,
        weights=weights,
        requested_top_n=construction.top_n,
        requested_bottom_n=construction.bottom_n,
        used_top_n=used_top,
        used_bottom_n=used_bottom,
    )


def used_sides(priced: int, construction: Construction) -> tuple[int, int]:
    """Return how many symbols each side uses, long first, of `priced` symbols.

    Both sides fit: as requested. They do not: each shrinks to min(N, priced // 2), so that the middle symbol of an
    odd universe stays at 0 and a single symbol is held on neither side. One side alone may hold every symbol.
    """
    top, bottom = construction.top_n, construction.bottom_n
    if top + bottom <= priced:
        return top, bottom
    if not top or not bottom:
        return min(top, priced), min(bottom, priced)
    return min(top, priced // 2), min(bottom, priced // 2)


def _check(symbols: Sequence[str], predictions: FloatArray) -> None:
    if not symbols:
        raise InfeasibleConstruction("no symbol to rank, at least 1 is needed")
    if predictions.shape != (len(symbols),):
        raise InfeasibleConstruction(f"{len(symbols)} symbols, but predictions have shape {predictions.shape}")
    if len(set(symbols)) != len(symbols):
        twice = sorted({symbol for symbol in symbols if list(symbols).count(symbol) > 1})
        raise InfeasibleConstruction(f"symbols given more than once: {', '.join(twice)}")
    finite = np.isfinite(predictions)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise InfeasibleConstruction(f"prediction of {symbols[first]} is {predictions[first]}, it must be finite")
