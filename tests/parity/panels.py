"""The panels that recordings are made on: the demo's real bars and hostile made ones.

Owns: the way to both.
Must not know: Qlib, the engine.
Invariant: hostile bars are read from a file, since NumPy's generators and exponentials may differ between versions.
"""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from strategies.alpha_baseline.data_loader import T1DataProvider
from strategies.market.bars import FIELDS, Panel
from strategies.market.importing import import_bars
from tests.parity.recording import RECORDINGS, write
from tests.support.market import RUN_DATE
from tests.support.parity import demo_file
from tests.support.rough_panels import made_panel, rough_panel

_BARS = RECORDINGS / "hostile-bars.parquet"


@cache
def demo_panel() -> Panel:
    """Return the demo's bars: 5 symbols over 3,270 sessions, two listed late, one bar missing, ties in the closes."""
    with tempfile.TemporaryDirectory() as folder:
        import_bars(demo_file(), Path(folder), run_date=RUN_DATE)
        return T1DataProvider(folder).panel()


@cache
def hostile_panel(*, finite: bool = False) -> Panel:
    """Return the recorded made bars: holes, ties, constant prices, zero and negative volume, late listings, infinities.

    Args:
        finite: Make infinities missing bars.
    """
    table = pq.read_table(_BARS)
    first = np.array([int(field.metadata[b"first"]) for field in table.schema])[:: len(FIELDS)]
    columns = [column.to_numpy().astype(np.float64) for column in table.columns]
    fields = {name: np.stack(columns[place :: len(FIELDS)]) for place, name in enumerate(FIELDS)}
    if finite:
        fields = {name: np.where(np.isinf(values), np.nan, values) for name, values in fields.items()}
    return made_panel(fields, first)


def panel_of(recording: str) -> Panel:
    """Return the panel that a recording of this name was made on."""
    return demo_panel() if recording.startswith("demo") else hostile_panel(finite=recording.startswith("finite"))


def write_hostile_bars() -> None:
    """Make the hostile bars anew, `symbol.field` a column."""
    made = rough_panel(21, sessions=130)
    columns = [
        (made.symbols[row], name, made.fields[name][row].astype(np.float32), made.first[row])
        for row in range(len(made.symbols))
        for name in FIELDS
    ]
    fields = [
        pa.field(f"{symbol}.{name}", pa.float32(), metadata={"first": str(first)}) for symbol, name, _, first in columns
    ]
    write(pa.table([pa.array(values, from_pandas=False) for *_, values, _ in columns], schema=pa.schema(fields)), _BARS)
