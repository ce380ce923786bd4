import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.entry_ids import LARGEST_PART, EntryId

PARTS = st.integers(0, LARGEST_PART)


@given(PARTS, PARTS)
def test_text_reads_back_as_the_same_id(ms, sequence):
    entry_id = EntryId(ms, sequence)

    assert EntryId.parse(str(entry_id)) == entry_id
    assert EntryId.parse(str(entry_id).encode()) == entry_id


def test_missing_sequence_is_zero():
    assert EntryId.parse("1700000000000") == EntryId(1_700_000_000_000, 0)


def test_ids_are_ordered_by_number_and_not_as_text():
    texts = ["1000-10", "999-0", "1000-2", "1000-0"]

    assert sorted(texts, key=EntryId.parse) == ["999-0", "1000-0", "1000-2", "1000-10"]


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "1-", "-1", "+1-0", "1-2-3", " 1-0", "1-0\n", "1_0-0", "\uff11-0", b"\xff-0", "$", "9" * 5000,
        f"{LARGEST_PART + 1}-0", f"0-{LARGEST_PART + 1}",
    ],
)  # fmt: skip
def test_what_is_no_entry_id_is_refused(text):
    with pytest.raises(ValueError, match="is no entry id"):
        EntryId.parse(text)


def test_largest_id_of_a_stream_is_read():
    assert EntryId.parse(f"{LARGEST_PART}-{LARGEST_PART}") == EntryId(LARGEST_PART, LARGEST_PART)


def test_long_text_is_cut_in_the_error():
    with pytest.raises(ValueError, match=r"^'x{64}' is no entry id, must be <milliseconds>-<sequence>$"):
        EntryId.parse("x" * 65)
