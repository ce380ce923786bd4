from worker.serving.intake import Prefetch
from worker.serving.request_stream import Entry


def make_entry(size: int) -> Entry:
    return Entry(id="1-0", pairs=((b"a", b"x" * (size - 1)),), deliveries=1)


def test_before_any_entry_the_largest_allowed_is_expected():
    assert Prefetch(16, 8 * 1024, 1024).count == 8


def test_small_entries_are_read_up_to_the_count():
    prefetch = Prefetch(16, 8 * 1024, 1024)

    for _ in range(20):
        prefetch.note([make_entry(100)] * 8)

    assert prefetch.count == 16


def test_batch_of_equal_entries_stays_within_its_bytes():
    prefetch = Prefetch(1000, 100_000, 1024)

    prefetch.note([make_entry(3000)] * 5)

    assert prefetch.count * 3000 <= 100_000 < (prefetch.count + 1) * 3000


def test_entry_larger_than_a_batch_is_read_alone():
    prefetch = Prefetch(16, 8 * 1024, 1024)

    prefetch.note([make_entry(1_000_000)])

    assert prefetch.count == 1


def test_one_giant_is_forgotten_batch_by_batch():
    prefetch = Prefetch(16, 8 * 1024, 100)
    prefetch.note([make_entry(8 * 1024)])

    for _ in range(40):
        prefetch.note([make_entry(100)])

    assert prefetch.count == 16


def test_reading_nothing_teaches_nothing():
    prefetch = Prefetch(16, 8 * 1024, 1024)

    prefetch.note([])

    assert prefetch.count == 8
