"""`signal-worker data`: import raw bars, list snapshots, check one; the daily round is in `data_daily`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._bars import (
    MANY,
    day_of,
    failures,
    fields_of,
    options_of,
    pair_of,
    print_records,
    rules_of,
)
from worker.cli._common import DataDir, ExitCode, Json, VerbGroup, plain, print_json, settings_of
from worker.cli._tables import print_line
from worker.cli.data_daily import append, correct, diff

if TYPE_CHECKING:
    from strategies.market.checking import CheckReport
    from strategies.market.importing import ImportReport
    from strategies.market.snapshots import SnapshotRef

app = typer.Typer(cls=VerbGroup, help="Bars: import, list and check snapshots.", no_args_is_help=True)

Calendar = Annotated[
    str | None, typer.Option(help="Exchange code, or a file below calendars/; default SIGNALS_CALENDAR.")
]
for verb in (append, correct, diff):
    app.command()(verb)


@app.command("import")
def import_raw(
    source: Annotated[Path, typer.Argument(help="Folder of files, one table, or Qlib's binary directory.")],
    data_dir: DataDir = None,
    run_date: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default today, at the exchange.")] = None,
    calendar: Calendar = None,
    like: Annotated[
        str, typer.Option(help="A vendor's recipe (docs/data.md); auto: recognised by the heading.")
    ] = "auto",
    adjust: Annotated[str, typer.Option(help="auto, adj_close, factor, actions, adjusted or none.")] = "auto",
    max_move: Annotated[float, typer.Option(min=0.0, help="Largest believable move of a close, as a fraction.")] = 0.5,
    limit: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of a rule's limit (docs/data.md).")] = None,
    column: Annotated[list[str] | None, typer.Option(help="FIELD=NAME, where a name is not recognised.")] = None,
    confirm_move: Annotated[list[str] | None, typer.Option(help="SYMBOL:YYYY-MM-DD of a move known as real.")] = None,
    confirm_session: Annotated[list[str] | None, typer.Option(help="YYYY-MM-DD on which all prices did move.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="SYMBOL=YYYY-MM-DD:RATIO, new shares for one old.")] = None,
    symbols: Annotated[Path | None, typer.Option(help="CSV symbol,first,last,name: renames, re-used tickers.")] = None,
    calendar_from_data: Annotated[str | None, typer.Option(help="Make calendars/NAME.yaml of the bars' dates.")] = None,
    zone: Annotated[str, typer.Option(help="Zone of a calendar made of the dates.")] = "UTC",
    close: Annotated[str, typer.Option(help="Local close, HH:MM, of a calendar made of the dates.")] = "23:59",
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
    judged = rules_of(max_move, [*settings.bar_limits, *(limit or [])], confirm_move or [], confirm_session or [])
    with failures(), _progress(shown=not as_json) as progress:
        if calendar_from_data:
            calendar = _made_calendar(source, settings.data_dir, calendar_from_data, zone, close, column or [])
        options = options_of(
            calendar or settings.calendar,
            adjust,
            column or [],
            judged,
            split or [],
            like=like,
            settle_minutes=settings.settle_minutes,
            symbols=symbols,
        )
        day = day_of(run_date, "--run-date") if run_date else _today(options.calendar, settings.data_dir)
        now = datetime.now(UTC)
        report = import_bars(source, settings.data_dir, run_date=day, options=options, now=now, progress=progress)
    if as_json:
        print_json(fields_of(report))
    else:
        _print_import(report)


@app.command("list")
def list_all(data_dir: DataDir = None, *, as_json: Json = False) -> None:
    """List the complete snapshots, oldest first.

    JSON: a list of: run_date, revision, snapshot_id, symbols, bars, first, last, quarantined, adjustment, vwap,
    calendar, served.

    Example: signal-worker data list --json
    """
    from strategies.market.snapshots import list_snapshots

    with failures():
        rows = [_snapshot_fields(snapshot) for snapshot in list_snapshots(settings_of(data_dir=data_dir).data_dir)]
    if as_json:
        print_json(rows)
    else:
        print_records([_shortened(row) for row in rows], "snapshots")


@app.command()
def check(
    data_dir: DataDir = None,
    snapshot: Annotated[str | None, typer.Option(help="Id, its first digits, or run date; default the latest.")] = None,
    as_of: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default the snapshot's last session.")] = None,
    lookback: Annotated[int, typer.Option(min=1, help="Bars a symbol needs.")] = 61,
    max_move: Annotated[float, typer.Option(min=0.0, help="Moves beyond it are suspicious, as a fraction.")] = 0.25,
    *,
    held_back: Annotated[bool, typer.Option("--held-back", help="List every row that is held back, too.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is odd about a snapshot, and whether it is served: stale symbols, missing sessions, jumps.

    JSON: snapshot_id, as_of, symbols, findings, quarantined, checks, served, unsettled; with --held-back held_back.

    Example: signal-worker data check --as-of 2014-03-12
    """
    from strategies.market.checking import CheckBounds, check_snapshot
    from strategies.market.differences import held_back as held_rows
    from strategies.market.rules import limited, with_limits
    from strategies.market.snapshots import check_results, find_snapshot, latest_snapshot, load_panel

    settings = settings_of(data_dir=data_dir)
    folder, limits = settings.data_dir, limited(settings.bar_limits)
    day = day_of(as_of, "--as-of") if as_of else None
    with failures():
        found = find_snapshot(folder, snapshot) if snapshot else latest_snapshot(folder)
        calendar = found.open_calendar()
        bounds = CheckBounds(lookback=lookback, max_move=max_move)
        panel = load_panel(found, calendar)
        report = check_snapshot(panel, calendar, as_of=day, bounds=bounds)
        results = check_results(found, panel, with_limits(limits), given=limits)
        rows = held_rows(folder, found) if held_back else []
    failed = {name: result.detail for name, result in results.items() if not result.passed}
    if as_json:
        stated = {"checks": {name: plain(result) for name, result in results.items()}, "served": not failed}
        listed = {"held_back": plain(rows)} if held_back else {}
        settle = {"unsettled": plain(dict(found.manifest.unsettled)), "quarantined": dict(found.manifest.quarantined)}
        print_json(plain(report) | settle | stated | listed)
    else:
        _print_check(report, found)
        _print_held(found, rows)
        for name, detail in failed.items():
            print_line(f"NOT SERVED: {name}: {detail}")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


@app.command("rules")
def print_rules(
    *,
    markdown: Annotated[bool, typer.Option(help="Print the tables of docs/data.md.")] = False,
    as_json: Json = False,
) -> None:
    """Show every rule of bars with its limit and what becomes of what fails it, and the vendors that are recognised.

    JSON: rules, vendors.

    Example: signal-worker data rules
    """
    from strategies.market.rules import RULES, rules_page
    from strategies.market.vendors import VENDORS, vendors_page

    rows = [
        {"rule": rule.name, "detail": rule.compares, "limit": rule.default(), "becomes": rule.becomes} for rule in RULES
    ]
    if markdown:
        typer.echo(f"{rules_page()}\n## Vendors\n\n{vendors_page()}", nl=False)
    elif as_json:
        print_json({"rules": rows, "vendors": [vendor.name for vendor in VENDORS]})
    else:
        print_records(rows, "rules")


def _made_calendar(source: Path, data_dir: Path, name: str, zone: str, close: str, columns: list[str]) -> str:
    """Write `calendars/<name>.yaml` of the dates of a source and return the name."""
    import numpy as np

    from strategies.market.calendar_files import definition_of_dates, write_definition
    from strategies.market.raw_bars import open_source

    raw = open_source(source, dict(pair_of(text, "=", "--column") for text in columns), "none")
    dates = np.unique(np.concatenate([raw.read(symbol).dates for symbol in raw.symbols]))
    path = write_definition(data_dir, definition_of_dates(name, dates, zone=zone, close=close))
    typer.echo(f"calendar {name} made of {len(dates)} dates: {path}", err=True)
    return name


def _today(calendar: str, data_dir: Path) -> date:
    from strategies.market.calendar_files import open_calendar

    return open_calendar(calendar, data_dir).local_date(datetime.now(UTC))


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int, str], None]]:
    from rich.console import Console
    from rich.progress import Progress

    # On stderr, so that what is printed can be piped; it leaves no trace once done, and none at all in a file.
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("import", total=None)
        yield lambda done, total, symbol: bar.update(task, completed=done, total=total, description=symbol)


def _snapshot_fields(snapshot: "SnapshotRef") -> dict[str, Any]:
    manifest = snapshot.manifest
    return {
        "run_date": manifest.run_date,
        "revision": manifest.revision,
        "snapshot_id": manifest.snapshot_id,
        "symbols": len(manifest.files),
        "bars": manifest.rows,
        "first": manifest.first,
        "last": manifest.last,
        "quarantined": sum(manifest.quarantined.values()),
        "adjustment": manifest.adjustment,
        "vwap": manifest.has_vwap,
        "calendar": manifest.calendar,
        "served": not manifest.failed,
    }


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    """Return what fits a line of 80 characters."""
    return {
        "run date": f"{row['run_date']}{'' if row['revision'] == 1 else '.' + str(row['revision'])}",
        "snapshot": row["snapshot_id"][:12],
        "symbols": row["symbols"],
        "sessions": f"{row['first']} {row['last']}",
        "quarantined": row["quarantined"],
    }


def _print_import(report: "ImportReport") -> None:
    state = "imported" if report.created else "unchanged, imported before"
    revision = f", revision {report.revision}" if report.revision > 1 else ""
    print_line(f"snapshot {report.snapshot_id[:12]} of {report.run_date}{revision}: {state}, {report.path}")
    print_line(
        f"{report.accepted} bars of {report.symbols} symbols, adjusted by {report.adjustment}, "
        f"{report.quarantined} rows in quarantine"
    )
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(report.verdicts.items()))
    print_line(f"read as {report.vendor}; symbols: {verdicts}")
    for remark in report.remarks:
        print_line(f"remark: {remark}")
    if report.empty_symbols:
        print_line(f"no row of these symbols could be a bar: {', '.join(report.empty_symbols)}")
    for place, reason in list(report.refused.items())[:MANY]:
        print_line(f"held back: {place}: {reason}")
    for symbol, days in list(report.unsettled.items())[:MANY]:
        print_line(f"held back: {symbol} since {days[-1]}, a step that looks like a split: --split or --confirm-move")
    rows = [{"reason": reason, "rows": rows} for reason, rows in sorted(report.reasons.items())]
    if rows:
        print_records(rows, "quarantine")
    for name, detail in report.failed.items():
        print_line(f"NOT SERVED: {name}: {detail}")


def _print_held(snapshot: "SnapshotRef", rows: list[dict[str, Any]]) -> None:
    for symbol, days in snapshot.manifest.unsettled.items():
        print_line(f"{symbol} has an unsettled step on {', '.join(map(str, days))}: --split or --confirm-move")
    names = ("symbol", "date", "reason", "file", "row", "column", "value")
    if rows:
        print_records([{name: "" if row[name] is None else row[name] for name in names} for row in rows], "held back")


def _print_check(report: "CheckReport", snapshot: "SnapshotRef") -> None:
    names = ("kind", "symbol", "count", "detail")
    findings = [{name: getattr(finding, name) for name in names} for finding in report.findings]
    if findings:
        print_records(findings, f"snapshot {report.snapshot_id[:12]} as of {report.as_of}")
    counts = ", ".join(f"{kind} {count}" for kind, count in report.counts().items())
    print_line(f"{report.symbols} symbols; symbols a kind: {counts or 'nothing is odd'}")
    print_line(f"{sum(snapshot.manifest.quarantined.values())} rows in quarantine")
