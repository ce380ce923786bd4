"""`signal-worker report`: the tear sheet of a bundle as one HTML file."""

from contextlib import suppress
from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import DataDir, ExitCode, Json, print_json, refuse, settings_of
from worker.cli._tables import print_line

if TYPE_CHECKING:
    from strategies.analysis.tear_sheet.data import Scope, TearSheetData
    from strategies.market.bars import Panel
    from strategies.models.bundle import Bundle
    from worker.settings import Settings

#: Packages of the extra that draws and writes pages.
NEEDED = ("alphalens", "jinja2", "matplotlib")
#: What `--snapshot` calls the newest one.
LATEST = "latest"


def report(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, below the artifacts directory.")],
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="Default the bundle's test period.")
    ] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Included.")] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="Id, run date or `latest`; default that of the training.")
    ] = None,
    cost_bps: Annotated[
        float | None, typer.Option(min=0, max=1000, help="A unit of weight traded; default the bundle's, else 5.")
    ] = None,
    borrow_bps_a_year: Annotated[
        float | None,
        typer.Option(min=0, max=100_000, help="A unit of weight sold short; default the bundle's, else 0."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Default reports/<strategy>/<version>.html below the artifacts directory.")
    ] = None,
    data_dir: DataDir = None,
    artifacts_dir: Annotated[Path | None, typer.Option(help="Default SIGNALS_ARTIFACTS_DIR.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Write what a bundle is worth on sessions that it never saw, as a page that needs nothing else.

    JSON: strategy, version, snapshot_id, first, last, path, size_bytes, captions.

    Example: signal-worker report artifacts/models/alpha_baseline/v1
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        refuse(f"{', '.join(missing)} not installed: pip install 'signal-worker[reports]'", code=ExitCode.FAILED)
    start, end = _day(first), _day(last)
    if start and end and end < start:
        refuse(f"--to {end} is before --from {start}")

    from strategies.analysis.tear_sheet.data import Scope

    settings = settings_of(data_dir=data_dir, artifacts_dir=artifacts_dir)
    scope = Scope(first=start, last=end, cost_bps=cost_bps, borrow_bps_a_year=borrow_bps_a_year)
    data, page = _made(settings, bundle, snapshot, scope)
    target = output or settings.artifacts_dir / "reports" / data.manifest.strategy / f"{data.manifest.version}.html"
    _write(target, page)
    _print_summary(data, target, len(page), as_json=as_json)


def _made(settings: "Settings", folder: Path, snapshot: str | None, scope: "Scope") -> "tuple[TearSheetData, bytes]":
    from strategies.analysis.tear_sheet.data import tear_sheet_data
    from strategies.analysis.tear_sheet.page import render_page
    from strategies.errors import (
        BundleError,
        BundleNotFound,
        DataError,
        ExpressionError,
        SnapshotNotFound,
        StrategyError,
        TrainingError,
    )
    from worker.runtime import code_version

    try:
        bundle = _load(settings, folder)
        data = tear_sheet_data(bundle, _bars(settings, bundle, snapshot), scope, code_version=code_version())
        return data, render_page(data)
    except (BundleNotFound, SnapshotNotFound) as error:
        refuse(error, code=ExitCode.NOT_FOUND)
    except (BundleError, DataError, ExpressionError, StrategyError, TrainingError) as error:
        refuse(error, code=ExitCode.FAILED)


def _load(settings: "Settings", folder: Path) -> "Bundle":
    from strategies.errors import BundleError
    from strategies.models.bundle_store import load_bundle
    from worker.lifecycle.loader import artifact_path

    # As given from here, or as the registry would spell it.
    path = artifact_path(str(folder.absolute() if folder.exists() else folder), settings.artifacts_dir)
    if path.is_file():
        raise BundleError(f"{folder} is a file; a bare model names no training data, only a bundle does")
    return load_bundle(path)


def _bars(settings: "Settings", bundle: "Bundle", snapshot: str | None) -> "Panel":
    from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel

    trained_on = bundle.manifest.training.snapshot_id if bundle.manifest else ""
    if snapshot == LATEST:
        ref = latest_snapshot(settings.data_dir)
    else:
        ref = find_snapshot(settings.data_dir, snapshot or trained_on)
    return load_panel(ref, ref.open_calendar(), symbols=bundle.universe)


def _write(target: Path, page: bytes) -> None:
    from strategies.files import write_synced

    if target.is_dir():
        refuse(f"--output is the folder {target}, it must name a file")
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_synced(temporary, page)
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        refuse(f"{target} cannot be written: {error.strerror}", code=ExitCode.FAILED)


def _print_summary(data: "TearSheetData", target: Path, size_bytes: int, *, as_json: bool) -> None:
    from strategies.analysis.tear_sheet.captions import captions, main_segment

    period, sentences = main_segment(data).period, captions(data)
    strategy, version = data.manifest.strategy, data.manifest.version
    if as_json:
        facts = {"strategy": strategy, "version": version, "snapshot_id": data.snapshot_id}
        dates = {"first": period.first, "last": period.last}
        print_json({**facts, **dates, "path": target, "size_bytes": size_bytes, "captions": sentences})
        return
    print_line(f"{strategy} {version}, {period.first} to {period.last}")
    for name in ("ic", "cumulative"):
        print_line(sentences[name])
    print_line(f"{target} ({size_bytes / 1e6:.1f} MB)")


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None
