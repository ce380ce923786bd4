import hashlib

import pytest

from contracts import ServedAs
from tests.support.serving import NOW, make_active
from worker.serving.slots import Candidate, Slot
from worker.serving.traffic_split import bucket, bundle_for, in_share

IDS = [f"request-{number}" for number in range(4000)]


def make_slot(*shares):
    candidates = [
        Candidate(bundle=make_active(seed=row + 1).bundle, since=NOW, canary_share=share)
        for row, share in enumerate(shares)
    ]
    return Slot(active=make_active(seed=0, activation=5), candidates=tuple(candidates))


def test_position_is_the_documented_hash_of_the_request_id():
    digest = hashlib.sha256(b"canary:desk/2024-01-02").hexdigest()

    assert bucket("desk/2024-01-02", ServedAs.CANARY) == int(digest[:8], 16) / 0x1_0000_0000
    # Printed once and for all: producers may have written them down.
    assert bucket("desk/2024-01-02", ServedAs.CANARY) == pytest.approx(0.023936178, abs=1e-8)
    assert bucket("desk/2024-01-02", ServedAs.SHADOW) == pytest.approx(0.548229315, abs=1e-8)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_share_of_the_ids_is_chosen(share):
    found = sum(in_share(request_id, ServedAs.SHADOW, share) for request_id in IDS)

    assert found / len(IDS) == pytest.approx(share, abs=0.02)
    assert (found == 0) == (share == 0)
    assert (found == len(IDS)) == (share == 1)


def test_larger_share_contains_all_of_a_smaller_one():
    small = {request_id for request_id in IDS if in_share(request_id, ServedAs.CANARY, 0.05)}
    large = {request_id for request_id in IDS if in_share(request_id, ServedAs.CANARY, 0.2)}

    assert small
    assert small < large


def test_canary_and_shadow_choose_independently():
    canary_for = [request_id for request_id in IDS if in_share(request_id, ServedAs.CANARY, 0.2)]

    shadowed = sum(in_share(request_id, ServedAs.SHADOW, 0.2) for request_id in canary_for)

    assert shadowed / len(canary_for) == pytest.approx(0.2, abs=0.06)


def test_canary_answers_its_share_and_the_active_version_the_rest():
    slot = make_slot(0.0, 0.25)

    by = {request_id: bundle_for(slot, request_id) for request_id in IDS}

    answered = {request_id for request_id, one in by.items() if one.served_as is ServedAs.CANARY}
    assert answered == {request_id for request_id in IDS if in_share(request_id, ServedAs.CANARY, 0.25)}
    assert {by[request_id].bundle.version for request_id in answered} == {"v3"}
    assert {one.bundle.version for request_id, one in by.items() if request_id not in answered} == {"v1"}
    assert {one.activation for one in by.values()} == {5}


def test_candidates_without_a_share_answer_nothing():
    slot = make_slot(0.0, 0.0)

    assert all(bundle_for(slot, request_id) is slot.active for request_id in IDS)
