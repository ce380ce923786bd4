"""`signal-worker data`: import raw bars, list snapshots, check one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import DataDir, ExitCode, Json, VerbGroup, plain, print_json, refuse, settings_of
from worker.cli._tables import Column, print_line, print_table

if TYPE_CHECKING:
    from strategies.market.checking import CheckReport
    from strategies.market.importing import ImportOptions, ImportReport
    from strategies.market.snapshots import SnapshotRef

app = typer.Typer(cls=VerbGroup, help="Bars: import, list and check snapshots.", no_args_is_help=True)


@app.command("import")
def import_raw(
    source: Annotated[Path, typer.Argument(help="Folder with a CSV or Parquet file a symbol, or one table.")],
    data_dir: DataDir = None,
    run_date: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default today, at the exchange.")] = None,
    adjust: Annotated[str, typer.Option(help="auto, adj_close, factor or none.")] = "auto",
    max_move: Annotated[float, typer.Option(min=0.0, help="Largest believable move of a close, as a fraction.")] = 0.5,
    column: Annotated[list[str] | None, typer.Option(help="FIELD=NAME, where a name is not recognised.")] = None,
    confirm_move: Annotated[list[str] | None, typer.Option(help="SYMBOL:YYYY-MM-DD of a move known as real.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Turn raw daily bars into a snapshot; rows that cannot be true go to the quarantine.

    JSON: path, snapshot_id, run_date, created, adjustment, has_vwap, symbols, accepted, quarantined, reasons,
    quarantined_symbols, empty_symbols.

    Example: signal-worker data import bars.csv --run-date 2026-01-02
    """
    from strategies.market.importing import import_bars

    settings = settings_of(data_dir=data_dir)
    options = _options(settings.calendar, adjust, max_move, column or [], confirm_move or [])
    day = _day(run_date, "--run-date") if run_date else _today(settings.calendar)
    with _failures(), _progress(shown=not as_json) as progress:
        report = import_bars(source, settings.data_dir, run_date=day, options=options, progress=progress)
    if as_json:
        print_json(_import_fields(report))
    else:
        _print_import(report)


@app.command("list")
def list_all(data_dir: DataDir = None, *, as_json: Json = False) -> None:
    """List the complete snapshots, oldest first.

    JSON: a list of: run_date, snapshot_id, symbols, bars, first, last, quarantined, adjustment, vwap, calendar.

    Example: signal-worker data list --json
    """
    from strategies.market.snapshots import list_snapshots

    with _failures():
        rows = [_snapshot_fields(snapshot) for snapshot in list_snapshots(settings_of(data_dir=data_dir).data_dir)]
    if as_json:
        print_json(rows)
    else:
        _print_table([_shortened(row) for row in rows], "snapshots")


@app.command()
def check(
    data_dir: DataDir = None,
    snapshot: Annotated[str | None, typer.Option(help="Id, its first digits, or run date; default the latest.")] = None,
    as_of: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default the snapshot's last session.")] = None,
    lookback: Annotated[int, typer.Option(min=1, help="Bars a symbol needs.")] = 61,
    max_move: Annotated[float, typer.Option(min=0.0, help="Moves beyond it are suspicious, as a fraction.")] = 0.25,
    *,
    as_json: Json = False,
) -> None:
    """Show what is odd about a snapshot: stale symbols, missing sessions, jumps, zero volumes, short histories.

    JSON: snapshot_id, as_of, symbols, findings, quarantined.

    Example: signal-worker data check --as-of 2014-03-12
    """
    from strategies.market.calendar import SessionCalendar
    from strategies.market.checking import CheckBounds, check_snapshot
    from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel

    folder = settings_of(data_dir=data_dir).data_dir
    day = _day(as_of, "--as-of") if as_of else None
    with _failures():
        found = find_snapshot(folder, snapshot) if snapshot else latest_snapshot(folder)
        calendar = SessionCalendar(found.calendar)
        bounds = CheckBounds(lookback=lookback, max_move=max_move)
        report = check_snapshot(load_panel(found, calendar), calendar, as_of=day, bounds=bounds)
    if as_json:
        print_json(plain(report) | {"quarantined": dict(found.manifest.quarantined)})
    else:
        _print_check(report, found)


def _options(
    calendar: str, adjust: str, max_move: float, columns: list[str], confirmed_moves: list[str]
) -> "ImportOptions":
    from strategies.market.columns import ADJUSTMENTS
    from strategies.market.importing import ImportOptions
    from strategies.market.quarantine import Rules

    if adjust not in ADJUSTMENTS:
        refuse(f"--adjust was {adjust!r}, must be one of {', '.join(ADJUSTMENTS)}")
    pairs = [_pair(text, "=", "--column") for text in columns]
    moves = [_pair(text, ":", "--confirm-move") for text in confirmed_moves]
    confirmed = frozenset((symbol.upper(), _day(day, "--confirm-move")) for symbol, day in moves)
    rules = Rules(max_move=max_move, confirmed_moves=confirmed)
    return ImportOptions(calendar=calendar, adjustment=adjust, columns=dict(pairs), rules=rules)


def _pair(text: str, separator: str, option: str) -> tuple[str, str]:
    left, found, right = text.partition(separator)
    if not (left and found and right):
        refuse(f"{option} was {text!r}, must have a {separator} between two texts")
    return left, right


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        refuse(f"{option}: {text!r} is no date, must be YYYY-MM-DD")


def _today(calendar: str) -> date:
    from strategies.market.calendar import SessionCalendar

    with _failures():
        return SessionCalendar(calendar).local_date(datetime.now(UTC))


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the room's errors into one sentence and exit code 1."""
    from strategies.errors import DataError, StrategyError

    try:
        yield
    except (DataError, StrategyError) as error:
        refuse(error, code=ExitCode.FAILED)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}", code=ExitCode.FAILED)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int, str], None]]:
    from rich.console import Console
    from rich.progress import Progress

    # On stderr, so that what is printed can be piped; it leaves no trace once done, and none at all in a file.
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("import", total=None)
        yield lambda done, total, symbol: bar.update(task, completed=done, total=total, description=symbol)


def _import_fields(report: "ImportReport") -> dict[str, Any]:
    fields = {name: getattr(report, name) for name in report.__slots__}
    return fields | {"reasons": dict(report.reasons), "quarantined_symbols": dict(report.quarantined_symbols)}


def _snapshot_fields(snapshot: "SnapshotRef") -> dict[str, Any]:
    manifest = snapshot.manifest
    return {
        "run_date": manifest.run_date,
        "snapshot_id": manifest.snapshot_id,
        "symbols": len(manifest.files),
        "bars": manifest.rows,
        "first": manifest.first,
        "last": manifest.last,
        "quarantined": sum(manifest.quarantined.values()),
        "adjustment": manifest.adjustment,
        "vwap": manifest.has_vwap,
        "calendar": manifest.calendar,
    }


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    """Return what fits a line of 80 characters."""
    return {
        "run date": row["run_date"],
        "snapshot": row["snapshot_id"][:12],
        "symbols": row["symbols"],
        "sessions": f"{row['first']} {row['last']}",
        "quarantined": row["quarantined"],
    }


def _print_import(report: "ImportReport") -> None:
    state = "imported" if report.created else "unchanged, imported before"
    print_line(f"snapshot {report.snapshot_id[:12]} of {report.run_date}: {state}, {report.path}")
    print_line(
        f"{report.accepted} bars of {report.symbols} symbols, adjusted by {report.adjustment}, "
        f"{report.quarantined} rows in quarantine"
    )
    if report.empty_symbols:
        print_line(f"no row of these symbols could be a bar: {', '.join(report.empty_symbols)}")
    rows = [{"reason": reason, "rows": rows} for reason, rows in sorted(report.reasons.items())]
    if rows:
        _print_table(rows, "quarantine")


def _print_check(report: "CheckReport", snapshot: "SnapshotRef") -> None:
    names = ("kind", "symbol", "count", "detail")
    findings = [{name: getattr(finding, name) for name in names} for finding in report.findings]
    if findings:
        _print_table(findings, f"snapshot {report.snapshot_id[:12]} as of {report.as_of}")
    counts = ", ".join(f"{kind} {count}" for kind, count in report.counts().items())
    print_line(f"{report.symbols} symbols; symbols a kind: {counts or 'nothing is odd'}")
    print_line(f"{sum(snapshot.manifest.quarantined.values())} rows in quarantine")


def _print_table(rows: list[dict[str, Any]], title: str) -> None:
    if not rows:
        print_line(f"{title}: none")
        return
    columns = [Column(name, text=name in {"detail", "reason"}) for name in rows[0]]
    cells = ([str(row[name]).replace("_", " ") if name == "kind" else row[name] for name in row] for row in rows)
    print_table(columns, list(cells), title=title)
