"""The picture of a comparison."""

from datetime import date, timedelta

import numpy as np
import pytest

from strategies.analysis.comparison import ModelOutput, Pair, compare
from worker.operations.comparison.counts import Counts
from worker.operations.comparison.drawing import FORMATS, draw
from worker.operations.comparison.gathering import Contender, Evidence


def make_evidence(*, sessions):
    """Return two versions that answer alike for some sessions, of which nothing is known yet."""
    one = ModelOutput(
        symbols=("A", "B"), predictions=np.array([0.1, 0.2]), weights=np.array([-1.0, 1.0]), compute_ms=1.0
    )
    days = [date(2013, 1, 2) + timedelta(days=number) for number in range(sessions)]
    pairs = [Pair(question="q", session=day, left=one, right=one) for day in days]
    return Evidence(
        strategy="alpha",
        left=Contender(version="v1", bundle=None, unproven="away"),
        right=Contender(version="v2", bundle=None, unproven="away"),
        comparison=compare(pairs, None, None),
        counts=Counts(),
        source="published",
        snapshot_id=None,
        notes=(),
    )


@pytest.mark.parametrize("file_format", FORMATS)
def test_same_evidence_is_the_same_picture(file_format):
    evidence = make_evidence(sessions=3)

    assert draw(evidence, file_format) == draw(evidence, file_format)


def test_picture_names_what_it_is_based_on():
    picture = draw(make_evidence(sessions=1), "svg").decode()

    assert "<svg" in picture
    assert "alpha v1 and v2" in picture
    assert "1 pairs on 1 sessions (2013-01-02 to 2013-01-02), published" in picture
