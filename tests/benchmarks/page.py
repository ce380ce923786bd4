"""The benchmark page as Markdown.

Owns: its tables and the words around them.
Must not know: how anything was measured.
Invariant: the machine, the versions and the load stand above the figures.
"""

from collections.abc import Mapping, Sequence

from tests.benchmarks.figures import Figure
from tests.benchmarks.growth import Sweep

_HEADER = """# Benchmarks

Printed by `make bench`; do not edit.

Each figure is the median of the quietest of five rounds, after a warm-up; processor time is what one thread spent
computing, whatever else ran beside it.
Qlib answers through `D.features` over `T1DataProvider`, its caches of features emptied before each query.
KunQuant computes its own Alpha158 in float64, the bars laid out as it wants them before the clock starts; it leaves out
partly filled windows and missing bars and changes RSV, CORR and CORD.
"""

_READING = (
    "An exponent is fitted to the larger half of a sweep: 1 is proportional, less is cheaper than that. Windows are"
    " summed anew for each row, so their cost grows with their length; Quantile keeps its window sorted, which costs"
    " its length once more."
)


def benchmark_page(facts: Mapping[str, str], figures: Sequence[Figure], sweeps: Sequence[Sweep], plot: str) -> str:
    """Return the page.

    Args:
        facts: Machine, versions, bars, load.
        figures: In order.
        sweeps: In order; may be empty.
        plot: Name of the image beside the page.
    """
    parts = [_HEADER, _table(("", ""), list(facts.items())), "## Figures", figure_table(figures)]
    if sweeps:
        parts += ["## Growth", f"![Cost by symbols, sessions and window]({plot})", _growth(sweeps), _READING]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def figure_table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    rows = [(each.work, each.value, each.goal, _met(each), each.qlib, each.kunquant) for each in figures]
    return _table(("work", "here", "goal", "met", "Qlib", "KunQuant"), rows)


def _growth(sweeps: Sequence[Sweep]) -> str:
    rows = [
        (
            sweep.name,
            f"{sweep.axis} {sweep.sizes[0]} to {sweep.sizes[-1]:,}",
            f"{sweep.seconds[0] * 1e3:.3g} to {sweep.seconds[-1] * 1e3:.3g} ms",
            f"{sweep.exponent:.2f}",
        )
        for sweep in sweeps
    ]
    return _table(("work", "range", "cost", "exponent"), rows)


def _met(figure: Figure) -> str:
    return {True: "yes", False: "**no**", None: ""}[figure.met]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
