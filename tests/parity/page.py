"""The parity page: the measurements as Markdown, and the command that prints it.

    python -m tests.parity.page [--bars NAME=FOLDER]... [--kernels N] [--output docs/parity.md]

Owns: the tables of `docs/parity.md` and the words around them; the command line.
Must not know: how anything is measured.
Invariant: every figure on the page comes from the measurements passed in; the same measurements give the same text.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from strategies.errors import DataError
from strategies.market.importing import import_bars
from tests.parity.books import BookParity, Cause
from tests.parity.cells import CellParity
from tests.parity.measurement import SetParity, SnapshotParity, measure
from tests.support.market import RUN_DATE
from tests.support.parity import demo_file

#: Explained one by one; a page with more of them would not be read.
MAX_CAUSES = 60
LIBRARIES = ("pyqlib", "pandas", "numpy", "numba", "lightgbm")

_HEAD = """# Parity with Qlib

Printed by `python -m tests.parity.page`; do not edit.

Every feature of the shipped sets, for every symbol and session, computed by the engine and by Qlib's own operators
(`D.features` over `T1DataProvider`, the same snapshot, the same expressions, (high + low + close) / 3 for `$vwap`).
A third party is the reference: plain NumPy that computes every window on its own in two passes of float64, with
Qlib's float32 for bars and element-wise arithmetic (`tests/parity/reference.py`).

A relative deviation is divided by the larger of the value's own magnitude and the feature's median magnitude.
"""

_RULES = (
    (
        "pandas carries rolling sums along, so that errors of old rows stay in later windows (Corr, Std, Mean)",
        "each window anew: differs from Qlib, is the reference's value",
    ),
    ("NumPy's float32 logarithm may be off in the last places", "rounded once from float64: differs from Qlib"),
    (
        "an infinity makes Slope, Rsquare and Resi NaN for ever",
        "NaN only while it is inside the window: differs from Qlib",
    ),
    (
        "windows count sessions of the calendar and need one value (`min_periods` 1); Std takes off one degree",
        "the same",
    ),
    (
        "Rank averages ties; IdxMax and IdxMin name the oldest of equals, 1-based, and a missing bar wins",
        "the same",
    ),
    ("Corr and Rsquare are NaN where a standard deviation is within 2e-5 of zero, in absolute terms", "the same"),
    ("comparisons with NaN are 0, so CNTP and CNTN have a value on the first bar", "the same"),
    (
        "bars and element-wise arithmetic float32, windows float64, result cast to float32",
        "the same (`precision: qlib`); `float64` keeps float64 until the end",
    ),
)
_VERIFIED = (
    "Tests in `tests/parity/` and `tests/unit/expressions/` verify these rows;"
    " `strategies/expressions/operators.py` documents each operator."
    " `tests/parity/recordings/` contains what Qlib computes (`python -m tests.parity.record`), so that every Python is"
    " compared with it, also where pyqlib has no wheel."
)


def parity_page(measured: Mapping[str, SnapshotParity], versions: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        measured: Name of the bars to what was measured on them.
        versions: Of the libraries that took part.
    """
    parts = [_HEAD, _versions(versions), _summary(measured), _books(measured), _rules(), _features(measured)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _versions(versions: Mapping[str, str]) -> str:
    return "With " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _summary(measured: Mapping[str, SnapshotParity]) -> str:
    header = (
        "feature set, bars",
        "symbols by sessions",
        "cells",
        "NaN differs",
        "bits of Qlib",
        "largest deviation from Qlib",
        "bits of the reference",
        "largest deviation from it",
        "Qlib's from it",
        "Qlib off by > 2 float32 steps",
    )
    rows = [_set_row(name, parity, each) for name, parity in measured.items() for each in parity.sets]
    return "## Cells\n\n" + _table(header, rows)


def _set_row(name: str, parity: SnapshotParity, measured: SetParity) -> list[str]:
    cells, total = measured.cells, sum(each.cells for each in measured.cells)
    return [
        f"{measured.name}, {name}",
        f"{parity.symbols} by {parity.sessions:,}",
        f"{total:,}",
        f"{sum(each.nan_differs for each in cells)}",
        _share(sum(each.equal_to_qlib for each in cells), total),
        _deviation(max(each.largest for each in cells)),
        _share(sum(each.ours_exact for each in cells), total),
        _deviation(max(each.ours_from_reference for each in cells)),
        _deviation(max(each.qlib_from_reference for each in cells)),
        f"{sum(each.qlib_off for each in cells):,}",
    ]


def _books(measured: Mapping[str, SnapshotParity]) -> str:
    header = (
        "books",
        "precision",
        "period",
        "sessions",
        "predictions",
        "differ",
        "largest difference",
        "books differ",
        "equal books",
    )
    rows = [
        _book_row(name, key, books) for name, parity in measured.items() for key, books in sorted(parity.books.items())
    ]
    text = (
        "## Predictions and books\n\nA LightGBM model of 100 trees, trained by Qlib on Qlib's features (Alpha158's"
        " handler, `LGBModel`, cross-sectionally normalised label, first 70 % of the sessions), predicts from Qlib's"
        " features and from the engine's.\nA book is the top 3 and bottom 3 of a session. Goal: equal on 99.9 % of the"
        " sessions. The default is `precision: qlib`.\n\n"
    )
    return text + _table(header, rows) + "\n\n" + _explained(measured)


def _book_row(name: str, key: tuple[str, str], books: BookParity) -> list[str]:
    differ = books.predictions - books.equal_predictions
    return [
        name,
        key[0],
        {"test": "held out", "all": "all"}[key[1]],
        f"{books.sessions:,}",
        f"{books.predictions:,}",
        f"{differ:,}",
        f"{books.largest:.2g} (their sd {books.spread:.2g})" if differ else "0",
        f"{books.sessions - books.equal_books}",
        f"{books.book_share:.2%}",
    ]


def _explained(measured: Mapping[str, SnapshotParity]) -> str:
    header = (
        "session",
        "bars, precision",
        "symbol",
        "weight, Qlib → engine",
        "prediction, Qlib → engine",
        "feature, Qlib → engine",
    )
    rows = [
        _cause_row(f"{name}, {key[0]}", cause)
        for name, parity in measured.items()
        for key, books in sorted(parity.books.items())
        for cause in books.causes
        if key[1] == "all"
    ]
    if not rows:
        return "No book differs, so there is none to explain."
    more = f"\n\n{len(rows) - MAX_CAUSES} more are not listed." if len(rows) > MAX_CAUSES else ""
    return "Every book that differs:\n\n" + _table(header, rows[:MAX_CAUSES]) + more


def _cause_row(where: str, cause: Cause) -> list[str]:
    named = zip(cause.features, cause.values, strict=True)
    features = "; ".join(f"{name} {theirs:.9g} → {own:.9g}" for name, (theirs, own) in named)
    return [
        cause.session.isoformat(),
        where,
        cause.symbol,
        f"{cause.weights[0]:+.3f} → {cause.weights[1]:+.3f}",
        f"{cause.predictions[0]:.6g} → {cause.predictions[1]:.6g}",
        features or "several together",
    ]


def _rules() -> str:
    title = "## Where Qlib is surprising, and what the engine does"
    return f"{title}\n\n{_table(('rule of Qlib', 'the engine'), _RULES)}\n\n{_VERIFIED}"


def _features(measured: Mapping[str, SnapshotParity]) -> str:
    tables = (_feature_table(name, each) for name, parity in measured.items() for each in parity.sets)
    return "\n\n".join(["## Feature by feature", *tables])


def _feature_table(name: str, measured: SetParity) -> str:
    title = f"### {measured.name}, {name}\n\nIdentity `{measured.identity}`."
    exact = [each for each in measured.cells if each.equal_to_qlib == each.cells]
    if len(exact) == len(measured.cells):
        return f"{title}\nAll {len(exact)} features have Qlib's bits in every cell."
    header = (
        "feature",
        "bits of Qlib",
        "largest difference",
        "relative",
        "Qlib from reference",
        "engine from reference",
        "NaN differs",
    )
    return f"{title}\n\n" + _table(header, [_feature_row(each) for each in measured.cells])


def _feature_row(each: CellParity) -> list[str]:
    return [
        each.name,
        _share(each.equal_to_qlib, each.cells),
        _deviation(each.largest_absolute),
        _deviation(each.largest),
        _deviation(each.qlib_from_reference),
        _deviation(each.ours_from_reference),
        str(each.nan_differs),
    ]


def _share(part: int, whole: int) -> str:
    if part == whole:
        return "all"
    return f"{min(100 * part / whole, 99.9999):.4f} %"


def _deviation(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _bars(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.parity.page", description="Print the page of parity.")
    parser.add_argument("--bars", type=_bars, action="append", help="NAME=FOLDER of raw bars; default the demo's")
    parser.add_argument("--output", type=Path, help="file of the page; default stdout")
    parser.add_argument("--kernels", type=int, default=2, help="processes that Qlib computes in")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Compare every feature, prediction and book with Qlib's own, and print the page; exit code 1 if bars are bad."""
    options = _arguments(words)
    try:
        measured = _measure(options.bars or [("demo bars", demo_file())], options.kernels)
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error
    page = parity_page(measured, {name: metadata.version(name) for name in LIBRARIES})
    if options.output is None:
        print(page, end="")  # noqa: T201 - the command's output
    else:
        options.output.write_text(page, encoding="utf-8")


def _measure(sources: Sequence[tuple[str, Path]], kernels: int) -> dict[str, SnapshotParity]:
    measured: dict[str, SnapshotParity] = {}
    # Progress goes to stderr, so that the page can be piped.
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("parity", total=None)
        for number, (name, source) in enumerate(sources):

            def report(stage: str, done: int, total: int, name: str = name) -> None:
                shown.update(task, completed=done, total=total, description=f"{name}: {stage}")

            data_dir = Path(folder) / str(number)
            import_bars(source, data_dir, run_date=RUN_DATE)
            measured[name] = measure(data_dir, kernels=kernels, progress=report)
    return measured


if __name__ == "__main__":
    main()
