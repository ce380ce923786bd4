import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from contracts import (
    Contribution,
    Explanation,
    IneligiblePolicy,
    Rejection,
    ServedAs,
    SignalRequest,
    SignalVector,
)
from contracts.codec import (
    MAX_ENTRY_BYTES,
    QUOTED,
    decode,
    decode_request,
    encode,
    pairs_of,
    printable,
    request_id_of,
)
from contracts.errors import (
    ContractError,
    DuplicateSymbols,
    EmptySymbols,
    EntryTooLarge,
    MalformedAsOf,
    MalformedEntry,
    TooManySymbols,
    UnknownField,
    UnsupportedVersion,
)
from contracts.signals import weights_digest
from tests.support.wire import SIGNALS, make_rejection, make_vector

ENTRY = "1700000000000-0"


def request_of(**fields):
    return decode_request(pairs_of({"strategy": "alpha_baseline"} | fields), ENTRY)


def test_two_fields_typed_by_hand_are_a_full_request():
    request = request_of(symbols="AAPL,MSFT,IBM")

    assert request.symbols == ("AAPL", "MSFT", "IBM")
    assert request.request_id == ENTRY
    assert request.as_of is None


def test_absent_symbols_mean_the_universe():
    assert request_of().symbols is None


def test_every_field_of_a_request_survives_the_wire():
    request = SignalRequest(
        request_id="r:1",
        strategy="alpha_baseline",
        symbols=("A", "BF.B"),
        as_of=datetime(2013, 2, 1, 21, tzinfo=UTC),
        top_n=2,
        bottom_n=0,
        on_ineligible=IneligiblePolicy.EXCLUDE,
        deadline=datetime(2013, 2, 1, 22, tzinfo=UTC),
        explain=True,
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        tracestate="k=v",
    )

    assert decode_request(pairs_of(encode(request)), ENTRY) == request


def test_every_field_of_a_vector_survives_the_wire():
    vector = make_vector()

    assert decode(SignalVector, pairs_of(encode(vector))) == vector


def test_explanations_and_served_as_survive_the_wire():
    explanation = Explanation(
        symbol="AAPL",
        base=0.01,
        contributions=(
            Contribution(feature="KMID", value=0.2, contribution=-0.03),
            Contribution(feature="ROC60", value=None, contribution=0.02),
        ),
        others=0.001,
    )
    vector = make_vector(served_as=ServedAs.CANARY, explanations=(explanation,))

    assert decode(SignalVector, pairs_of(encode(vector))) == vector


def test_rejection_survives_the_wire():
    rejection = make_rejection()

    assert decode(Rejection, pairs_of(encode(rejection))) == rejection


def test_readers_of_results_tolerate_additions():
    fields = encode(make_vector()) | {"added_later": "[1"}

    assert decode(SignalVector, pairs_of(fields)) == make_vector()


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"symbol": "AAPL"}, UnknownField, r"unknown field 'symbol'; did you mean symbols\?"),
        ({"qwertz": "1"}, UnknownField, "unknown field 'qwertz'$"),
        ({"symbols": ""}, EmptySymbols, "symbols was ''"),
        ({"symbols": "A,,B"}, EmptySymbols, "empty place"),
        ({"symbols": "A,B,A"}, DuplicateSymbols, "names A more than once"),
        ({"symbols": "A$"}, MalformedEntry, "symbols was 'A\\$'"),
        ({"as_of": "yesterday"}, MalformedAsOf, "as_of was 'yesterday'"),
        ({"as_of": "20130201"}, MalformedAsOf, "neither a date"),
        ({"as_of": "2013-W05-5"}, MalformedAsOf, "neither a date"),
        ({"as_of": "2013-02-30"}, MalformedAsOf, "neither a date"),
        ({"as_of": "2013-02-01T21:00:00"}, MalformedAsOf, "without a time zone"),
        ({"as_of": "0001-01-01T00:00:00+14:00"}, MalformedAsOf, "neither a date"),
        ({"deadline": "soon"}, MalformedEntry, "deadline was 'soon'"),
        ({"deadline": "2013-02-01T21:00:00"}, MalformedEntry, "timezone"),
        ({"top_n": "three"}, MalformedEntry, "top_n was 'three'"),
        ({"top_n": "1_0"}, MalformedEntry, "no integer in plain digits"),
        ({"top_n": "3.0"}, MalformedEntry, "no integer in plain digits"),
        ({"bottom_n": " 3"}, MalformedEntry, "no integer in plain digits"),
        ({"top_n": "-1"}, MalformedEntry, "top_n was '-1'"),
        ({"strategy": "../etc"}, MalformedEntry, "strategy was '../etc'"),
        ({"request_id": "a b"}, MalformedEntry, "request_id was 'a b'"),
        ({"v": "2"}, UnsupportedVersion, "v is '2', this reader speaks version 1"),
        ({"on_ineligible": "guess"}, MalformedEntry, "on_ineligible was 'guess'"),
    ],
)
def test_bad_field_is_refused_with_the_value_found(fields, error, sentence):
    with pytest.raises(error, match=sentence):
        request_of(**fields)


def test_missing_strategy_is_named():
    with pytest.raises(MalformedEntry, match="strategy is missing"):
        decode_request(pairs_of({"symbols": "AAPL"}), ENTRY)


def test_doubled_field_is_refused_instead_of_taking_the_last():
    pairs = [(b"strategy", b"alpha_baseline"), (b"symbols", b"A"), (b"symbols", b"B")]

    with pytest.raises(MalformedEntry, match="'symbols' is given twice"):
        decode_request(pairs, ENTRY)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(MalformedEntry, match="symbols is not UTF-8"):
        decode_request([(b"strategy", b"a"), (b"symbols", b"\xff\xfe")], ENTRY)


def test_one_megabyte_field_is_refused_before_decoding():
    with pytest.raises(EntryTooLarge, match="at most 262144"):
        decode_request([(b"strategy", b"a"), (b"symbols", b"A" * 1_000_000)], ENTRY)


def test_too_many_symbols_are_counted_and_refused():
    pairs = pairs_of({"strategy": "a", "symbols": ",".join(f"S{i}" for i in range(11))})

    with pytest.raises(TooManySymbols, match="has 11 symbols, at most 10"):
        decode_request(pairs, ENTRY, max_symbols=10)


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=80)), max_size=8))
def test_any_bytes_become_a_request_or_a_contract_error(pairs):
    with contextlib.suppress(ContractError):
        decode_request([(b"strategy", b"alpha_baseline"), *pairs], ENTRY)

    assert len(printable(pairs)) <= len(pairs)
    assert request_id_of(pairs, ENTRY)


@given(st.dictionaries(st.sampled_from(sorted(SignalRequest.model_fields)), st.text(max_size=60), max_size=8))
def test_any_text_in_known_fields_never_raises_anything_else(fields):
    texts = {name: text.encode("utf-8", "ignore").decode() for name, text in fields.items()}

    try:
        outcome = str(decode_request(pairs_of({"strategy": "a"} | texts), ENTRY).request_id)
    except ContractError as error:
        outcome = str(error)

    assert 0 < len(outcome) < 1000


@given(st.binary(max_size=200), st.binary(max_size=2000))
def test_any_bytes_are_printable_and_short(name, value):
    shown = printable([(name, value)])

    assert all(len(text.encode("utf-8")) < 4000 and "\x00" not in text for text in shown.values())


def test_invalid_request_id_falls_back_to_the_entry_id():
    assert request_id_of([(b"request_id", b"r1")], ENTRY) == "r1"
    assert request_id_of([(b"request_id", b"a b")], ENTRY) == ENTRY
    assert request_id_of([(b"request_id", b"\xff")], ENTRY) == ENTRY
    assert request_id_of([(b"request_id", b"a"), (b"request_id", b"b")], ENTRY) == ENTRY


def test_digest_changes_with_any_bit_of_a_weight():
    other = (SIGNALS[0].model_copy(update={"predicted_return": 0.3}), SIGNALS[1])

    assert weights_digest(SIGNALS) != weights_digest(other)
    assert weights_digest(SIGNALS) == weights_digest(make_vector().weights)


def test_doubled_symbol_is_named_in_printable_characters_and_cut():
    with pytest.raises(DuplicateSymbols) as caught:
        request_of(symbols="\x1b[2J,\x1b[2J")
    assert str(caught.value).isprintable()

    with pytest.raises(DuplicateSymbols) as caught:
        request_of(symbols=",".join(["x" * 10_000] * 2))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("accepted", [True, False])
def test_entry_is_accepted_up_to_its_most_bytes(accepted):
    name, value = b"strategy", b"a" * 20
    pairs = [(name, value), (b"tracestate", b"k=" + b"v" * 10)]
    size = sum(len(name) + len(value) for name, value in pairs)

    if accepted:
        assert decode_request(pairs, ENTRY, max_bytes=size).strategy == "a" * 20
    else:
        with pytest.raises(EntryTooLarge, match=f"the entry has {size} bytes, at most {size - 1} are allowed"):
            decode_request(pairs, ENTRY, max_bytes=size - 1)


def test_default_limit_of_a_request_is_exact():
    fixed = len(b"strategy") + len(b"a") + len(b"filler")

    for extra, error in ((0, UnknownField), (1, EntryTooLarge)):
        pairs = [(b"strategy", b"a"), (b"filler", b"x" * (MAX_ENTRY_BYTES - fixed + extra))]
        with pytest.raises(error):
            decode_request(pairs, ENTRY)


def test_default_limit_of_other_models_is_sixty_four_times_larger():
    class Any(BaseModel):
        pass

    assert decode(Any, [(b"a", b"x" * (64 * MAX_ENTRY_BYTES - 1))]) == Any()
    with pytest.raises(EntryTooLarge):
        decode(Any, [(b"a", b"x" * (64 * MAX_ENTRY_BYTES))])


@pytest.mark.parametrize(("count", "most"), [(10, 10), (5000, None)])
def test_most_symbols_are_accepted(count, most):
    pairs = pairs_of({"strategy": "a", "symbols": ",".join(f"S{number}" for number in range(count))})
    limit = {} if most is None else {"max_symbols": most}

    assert len(decode_request(pairs, ENTRY, **limit).symbols) == count


def test_default_limit_of_symbols_is_exact():
    pairs = pairs_of({"strategy": "a", "symbols": ",".join(f"S{number}" for number in range(5001))})

    with pytest.raises(TooManySymbols, match="symbols has 5001 symbols, at most 5000 are allowed"):
        decode_request(pairs, ENTRY)


def test_printable_keeps_the_first_sixty_four_fields():
    pairs = [(f"f{number}".encode(), b"1") for number in range(66)]

    assert list(printable(pairs)) == [f"f{number}" for number in range(64)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"x" * QUOTED, "x" * QUOTED),
        (b"x" * (QUOTED + 1), "x" * QUOTED + f"… ({QUOTED + 1} bytes)"),
        ("é".encode() * QUOTED, "é" * QUOTED + f"… ({2 * QUOTED} bytes)"),
        ("😀".encode() * 1000, "😀" * QUOTED + "… (4000 bytes)"),
        (b"a\xff\x00b", "a\\xff\\x00b"),
    ],
)
def test_printable_cuts_long_values_and_escapes_bytes(value, shown):
    assert printable([(b"name", value)]) == {"name": shown}


@pytest.mark.parametrize(("length", "shown"), [(QUOTED, "x" * QUOTED), (QUOTED + 1, "x" * QUOTED + "…")])
def test_quoted_value_is_cut_where_it_is_long(length, shown):
    with pytest.raises(MalformedEntry) as caught:
        request_of(deadline="x" * length)

    assert str(caught.value).startswith(f"deadline was '{shown}': ")


def test_field_name_that_is_no_text_is_refused():
    with pytest.raises(MalformedEntry, match=r"a field name is not UTF-8: '\\\\xff'"):
        decode_request([(b"\xff", b"1")], ENTRY)


def test_nested_field_that_is_no_json_is_named():
    with pytest.raises(MalformedEntry, match=r"^weights is not JSON: '\[1'$"):
        decode(SignalVector, pairs_of(encode(make_vector()) | {"weights": "[1"}))


def test_bad_field_of_a_vector_is_named_with_its_value():
    with pytest.raises(MalformedEntry, match=r"^as_of was 'soon': "):
        decode(SignalVector, pairs_of(encode(make_vector()) | {"as_of": "soon"}))


def test_nested_values_are_compact_json_in_plain_characters():
    fields = encode(make_rejection().model_copy(update={"fields": {"a": "é", "b": "2"}}))

    assert fields["fields"] == '{"a":"é","b":"2"}'


def test_value_that_json_cannot_spell_is_not_encoded():
    class Measured(BaseModel):
        ms: float

    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(Measured(ms=float("nan")))


def test_unknown_field_wins_over_other_errors():
    with pytest.raises(UnknownField, match="unknown field 'symbl'; did you mean symbols"):
        request_of(top_n="three", symbl="A")


def test_pairs_are_those_of_a_mapping_or_of_pairs():
    assert pairs_of({"a": "é"}) == pairs_of([("a", "é")]) == [(b"a", "é".encode())]
