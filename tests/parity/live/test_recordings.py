"""The recordings against Qlib as it is installed here, so that they cannot rot."""

import json

import numpy as np
import pytest

from tests.parity.comparing import differences
from tests.parity.panels import hostile_panel, panel_of
from tests.parity.record import record
from tests.parity.recording import RECORDINGS, load
from tests.parity.test_recorded_operators import rule_of
from tests.support.qlib_oracle import qlib_type

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


# Qlib's data interface is asked for the shipped features of the demo bars, in test_alpha_parity.py.
NAMES = sorted(path.stem for path in RECORDINGS.glob("*-*.parquet"))
OTHERS = [name for name in NAMES if not name.startswith(("demo-alpha", "hostile-bars", "model-"))]


@pytest.mark.parametrize("name", OTHERS)
def test_qlib_gives_what_was_recorded(name):
    recorded, panel = load(RECORDINGS / f"{name}.parquet"), panel_of(name)

    found = record(panel, recorded.expressions, np.arange(panel.sessions.size))

    theirs = np.stack(list(found.values.values()), axis=2)
    assert differences(recorded, theirs, panel, rule_of(name)) == {}


def test_qlib_generates_and_types_what_was_recorded():
    stated = json.loads((RECORDINGS / "definitions.json").read_text())
    panel = hostile_panel()

    assert {text: qlib_type(text, panel) for text in stated["types"]} == stated["types"]
