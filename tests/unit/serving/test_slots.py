import threading
from dataclasses import replace

import pytest

from contracts import ServedAs
from tests.support.serving import NOW, make_active
from worker.errors import NoActiveBundle
from worker.serving.slots import Candidate, Slots

STRATEGY = "alpha_baseline"


def make_candidate(seed, share=0.0):
    return Candidate(bundle=make_active(seed=seed).bundle, since=NOW, canary_share=share)


@pytest.fixture
def slots():
    """Slots in which v1 serves, and v2 and v3 are candidates."""
    made = Slots()
    made.put(make_active(seed=0))
    made.change_candidates(STRATEGY, lambda _: (make_candidate(1), make_candidate(2)))
    return made


def versions(slots):
    return [candidate.bundle.version for candidate in slots.candidates.get(STRATEGY, ())]


def test_swap_leaves_what_a_request_has_read_as_it_was(slots):
    read = slots.slot(STRATEGY)

    slots.put(make_active(seed=1, activation=2))

    assert (read.active.bundle.version, len(read.candidates)) == ("v1", 2)
    assert slots.slot(STRATEGY).active.activation == 2


def test_activated_candidate_is_no_candidate_from_the_same_swap_on(slots):
    slots.put(make_active(seed=1, activation=2))

    assert versions(slots) == ["v3"]
    assert slots.active[STRATEGY].bundle.version == "v2"


def test_strategy_that_is_removed_takes_its_candidates_along(slots):
    slots.set_registered(frozenset({STRATEGY}))

    slots.remove(STRATEGY)

    assert versions(slots) == []
    with pytest.raises(NoActiveBundle):
        slots.slot(STRATEGY)


def test_candidate_is_beside_an_active_version_or_nowhere():
    empty = Slots()

    assert not empty.change_candidates(STRATEGY, lambda _: (make_candidate(1),))
    assert versions(empty) == []


def test_dropped_candidate_is_gone_once(slots):
    assert slots.drop_candidate(STRATEGY, "v2")
    assert not slots.drop_candidate(STRATEGY, "v2")
    assert not slots.drop_candidate("nobody", "v2")
    assert versions(slots) == ["v3"]


def test_candidate_answers_under_the_activation_of_the_active_version():
    active = make_active(seed=0, activation=7)

    beside = make_candidate(1).beside(active, ServedAs.CANARY)

    assert (beside.bundle.version, beside.activation, beside.served_as) == ("v2", 7, ServedAs.CANARY)


def test_swaps_of_two_threads_at_once_lose_nothing():
    slots, strategies = Slots(), [f"s{number}" for number in range(40)]
    made = make_active(seed=0)
    bundles = [replace(made, bundle=replace(made.bundle, strategy=name)) for name in strategies]

    def put(part):
        for active in part:
            slots.put(active)
            slots.change_candidates(active.bundle.strategy, lambda _, of=active: (make_candidate_of(of),))

    threads = [threading.Thread(target=put, args=(bundles[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(slots.active) == sorted(strategies)
    assert sorted(slots.candidates) == sorted(strategies)


def make_candidate_of(active):
    return Candidate(bundle=active.bundle, since=NOW)
