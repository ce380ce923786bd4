import errno
import os

import numpy as np
import pytest

from strategies import files
from strategies.files import release, scratch_array

SHAPE = (40, 30, 20)


def resident_bytes():
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - a file of the kernel
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_scratch_array_keeps_its_values_when_its_pages_leave_memory(monkeypatch):
    monkeypatch.setattr(files, "SCRATCH_BYTES", 0)
    values = scratch_array(SHAPE)
    values[:] = np.arange(values.size, dtype=np.float32).reshape(SHAPE)

    release(values)

    np.testing.assert_array_equal(values, np.arange(values.size, dtype=np.float32).reshape(SHAPE))
    values[0] = 1.0
    release(values[1:])
    assert (values[0] == 1.0).all()


def test_released_pages_of_a_large_array_are_not_resident():
    values = scratch_array((64, 1024, 1024 // 2))
    values[:] = 1.0
    before = resident_bytes()

    release(values)

    assert before - resident_bytes() > values.nbytes * 0.9


def test_array_is_in_memory_where_the_disk_is_full(monkeypatch):
    def full(*_given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "SCRATCH_BYTES", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    values = scratch_array(SHAPE)
    values[:] = 2.0

    release(values)

    assert (values == 2.0).all()
    assert values.base is None


@pytest.mark.parametrize("size", [1, 1000])
def test_small_array_is_in_memory(size):
    assert scratch_array((size,)).base is None
