"""`signal-worker models drift`: how far recent bars are from those a version was trained on.

Exit codes: 3 an unknown version or nothing active, 5 the prediction drifted further than `--fail-above`.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import ExitCode, Json, plain, print_json, refuse, settings_of
from worker.cli._registry import registry
from worker.cli._tables import Column, print_line, print_table, right

if TYPE_CHECKING:
    from strategies.analysis.drift import ColumnDrift, DriftReport
    from strategies.market.bars import Panel
    from strategies.models.bundle import Bundle
    from worker.registry.models import ModelRef
    from worker.settings import Settings


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
    as_json: Json = False,
) -> None:
    """Show the drift of the prediction and of each feature against the version's training rows.

    JSON: strategy, version, bundle_sha256, snapshot_id, first, last, sessions, symbols, rows, prediction, chance_psi,
    features.

    Example: signal-worker models drift alpha_baseline --fail-above 0.25
    """
    settings = settings_of()
    report = _measured(settings, _ref(strategy, version), snapshot, sessions)
    if as_json:
        print_json(_as_json(report))
    else:
        _show(report, top)
    if fail_above is not None and report.prediction.psi > fail_above:
        raise typer.Exit(ExitCode.CRITERION)


def _ref(strategy: str, version: str | None) -> "ModelRef":
    """Return the version as it is registered."""
    with registry(strategy, version) as models:
        if version is None:
            active = models.active(strategy)
            if active is None:
                refuse(f"strategy {strategy} has no active version; name one", code=ExitCode.NOT_FOUND)
            return active.ref
        return models.show(strategy, version).ref


def _measured(settings: "Settings", ref: "ModelRef", snapshot: str | None, sessions: int) -> "DriftReport":
    from strategies.analysis.drift import measure_drift
    from strategies.errors import BundleError, DataError, ExpressionError

    try:
        report = measure_drift(_bundle(settings, ref), _panel(settings, snapshot), sessions)
    except (BundleError, DataError, ExpressionError) as error:
        refuse(error, code=ExitCode.FAILED)
    if report is None:
        raise AssertionError("measure_drift returned no report though nothing stops it")
    return report


def _bundle(settings: "Settings", ref: "ModelRef") -> "Bundle":
    from worker.lifecycle.loader import prove

    return prove(ref, settings.artifacts_dir, allow_unproven=True)


def _panel(settings: "Settings", name: str | None) -> "Panel":
    from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel

    found = find_snapshot(settings.data_dir, name) if name else latest_snapshot(settings.data_dir)
    return load_panel(found, found.open_calendar())


def _as_json(report: "DriftReport") -> dict[str, Any]:
    columns = [plain(one) | {"level": one.level.value} for one in (report.prediction, *report.features)]
    fields: dict[str, Any] = plain(report)
    return fields | {"prediction": columns[0], "features": columns[1:]}


def _show(report: "DriftReport", top: int) -> None:
    from strategies.analysis.drift import MAJOR_PSI, MODERATE_PSI

    print_line(
        f"{report.strategy} {report.version} against its training rows: {report.rows} rows of {report.symbols} "
        f"symbols, {report.sessions} sessions from {report.first} to {report.last}, snapshot {report.snapshot_id[:12]}"
    )
    columns: list[Column | str] = ["column", *right("PSI"), "level", *right("KS", "missing", "in training")]
    print_table(columns, [_cells(one) for one in (report.prediction, *report.features[:top])])
    if report.chance_psi is not None:
        more = "more than" if report.prediction.psi >= report.chance_psi else "within what"
        print_line(
            f"prediction: {more} chance gives; of stretches of its training period this long, 99 of 100 have a PSI "
            f"below {report.chance_psi:.3f}"
        )
    print_line(
        f"{report.above(MAJOR_PSI)} of {len(report.features)} features are major (PSI from {MAJOR_PSI}), "
        f"{report.above(MODERATE_PSI) - report.above(MAJOR_PSI)} moderate (from {MODERATE_PSI})"
    )


def _cells(one: "ColumnDrift") -> tuple[str | None, ...]:
    ks = None if one.ks is None else f"{one.ks:.3f}"
    return one.name, f"{one.psi:.3f}", one.level.value, ks, f"{one.missing:.2%}", f"{one.reference_missing:.2%}"
