import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import Rejection
from tests.support.wire import make_rejection
from worker.tracing import trace_fields, trace_id

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_both_fields_are_carried_as_they_came():
    found = trace_fields([(b"strategy", b"s"), (b"traceparent", PARENT.encode()), (b"tracestate", b"a=1,b=2")])

    assert found == {"traceparent": PARENT, "tracestate": "a=1,b=2"}


@pytest.mark.parametrize("parent", [b"", b"00-xyz", PARENT.upper().encode(), PARENT.encode() + b"\n", b"\xff" * 55])
def test_traceparent_of_another_form_is_no_trace(parent):
    assert trace_fields([(b"traceparent", parent), (b"tracestate", b"a=1")]) == {}


def test_tracestate_that_is_too_long_is_left_out():
    assert "tracestate" not in trace_fields([(b"traceparent", PARENT.encode()), (b"tracestate", b"a" * 513)])


@given(st.lists(st.tuples(st.sampled_from([b"traceparent", b"tracestate"]), st.binary(max_size=600))))
def test_whatever_came_a_rejection_can_carry_it(pairs):
    fields = trace_fields([(b"traceparent", PARENT.encode()), *pairs])

    assert Rejection.model_validate(make_rejection().model_dump() | fields)


def test_log_field_is_the_trace_id_or_absent():
    assert trace_id(PARENT) == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert trace_id(None) == {}
