import pytest

from worker.errors import SettingsError
from worker.serving.failpoints import InjectedFailure, Step, failpoints


def failures(specification, times=200):
    reach, found = failpoints(specification), []
    for turn in range(times):
        try:
            reach(Step.COMPUTED)
        except InjectedFailure:
            found.append(turn)
    return found


def test_nothing_fails_without_the_setting():
    assert failures("") == []


def test_same_seed_fails_at_the_same_steps():
    first = failures("seed=7,computed=raise@0.1")

    assert 5 <= len(first) <= 50
    assert failures("seed=7,computed=raise@0.1") == first
    assert failures("seed=8,computed=raise@0.1") != first


def test_other_steps_are_left_alone():
    assert failures("seed=7,committed=raise@1") == []


@pytest.mark.parametrize("specification", ["computed=kill@1", "seed=x", "seed=1,dinner=kill@1", "seed=1,read=burn@0.5"])
def test_malformed_setting_is_refused(specification):
    with pytest.raises(SettingsError, match="failpoints was"):
        failpoints(specification)
