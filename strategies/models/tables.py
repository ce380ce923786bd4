"""The two tables of a bundle, to and from Parquet bytes: the golden sample and the reference distributions.

Owns: their columns; `reference.parquet` has one row for each feature and one for the prediction.
Must not know: digests, folders, how rows were chosen.
Invariant: what is decoded equals what was encoded, bit for bit; the same content gives the same bytes.
"""

from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from strategies.errors import EngineDiffers, MalformedBundle
from strategies.market.bars import Window
from strategies.models.golden import GoldenSample
from strategies.models.reference import Distribution

#: Before the name of a field or a feature, so that neither can take the name of another column.
BAR, FEATURE = "bar.", "feature."
#: Checked before a table is read: the size of the bytes does not bound the size they unpack to.
MAX_TABLE_ROWS = 20_000
MAX_TABLE_BYTES = 256 * 1024**2


def encode_golden(golden: GoldenSample, names: tuple[str, ...]) -> bytes:
    """Return the golden sample as Parquet bytes."""
    windows = golden.windows
    columns: dict[str, pa.Array] = {
        "symbol": pa.array([window.symbols[0] for window in windows], pa.string()),
        "session": pa.array([window.as_of for window in windows], pa.date32()),
        "first": pa.array([int(window.first[0]) for window in windows], pa.int64()),
        "sessions": pa.array(
            [window.sessions.astype("datetime64[D]").astype(object) for window in windows], pa.list_(pa.date32())
        ),
    }
    for field in windows[0].fields:
        columns[BAR + field] = pa.array([window.fields[field][0] for window in windows], pa.list_(pa.float64()))
    for index, name in enumerate(names):
        columns[FEATURE + name] = pa.array(golden.features[:, index], pa.float32())
    columns["prediction"] = pa.array(golden.predictions, pa.float64())
    return _encode(pa.table(columns))


def decode_golden(content: bytes, names: tuple[str, ...]) -> GoldenSample:
    """Return the golden sample in these bytes.

    Raises:
        MalformedBundle: Not the table of a golden sample with these features, or too large.
        EngineDiffers: The library here cannot read such a table.
    """
    table = _decode(content, "golden.parquet")
    fields = [name.removeprefix(BAR) for name in table.column_names if name.startswith(BAR)]
    try:
        windows = tuple(_window(table, row, fields) for row in range(table.num_rows))
        features = [table.column(FEATURE + name).to_numpy() for name in names]
        return GoldenSample(
            windows=windows,
            features=np.ascontiguousarray(np.stack(features, axis=1)),
            predictions=table.column("prediction").to_numpy(),
        )
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, pa.ArrowException) as error:
        raise MalformedBundle(f"golden.parquet is no golden sample of these features: {error}") from error


def encode_reference(distributions: tuple[Distribution, ...]) -> bytes:
    """Return the reference distributions as Parquet bytes."""
    rows = [
        {
            "name": each.name,
            "rows": each.rows,
            "nan_share": each.nan_share,
            "mean": each.mean,
            "sd": each.sd,
            "quantiles": list(each.quantiles),
        }
        for each in distributions
    ]
    return _encode(pa.Table.from_pylist(rows, schema=_REFERENCE))


def decode_reference(content: bytes) -> tuple[Distribution, ...]:
    """Return the reference distributions in these bytes.

    Raises:
        MalformedBundle: Not such a table, or too large.
        EngineDiffers: The library here cannot read such a table.
    """
    table = _decode(content, "reference.parquet")
    if table.schema.names != _REFERENCE.names:
        raise MalformedBundle(f"reference.parquet has columns {table.schema.names}, they must be {_REFERENCE.names}")
    return tuple(
        Distribution(**{**row, "quantiles": tuple(row["quantiles"] or ())})  # null: the column had no value
        for row in table.to_pylist()
    )


_REFERENCE = pa.schema(
    [
        ("name", pa.string()),
        ("rows", pa.int64()),
        ("nan_share", pa.float64()),
        ("mean", pa.float64()),
        ("sd", pa.float64()),
        ("quantiles", pa.list_(pa.float64())),
    ]
)


def _window(table: pa.Table, row: int, fields: list[str]) -> Window:
    sessions = table.column("sessions")[row].values.to_numpy(zero_copy_only=False).astype("datetime64[D]")
    bars = {name: table.column(BAR + name)[row].values.to_numpy(zero_copy_only=False)[None, :] for name in fields}
    if not len(sessions) or any(values.shape != (1, len(sessions)) for values in bars.values()):
        raise ValueError(f"row {row} has {len(sessions)} sessions, and bars of another length")
    return Window(
        symbols=(table.column("symbol")[row].as_py(),),
        sessions=sessions,
        fields=MappingProxyType({name: np.ascontiguousarray(values) for name, values in bars.items()}),
        first=np.array([table.column("first")[row].as_py()], dtype=np.int64),
    )


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _decode(content: bytes, name: str) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        sizes = file.metadata
        unpacked = sum(sizes.row_group(group).total_byte_size for group in range(sizes.num_row_groups))
        if sizes.num_rows > MAX_TABLE_ROWS or unpacked > MAX_TABLE_BYTES:
            raise MalformedBundle(f"{name} has {sizes.num_rows} rows and {unpacked} bytes, more than allowed")
        return file.read()
    except pa.ArrowNotImplementedError as error:
        raise EngineDiffers(f"{name} cannot be read here: {error}") from error
    except MemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise MalformedBundle(f"{name} is no Parquet file: {error}") from error
