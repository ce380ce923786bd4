"""`python -m tests.benchmarks`: measure this machine and print the page of it.

Exit codes: 0 done, 1 failed, 2 wrong call.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from strategies.errors import DataError
from tests.benchmarks.children import ChildFailed
from tests.benchmarks.engine import THREADS, engine_figures, find_rivals, loading_figure
from tests.benchmarks.figures import Figure
from tests.benchmarks.growth import draw, sweep_all
from tests.benchmarks.imports import import_figures
from tests.benchmarks.install import install_figures, start_figure
from tests.benchmarks.latency import latency_figures
from tests.benchmarks.machine import describe_machine, load_average
from tests.benchmarks.material import panel_of, prepare_snapshot
from tests.benchmarks.page import benchmark_page
from tests.benchmarks.recovery import recovery_figures
from worker.cli._common import ExitCode, refuse

#: As many symbols and sessions as a snapshot may hold: five years.
MANY_SYMBOLS, MANY_SESSIONS = 5000, 1260


def bench(
    bars: Annotated[Path | None, typer.Option(help="Folder of raw bars; default: bars that are generated.")] = None,
    output: Annotated[Path | None, typer.Option(help="The page; its plot is put beside it. Default stdout.")] = None,
    *,
    qlib: Annotated[bool, typer.Option(help="Measure Qlib too, which takes minutes.")] = True,
    worker: Annotated[bool, typer.Option(help="Measure a real worker on embedded servers.")] = True,
    growth: Annotated[bool, typer.Option(help="Measure how cost grows.")] = True,
    loading: Annotated[
        bool, typer.Option(help="Measure importing, appending to and loading 5,000 symbols, which are generated first.")
    ] = True,
    backlog: Annotated[int, typer.Option(min=0, help="Requests of a backlog that a worker works through.")] = 100_000,
    install: Annotated[bool, typer.Option(help="Install without extras into a fresh environment.")] = False,
) -> None:
    """Measure features, memory, starts and a real worker, beside Qlib and KunQuant."""
    before = load_average()
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            what = prepare_snapshot(bars, place / "data")
            figures = list(_figures(place, qlib=qlib, worker=worker, loading=loading, install=install, backlog=backlog))
            sweeps = sweep_all(panel_of(place / "data"), threads=THREADS) if growth else ()
    except (ChildFailed, DataError) as error:
        refuse(error, code=ExitCode.FAILED)
    load = f"{before:.1f} at the start, {load_average():.1f} at the end"
    facts = describe_machine() | {"bars": what, "load average over a minute": load}
    plot = f"{output.stem}-growth.png" if output else "benchmarks-growth.png"
    page = benchmark_page(facts, figures, sweeps, plot)
    if output is None:
        typer.echo(page, nl=False)
        return
    output.write_text(page, encoding="utf-8")
    if sweeps:
        output.with_name(plot).write_bytes(draw(sweeps))


def _figures(place: Path, *, qlib: bool, worker: bool, loading: bool, install: bool, backlog: int) -> Iterator[Figure]:
    data_dir = place / "data"
    yield from _reported(engine_figures(data_dir, place, find_rivals(qlib=qlib)))
    if loading:
        yield from _reported(_loading(place / "many"))
    yield from _reported(install_figures() if install else iter([start_figure()]))
    if worker:
        yield from _reported(latency_figures(data_dir, panel_of(data_dir).symbols, backlog=backlog))
        yield from _reported(recovery_figures())


def _reported(figures: Iterator[Figure]) -> Iterator[Figure]:
    """Print each figure on stderr as soon as it is measured: the whole takes minutes."""
    for figure in figures:
        typer.echo(f"{figure.work}: {figure.value} {figure.qlib} {figure.kunquant}".rstrip(), err=True)
        yield figure


def _loading(place: Path) -> Iterator[Figure]:
    place.mkdir()
    yield from import_figures(place, MANY_SYMBOLS, MANY_SESSIONS)
    yield loading_figure(place / "data", MANY_SYMBOLS, MANY_SESSIONS)


if __name__ == "__main__":
    typer.run(bench)
