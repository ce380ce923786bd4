from types import SimpleNamespace

from strategies.models.bundle_store import load_bundle
from strategies.models.model_check import inspect_model
from tests.benchmarks import swap
from tests.benchmarks.swap import load_figure, repeated_trees, save_large_bundle, swap_figure
from tests.support.models import make_bundle


def test_repeated_trees_are_a_sound_model_of_about_that_size(tmp_path):
    text = (make_bundle(tmp_path) / "model.txt").read_text(encoding="ascii")

    larger = repeated_trees(text, 50_000)

    assert 40_000 < len(larger) < 80_000
    assert inspect_model(larger).num_trees > 20


def test_large_bundle_proves_itself(tmp_path):
    path = save_large_bundle(tmp_path, make_bundle(tmp_path), "large", size_bytes=50_000)

    large = load_bundle(path, check=False)

    assert (large.version, large.proven) == ("large", True)
    assert swap_figure(large).met


def test_only_what_the_old_model_answered_counts_as_during_the_load(monkeypatch):
    monkeypatch.setattr(swap, "QUIET", 100)
    quiet = [(0.002, "v1")] * 101
    during = [(0.003, "v1")] * 95 + [(0.009, "v1")] * 5
    answers = iter([*quiet, *during, (5.0, "large")])

    def ask():
        seconds, version = next(answers)
        return seconds, SimpleNamespace(model_version=version)

    figure = load_figure(ask, lambda: None, 100_000_000, 5)

    assert "p50 3 ms, p99 9 ms; without p50 2 ms, p99 2 ms" in figure.value
    assert figure.work == "worker, XADD to result, 5 symbols, while a model of 100 MB loads"
    assert figure.met is False
