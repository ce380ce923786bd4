"""`signal-worker data append|correct|diff`: the daily round on top of a snapshot."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._bars import (
    MANY,
    day_of,
    event_of,
    failures,
    fields_of,
    options_of,
    pair_of,
    print_records,
    rules_of,
    split_of,
    symbol_of,
)
from worker.cli._common import DataDir, Json, plain, print_json, refuse, settings_of
from worker.cli._tables import print_line

if TYPE_CHECKING:
    from strategies.market.derived import DerivedReport


def append(
    source: Annotated[Path, typer.Argument(help="Bars of one session or a few: a file of many symbols, or a folder.")],
    data_dir: DataDir = None,
    run_date: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default today, at the exchange.")] = None,
    like: Annotated[
        str, typer.Option(help="A vendor's recipe (docs/data.md); auto: recognised by the heading.")
    ] = "auto",
    adjust: Annotated[str, typer.Option(help="auto, adj_close, factor, actions, adjusted or none.")] = "auto",
    max_move: Annotated[float, typer.Option(min=0.0, help="Largest believable move of a close, as a fraction.")] = 0.5,
    limit: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of a rule's limit (docs/data.md).")] = None,
    column: Annotated[list[str] | None, typer.Option(help="FIELD=NAME, where a name is not recognised.")] = None,
    confirm_move: Annotated[list[str] | None, typer.Option(help="SYMBOL:YYYY-MM-DD of a move known as real.")] = None,
    confirm_session: Annotated[list[str] | None, typer.Option(help="YYYY-MM-DD on which all prices did move.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="SYMBOL=YYYY-MM-DD:RATIO of a new session.")] = None,
    symbols: Annotated[Path | None, typer.Option(help="CSV symbol,first,last,name: renames, re-used tickers.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Add a session or a few to the latest snapshot; its files are shared and its history is not read again.

    JSON: path, snapshot_id, parent, run_date, revision, created, bars, symbols, restated, first, last, unchanged,
    quarantined, reasons, refused, failed, served.

    Example: signal-worker data append today.csv
    """
    from strategies.market.appending import append_bars

    settings = settings_of(data_dir=data_dir)
    with failures():
        options = options_of(
            settings.calendar,
            adjust,
            column or [],
            rules_of(max_move, [*settings.bar_limits, *(limit or [])], confirm_move or [], confirm_session or []),
            split or [],
            like=like,
            settle_minutes=settings.settle_minutes,
            symbols=symbols,
        )
        day = _run_day(run_date, settings.data_dir)
        report = append_bars(source, settings.data_dir, run_date=day, options=options, now=datetime.now(UTC))
    _print_derived(report, "appended", as_json=as_json)


def correct(
    source: Annotated[Path | None, typer.Argument(help="Bars that take the place of those of their date.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the lineage.")] = "",
    data_dir: DataDir = None,
    run_date: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default today, at the exchange.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="SYMBOL=YYYY-MM-DD:RATIO, new shares for one old.")] = None,
    dividend: Annotated[
        list[str] | None, typer.Option(help="SYMBOL=YYYY-MM-DD:CASH of one share; 0 removes it.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="SYMBOL:YYYY-MM-DD of a bar to remove.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="FIELD=NAME, where a name is not recognised.")] = None,
    confirm_move: Annotated[list[str] | None, typer.Option(help="SYMBOL:YYYY-MM-DD of a move known as real.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Replace bars of the latest snapshot, or apply or replace a split or a dividend, with a reason.

    JSON: path, snapshot_id, parent, run_date, revision, created, bars, symbols, restated, first, last, unchanged,
    quarantined, reasons, refused, failed, served.

    Example: signal-worker data correct --split AAPL=2014-06-09:7 --reason "forgotten by the vendor"
    """
    from strategies.market.correcting import Correction, correct_bars

    settings = settings_of(data_dir=data_dir)
    if not reason.strip():
        refuse("--reason is needed: it is kept with the corrected bars")
    if source is None and not (split or dividend or drop):
        refuse("nothing to correct: give a file of bars, --split, --dividend or --drop")
    with failures():
        options = options_of(
            settings.calendar,
            "none",
            column or [],
            rules_of(0.5, [], confirm_move or [], []),
            [],
            like="auto",
            settle_minutes=settings.settle_minutes,
            symbols=None,
        )
        drops = [pair_of(text, ":", "--drop") for text in drop or []]
        correction = Correction(
            reason=reason,
            source=source,
            splits=tuple(split_of(text) for text in split or []),
            dividends=tuple(event_of(text, "--dividend") for text in dividend or []),
            drops=tuple((symbol_of(symbol), day_of(day, "--drop")) for symbol, day in drops),
            options=options,
        )
        report = correct_bars(settings.data_dir, correction, run_date=_run_day(run_date, settings.data_dir))
    _print_derived(report, "corrected", as_json=as_json)


def diff(
    first: Annotated[str, typer.Argument(help="Id, its first digits, or run date.")],
    second: Annotated[str, typer.Argument(help="Id, its first digits, or run date.")],
    data_dir: DataDir = None,
    *,
    as_json: Json = False,
) -> None:
    """Show which bars differ between two snapshots, and by which steps the second came from the first.

    JSON: first_id, second_id, symbols, same, steps, derived.

    Example: signal-worker data diff 2026-01-02 2026-01-05
    """
    from strategies.market.differences import differences
    from strategies.market.snapshots import find_snapshot

    folder = settings_of(data_dir=data_dir).data_dir
    with failures():
        found = differences(folder, find_snapshot(folder, first), find_snapshot(folder, second))
    if as_json:
        print_json(plain(found))
        return
    for step in found.steps:
        reason = f", {step['reason']}" if step.get("reason") else ""
        print_line(
            f"{step['run_date']} {str(step['snapshot'])[:12]} {step['kind']} of {str(step['parent'])[:12]}{reason}"
        )
    rows = [plain(one) | {"largest": f"{one.largest:.2%}"} for one in found.symbols]
    if rows:
        print_records(rows[: MANY * 5], f"{found.first_id[:12]} to {found.second_id[:12]}")
    print_line(f"{len(found.symbols)} symbols differ, {found.same} are the same")


def _run_day(run_date: str | None, data_dir: Path) -> date:
    from strategies.market.snapshots import latest_snapshot

    if run_date:
        return day_of(run_date, "--run-date")
    return latest_snapshot(data_dir).open_calendar().local_date(datetime.now(UTC))


def _print_derived(report: "DerivedReport", done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(fields_of(report))
        return
    revision = f", revision {report.revision}" if report.revision > 1 else ""
    state = done if report.created else "unchanged"
    print_line(f"snapshot {report.snapshot_id[:12]} of {report.run_date}{revision}: {state} on {report.parent[:12]}")
    print_line(
        f"{report.bars} bars added, {report.symbols} symbols touched, {report.unchanged} rows were there already, "
        f"{report.quarantined} rows in quarantine"
    )
    if report.restated:
        print_line(f"history restated: {', '.join(report.restated[:MANY])}")
    for place, reason in list(report.refused.items())[:MANY]:
        print_line(f"held back: {place}: {reason}")
    if report.reasons:
        print_records([{"reason": name, "rows": rows} for name, rows in sorted(report.reasons.items())], "quarantine")
    for name, detail in report.failed.items():
        print_line(f"NOT SERVED: {name}: {detail}")
