"""`signal-worker features`: identity, values, and what is refused with one sentence."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from strategies.expressions.feature_sets import feature_set
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from tests.support.market import make_bars, write_snapshot
from worker.cli.main import app


@pytest.fixture
def data_dir(tmp_path):
    late = make_bars(sessions=70, seed=2).drop(index=[69])
    write_snapshot(tmp_path / "data", {"AAPL": make_bars(sessions=70), "LATE": late})
    return tmp_path / "data"


def typed(*words):
    return CliRunner().invoke(app, ["features", *map(str, words)])


def test_hash_prints_the_identity_that_models_carry():
    facts = json.loads(typed("hash", "alpha158", "--json").stdout)

    assert facts["sha256"] == feature_set("alpha158").sha256
    assert (facts["features"], facts["lookback_sessions"]) == (158, 61)


def test_hash_of_a_file_is_that_of_its_expressions(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("features:\n  A: $close/Ref($close, 5)\n")
    first, second = (json.loads(typed("hash", tmp_path / f"{name}.yaml", "--json").stdout) for name in ("one", "two"))

    assert first["sha256"] == second["sha256"]
    assert (first["name"], first["fields"]) == ("one", ["close"])
    assert "fields             close" in typed("hash", tmp_path / "one.yaml").stdout


def test_compute_writes_the_values_of_the_engine(data_dir, tmp_path):
    done = typed("compute", "alpha158", "--data-dir", data_dir, "--output", tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    snapshot = latest_snapshot(data_dir)
    panel = load_panel(snapshot, SessionCalendar("XNYS"))
    expected = feature_set("alpha158").evaluate(panel.window(["AAPL"], snapshot.last_session, 61))

    assert done.exit_code == 0
    assert frame.index.get_level_values("symbol").tolist() == ["AAPL"]
    np.testing.assert_array_equal(frame.to_numpy(), expected)


def test_compute_takes_a_range_that_begins_between_sessions(data_dir, tmp_path):
    typed(
        "compute", "alpha360", "AAPL", "--from", "2013-03-02", "--to", "2013-03-06",
        "--data-dir", data_dir, "--output", tmp_path / "x.csv",
    )  # fmt: skip
    frame = pd.read_csv(tmp_path / "x.csv")

    assert frame["session"].tolist() == ["2013-03-04", "2013-03-05", "2013-03-06"]
    assert frame.shape == (3, 362)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["hash", "alpha1"], 1, "no feature set is called 'alpha1'"),
        (["hash", "absent.yaml"], 1, "absent.yaml: cannot be read"),
        (["hash", "alpha158", "--precision", "half"], 1, "precision was 'half'"),
        (["compute", "alpha158", "--output", "x.txt"], 2, "its name must end in .parquet or .csv"),
        (["compute", "alpha158", "XXX"], 1, "unknown symbols XXX"),
        (["compute", "alpha158", "--from", "yesterday"], 2, "'yesterday' is no date"),
        (["compute", "alpha158", "--from", "1990-01-02"], 1, "1990-01-02"),
        (["compute", "alpha158", "--output", "absent/x.csv"], 1, "absent"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_sentence(data_dir, words, code, sentence):
    there = ["--data-dir", data_dir] if words[0] == "compute" else []
    done = typed(*words, *there)

    assert done.exit_code == code
    assert sentence in done.stderr
    assert "\n" not in done.stderr.strip()
