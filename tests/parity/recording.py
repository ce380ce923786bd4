"""Recordings of what Qlib computes: Parquet files that every interpreter compares the engine with.

Owns: the layout of a recording and the selection of sessions that are kept as values.
Must not know: Qlib, the engine.
Invariant: every cell is covered: selected sessions by their values, all sessions of a column by a digest of its bits.

A row is one symbol of one selected session. A column of values is float32, byte-split and compressed by Parquet; its
metadata hold the expression and the digest. The file's metadata hold the versions, the command and the input's digest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from strategies.market.bars import Float32Array, IntArray, Panel

RECORDINGS = Path(__file__).parent / "recordings"
#: The longest lookback of the shipped features: warm-up is over after as many sessions.
WARM_UP = 61


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What Qlib made of some expressions over one panel."""

    #: Column to expression, in order.
    expressions: Mapping[str, str]
    #: Positions on the panel's sessions whose values are kept, ascending.
    selected: IntArray
    #: Column to values `[selected sessions, symbols]`; NaN where Qlib has no row or no value.
    values: Mapping[str, Float32Array]
    #: Column to digest of the bits over all sessions, see `digest`.
    digests: Mapping[str, str]
    #: Digest of the bars, see `input_digest`.
    input_sha256: str
    #: Versions of what computed it, and the command.
    made_by: Mapping[str, str]

    def save(self, path: Path) -> None:
        """Write the file."""
        symbols = next(iter(self.values.values())).shape[1]
        columns = [pa.array(np.repeat(self.selected, symbols).astype(np.int32))]
        fields = [pa.field("session", pa.int32())]
        for name, values in self.values.items():
            columns.append(pa.array(values.ravel(), from_pandas=False))
            stated = {"expression": self.expressions[name], "digest": self.digests[name]}
            fields.append(pa.field(name, pa.float32(), metadata=stated))
        stated = {"input_sha256": self.input_sha256, "made_by": json.dumps(dict(self.made_by))}
        write(pa.table(columns, schema=pa.schema(fields, metadata=stated)), path)


def write(table: pa.Table, path: Path) -> None:
    """Write a table whose numbers are compressed byte by byte: the first bytes of neighbours are alike."""
    split = {field.name: "BYTE_STREAM_SPLIT" if pa.types.is_floating(field.type) else "PLAIN" for field in table.schema}
    pq.write_table(
        table, path, compression="zstd", compression_level=22, use_dictionary=False, column_encoding=split,
        write_statistics=False, store_schema=True,
    )  # fmt: skip


def load(path: Path) -> Recording:
    """Read a recording."""
    table = pq.read_table(path)
    names = table.column_names[1:]
    stated = [table.schema.field(name).metadata for name in names]
    selected = np.unique(table.column("session").to_numpy()).astype(np.int64)
    about = table.schema.metadata
    return Recording(
        expressions={name: each[b"expression"].decode() for name, each in zip(names, stated, strict=True)},
        digests={name: each[b"digest"].decode() for name, each in zip(names, stated, strict=True)},
        selected=selected,
        values={name: table.column(name).to_numpy().reshape(selected.size, -1) for name in names},
        input_sha256=about[b"input_sha256"].decode(),
        made_by=json.loads(about[b"made_by"]),
    )


def canonical(values: Float32Array) -> Float32Array:
    """Return the values with one NaN and one zero: what `==` holds for equal has equal bits."""
    plain: Float32Array = np.where(np.isnan(values), np.float32("nan"), values + np.float32(0))
    return plain


def digest(values: Float32Array) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the values' bits, `[sessions, symbols]`."""
    return sha256(np.ascontiguousarray(canonical(values)).astype("<f4").tobytes()).hexdigest()[:16]


def input_digest(panel: Panel) -> str:
    """Return the SHA-256 of the bars as Qlib reads them: float32 open, high, low, close, volume, and first rows."""
    total = sha256(",".join(panel.symbols).encode())
    for name in ("open", "high", "low", "close", "volume"):
        total.update(canonical(panel.fields[name].astype(np.float32)).astype("<f4").tobytes())
    total.update(panel.first.astype("<i8").tobytes())
    return total.hexdigest()


def selection(panel: Panel, every: int, special: int = 1) -> IntArray:
    """Return the sessions kept as values: where results differ in kind, and a sample of the ordinary ones.

    Each listing with its warm-up (windows of 1 to 61 rows), each missing bar with the 61 sessions whose windows see
    it, the newest session, and one of `every` in between, where a wrong formula would show in any session.

    Args:
        panel: For its listings and holes.
        every: One ordinary session of so many is kept.
        special: One session of so many is kept of those with a kind of their own.
    """
    keep = np.zeros(panel.sessions.size, bool)
    keep[:: max(every, 1)] = True
    keep[-1] = True
    for row, first in enumerate(panel.first):
        for start in (first, *np.flatnonzero(np.isnan(panel.fields["close"][row]))):
            if start >= first:
                keep[start : start + WARM_UP + 1 : special] = True
    return np.flatnonzero(keep)
