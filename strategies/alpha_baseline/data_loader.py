"""T1 snapshots as Qlib's data: the door of research to the market room.

Owns: `T1DataProvider`, which starts Qlib on a snapshot and gives plain frames of its bars.
Must not know: feature sets, models, serving.
Invariant: Qlib runs in this process alone, without caches on disk, on exactly the snapshot named.
"""

import logging
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from strategies.errors import DataError
from strategies.market.bars import Panel, SessionArray
from strategies.market.calendar import canonical_name
from strategies.market.snapshots import SnapshotRef, find_snapshot, latest_snapshot, load_panel

_PROVIDERS = "strategies.market.qlib_provider"


class T1DataProvider:
    """The bars of one snapshot, for Qlib and for pandas.

    Args:
        data_dir: Folder above `adjusted/<run date>/`.
        snapshot: Id, the first digits of one, or run date; default the latest.
        calendar: The exchange calendar of the snapshot.

    Raises:
        SnapshotNotFound: There is no such complete snapshot.
        DataError: The snapshot is unreadable, or has another calendar.
    """

    def __init__(self, data_dir: Path | str, snapshot: str | None = None, calendar: str = "XNYS") -> None:
        self.data_dir = Path(data_dir).resolve()
        #: The snapshot every answer comes from, also after newer ones were imported.
        self.snapshot: SnapshotRef = (
            find_snapshot(self.data_dir, snapshot) if snapshot else latest_snapshot(self.data_dir)
        )
        if self.snapshot.calendar != canonical_name(calendar):
            raise DataError(f"{self.snapshot.path}: stands on calendar {self.snapshot.calendar}, not {calendar}")
        self._calendar = self.snapshot.open_calendar()

    def init_qlib(self, *, kernels: int = 1) -> None:
        """Start Qlib on this snapshot; afterwards `D.features`, handlers and analysis read its bars.

        Qlib keeps one global state a process: the last call wins. With more than one kernel Qlib forks worker
        processes for each query, which is not safe beside threads.

        Args:
            kernels: Processes that Qlib computes expressions in; 1 computes in this one.

        Raises:
            DataError: Qlib is not installed.
        """
        with warnings.catch_warnings():
            # Of Qlib 0.9.7 and the packages it pulls in, while they are imported and started; queries are not covered.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            try:
                import qlib  # noqa: PLC0415 - slow, and only research has it
            except ModuleNotFoundError as error:
                raise DataError(
                    f"{error.name} is not installed: pip install 'signal-worker[research]' on Python 3.11 or 3.12; "
                    "Qlib has no wheels for later ones"
                ) from error

            qlib.init(**self.qlib_config(), kernels=kernels, logging_level=logging.WARNING)
        # Qlib 0.9.7 sets an option that pandas 3 ignores and pandas 4 drops; its handlers would warn on every call.
        warnings.filterwarnings("ignore", "The 'mode.chained_assignment' option", DeprecationWarning, r"qlib\.")

    def qlib_config(self) -> dict[str, Any]:
        """Return the arguments of `qlib.init` that configure the data; plain values, fit for another process."""
        place = {"data_dir": str(self.data_dir), "snapshot": self.snapshot.id}
        providers = {
            f"{kind.lower()}_provider": {"class": f"T1{kind}Provider", "module_path": _PROVIDERS, "kwargs": place}
            for kind in ("Calendar", "Instrument", "Feature")
        }
        # No bars are read from the URI; Qlib derives a few paths from it and wants it to exist.
        return {"provider_uri": str(self.snapshot.path), "region": "us", **providers} | dict.fromkeys(
            ("expression_cache", "dataset_cache", "calendar_cache"), None
        )

    def symbols(self) -> tuple[str, ...]:
        """Return the snapshot's symbols, ascending."""
        return self.snapshot.symbols

    def sessions(self) -> SessionArray:
        """Return the exchange's sessions from the snapshot's first bar to its last."""
        return self._calendar.sessions_between(self.snapshot.first_session, self.snapshot.last_session)

    def panel(self, *, fields: Sequence[str] | None = None, symbols: Sequence[str] | None = None) -> Panel:
        """Return the bars as aligned arrays; see `load_panel`.

        Raises:
            UnknownSymbols: The snapshot lacks one of the symbols.
            DataError: A file is not what the manifest states.
        """
        return load_panel(self.snapshot, self._calendar, fields=fields, symbols=symbols)

    def bars(
        self, symbols: Sequence[str] | None = None, start: date | str | None = None, end: date | str | None = None
    ) -> pd.DataFrame:
        """Return adjusted bars indexed (datetime, instrument), both ascending; sessions without a bar have no row.

        Args:
            symbols: Default all.
            start: First day, default the snapshot's first.
            end: Last day, included, default the snapshot's last.

        Returns:
            Columns open, high, low, close, volume, factor, and vwap where any bar knows it; float64.

        Raises:
            UnknownSymbols: The snapshot lacks one of the symbols.
            DataError: A file is not what the manifest states.
        """
        panel = self.panel(fields=("vwap", "factor"), symbols=symbols)
        first, last = np.datetime64(start or panel.sessions[0], "D"), np.datetime64(end or panel.sessions[-1], "D")
        chosen = (panel.sessions >= first) & (panel.sessions <= last)
        days = pd.to_datetime(panel.sessions[chosen].astype(str))
        index = pd.MultiIndex.from_product([days, panel.symbols], names=("datetime", "instrument"))
        columns = {name: values[:, chosen].T.ravel() for name, values in panel.fields.items()}
        frame = pd.DataFrame(columns, index=index)
        return frame[frame["close"].notna()]
