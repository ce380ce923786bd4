"""The engine's values beside recorded ones.

Owns: evaluating recorded expressions, and naming the columns that differ with the place.
Must not know: Qlib.
Invariant: a column without a tolerance is compared bit for bit in every cell of the panel, by its digest.
"""

from collections.abc import Callable

import numpy as np

from strategies.expressions.feature_sets import define
from strategies.market.bars import BoolArray, Float32Array, FloatArray, Panel
from tests.parity.expressions import Tolerance
from tests.parity.recording import Recording, canonical, digest

#: Column and expression to tolerance; None: bit for bit.
Rule = Callable[[str, str], Tolerance | None]


def engine_values(panel: Panel, recording: Recording) -> Float32Array:
    """Return the engine's values of the recorded expressions, `[sessions, symbols, columns]`."""
    days = panel.sessions.astype(object)
    # 130 sessions is the length of the panel on which growing windows are recorded.
    columns = define("recorded", list(recording.expressions.items()), serving=False, expanding=130)
    return columns.evaluate_range(panel, days[0], days[-1])


def differences(
    recording: Recording, mine: Float32Array, panel: Panel, rule: Rule, judged: BoolArray | None = None
) -> dict[str, str]:
    """Return the columns that differ from the recording, and where.

    Args:
        recording: What Qlib computed.
        mine: `[sessions, symbols, columns]`, see `engine_values`.
        panel: The bars of both.
        rule: How near each column must be.
        judged: Symbols that are compared, `[symbols]`; default all. Without one of them digests cannot be compared.
    """
    found: dict[str, str] = {}
    for place, (name, text) in enumerate(recording.expressions.items()):
        whole, theirs, tolerance = mine[:, :, place], recording.values[name], rule(name, text)
        own = whole[recording.selected]
        near = _near(own, theirs, tolerance, panel)
        if judged is not None:
            near |= ~judged
        if not near.all():
            session, symbol = np.argwhere(~near)[0]
            at = f"{panel.symbols[symbol]}, session {recording.selected[session]}"
            found[name] = f"{at}: {own[session, symbol]!r}, recorded {theirs[session, symbol]!r}"
        elif tolerance is None and judged is None and digest(whole) != recording.digests[name]:
            found[name] = "differs in a session whose values are not kept"
    return found


def _near(mine: Float32Array, theirs: Float32Array, tolerance: Tolerance | None, panel: Panel) -> BoolArray:
    if tolerance is None:
        same: BoolArray = canonical(mine).view(np.int32) == canonical(theirs).view(np.int32)
        return same
    absolute: float | FloatArray = tolerance.absolute
    if tolerance.scale:
        values = np.abs(panel.fields[tolerance.scale])
        absolute = absolute * np.nanmax(np.where(np.isinf(values), np.nan, values), axis=1)
    with np.errstate(invalid="ignore"):
        gap = np.abs(mine.astype(float) - theirs.astype(float))
        near: BoolArray = gap <= tolerance.relative * np.abs(theirs.astype(float)) + absolute
    return near | (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
