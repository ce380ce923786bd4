"""Panels of generated bars with everything that breaks naive feature code.

Owns: seeded bars with late listings, missing bars, ties, constant prices, zero and negative volume, infinities.
Must not know: expressions, engines.
Invariant: the same seed gives the same panel.
"""

from collections.abc import Sequence

import numpy as np

from strategies.market.bars import FloatArray, IntArray, Panel


def rough_panel(
    seed: int, *, symbols: int = 6, sessions: int = 90, roughness: float = 0.05, scale: float = 1.0
) -> Panel:
    """Return a panel whose symbols each have another defect; `roughness` is the share of missing bars."""
    random = np.random.default_rng(seed)
    shape = (symbols, sessions)
    close = np.round(50.0 * scale * np.exp(random.normal(0, 0.02, shape).cumsum(axis=1)), 2 if scale >= 1 else 9)
    opened = close * (1 + random.normal(0, 0.005, shape))
    fields = {
        "open": opened,
        "high": np.maximum(opened, close) * (1 + np.abs(random.normal(0, 0.005, shape))),
        "low": np.minimum(opened, close) * (1 - np.abs(random.normal(0, 0.005, shape))),
        "close": close,
        "volume": random.integers(1, 10**7, shape).astype(np.float64),
    }
    _spoil(fields, random, symbols)
    first: IntArray = random.integers(0, max(sessions // 3, 1), symbols) * (np.arange(symbols) % 2)
    missing = random.random(shape) < roughness
    for name, values in fields.items():
        values[missing] = np.nan
        values[np.arange(sessions) < first[:, None]] = np.nan
        fields[name] = np.ascontiguousarray(values)
    return made_panel(fields, first)


def _spoil(fields: dict[str, FloatArray], random: np.random.Generator, symbols: int) -> None:
    if symbols > 1:
        fields["close"][1] = np.round(fields["close"][1])  # many ties
    if symbols > 2:
        for name in ("open", "high", "low", "close"):
            fields[name][2, ::] = fields["close"][2, 0]  # nothing ever trades away from its first price
    if symbols > 3:
        fields["volume"][3, random.random(fields["volume"].shape[1]) < 0.3] = 0.0
        fields["volume"][3, 5:6] = -100.0
    if symbols > 4:
        fields["close"][4, 7:8] = np.inf
        fields["volume"][4, 11:12] = -np.inf


def plain_panel(close: Sequence[Sequence[float]], first: Sequence[int] | None = None) -> Panel:
    """Return a panel of which only the closes matter, `[symbols][sessions]`."""
    values = np.array(close, dtype=np.float64).reshape(len(close), -1)
    fields = {name: values.copy() for name in ("open", "high", "low", "close", "volume")}
    return made_panel(fields, np.array(first or [0] * len(close), dtype=np.int64))


def made_panel(fields: dict[str, FloatArray], first: IntArray) -> Panel:
    """Return a panel of these bars, `[symbols, sessions]` each, on made-up days and names."""
    symbols, sessions = fields["close"].shape
    return Panel(
        symbols=tuple(f"S{number:03d}" for number in range(symbols)),
        sessions=np.datetime64("2024-01-01") + np.arange(sessions, dtype="timedelta64[D]"),
        fields=fields,
        first=first,
        last=np.full(symbols, sessions - 1),
        snapshot_id="generated",
    )
