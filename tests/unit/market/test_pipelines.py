import threading

import pytest

from strategies.market import pipelines
from strategies.market.pipelines import Ahead, Behind

NAMES = [f"S{number}" for number in range(100)]


def test_results_are_read_ahead_in_order_and_no_further_than_may_wait():
    read, behind = [], []
    with Ahead(lambda name: read.append(name) or name.lower(), NAMES) as ahead:
        for at, (name, result) in enumerate(ahead):
            assert (name, result.result()) == (NAMES[at], NAMES[at].lower())
            behind.append(len(read) - at)

    assert max(behind) <= pipelines.WAITING + 1
    assert read == NAMES


def test_error_of_a_read_is_raised_where_its_result_is_used():
    def read(name):
        if name == "S3":
            raise ValueError("torn")
        return name

    with Ahead(read, NAMES[:6]) as ahead:
        found = [result.exception() for _, result in ahead]

    assert [str(one) for one in found] == ["None"] * 3 + ["torn"] + ["None"] * 2


def test_writes_are_done_in_threads_and_their_results_are_in_order():
    threads = set()

    def write(name, number):
        threads.add(threading.current_thread().name)
        return f"{name}:{number}"

    with Behind(write) as behind:
        for number, name in enumerate(NAMES):
            behind.put(name, name, number)
        results = behind.results()

    assert list(results.items()) == [(name, f"{name}:{number}") for number, name in enumerate(NAMES)]
    assert threading.current_thread().name not in threads


def test_error_of_a_write_reaches_the_caller():
    def write(name):
        raise OSError(28, "No space left on device", name)

    with Behind(write) as behind:
        behind.put("S0", "S0")

        with pytest.raises(OSError, match="No space left"):
            behind.results()
