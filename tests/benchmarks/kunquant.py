"""KunQuant, the fastest public compiler of Alpha158, on the same bars.

Owns: building its Alpha158 and running it over a panel.
Must not know: the engine, how figures are shown.
Invariant: KunQuant is not needed: without it, or without a C++ compiler, its figures are absent and say why.
"""

import contextlib
import io
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.market.bars import Panel

#: Symbols that one vector instruction takes; it refuses any other multiple.
LANES = 8


class KunQuantAbsent(Exception):
    """KunQuant cannot be measured here."""


class KunQuantAlpha158:
    """KunQuant's own Alpha158 in float64, compiled for this machine.

    Raises:
        KunQuantAbsent: It is not installed, or there is no compiler.
    """

    def __init__(self) -> None:
        if shutil.which("g++") is None:
            raise KunQuantAbsent("no g++")
        try:
            from KunQuant.runner import KunRunner  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise KunQuantAbsent("not installed") from error
        self._runner = KunRunner
        with contextlib.redirect_stdout(io.StringIO()):
            self._library = _compile()
        self._module = self._library.getModule("alpha158")

    def over(self, panel: Panel, sessions: int, threads: int) -> tuple[Callable[[], object], int]:
        """Return a call that computes the panel's last sessions, and how many symbols it computes them for."""
        symbols = len(panel.symbols) // LANES * LANES
        inputs = {name: _columns(panel, name, symbols, sessions) for name in ("open", "high", "low", "close", "volume")}
        inputs["amount"] = inputs["close"] * inputs["volume"]
        names = self._module.getOutputNames()
        room = np.empty((len(names), sessions, symbols))
        outputs = {name: room[row] for row, name in enumerate(names)}
        make = self._runner.createMultiThreadExecutor
        executor = self._runner.createSingleThreadExecutor() if threads == 1 else make(threads)
        return lambda: self._runner.runGraph(executor, self._module, inputs, 0, sessions, outputs), symbols


def _columns(panel: Panel, name: str, symbols: int, sessions: int) -> NDArray[np.float64]:
    return np.ascontiguousarray(panel.fields[name][:symbols, -sessions:].T)


def _compile() -> Any:
    from KunQuant.Driver import KunCompilerConfig  # noqa: PLC0415
    from KunQuant.jit import cfake  # noqa: PLC0415
    from KunQuant.Op import Builder, Input, Output  # noqa: PLC0415
    from KunQuant.predefined.Alpha158 import AllData  # noqa: PLC0415
    from KunQuant.Stage import Function  # noqa: PLC0415

    builder = Builder()
    with builder:
        bars = AllData(**{name: Input(name) for name in ("low", "high", "close", "open", "amount", "volume")})
        prices = [("OPEN", bars.open), ("HIGH", bars.high), ("LOW", bars.low), ("VWAP", bars.vwap)]
        windows = {"windows": [5, 10, 20, 30, 60]}
        features, names = bars.build({"kbar": {}, "price": {"windows": [0], "feature": prices}, "rolling": windows})
        for feature, name in zip(features, names, strict=True):
            Output(feature, name)
    options = {"opt_reduce": True, "fast_log": True, "no_fast_stat": "no_warn"}
    config = KunCompilerConfig(
        dtype="double",
        blocking_len=LANES,
        partition_factor=4,
        input_layout="TS",
        output_layout="TS",
        options=options,
    )
    machine = cfake.CppCompilerConfig(machine=cfake.NativeCPUFlags())
    return cfake.compileit([("alpha158", Function(builder.ops), config)], "alpha158", machine)
