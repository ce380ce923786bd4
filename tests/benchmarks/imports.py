"""Bars on their way to a worker: importing them, appending a session, taking it into a panel that serves.

Owns: the files that are imported, the goals of issue and page.
Must not know: how bars are read or judged.
Invariant: an import and a daily round are measured in processes of their own.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from strategies.market.calendar import SessionCalendar
from tests.benchmarks.children import measured
from tests.benchmarks.figures import Figure, spell_bytes, spell_seconds
from tests.benchmarks.material import RUN_DATE, write_bars

#: Goals for 5,000 symbols of five years on two cores: seconds and bytes of each source, seconds of the daily round.
FOLDER, TABLE, TEXTS = (25.0, 300e6), (45.0, 2.0**30), (45.0, 2.0**30)
APPEND, TAKE = 2.0, 0.3


def import_figures(place: Path, symbols: int, sessions: int) -> Iterator[Figure]:
    """Import bars from three kinds of sources, and append a session; `place/data` holds the first snapshot."""
    folder = write_bars(place / "raw", symbols, sessions)
    table, texts, today = _other_sources(folder, place)
    shape = f"{symbols:,} symbols x {sessions:,} sessions"
    sources = (
        ("Parquet files", folder, "data", FOLDER),
        ("one long Parquet table", table, "table", TABLE),
        ("CSV files", texts, "texts", TEXTS),
    )
    for name, source, target, (seconds, size) in sources:
        given = {"source": str(source), "data_dir": str(place / target), "run_date": RUN_DATE.isoformat()}
        found = measured("import_snapshot", given)
        yield Figure(
            work=f"import {shape} from {name}",
            value=f"{spell_seconds(found['seconds'])} ({spell_seconds(found['processor'])} of processor time), "
            f"{spell_bytes(found['peak'])}",
            goal=f"{seconds:g} s, {spell_bytes(size)}",
            met=found["seconds"] <= seconds and found["peak"] <= size,
        )
    found = measured("daily_round", {"data_dir": str(place / "data"), "source": str(today)})
    yield Figure(
        work=f"append a session to {shape}",
        value=f"{spell_seconds(found['append'])} ({spell_seconds(found['append_processor'])} of processor time)",
        goal=f"{APPEND:g} s",
        met=found["append"] <= APPEND,
    )
    yield Figure(
        work=f"a worker takes the session that was appended to {shape}",
        value=f"{spell_seconds(found['take'])} ({spell_seconds(found['take_processor'])} of processor time)",
        goal=spell_seconds(TAKE),
        met=found["take"] <= TAKE,
    )


def _other_sources(folder: Path, place: Path) -> tuple[Path, Path, Path]:
    """Write the bars of a folder as one table and as texts, and a session after them; return the three paths."""
    table, texts, today = place / "long.parquet", place / "texts", place / "today.csv"
    texts.mkdir()
    writer, last = None, []
    for path in sorted(folder.glob("*.parquet")):
        frame = pd.read_parquet(path).assign(symbol=path.stem)
        frame.drop(columns="symbol").to_csv(texts / f"{path.stem}.csv", index=False)
        rows = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or parquet.ParquetWriter(table, rows.schema)
        writer.write_table(rows)
        last.append(frame.iloc[[-1]])
    if writer is not None:
        writer.close()
    session = pd.concat(last)
    prices = ["open", "high", "low", "close"]
    session[prices] *= 1.001
    session["date"] = SessionCalendar("XNYS").next_session(session["date"].max().date())
    session.to_csv(today, index=False)
    return table, texts, today
