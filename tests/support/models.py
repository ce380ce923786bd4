"""Builders of training panels, models and bundles for tests.

Owns: bars with something to learn in them, small models really trained on them, bundles saved, forged and broken.
Must not know: how a worker serves a bundle.
Invariant: the same arguments give the same bundle, byte for byte; training runs once for each set of arguments.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType

import lightgbm as lgb
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from strategies.alpha_baseline.train import Provenance, TrainedModel, train
from strategies.market.bars import FloatArray, Panel
from strategies.models.bundle_files import digest
from strategies.models.bundle_store import BundleContent, save_bundle
from strategies.models.configuration import TrainingConfig
from tests.support.market import FIRST, sessions_from

SYMBOLS = ("AAPL", "AMZN", "FB", "GOOG", "IBM", "MSFT", "NFLX", "ORCL")
#: Enough to learn something in about a second.
SMALL = TrainingConfig(rounds=8, early_stopping_rounds=8, num_threads=1, num_leaves=7)


def make_training_panel(
    symbols: tuple[str, ...] = SYMBOLS,
    *,
    sessions: int = 240,
    first: date = FIRST,
    seed: int = 0,
    starts: Mapping[str, int] | None = None,
) -> Panel:
    """Return a panel whose returns answer those of two sessions before, so that the label can be learnt."""
    rng = np.random.default_rng(seed)
    count = len(symbols)
    close = 100.0 * np.exp(np.cumsum(_answering_returns(rng, count, sessions), axis=1))
    opening = close * np.exp(rng.normal(0, 0.003, close.shape))
    fields = {
        "open": opening,
        "high": np.maximum(opening, close) * (1 + rng.uniform(0, 0.01, close.shape)),
        "low": np.minimum(opening, close) * (1 - rng.uniform(0, 0.01, close.shape)),
        "close": close,
        "volume": rng.integers(1_000, 1_000_000, close.shape).astype(np.float64),
    }
    listed = np.array([(starts or {}).get(symbol, 0) for symbol in symbols], dtype=np.int64)
    for values in fields.values():
        values[np.arange(sessions) < listed[:, None]] = np.nan
        values.setflags(write=False)
    return Panel(
        symbols=symbols,
        sessions=sessions_from(first, sessions),
        fields=MappingProxyType(fields),
        first=listed,
        last=np.full(count, sessions - 1, dtype=np.int64),
        snapshot_id=f"{seed:064x}",
    )


def scaled_after(panel: Panel, session: int, factor: float = 1.5) -> Panel:
    """Return the panel with every price from a session on multiplied, in steps that change returns too."""
    fields = {name: values.copy() for name, values in panel.fields.items()}
    steps = factor ** np.arange(1, panel.sessions.size - session + 1)
    for name in ("open", "high", "low", "close"):
        fields[name][:, session:] *= steps
    return replace(panel, fields=MappingProxyType(fields))


def make_model(
    config: TrainingConfig = SMALL, *, seed: int = 0, starts: tuple[tuple[str, int], ...] = (("ORCL", 100),)
) -> TrainedModel:
    """Return a small model trained on a built panel; `seed` is that of the bars."""
    return _trained(config.model_dump_json(), seed, starts)


def make_content(*, strategy: str = "alpha_baseline", version: str = "v1", seed: int = 0) -> BundleContent:
    """Return what a small bundle is made of."""
    content = make_model(seed=seed).content
    return replace(content, lineage=content.lineage.model_copy(update={"strategy": strategy, "version": version}))


def make_bundle(artifacts_dir: Path, *, strategy: str = "alpha_baseline", version: str = "v1", seed: int = 0) -> Path:
    """Save a small bundle below `artifacts_dir` and return its folder; another `seed` gives another model."""
    return save_bundle(artifacts_dir, make_content(strategy=strategy, version=version, seed=seed))


def make_bare_model(path: Path, *, features: int = 158, rounds: int = 5, seed: int = 0) -> Path:
    """Write a LightGBM text file trained on noise, without a bundle, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(make_booster(features=features, rounds=rounds, seed=seed).model_to_string(), encoding="ascii")
    return path


def make_booster(*, features: int = 158, rounds: int = 5, seed: int = 0) -> lgb.Booster:
    """Return a booster trained on noise, its columns named `Column_0` and so on."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(400, features))
    labels = 0.02 * rows[:, 0] + 0.01 * rng.normal(size=400)
    parameters = {"objective": "regression", "num_leaves": 7, "num_threads": 1, "verbosity": -1, "seed": seed}
    return lgb.train(parameters, lgb.Dataset(rows, labels), num_boost_round=rounds)


def change_file(bundle: Path, name: str, content: bytes) -> None:
    """Overwrite a file of a bundle and leave its digest in the manifest as it was."""
    (bundle / name).chmod(0o644)
    (bundle / name).write_bytes(content)


def forge_file(bundle: Path, name: str, content: bytes) -> None:
    """Overwrite a file of a bundle and put its digest into the manifest, as one with access to both would."""
    change_file(bundle, name, content)

    def state(manifest: dict[str, object]) -> None:
        files = manifest["files"]
        assert isinstance(files, dict)
        files[name] = {"sha256": digest(content), "size_bytes": len(content)}

    forge_manifest(bundle, state)


def forge_manifest(bundle: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Let `change` edit the fields of `bundle.json`."""
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    change(manifest)
    change_file(bundle, "bundle.json", json.dumps(manifest).encode())


def make_table_bomb(values: int) -> bytes:
    """Return a Parquet reference of one row, whose list repeats one value; its bytes are fewer than 2000.

    Args:
        values: Length of the list; unpacked, each takes 8 bytes.
    """
    ones = pa.DictionaryArray.from_arrays(pa.array(np.zeros(values, dtype=np.int32)), pa.array([0.5]))
    quantiles = pa.ListArray.from_arrays(pa.array([0, values], pa.int32()), ones.cast(pa.float64()))
    columns = {"name": ["KMID"], "rows": [1], "nan_share": [0.0], "mean": [0.5], "sd": [0.0], "quantiles": quantiles}
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, compression="zstd", data_page_size=2**30, write_statistics=False)
    content: bytes = sink.getvalue().to_pybytes()
    return content


@cache
def _trained(config: str, seed: int, starts: tuple[tuple[str, int], ...]) -> TrainedModel:
    panel = make_training_panel(seed=seed, starts=dict(starts))
    return train(panel, TrainingConfig.model_validate_json(config), Provenance(version="v1"))


def _answering_returns(rng: np.random.Generator, symbols: int, sessions: int) -> FloatArray:
    returns = rng.normal(0, 0.01, (symbols, sessions))
    for session in range(2, sessions):
        returns[:, session] -= 0.7 * returns[:, session - 2]
    return returns
