"""`signal-worker models package`: a model that others trained becomes a bundle that proves itself.

Exit codes: 1 no model, damaged, or its columns are no features, 2 wrong call, 3 no such file or snapshot.
"""

import shlex
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import DataDir, ExitCode, Json, print_json, refuse, settings_of, warn
from worker.cli._tables import print_line

if TYPE_CHECKING:
    from strategies.expressions.feature_sets import FeatureSet, VwapStandIn
    from strategies.market.bars import Panel
    from strategies.models.bundle import Bundle
    from strategies.models.packaging import Packaged
    from worker.settings import Settings


class Processor(StrEnum):
    """How labels were transformed within each session before training."""

    NONE = "none"
    CS_ZSCORE = "cs_zscore"
    CS_RANK = "cs_rank"


class StandIn(StrEnum):
    """What `$vwap` is computed from."""

    NONE = "none"
    TYPICAL_PRICE = "typical_price"
    CLOSE = "close"


def package(
    model: Annotated[
        str, typer.Argument(help="LightGBM's text (gzip too), a folder of MLflow's LightGBM flavour, or an MLflow URI.")
    ],
    feature_set: Annotated[
        str, typer.Option(help="alpha158, alpha360 or the file of one's own: its columns are some of these.")
    ] = "alpha158",
    snapshot: Annotated[
        str | None, typer.Option(help="Id or run date of the bars of its golden sample; the latest by default.")
    ] = None,
    strategy: Annotated[str, typer.Option(help="Name of the strategy.")] = "alpha_baseline",
    version: Annotated[str | None, typer.Option(help="Of the bundle; by default the next free v<N>.")] = None,
    label: Annotated[
        str | None, typer.Option(help="What it was trained to predict, e.g. 'Ref($close, -2)/Ref($close, -1) - 1'.")
    ] = None,
    horizon: Annotated[str | None, typer.Option(help="The label's in words, where it is no return.")] = None,
    label_processor: Annotated[Processor, typer.Option(help="How labels were transformed.")] = Processor.NONE,
    trained_until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last session whose bars its training read.")
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="YAML file: column to feature, or the features in the order of the columns.")
    ] = None,
    universe: Annotated[
        str | None, typer.Option(help="Its symbols, AAPL,MSFT; by default all of the snapshot.")
    ] = None,
    top_n: Annotated[int, typer.Option(min=0, help="Symbols bought at most.")] = 3,
    bottom_n: Annotated[int, typer.Option(min=0, help="Symbols sold short at most.")] = 3,
    vwap_stand_in: Annotated[
        StandIn | None, typer.Option(help="What replaces $vwap; none where the bars have one, else typical_price.")
    ] = None,
    data_dir: DataDir = None,
    artifacts_dir: Annotated[
        Path | None, typer.Option(help="Folder of bundles; default SIGNALS_ARTIFACTS_DIR.")
    ] = None,
    *,
    columns_in_order: Annotated[
        bool, typer.Option("--columns-in-order", help="State that the columns are the features in their order.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn a LightGBM model that was trained elsewhere into a bundle with a golden sample, proven here.

    Columns are matched by name, by --columns or by --columns-in-order. Features are raw, as the bars give them; a
    pickle is refused, since reading it would run its code.

    JSON: strategy, version, path, model_sha256, source_sha256, prediction_kind, horizon, columns, golden_rows, notes,
    register.

    Example: signal-worker models package model.txt --feature-set alpha158 --columns-in-order
    """
    from pydantic import ValidationError

    from strategies.errors import (
        BundleError,
        BundleNotFound,
        DataError,
        ExpressionError,
        SnapshotNotFound,
        StrategyError,
        TrainingError,
    )

    settings = settings_of(data_dir=data_dir, artifacts_dir=artifacts_dir)
    stated: dict[str, Any] = {
        "label": label,
        "horizon": horizon,
        "label_processor": label_processor.value,
        "trained_until": _day(trained_until),
        "universe": tuple(part.strip() for part in universe.split(",")) if universe else None,
        "columns_in_order": columns_in_order,
    }
    if columns is not None and columns_in_order:
        refuse("--columns and --columns-in-order state the same: give one of them")
    if not top_n and not bottom_n:
        refuse("--top-n and --bottom-n are both 0, at least one side must hold a symbol")
    choice = _Choice(feature_set, vwap_stand_in.value if vwap_stand_in else None, columns, (top_n, bottom_n))
    try:
        packaged, bundle, path = _package(settings, model, snapshot, (strategy, version), choice, stated)
    except (BundleNotFound, SnapshotNotFound) as error:
        refuse(error, code=ExitCode.NOT_FOUND)
    except (BundleError, DataError, ExpressionError, StrategyError, TrainingError) as error:
        refuse(error, code=ExitCode.FAILED)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        refuse(f"{'.'.join(map(str, first['loc']))} was {first['input']!r}: {first['msg']}")
    shown = _as_json(packaged, bundle, path)
    if as_json:
        print_json(shown)
    else:
        _show(shown)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is read from files before packaging."""

    feature_set: str
    vwap_stand_in: "VwapStandIn | None"
    columns: Path | None
    sides: tuple[int, int]


def _package(
    settings: "Settings",
    model: str,
    snapshot: str | None,
    name: tuple[str, str | None],
    choice: _Choice,
    stated: dict[str, Any],
) -> "tuple[Packaged, Bundle, Path]":
    """Return what was packaged, the bundle as it was loaded back, and its folder."""
    from strategies.construction import Construction
    from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel
    from strategies.models.bundle_store import load_bundle, next_version, save_bundle
    from strategies.models.outside_models import read_columns
    from strategies.models.packaging import PackagingSpec, package

    source = _source(settings, model)
    ref = find_snapshot(settings.data_dir, snapshot) if snapshot else latest_snapshot(settings.data_dir)
    panel = load_panel(ref, ref.open_calendar())
    features, stand_in = _features(choice, panel)
    spec = PackagingSpec(
        strategy=name[0],
        version=name[1] or next_version(settings.artifacts_dir, name[0]),
        feature_set=features,
        vwap_stand_in=stand_in,
        calendar=ref.calendar,
        construction=Construction(top_n=choice.sides[0], bottom_n=choice.sides[1]),
        columns=read_columns(choice.columns) if choice.columns else None,
        **stated,
    )
    packaged = package(source, model, panel, spec)
    path = save_bundle(settings.artifacts_dir, packaged.content)
    return packaged, load_bundle(path), path


def _source(settings: "Settings", model: str) -> bytes:
    from strategies.models.mlflow_models import fetch_model
    from strategies.models.outside_models import read_outside_model

    if not model.startswith(("runs:/", "models:/")):
        return read_outside_model(Path(model))
    fetched = fetch_model(model, settings.artifacts_dir, settings.mlflow_tracking_uri)
    if not fetched.bare:
        refuse(f"{model} is a bundle already: `signal-worker models register --uri {model}`")
    return fetched.files["model.txt"]


def _features(choice: _Choice, panel: "Panel") -> "tuple[FeatureSet, VwapStandIn]":
    from strategies.expressions.feature_set_files import load_feature_set
    from strategies.expressions.feature_sets import feature_set

    if Path(choice.feature_set).suffix:
        return load_feature_set(Path(choice.feature_set)), "none"
    stand_in = choice.vwap_stand_in or ("none" if panel.has_vwap else "typical_price")
    return feature_set(choice.feature_set, vwap_stand_in=stand_in), stand_in


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def _as_json(packaged: "Packaged", bundle: "Bundle", path: Path) -> dict[str, Any]:
    packaging = packaged.content.lineage.packaging
    return {
        "strategy": bundle.strategy,
        "version": bundle.version,
        "path": path,
        "model_sha256": bundle.model_sha256,
        "source_sha256": packaging.source_sha256 if packaging else None,
        "prediction_kind": bundle.prediction_kind,
        "horizon": bundle.label.horizon,
        "columns": packaging.columns if packaging else None,
        "golden_rows": len(packaged.content.golden.windows),
        "notes": packaged.notes,
        "register": shlex.join(["signal-worker", "models", "register", str(path)]),
    }


def _show(shown: dict[str, Any]) -> None:
    for note in shown["notes"]:
        warn(f"note: {note}")
    print_line(f"prediction  {shown['prediction_kind']}, {shown['horizon'] or 'without a stated horizon'}")
    print_line(f"columns     known by {shown['columns']}")
    print_line(f"bundle      {shown['path']}")
    print_line(f"model       {shown['model_sha256'][:16]}, proven on {shown['golden_rows']} golden rows")
    # Whole, so that a shell can run it.
    typer.echo(shown["register"])
