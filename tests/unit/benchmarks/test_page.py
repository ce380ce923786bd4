"""What the benchmarks say: exponents, units, the page and its plot. No figure is judged here."""

import numpy as np
import pytest

from tests.benchmarks.figures import Figure, spell_bytes, spell_seconds
from tests.benchmarks.growth import Sweep, draw
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.page import benchmark_page, figure_table
from tests.benchmarks.timing import ROUNDS, timed

SIZES = (1, 10, 100, 1000)


def make_sweep(power, axis="symbols"):
    return Sweep(name="work", axis=axis, sizes=SIZES, seconds=tuple(1e-4 * size**power for size in SIZES))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponent_is_that_of_a_power_law(power):
    assert make_sweep(power).exponent == pytest.approx(power)


def test_exponent_leaves_the_fixed_cost_out():
    seconds = tuple(1.0 + max(size - 1, 0) * 100 for size in SIZES)
    sweep = Sweep(name="work", axis="symbols", sizes=SIZES, seconds=seconds)

    assert sweep.exponent == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.3456, "12.3 s"), (0.98765, "988 ms"), (0.00123, "1.23 ms"), (0.000186, "0.19 ms")]
)
def test_durations_have_a_fitting_unit(seconds, text):
    assert spell_seconds(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(401.8e6, "402 MB"), (1.5 * 2**30, "1.50 GiB")])
def test_sizes_have_a_fitting_unit(size, text):
    assert spell_bytes(size) == text


def test_table_names_which_goals_are_missed():
    figures = [
        Figure(work="fast", value="1 ms", goal="2 ms", met=True),
        Figure(work="slow", value="3 ms", goal="2 ms", met=False),
        Figure(work="told", value="4 ms"),
    ]

    rows = figure_table(figures).splitlines()[2:]

    assert [row.split(" | ")[3] for row in rows] == ["yes", "**no**", ""]


def test_page_holds_machine_figures_and_exponents():
    page = benchmark_page(
        {"processor": "P9"}, [Figure(work="fast", value="1 ms")], [make_sweep(1.0), make_sweep(2.0, "window")], "x.png"
    )

    assert "| processor | P9 |" in page
    assert "| fast | 1 ms |" in page
    assert "](x.png)" in page
    assert [line.rsplit("| ", 1)[1] for line in page.splitlines() if line.startswith("| work | ")][-2:] == [
        "1.00 |",
        "2.00 |",
    ]


def test_plot_is_a_small_png():
    image = draw((make_sweep(1.0), make_sweep(2.0, "window")))

    assert image.startswith(b"\x89PNG")
    assert len(image) < 200_000


def test_machine_is_described_without_its_name():
    facts = describe_machine()

    assert facts["processor"]
    assert "numba" in facts["versions"]
    assert not any("/" in fact for fact in facts.values())


def test_timing_leaves_the_warm_up_out():
    calls = []
    timing = timed(lambda: calls.append(np.pi), warm_ups=2, least=3, most=3)

    assert len(calls) == 2 + timing.runs == 2 + 3 * ROUNDS
    assert timing.fastest <= timing.median
