"""Whether this machine computes as the machine of the release did: a reference model and its golden sample.

Owns: recomputing them bit for bit; `strategies/models/machine/` has the files, written by
`python -m tests.support.machine_sample`.
Must not know: bundles of users, registries, what depends on the proof.
Invariant: it covers what a golden sample covers (compiler, processor, C library, versions of the libraries), so that a
machine which passes it and not a model's sample differs from the model, not from the release.
"""

from pathlib import Path

from strategies.errors import BundleError, ExpressionError, MachineUnproven
from strategies.expressions.feature_sets import feature_set
from strategies.models.bundle import Scorer
from strategies.models.bundle_store import parse_booster
from strategies.models.golden import replay_golden
from strategies.models.manifest import VwapStandIn
from strategies.models.model_check import REFERENCE_MODEL
from strategies.models.tables import decode_golden

FOLDER = REFERENCE_MODEL.parent
GOLDEN: Path = FOLDER / "golden.parquet"
#: As bars without a vwap have it.
STAND_IN: VwapStandIn = "typical_price"


def prove_machine() -> None:
    """Compute the features and predictions of the reference sample again and compare them bit for bit.

    Raises:
        MachineUnproven: They differ, or cannot be computed here; names the first difference.
    """
    try:
        features = feature_set("alpha158", vwap_stand_in=STAND_IN)
        scorer = Scorer(feature_set=features, processors=(), booster=parse_booster(REFERENCE_MODEL.read_bytes()))
        replay_golden(scorer, decode_golden(GOLDEN.read_bytes(), features.names))
    except (BundleError, ExpressionError, ValueError, OSError, MemoryError) as error:
        raise MachineUnproven(f"this machine does not reproduce the reference sample: {error}") from error
