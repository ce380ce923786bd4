"""Measurements run at all, on small bars: in children, in sweeps, without rivals."""

import numpy as np
import pytest

from strategies.expressions.feature_sets import feature_set
from tests.benchmarks import growth
from tests.benchmarks.children import ChildFailed, measured
from tests.benchmarks.kunquant import KunQuantAbsent, KunQuantAlpha158
from tests.benchmarks.material import panel_of, prepare_snapshot, window_of, write_bars
from tests.benchmarks.timing import timed
from tests.support.market import make_bars, make_panel, write_snapshot


@pytest.fixture
def data_dir(tmp_path):
    write_snapshot(tmp_path / "data", {name: make_bars(sessions=70, seed=len(name)) for name in ("A", "BB", "CCC")})
    return tmp_path / "data"


@pytest.mark.slow
def test_backfill_measures_the_whole_output(data_dir):
    answer = measured("backfill", {"data_dir": str(data_dir), "threads": 2})

    assert answer["output"] == 70 * 3 * 158 * 4
    assert 0 <= answer["rise"] < answer["peak"]


@pytest.mark.slow
def test_first_call_tells_compiling_from_running(data_dir):
    answer = measured("first_call", {"data_dir": str(data_dir)})

    assert set(answer) == {"import", "define", "first", "second"}
    assert all(seconds > 0 for seconds in answer.values())


def test_failed_measurement_is_named_with_its_reason(tmp_path):
    with pytest.raises(ChildFailed, match=r"load_snapshot ended with 1: .*no complete snapshot"):
        measured("load_snapshot", {"data_dir": str(tmp_path)})


def test_window_repeats_symbols_beyond_the_snapshots():
    panel = make_panel(sessions=70)
    window = window_of(panel, 7, 61)
    values = feature_set("alpha158").evaluate(window)

    assert window.symbols[:4] == (*panel.symbols, panel.symbols[0])
    np.testing.assert_array_equal(values[:3], values[3:6])


def test_generated_bars_are_all_accepted(tmp_path):
    prepare_snapshot(write_bars(tmp_path / "raw", 3, 80), tmp_path / "data")

    assert panel_of(tmp_path / "data").fields["close"].shape == (3, 80)
    assert not np.isnan(panel_of(tmp_path / "data").fields["close"]).any()


def test_every_sweep_has_a_cost_for_each_size(monkeypatch):
    monkeypatch.setattr(growth, "SYMBOLS", (1, 2))
    monkeypatch.setattr(growth, "WINDOWS", (5, 10))
    monkeypatch.setattr(growth, "timed", lambda call, **_: timed(call, warm_ups=0, least=1, most=1))
    sweeps = growth.sweep_all(make_panel(sessions=70), threads=1)

    assert [sweep.axis for sweep in sweeps] == ["symbols", "sessions", "window", "window", "window"]
    assert all(len(sweep.seconds) == len(sweep.sizes) for sweep in sweeps)


def test_kunquant_is_absent_without_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")

    with pytest.raises(KunQuantAbsent, match=r"no g\+\+"):
        KunQuantAlpha158()
