"""The machine's own proof: the bundled reference model and sample, computed again bit for bit."""

import numpy as np
import pytest

from strategies.errors import MachineUnproven
from strategies.models import machine_proof
from strategies.models.bundle import Scorer
from strategies.models.bundle_store import parse_booster
from strategies.models.machine_proof import GOLDEN, prove_machine
from strategies.models.model_check import REFERENCE_MODEL, REFERENCE_OUTPUTS
from strategies.models.tables import decode_golden
from tests.support.machine_sample import machine_files


def test_this_machine_proves_itself():
    prove_machine()


def test_the_command_computes_the_contents_of_the_shipped_files():
    # Their bytes contain versions of the libraries that wrote them.
    written = machine_files()
    names = machine_proof.feature_set("alpha158").names
    computed, shipped = (decode_golden(content, names) for content in (written[GOLDEN.name], GOLDEN.read_bytes()))
    booster, reference = (
        parse_booster(content) for content in (written[REFERENCE_MODEL.name], REFERENCE_MODEL.read_bytes())
    )

    assert computed.features.tobytes() == shipped.features.tobytes()
    assert computed.predictions.tobytes() == shipped.predictions.tobytes()
    assert [window_bits(window) for window in computed.windows] == [window_bits(window) for window in shipped.windows]
    assert booster.feature_name() == reference.feature_name() == list(names)
    assert booster.dump_model()["tree_info"] == reference.dump_model()["tree_info"]
    assert written[REFERENCE_OUTPUTS.name] == REFERENCE_OUTPUTS.read_bytes()


def window_bits(window):
    return window.symbols, window.as_of, {name: values.tobytes() for name, values in window.fields.items()}


def test_feature_that_differs_by_one_bit_is_named(monkeypatch):
    sample = machine_proof.decode_golden(GOLDEN.read_bytes(), machine_proof.feature_set("alpha158").names)
    sample.features[3, 7] = np.nextafter(sample.features[3, 7], np.float32(np.inf))
    monkeypatch.setattr(machine_proof, "decode_golden", lambda *_: sample)

    with pytest.raises(MachineUnproven, match=r"does not reproduce the reference sample: \w+ of S\d\d on"):
        prove_machine()


def test_prediction_that_differs_is_named(monkeypatch):
    predict = Scorer.predict
    monkeypatch.setattr(Scorer, "predict", lambda self, rows: np.nextafter(predict(self, rows), np.inf))

    with pytest.raises(MachineUnproven, match="prediction of S"):
        prove_machine()


@pytest.mark.parametrize("content", [b"", b"PAR1"])
def test_files_that_are_damaged_prove_nothing(monkeypatch, tmp_path, content):
    monkeypatch.setattr(machine_proof, "GOLDEN", tmp_path / "golden.parquet")
    (tmp_path / "golden.parquet").write_bytes(content)

    with pytest.raises(MachineUnproven):
        prove_machine()
