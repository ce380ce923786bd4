"""Periods: chronological, with a gap that keeps labels out of the next one."""

from datetime import date

import pytest

from strategies.errors import TrainingError
from strategies.models.configuration import TrainingConfig, load_training_config
from strategies.models.folds import period_of, split_sessions
from tests.support.market import sessions_from

SESSIONS = sessions_from(date(2013, 1, 2), 100)
DATES = {
    "train": {"first": "2013-01-01", "last": "2013-03-31"},
    "valid": {"first": "2013-04-01", "last": "2013-04-30"},
    "test": {"first": "2013-05-01", "last": "2013-12-31"},
}


def test_shares_follow_each_other_with_a_gap():
    split = split_sessions(SESSIONS, TrainingConfig())

    assert split.train == slice(0, 58)
    assert split.valid == slice(60, 78)
    assert split.test == slice(80, 100)


def test_longer_gap_is_kept_and_shorter_one_is_not():
    longer = split_sessions(SESSIONS, TrainingConfig(gap_sessions=5))
    shorter = split_sessions(SESSIONS, TrainingConfig(gap_sessions=0))

    assert (longer.train.stop, longer.valid.stop) == (55, 75)
    assert (shorter.train.stop, shorter.valid.stop) == (58, 78)


def test_dates_that_touch_are_cut_back_by_the_gap():
    split = split_sessions(SESSIONS, TrainingConfig.model_validate({"periods": DATES}))

    train, valid = period_of(SESSIONS, split.train), period_of(SESSIONS, split.valid)
    assert (train.first, train.last) == (date(2013, 1, 2), date(2013, 3, 26))
    assert (valid.first, valid.last) == (date(2013, 4, 1), date(2013, 4, 26))
    assert split.test.stop == 100


def test_dates_that_keep_their_distance_stay():
    far = {**DATES, "train": {"first": "2013-01-15", "last": "2013-03-01"}}

    split = split_sessions(SESSIONS, TrainingConfig.model_validate({"periods": far}))

    assert period_of(SESSIONS, split.train).last == date(2013, 3, 1)


def test_periods_end_on_their_own_last_days():
    early = {
        **DATES,
        "valid": {"first": "2013-04-01", "last": "2013-04-12"},
        "test": {"first": "2013-05-01", "last": "2013-05-10"},
    }

    split = split_sessions(SESSIONS, TrainingConfig.model_validate({"periods": early}))

    assert period_of(SESSIONS, split.valid).last == date(2013, 4, 12)
    assert period_of(SESSIONS, split.test).last == date(2013, 5, 10)


def test_period_without_a_session_is_named():
    late = {**DATES, "test": {"first": "2020-01-01", "last": "2020-12-31"}}

    with pytest.raises(TrainingError, match="the test period has no session: the snapshot runs from 2013-01-02"):
        split_sessions(SESSIONS, TrainingConfig.model_validate({"periods": late}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rat: 0.1", "learning_rat: Extra inputs"),
        ("learning_rate: 2", "learning_rate: Input should be less than or equal to 1"),
        ("shares: {train: 0.8, valid: 0.3}", "leave no session for the test period"),
        ("parameters: {seed: 1}", "parameters may not set seed"),
        ("construction: {top_n: 0, bottom_n: 0}", "both 0"),
        ("periods: {train: {first: 2014-01-01, last: 2013-01-01}}", "before it starts"),
        ("- a\n- b", "the whole file"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_yaml_out_of_bounds_names_the_field(tmp_path, text, words):
    path = tmp_path / "training.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(TrainingError, match=words):
        load_training_config(path)


def test_overlapping_dates_are_refused(tmp_path):
    path = tmp_path / "training.yaml"
    path.write_text(
        "periods:\n  train: {first: 2013-01-01, last: 2013-06-30}\n  valid: {first: 2013-06-30, last: 2013-09-30}\n"
        "  test: {first: 2013-10-01, last: 2013-12-31}\n",
        encoding="utf-8",
    )

    with pytest.raises(TrainingError, match="without overlap"):
        load_training_config(path)


def test_empty_file_is_the_default_configuration(tmp_path):
    path = tmp_path / "training.yaml"
    path.touch()

    assert load_training_config(path) == TrainingConfig()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"nothing\.yaml cannot be read"):
        load_training_config(tmp_path / "nothing.yaml")
