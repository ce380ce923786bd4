"""`signal-worker features`: the identity of a feature set and its values."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import DataDir, ExitCode, Json, VerbGroup, print_json, refuse, settings_of
from worker.cli._tables import Column, print_line, print_table, right

if TYPE_CHECKING:
    import pandas as pd

    from strategies.expressions.feature_sets import FeatureSet
    from strategies.market.bars import Panel

app = typer.Typer(cls=VerbGroup, help="Feature sets: identity and values.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="alpha158, alpha360, or a YAML or TOML file with one's own.")]
StandIn = Annotated[str, typer.Option(help="For $vwap in a shipped set: typical_price, close or none.")]
Precision = Annotated[str, typer.Option(help="Of a shipped set: qlib or float64.")]
TABLES = (".parquet", ".csv")


@app.command("hash")
def print_identity(
    name: Name, vwap_stand_in: StandIn = "typical_price", precision: Precision = "qlib", *, as_json: Json = False
) -> None:
    """Print the identity that models and signals carry, and what a feature set needs of the bars.

    JSON: name, sha256, features, lookback_sessions, fields.

    Example: signal-worker features hash alpha158
    """
    with _failures():
        features = feature_set_of(name, vwap_stand_in, precision)
    facts: dict[str, str | int | list[str]] = {
        "name": features.name,
        "sha256": features.sha256,
        "features": len(features.names),
        "lookback_sessions": features.lookback,
        "fields": sorted(features.fields),
    }
    if as_json:
        print_json(facts)
        return
    rows = [(fact, ", ".join(value) if isinstance(value, list) else value) for fact, value in facts.items()]
    print_table(("fact", Column("value", text=True)), rows)


@app.command()
def compute(
    name: Name,
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols; all of the snapshot by default.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="YYYY-MM-DD; default the last session alone.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="YYYY-MM-DD; default the snapshot's last session.")] = None,
    data_dir: DataDir = None,
    snapshot: Annotated[str | None, typer.Option(help="Id or run date; default the latest.")] = None,
    output: Annotated[Path | None, typer.Option(help="A .parquet or .csv file; default a table on stdout.")] = None,
    vwap_stand_in: Annotated[
        str | None,
        typer.Option(help="For $vwap: typical_price, close or none; default the bars' own where they have it."),
    ] = None,
    precision: Precision = "qlib",
    *,
    as_json: Json = False,
) -> None:
    """Compute features of a snapshot, as training and serving compute them.

    JSON: a list of: session, symbol, and each feature.

    Example: signal-worker features compute alpha158 AAPL MSFT --from 2014-03-03 --output features.parquet
    """
    from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel

    if output is not None and output.suffix not in TABLES:
        refuse(f"--output was {output}, its name must end in {' or '.join(TABLES)}")
    if output is not None and as_json:
        refuse("compute takes --output or --json, one of them")
    folder = settings_of(data_dir=data_dir).data_dir
    with _failures():
        features = feature_set_of(name, vwap_stand_in or "typical_price", precision)
        ref = find_snapshot(folder, snapshot) if snapshot else latest_snapshot(folder)
        panel = load_panel(ref, ref.open_calendar(), symbols=symbols or None)
        if panel.has_vwap and vwap_stand_in is None:
            features = feature_set_of(name, "none", precision)
        frame = _frame(features, panel, _day(first, "--from"), _day(last, "--to"))
    if output is None:
        _print(frame, as_json=as_json)
    else:
        with _failures():
            frame.to_parquet(output) if output.suffix == ".parquet" else frame.to_csv(output)
        print_line(f"{len(frame)} rows of {len(features.names)} features of {features.sha256[:16]} in {output}")


def feature_set_of(name: str, vwap_stand_in: str = "typical_price", precision: str = "qlib") -> "FeatureSet":
    """Return a shipped feature set, or that of a file.

    Raises:
        ExpressionError: There is none, or it cannot be compiled.
    """
    from strategies.expressions.feature_set_files import load_feature_set
    from strategies.expressions.feature_sets import feature_set

    if Path(name).suffix:
        return load_feature_set(Path(name))
    return feature_set(name, vwap_stand_in=vwap_stand_in, precision=precision)  # type: ignore[arg-type]  # it checks both


def _frame(features: "FeatureSet", panel: "Panel", first: date | None, last: date | None) -> "pd.DataFrame":
    """Return the features of sessions with a bar, indexed (session, symbol)."""
    import numpy as np
    import pandas as pd

    last = last or panel.sessions[-1].astype(object)
    first = first or last
    days = panel.sessions[(panel.sessions >= np.datetime64(first)) & (panel.sessions <= np.datetime64(last))]
    values = features.evaluate_range(panel, first, last)
    index = pd.MultiIndex.from_product([days.astype(str), panel.symbols], names=["session", "symbol"])
    begin = int(np.searchsorted(panel.sessions, days[0])) if len(days) else 0
    priced = ~np.isnan(panel.fields["close"][:, begin : begin + len(days)].T.reshape(-1))
    frame = pd.DataFrame(values.reshape(len(index), -1), index=index, columns=list(features.names))
    return frame[priced]


def _print(frame: "pd.DataFrame", *, as_json: bool) -> None:
    rows = frame.reset_index()
    if as_json:
        print_json(rows.to_dict("records"))
        return
    shown = [(*row[:2], *(f"{value:.6g}" for value in row[2:])) for row in rows.itertuples(index=False, name=None)]
    print_table(["session", "symbol", *right(*map(str, frame.columns))], shown)


def _day(text: str | None, option: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        refuse(f"{option}: {text!r} is no date, must be YYYY-MM-DD")


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the room's errors into one sentence and exit code 1."""
    from strategies.errors import DataError, ExpressionError, StrategyError

    try:
        yield
    except (DataError, ExpressionError, StrategyError, OSError) as error:
        refuse(error, code=ExitCode.FAILED)
