"""Cells are compared: planted differences are found and measured."""

import numpy as np
import pytest

from tests.parity.cells import Tally, scales_of

NAMES = ("A", "B")


def tally(qlib, ours, reference=None, exists=None):
    qlib, ours = np.float32(qlib), np.float32(ours)
    exists = np.ones(qlib.shape[:-1], bool) if exists is None else exists
    counted = Tally(NAMES, scales_of(ours, exists))
    counted.add(qlib, ours, ours if reference is None else np.float32(reference), exists)
    return counted.result()


def test_equal_cells_have_no_deviation():
    first, second = tally([[1.0, np.nan], [2.0, np.inf]], [[1.0, np.nan], [2.0, np.inf]])

    assert (first.cells, first.equal_to_qlib, first.largest) == (2, 2, 0.0)
    assert (second.nan_differs, second.equal_to_qlib, second.largest) == (0, 2, 0.0)


def test_a_value_where_qlib_has_none_is_counted():
    first, second = tally([[1.0, np.nan], [2.0, 4.0]], [[1.0, 3.0], [2.0, 4.0]])

    assert first.nan_differs == 0
    assert (second.nan_differs, second.equal_to_qlib, second.largest) == (1, 1, np.inf)


def test_deviation_is_relative_to_the_larger_magnitude():
    first, _ = tally([[0.5, 0.0], [100.0, 0.0]], [[0.0, 0.0], [110.0, 0.0]], [[0.0, 0.0], [110.0, 0.0]])

    assert first.largest_absolute == pytest.approx(10.0)
    assert first.largest == pytest.approx(10.0 / 110.0)
    assert (first.qlib_off, first.ours_exact) == (2, 2)


def test_rows_that_do_not_exist_are_left_out():
    first, _ = tally([[1.0, 0.0], [9.0, 0.0]], [[1.0, 0.0], [5.0, 0.0]], exists=np.array([True, False]))

    assert (first.cells, first.largest) == (1, 0.0)


def test_deviation_from_the_reference_is_measured_for_both():
    first, _ = tally([[1.0, 0.0]], [[2.0, 0.0]], [[4.0, 0.0]])

    assert (first.qlib_from_reference, first.ours_from_reference) == (0.75, 0.5)
