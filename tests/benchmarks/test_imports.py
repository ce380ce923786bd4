"""The figures of imports and of the daily round, on a few bars."""

from pathlib import Path

from tests.benchmarks.imports import import_figures


def test_every_source_and_both_steps_of_a_day_are_measured(tmp_path: Path) -> None:
    figures = list(import_figures(tmp_path, 12, 40))

    assert [figure.work.split(" 12 ")[0] for figure in figures[:3]] == ["import"] * 3
    assert [figure.work.split(" session")[0] for figure in figures[3:]] == ["append a", "a worker takes the"]
    assert all("processor time" in figure.value and figure.met is not None for figure in figures)
