import pytest

from contracts.streams import StreamNames


@pytest.mark.parametrize("partition", ["Fast", "a b", "a:b", "-a", "a" * 41, "fast\n"])
def test_partition_that_no_worker_can_read_is_refused(partition):
    with pytest.raises(ValueError, match="a partition has 1 to 40 small letters, digits, _ or -"):
        StreamNames("signals", partition)


@pytest.mark.parametrize(("partition", "stream"), [("", "s:requests"), ("fast-1_a", "s:requests:fast-1_a")])
def test_partition_is_the_end_of_its_streams_name(partition, stream):
    assert StreamNames("s", partition).requests == stream
