"""What a worker loads: the checks that a manifest states, those it does not, and limits that the worker was given."""

import json
from datetime import date

import numpy as np
import pytest

from strategies.errors import SnapshotRefused
from strategies.market.importing import ImportOptions, import_bars
from strategies.market.loading import Loading
from strategies.market.manifest import NAME
from strategies.market.rules import Rules, limited, with_limits
from strategies.market.snapshots import check_results, latest_snapshot, load_panel
from tests.support.market import make_bars, write_raw, xnys

DAY = date(2014, 1, 2)
SYMBOLS, SESSIONS = 12, 90


def imported(folder, *, moved=0, absent=0, at=70):
    """Import 12 symbols of which some trebled, by limits that let them, and some lack the last bar."""
    frames = {f"S{seed:02d}": make_bars(seed=seed, sessions=SESSIONS) for seed in range(SYMBOLS)}
    for number in range(moved):
        for name in ("open", "high", "low", "close"):
            frames[f"S{number:02d}"].loc[at:, name] *= 2.7
    for number in range(absent):
        frames[f"S{number:02d}"] = frames[f"S{number:02d}"].iloc[:-1]
    rules = Rules(max_move=5.0, max_spike=5.0, split_tolerance=1e-9)
    source = write_raw(folder / "raw", frames)
    moves = frozenset((symbol, day.date()) for symbol, frame in frames.items() for day in frame["date"][[at]])
    import_bars(
        source,
        folder / "data",
        run_date=DAY,
        options=ImportOptions(rules=rules if not moved else Rules(max_move=5.0, max_spike=5.0, confirmed_moves=moves)),
    )
    return folder / "data"


def rewritten(data, *names, **change):
    """Take fields out of a manifest, as an earlier release wrote it."""
    path = latest_snapshot(data).path / NAME
    fields = {name: value for name, value in json.loads(path.read_text()).items() if name not in names}
    path.write_text(json.dumps(fields | change))


def serving(data, *limits):
    given = limited(limits)
    return Loading(data_dir=data, calendar=xnys(), rules=with_limits(given), given=frozenset(given))


def test_snapshot_of_an_earlier_release_is_checked_by_all_rules_at_load(tmp_path):
    data = imported(tmp_path)
    rewritten(data, "checks", "rules", "limits", "unsettled", "origin", "lineage", "parts", "revision")

    snapshot, panel = serving(data).newer(None)

    assert snapshot.manifest.checks == {}
    results = check_results(snapshot, panel)
    assert {name: result.detail for name, result in results.items()} == dict.fromkeys(results, "passed")
    assert "newer_rules" in results


@pytest.mark.parametrize(("moved", "at", "served"), [(0, 70, True), (3, 70, False), (3, 20, True)])
def test_rules_of_rows_that_are_newer_than_a_snapshot_are_run_at_load(tmp_path, moved, at, served):
    data = imported(tmp_path, moved=moved, at=at)
    rewritten(data, rules={"price_spike": 1}, options={})

    if served:
        assert serving(data).newer(None)
    else:
        with pytest.raises(SnapshotRefused, match=r"newer_rules: 3 of 12 symbols .* S00, S01, S02"):
            serving(data).newer(None)
        assert serving(data, "newer_rules=0.5").newer(None)


def test_what_was_settled_at_the_import_is_settled_for_newer_rules(tmp_path):
    data = imported(tmp_path, moved=3)
    rewritten(data, "rules")

    assert serving(data).newer(None)


def test_snapshot_of_this_release_is_not_judged_again(tmp_path):
    data = imported(tmp_path, moved=3)
    rewritten(data, options={})

    assert serving(data).newer(None)


def test_limits_of_a_worker_count_instead_of_those_that_a_manifest_states(tmp_path):
    data = imported(tmp_path, absent=3)

    with pytest.raises(SnapshotRefused, match="last_session_coverage"):
        serving(data).newer(None)
    assert serving(data, "last_session_coverage=0.5").newer(None)
    (tmp_path / "other").mkdir()
    sound = imported(tmp_path / "other", absent=2)
    assert serving(sound, "max_move=0.1").newer(None)
    # Two are too few to be wrong by themselves, whatever the limit.
    panel = load_panel(latest_snapshot(data), xnys())
    strict = with_limits({"last_session_coverage": 0.7})
    results = check_results(latest_snapshot(data), panel, strict, given={"last_session_coverage"})
    assert results["last_session_coverage"].passed
    assert np.isnan(panel.fields["close"][:3, -1]).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("max_mov=1", "'max_mov' is no limit"), ("max_move=x", "must be a number"), ("max_move=-1", "must be above 0")],
)
def test_limit_that_is_none_is_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        limited([text])
