"""One measurement of parity: a snapshot in, cells and books out.

Owns: the order of the work and which features of which symbols are in memory at once.
Must not know: how a page looks, command lines.
Invariant: the engine and Qlib see the same snapshot and the same expressions, the stand-in for vwap included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from strategies.alpha_baseline.data_loader import T1DataProvider
from strategies.expressions.feature_sets import FeatureSet, Precision, feature_set
from strategies.market.bars import BoolArray, Float32Array, Panel
from tests.parity.books import BookParity, Rows, compare_books
from tests.parity.cells import CellParity, Tally, scales_of
from tests.parity.oracle import oracle_blocks
from tests.parity.qlib_model import QlibModel, train_in_qlib
from tests.parity.reference import reference

PRECISIONS: tuple[Precision, ...] = ("qlib", "float64")
#: Told a stage, what is done, what there is to do.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetParity:
    """One feature set: its cells, in Qlib's types."""

    name: str
    identity: str
    cells: tuple[CellParity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One feature set compared, and Qlib's side of it for what comes next."""

    parity: SetParity
    #: `[sessions, symbols, features]`.
    qlib: Float32Array
    #: Whether Qlib has a row, `[sessions, symbols]`.
    exists: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotParity:
    """One snapshot."""

    snapshot_id: str
    symbols: int
    sessions: int
    first: str
    last: str
    sets: tuple[SetParity, ...]
    model: QlibModel
    #: (precision, period) to what came out; period is `test` or `all`.
    books: dict[tuple[str, str], BookParity]


def measure(
    data_dir: Path, *, snapshot: str | None = None, kernels: int = 2, progress: Progress | None = None
) -> SnapshotParity:
    """Compare Alpha158 and Alpha360 of a snapshot with Qlib's own, and the books of a model trained in Qlib.

    Starts Qlib in this process, which holds its settings globally.

    Args:
        data_dir: Folder above `adjusted/<run date>/`.
        snapshot: Id or run date; default the latest.
        kernels: Processes that Qlib computes in.
        progress: Told how far the work is.
    """
    report = progress or _silent
    provider = T1DataProvider(data_dir, snapshot)
    panel = provider.panel()
    provider.init_qlib(kernels=kernels)
    alpha158 = compare_cells(panel, feature_set("alpha158"), progress=report)
    model, books = compare_models(panel, alpha158, progress=report)
    alpha360 = compare_cells(panel, feature_set("alpha360"), progress=report)
    return SnapshotParity(
        snapshot_id=panel.snapshot_id,
        symbols=len(panel.symbols),
        sessions=panel.sessions.size,
        first=str(panel.sessions[0]),
        last=str(panel.sessions[-1]),
        sets=(alpha158.parity, alpha360.parity),
        model=model,
        books=books,
    )


def compare_cells(panel: Panel, features: FeatureSet, *, progress: Progress | None = None) -> Comparison:
    """Compare every cell of a feature set with Qlib's own; `T1DataProvider.init_qlib` must have been called."""
    report = progress or _silent
    ours = whole_range(features, panel)
    qlib = np.empty_like(ours)
    exists = np.zeros(ours.shape[:2], bool)
    tally = Tally(features.names, scales_of(ours, listed(panel)))
    for block in oracle_blocks(panel, features.expressions):
        qlib[:, block.rows], exists[:, block.rows] = block.features, block.exists
        truth = reference_of(features.expressions, panel, block.rows)
        tally.add(block.features, ours[:, block.rows], truth, block.exists)
        report(features.name, block.rows.stop, len(panel.symbols))
    cells = SetParity(name=features.name, identity=features.sha256, cells=tally.result())
    return Comparison(parity=cells, qlib=qlib, exists=exists)


def compare_models(
    panel: Panel, alpha158: Comparison, *, progress: Progress | None = None
) -> tuple[QlibModel, dict[tuple[str, str], BookParity]]:
    """Train in Qlib and compare what the model makes of Qlib's features and of ours; see `SnapshotParity.books`."""
    report = progress or _silent
    default = feature_set("alpha158")
    report("model", 0, 1)
    model = train_in_qlib(panel, list(zip(default.names, default.expressions, strict=True)))
    report("model", 1, 1)
    priced = alpha158.exists & ~np.isnan(panel.fields["close"].T)
    begin = int(np.searchsorted(panel.sessions, np.datetime64(model.test[0], "D")))
    books: dict[tuple[str, str], BookParity] = {}
    for done, precision in enumerate(PRECISIONS):
        ours = whole_range(feature_set("alpha158", precision=precision), panel)
        for period, part in (("test", slice(begin, None)), ("all", slice(None))):
            rows = Rows(
                symbols=panel.symbols,
                sessions=panel.sessions[part],
                names=default.names,
                qlib=alpha158.qlib[part],
                ours=ours[part],
                priced=priced[part],
            )
            books[precision, period] = compare_books(model.booster, rows)
        report("books", done + 1, len(PRECISIONS))
    return model, books


def whole_range(features: FeatureSet, panel: Panel, *, threads: int = 2) -> Float32Array:
    """Return the engine's features of every session of the panel, `[sessions, symbols, features]`."""
    first, last = panel.sessions[[0, -1]]
    return features.evaluate_range(panel, first.astype(object), last.astype(object), threads=threads)


def reference_of(expressions: Sequence[str], panel: Panel, symbols: slice) -> Float32Array:
    """Return the reference's values of some symbols, `[sessions, symbols, expressions]`; see `reference`."""
    rows = range(*symbols.indices(len(panel.symbols)))
    truth = np.full((panel.sessions.size, len(rows), len(expressions)), np.nan, np.float32)
    for column, row in enumerate(rows):
        first = int(panel.first[row])
        bars = {name: values[row, first:] for name, values in panel.fields.items()}
        truth[first:, column] = reference(expressions, bars, exact=False)
    return truth


def listed(panel: Panel) -> BoolArray:
    """Return where a symbol's row exists, from its first bar to its last, `[sessions, symbols]`."""
    at = np.arange(panel.sessions.size)[:, None]
    return (at >= panel.first) & (at <= panel.last)


def _silent(_stage: str, _done: int, _total: int) -> None:
    return
