"""Record what Qlib computes: `python -m tests.parity.record`, on an interpreter that has pyqlib.

Owns: which expressions are recorded over which panel, and how Qlib is asked.
Must not know: the engine, but for the texts of its shipped features.
Invariant: nothing that is recorded was computed by the engine.

The selection keeps the folder small. Digests cover every cell of every column; values are kept where results differ in
kind (`recording.selection`) and for a sample of ordinary sessions, so that a difference can be located. Where Qlib and
the engine are equal within a tolerance only, those values are what is compared. Hostile bars are kept whole.
"""

import json
import lzma
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from strategies.expressions.feature_sets import feature_set
from strategies.market.bars import IntArray, Panel
from tests.parity import expressions, trees
from tests.parity.panels import hostile_panel, panel_of, write_hostile_bars
from tests.parity.recording import RECORDINGS, Recording, digest, input_digest, selection, write
from tests.support.parity import demo_file, qlib_on

COMMAND = "python -m tests.parity.record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One recording: its columns and which sessions are kept; its name says the panel."""

    columns: Mapping[str, str]
    #: See `selection`.
    every: int
    special: int = 1


def planned() -> dict[str, Planned]:
    """Return every recording by the name of its file."""
    sets = {name: dict(zip(*_columns(name), strict=True)) for name in ("alpha158", "alpha360")}
    plain = expressions.EXACT + expressions.NEAR + expressions.AHEAD
    summing = expressions.SPREADS + expressions.RATIOS
    exact = trees.drawn(trees.EXACT_TREES, 100) + trees.drawn(trees.PLACES, 60)
    return {
        "demo-alpha158": Planned(columns=sets["alpha158"], every=53),
        "demo-alpha360": Planned(columns=sets["alpha360"], every=401, special=6),
        "demo-operators": Planned(columns=_own(plain + summing), every=53),
        "hostile-alpha158": Planned(columns=sets["alpha158"], every=1),
        "hostile-alpha360": Planned(columns=sets["alpha360"], every=10, special=40),
        "hostile-operators": Planned(columns=_own(plain), every=1),
        "finite-operators": Planned(columns=_own(summing + expressions.EXPANDING), every=1),
        "hostile-trees": Planned(columns=_own(exact), every=1),
        "finite-trees": Planned(columns=_own(trees.drawn(trees.SUMS, 60)), every=1),
    }


def _columns(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    features = feature_set(name)
    return features.names, features.expressions


def _own(texts: list[str]) -> dict[str, str]:
    return {text: text for text in texts}


def record(panel: Panel, columns: Mapping[str, str], selected: IntArray) -> Recording:
    """Compute columns in Qlib over a panel."""
    from tests.support.qlib_oracle import qlib_panel  # noqa: PLC0415 - slow, and not every interpreter has Qlib

    whole = {name: qlib_panel(text, panel) for name, text in columns.items()}
    return Recording(
        expressions=dict(columns),
        selected=selected,
        values={name: values[selected] for name, values in whole.items()},
        digests={name: digest(values) for name, values in whole.items()},
        input_sha256=input_digest(panel),
        made_by=made_by(),
    )


def made_by() -> dict[str, str]:
    """Return the versions of what computes here, and the command."""
    versions = {name: version(name) for name in ("pyqlib", "numpy", "pandas", "lightgbm")}
    return {**versions, "python": platform.python_version(), "command": COMMAND}


def record_model() -> None:
    """Train in Qlib on Qlib's Alpha158 of the demo bars; keep the model and its predictions from Qlib's features."""
    from tests.parity.oracle import oracle_blocks  # noqa: PLC0415 - where this runs, Qlib is installed
    from tests.parity.qlib_model import train_in_qlib  # noqa: PLC0415

    columns = list(zip(*_columns("alpha158"), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        panel = qlib_on(demo_file(), Path(folder))
        booster = train_in_qlib(panel, columns).booster
        (block,) = oracle_blocks(panel, [text for _, text in columns])
    priced = ~np.isnan(panel.fields["close"].T)
    predictions = booster.predict(block.features[priced], num_threads=1)
    stated = {"input_sha256": input_digest(panel), "made_by": json.dumps(made_by())}
    schema = pa.schema([pa.field("prediction", pa.float64())], metadata=stated)
    write(pa.table([pa.array(predictions)], schema=schema), RECORDINGS / "model-predictions.parquet")
    (RECORDINGS / "model.txt.xz").write_bytes(lzma.compress(booster.model_to_string().encode(), preset=9))


def record_definitions() -> None:
    """Write the lists of features that Qlib generates, and the type that Qlib gives each expression."""
    from qlib.contrib.data.loader import Alpha158DL, Alpha360DL  # noqa: PLC0415 - as above

    from tests.support.qlib_oracle import qlib_type  # noqa: PLC0415

    loaders = {"alpha158": Alpha158DL, "alpha360": Alpha360DL}
    lists = {name: list(zip(*reversed(loader.get_feature_config()), strict=True)) for name, loader in loaders.items()}
    panel = hostile_panel()
    types = {text: qlib_type(text, panel) for text in expressions.typed()}
    stated = {"made_by": made_by(), "lists": lists, "types": types}
    (RECORDINGS / "definitions.json").write_text(json.dumps(stated, indent=0) + "\n")


def main() -> None:
    """Write every recording."""
    RECORDINGS.mkdir(exist_ok=True)
    write_hostile_bars()
    for name, plan in planned().items():
        panel = panel_of(name)
        path = RECORDINGS / f"{name}.parquet"
        record(panel, plan.columns, selection(panel, plan.every, plan.special)).save(path)
        print(f"{path.name}: {len(plan.columns)} columns, {path.stat().st_size:,} bytes")  # noqa: T201 - its output
    record_definitions()
    record_model()


if __name__ == "__main__":
    main()
