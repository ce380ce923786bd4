"""`signal-worker models drift`: how far recent bars are from those a version was trained on.

Exit codes: 0 measured, 1 failed, 2 wrong call, 3 unknown version or nothing active, 5 the prediction drifted further
than `--fail-above`.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import refuse, settings_of
from worker.cli._registry import FAILED, NOT_FOUND, registry

if TYPE_CHECKING:
    from rich.table import Table

    from strategies.analysis.drift import ColumnDrift, DriftReport
    from strategies.market.bars import Panel
    from strategies.models.bundle import Bundle
    from worker.registry.models import ModelRef
    from worker.settings import Settings

DRIFTED = 5


def drift(
    strategy: Annotated[str, typer.Argument(help="Name of the strategy.")],
    version: Annotated[str | None, typer.Argument(help="Version of the strategy; the active one by default.")] = None,
    sessions: Annotated[int, typer.Option(min=1, max=10_000, help="Last sessions that are compared.")] = 20,
    snapshot: Annotated[str | None, typer.Option(help="Id or run date of a snapshot; the latest by default.")] = None,
    top: Annotated[int, typer.Option(min=0, help="Features shown, highest PSI first; JSON has all.")] = 20,
    fail_above: Annotated[
        float | None, typer.Option(min=0.0, help="End with exit code 5 if the prediction's PSI is higher.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the drift of the prediction and of each feature against the version's training rows."""
    settings = settings_of()
    report = _measured(settings, _ref(strategy, version), snapshot, sessions)
    if as_json:
        typer.echo(json.dumps(_as_json(report), indent=2, default=str))
    else:
        _show(report, top)
    if fail_above is not None and report.prediction.psi > fail_above:
        raise typer.Exit(DRIFTED)


def _ref(strategy: str, version: str | None) -> "ModelRef":
    """Return the version as it is registered."""
    with registry() as models:
        if version is None:
            active = models.active(strategy)
            if active is None:
                refuse(f"strategy {strategy} has no active version; name one", code=NOT_FOUND)
            return active.ref
        return models.show(strategy, version).ref


def _measured(settings: "Settings", ref: "ModelRef", snapshot: str | None, sessions: int) -> "DriftReport":
    from strategies.analysis.drift import measure_drift
    from strategies.errors import BundleError, DataError, ExpressionError

    try:
        report = measure_drift(_bundle(settings, ref), _panel(settings, snapshot), sessions)
    except (BundleError, DataError, ExpressionError) as error:
        refuse(error, code=FAILED)
    if report is None:
        raise AssertionError("measure_drift returned no report though nothing stops it")
    return report


def _bundle(settings: "Settings", ref: "ModelRef") -> "Bundle":
    from worker.lifecycle.loader import prove

    return prove(ref, settings.artifacts_dir, allow_unproven=True)


def _panel(settings: "Settings", name: str | None) -> "Panel":
    from strategies.market.calendar import SessionCalendar
    from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel

    found = find_snapshot(settings.data_dir, name) if name else latest_snapshot(settings.data_dir)
    return load_panel(found, SessionCalendar(found.calendar))


def _as_json(report: "DriftReport") -> dict[str, Any]:
    return {
        **asdict(report),
        "prediction": _column(report.prediction),
        "features": [_column(one) for one in report.features],
    }


def _column(one: "ColumnDrift") -> dict[str, Any]:
    return {**asdict(one), "level": one.level.value}


def _show(report: "DriftReport", top: int) -> None:
    from rich.console import Console

    from strategies.analysis.drift import MAJOR_PSI, MODERATE_PSI

    console = Console()
    console.print(
        f"{report.strategy} {report.version} against its training rows: {report.rows} rows of {report.symbols} "
        f"symbols, {report.sessions} sessions from {report.first} to {report.last}, snapshot {report.snapshot_id[:12]}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_table((report.prediction, *report.features[:top])))
    console.print(
        f"{report.above(MAJOR_PSI)} of {len(report.features)} features are major (PSI from {MAJOR_PSI}), "
        f"{report.above(MODERATE_PSI) - report.above(MAJOR_PSI)} moderate (from {MODERATE_PSI})",
        highlight=False,
        soft_wrap=True,
    )


def _table(columns: "tuple[ColumnDrift, ...]") -> "Table":
    from rich.table import Table

    table = Table("column")
    for name in ("PSI", "level", "KS", "missing", "in training"):
        table.add_column(name, justify="left" if name == "level" else "right")
    for one in columns:
        ks = "-" if one.ks is None else f"{one.ks:.3f}"
        table.add_row(
            one.name, f"{one.psi:.3f}", one.level.value, ks, f"{one.missing:.2%}", f"{one.reference_missing:.2%}"
        )
    return table
