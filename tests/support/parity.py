"""Snapshots that parity is measured on in tests."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from strategies.alpha_baseline.data_loader import T1DataProvider
from strategies.market.bars import Panel
from strategies.market.importing import import_bars
from tests.support.market import RUN_DATE


def demo_file() -> Path:
    """Return the file of the demo's raw bars."""
    return Path(str(resources.files("bokeh_sampledata"))) / "_data" / "stocks.csv.gz"


def qlib_on(source: Path, data_dir: Path, symbols: Sequence[str] | None = None) -> Panel:
    """Import raw bars, start Qlib on them and return the panel of these symbols."""
    import_bars(source, data_dir, run_date=RUN_DATE)
    provider = T1DataProvider(data_dir)
    provider.init_qlib()
    return provider.panel(symbols=symbols)
