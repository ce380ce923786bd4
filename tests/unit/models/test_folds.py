"""Walk-forward folds: hand-computed sessions, and no way for a bar of a test period into training."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit

from strategies.errors import TrainingError
from strategies.models.configuration import TrainingConfig, load_training_config
from strategies.models.folds import Fold, Split, plan_folds, split_sessions
from tests.support.market import sessions_from

SESSIONS = sessions_from(date(2013, 1, 2), 100)


def plan(sessions=20, **walk_forward):
    config = TrainingConfig.model_validate({"walk_forward": walk_forward})
    return plan_folds(SESSIONS[:sessions], config)


def indices(plan):
    return [
        (fold.train.tolist(), fold.valid.tolist(), list(range(fold.split.test.start, fold.split.test.stop)))
        for fold in plan.folds
    ]


def test_expanding_window_is_counted_by_hand():
    folds = indices(plan(train_sessions=5, valid_sessions=2, test_sessions=3))

    # train, 2 purged, valid, 2 purged, test; then the same with 3 more sessions to train on
    assert folds == [
        ([0, 1, 2, 3, 4], [7, 8], [11, 12, 13]),
        ([0, 1, 2, 3, 4, 5, 6, 7], [10, 11], [14, 15, 16]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [13, 14], [17, 18, 19]),
    ]


def test_rolling_window_keeps_its_length_and_larger_purge():
    folds = indices(
        plan(window="rolling", train_sessions=4, valid_sessions=2, test_sessions=2, step_sessions=4, purge_sessions=3)
    )

    assert folds == [
        ([0, 1, 2, 3], [7, 8], [12, 13]),
        ([4, 5, 6, 7], [11, 12], [16, 17]),
    ]


def test_snapshot_of_exactly_one_fold_has_one():
    lengths = {"train_sessions": 5, "valid_sessions": 2, "test_sessions": 3}

    assert len(plan(14, **lengths).folds) == 1
    with pytest.raises(TrainingError, match="no fold fits into the 13 sessions of the snapshot: one needs 14"):
        plan(13, **lengths)


def test_as_many_folds_are_planned_as_are_trained():
    rule = {"train_sessions": 1, "valid_sessions": 1, "test_sessions": 1}
    config = TrainingConfig.model_validate({"walk_forward": rule})

    assert len(plan_folds(sessions_from(date(2013, 1, 2), 206), config).folds) == 200
    with pytest.raises(TrainingError, match="201 folds fit into the snapshot, at most 200 are trained"):
        plan_folds(sessions_from(date(2013, 1, 2), 207), config)


def test_training_without_folds_has_the_final_periods_alone():
    planned = plan_folds(SESSIONS, TrainingConfig())

    assert (planned.folds, planned.final.embargoes, planned.tested.tolist()) == ((), (), [])
    assert planned.span == slice(0, len(SESSIONS))
    assert planned.final.split == split_sessions(SESSIONS, TrainingConfig())


def test_ranges_of_a_plan_count_from_its_span():
    dates = {
        "train": {"first": "2013-01-15", "last": "2013-02-28"},
        "valid": {"first": "2013-03-06", "last": "2013-03-20"},
        "test": {"first": "2013-04-01", "last": "2013-04-30"},
    }
    config = TrainingConfig.model_validate({"periods": dates, "walk_forward": {"folds": [dates]}})

    planned, whole = plan_folds(SESSIONS, config), split_sessions(SESSIONS, config)

    assert (planned.span.start, planned.span.stop) == (whole.train.start, whole.test.stop)
    assert planned.span.start > 0
    assert [fold.number for fold in (*planned.folds, planned.final)] == [1, 0]
    sessions = SESSIONS[planned.span]
    for split in (planned.final.split, planned.folds[0].split):
        for (_, period), (_, expected) in zip(split, whole, strict=True):
            assert sessions[period].tolist() == SESSIONS[expected].tolist()
    assert sessions[planned.tested].tolist() == SESSIONS[whole.test].tolist()


def test_embargo_applies_to_every_later_fold():
    planned = plan(24, train_sessions=5, valid_sessions=2, test_sessions=2, step_sessions=5, embargo_sessions=2)

    # tests are 11-12, 16-17 and 21-22; each keeps the two sessions after it from later folds
    assert indices(planned) == [
        ([0, 1, 2, 3, 4], [7, 8], [11, 12]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [12], [16, 17]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [17], [21, 22]),
    ]
    assert [fold.embargoed_sessions for fold in planned.folds] == [0, 1, 3]


def test_embargo_applies_to_the_final_model_too():
    embargoed = Fold(split=Split(train=slice(0, 8), valid=slice(8, 12), test=slice(12, 14)), embargoes=(slice(6, 9),))

    assert embargoed.train.tolist() == [0, 1, 2, 3, 4, 5]
    assert embargoed.valid.tolist() == [9, 10, 11]
    assert plan(60, train_sessions=10, valid_sessions=2, test_sessions=3, embargo_sessions=4).final.embargoes[0] == (
        slice(19, 23)
    )


def test_listed_folds_are_cut_back_where_they_touch():
    listed = [
        {
            "train": {"first": "2013-01-02", "last": "2013-01-31"},
            "valid": {"first": "2013-02-01", "last": "2013-02-14"},
            "test": {"first": "2013-02-15", "last": "2013-02-28"},
        },
        {
            "train": {"first": "2013-01-15", "last": "2013-02-15"},
            "valid": {"first": "2013-02-20", "last": "2013-02-28"},
            "test": {"first": "2013-03-05", "last": "2013-03-15"},
        },
    ]

    first, second = plan(100, folds=listed).folds

    assert [str(SESSIONS[fold.train[-1]]) for fold in (first, second)] == ["2013-01-29", "2013-02-14"]
    assert [str(SESSIONS[fold.valid[-1]]) for fold in (first, second)] == ["2013-02-12", "2013-02-28"]


@settings(deadline=None)
@given(
    sessions=st.integers(60, 100),
    window=st.sampled_from(["expanding", "rolling"]),
    lengths=st.tuples(st.integers(1, 20), st.integers(1, 8), st.integers(1, 8)),
    more_step=st.integers(0, 5),
    purge=st.integers(2, 6),
    embargo=st.integers(0, 6),
)
def test_no_label_reads_a_bar_of_a_later_period(sessions, window, lengths, more_step, purge, embargo):
    train, valid, test = lengths
    rule = {"train_sessions": train, "valid_sessions": valid, "test_sessions": test, "step_sessions": test + more_step}

    planned = plan(sessions, window=window, purge_sessions=purge, embargo_sessions=embargo, **rule)

    ahead = TrainingConfig().label.sessions_ahead
    for fold in planned.folds:
        assert (fold.train + ahead < fold.split.valid.start).all()
        assert (fold.train + ahead < fold.split.test.start - purge).all()
        assert (fold.valid + ahead < fold.split.test.start).all()
        stops = np.array([earlier.split.test.stop for earlier in planned.folds[: fold.number - 1]], dtype=int)
        kept_from = (stops[:, None] + np.arange(embargo)).ravel()
        assert not np.isin(np.concatenate([fold.train, fold.valid]), kept_from).any()
    assert len(set(planned.tested.tolist())) == len(planned.tested)


@pytest.mark.parametrize("window", ["expanding", "rolling"])
def test_folds_without_validation_between_equal_those_of_scikit_learn(window):
    rule = {"train_sessions": 6, "valid_sessions": 1, "test_sessions": 4, "purge_sessions": 3}

    mine = plan(60, window=window, **rule).folds

    # Between train and test here are one purge, one session of validation and one more purge: its gap.
    splitter = TimeSeriesSplit(
        n_splits=len(mine), test_size=4, gap=7, max_train_size=6 if window == "rolling" else None
    )
    used = mine[-1].split.test.stop
    theirs = list(splitter.split(np.zeros(used)))
    assert [fold.train.tolist() for fold in mine] == [train.tolist() for train, _ in theirs]
    assert [list(range(fold.split.test.start, fold.split.test.stop)) for fold in mine] == [
        t.tolist() for _, t in theirs
    ]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"train_sessions": 90, "valid_sessions": 5, "test_sessions": 5}, "no fold fits into the 100 sessions .* 104"),
        (
            {
                "folds": [
                    {
                        "train": {"first": "2013-01-02", "last": "2013-01-03"},
                        "valid": {"first": "2013-01-04", "last": "2013-01-20"},
                        "test": {"first": "2013-02-01", "last": "2013-02-05"},
                    }
                ]
            },
            "the train period of fold 1 has no session",
        ),
    ],
)
def test_folds_longer_than_the_snapshot_are_refused(rule, words):
    with pytest.raises(TrainingError, match=words):
        plan(100, **rule)


def test_more_folds_than_anybody_trains_are_refused():
    sessions = sessions_from(date(2010, 1, 4), 400)
    rule = {"train_sessions": 1, "valid_sessions": 1, "test_sessions": 1}

    with pytest.raises(TrainingError, match="394 folds fit into the snapshot, at most 200 are trained"):
        plan_folds(sessions, TrainingConfig.model_validate({"walk_forward": rule}))


LENGTHS = "train_sessions: 9, valid_sessions: 3, test_sessions: 3"
FOLD = (
    "{train: {first: 2013-01-02, last: 2013-01-31}, valid: {first: 2013-02-04, last: 2013-02-14},"
    " test: {first: 2013-02-20, last: 2013-02-28}}"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"walk_forward: {{{LENGTHS}, purge_sessions: 1}}",
            "purge_sessions is 1, but the label looks 2 sessions ahead",
        ),
        (f"walk_forward: {{{LENGTHS}, purge_sessions: 3}}\ngap_sessions: 3", "say the same: give one of them"),
        (f"walk_forward: {{{LENGTHS}, step_sessions: 2}}", "a session would be tested twice"),
        (f"walk_forward: {{{LENGTHS}, window: sliding}}", "window: Input should be 'expanding' or 'rolling'"),
        (f"walk_forward: {{{LENGTHS}, embargo_sessions: -1}}", "greater than or equal to 0"),
        (f"walk_forward: {{{LENGTHS}, embargo: 1}}", "embargo: Extra inputs are not permitted"),
        ("walk_forward: {train_sessions: 9}", "or list the folds"),
        (f"walk_forward: {{{LENGTHS}, folds: [{FOLD}]}}", "folds are listed"),
        (f"walk_forward: {{window: rolling, folds: [{FOLD}]}}", "folds are listed"),
        (f"walk_forward: {{folds: [{FOLD}, {FOLD}]}}", "fold 2 tests from 2013-02-20, fold 1 until 2013-02-28"),
        ("walk_forward: {folds: []}", "at least 1 item"),
        (f"walk_forward: {{folds: [{', '.join([FOLD] * 201)}]}}", "at most 200 items"),
        ("borrow_bps_a_year: .inf", "finite"),
        ("seed: 1\nseed: 2", "the key 'seed' is given twice"),
        ("a: &a [1]\nb: *a", r"the alias \*a in line 2 is not allowed"),
        ("train: {first: 2013-13-45}", "cannot be read as YAML"),
        ("rounds: " + "9" * 5000, "cannot be read as YAML"),
        ("parameters: {" + ", ".join(f"p{n}: 1" for n in range(101)) + "}", "at most 100 items"),
        ("[" * 5000, "cannot be read as YAML"),
        ("#" * 1_000_001, "more than 1000000 bytes"),
    ],
)
def test_configuration_out_of_bounds_is_refused_with_a_sentence(tmp_path, text, words):
    path = tmp_path / "training.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(TrainingError, match=words) as raised:
        load_training_config(path)

    assert len(str(raised.value)) < 700 + len(str(path))
