"""The scripts by which an entry is left, and rejected unread: what each writes, and what it leaves alone."""

import pytest

from tests.integration.test_worker_scripts import GROUP, HOUR, MINE, MINUTE, OTHER, Stream
from worker.transport.scripts import CommitStatus, Leave, LeaveStatus, RejectExpired


class LeavingStream(Stream):
    def __init__(self, client, namespace):
        super().__init__(client, namespace)
        self.given = f"{namespace}:given:{OTHER}"

    def leave(self, entry_id, **changes):
        arguments = {"heir": "", "lease_ms": MINUTE, "deliveries": 1, "pause_ms": 1000, "grace_ms": MINUTE}
        return self.run(
            Leave(
                requests=self.requests, request=self.request, given=self.given, group=GROUP, entry_id=entry_id,
                remember_ms=HOUR, **({"consumer": MINE} | arguments | changes),
            )
        )  # fmt: skip

    def reject(self, entry_id, *, deadline_ms):
        return self.run(
            RejectExpired(
                rejections=self.outcomes, request=self.request, consumer=MINE, entry_id=entry_id, remember_ms=HOUR,
                deadline_ms=deadline_ms, fingerprint="f1", purpose="trade", outcome=["a", "1"],
            )
        )  # fmt: skip

    def left_since(self, seconds):
        """Let the request be left for that long already."""
        now, _ = self.client.time()
        self.client.hset(self.request, "left_at_ms", (now - seconds) * 1000)
        self.client.pexpire(self.request, MINUTE)


@pytest.fixture
def stream(redis_client, namespace):
    return LeavingStream(redis_client, namespace)


def test_given_entry_is_the_heirs_under_a_new_lease_and_costs_nothing(stream):
    entry = stream.deliver(times=3)
    stream.age(entry, 5000)
    stream.left_since(5)

    assert stream.leave(entry, heir=OTHER, deliveries=3) is LeaveStatus.GIVEN

    ((consumer, idle, deliveries),) = stream.pending().values()
    assert (consumer, deliveries) == (OTHER, 3)
    assert idle < 5000
    assert stream.client.smembers(stream.given) == {entry.encode()}
    assert 0 < stream.client.pttl(stream.given) <= MINUTE
    assert not stream.client.exists(stream.request)


@pytest.mark.parametrize(
    ("waited", "changes", "least", "most"),
    [
        (0, {}, 1000, 1000),
        (20, {}, 10_000, 11_000),
        (20, {"grace_ms": ""}, 10_000, 11_000),
        (55, {}, 3000, 5000),
        (0, {"grace_ms": 300}, 300, 300),
        (400, {"grace_ms": ""}, MINUTE, MINUTE),
    ],
    ids=["at first", "later", "patiently", "near the end", "a short grace", "longer than a lease"],
)
def test_entry_without_an_heir_is_claimable_after_a_pause_that_grows(stream, waited, changes, least, most):
    entry = stream.deliver()
    if waited:
        stream.left_since(waited)

    assert stream.leave(entry, **changes) is LeaveStatus.LEFT

    ((consumer, idle, deliveries),) = stream.pending().values()
    assert (consumer, deliveries) == (MINE, 0)
    assert MINUTE - most <= idle <= MINUTE - least + 500
    assert stream.client.hexists(stream.request, "left_at_ms")
    assert MINUTE < stream.client.pttl(stream.request) <= HOUR


@pytest.mark.parametrize(("waited", "grace"), [(61, MINUTE), (0, 0)], ids=["left too long", "no grace"])
def test_entry_left_for_longer_than_the_grace_stays_to_be_rejected(stream, waited, grace):
    entry = stream.deliver()
    if waited:
        stream.left_since(waited)

    assert stream.leave(entry, grace_ms=grace) is LeaveStatus.OVER

    ((consumer, idle, deliveries),) = stream.pending().values()
    assert (consumer, deliveries) == (MINE, 1)
    assert idle < MINUTE - 1000
    assert not stream.client.hexists(stream.request, "left_at_ms")
    assert stream.commit(entry, "a", "1", state="rejected")[0] is CommitStatus.COMMITTED


@pytest.mark.parametrize("heir", ["", OTHER])
def test_entry_of_another_consumer_is_not_left(stream, heir):
    entry = stream.deliver("w3")

    assert stream.leave(entry, heir=heir) is LeaveStatus.FENCED

    assert stream.pending()[entry][0] == "w3"
    assert not stream.client.exists(stream.request, stream.given)


@pytest.mark.parametrize("heir", ["", OTHER])
def test_trimmed_entry_is_left_to_nobody(stream, heir):
    entry = stream.deliver()
    stream.client.xtrim(stream.requests, maxlen=0, approximate=False)

    assert stream.leave(entry, heir=heir) is LeaveStatus.TRIMMED

    assert stream.pending() == {}


@pytest.mark.parametrize("heir", ["", OTHER])
def test_leaving_replaces_a_key_of_another_type(stream, heir):
    entry = stream.deliver()
    stream.client.set(stream.request, "odd", px=HOUR)

    assert stream.leave(entry, heir=heir) in {LeaveStatus.LEFT, LeaveStatus.GIVEN}


def test_expired_request_is_rejected_unread_and_only_acknowledged_later(stream):
    entry = stream.client.xadd(stream.requests, {"strategy": "s"}).decode()

    assert stream.reject(entry, deadline_ms=1)
    assert not stream.reject(entry, deadline_ms=1)

    assert [fields for _, fields in stream.client.xrange(stream.outcomes)] == [{b"a": b"1"}]
    assert 0 < stream.client.pttl(stream.request) <= HOUR
    assert stream.client.hmget(stream.request, "state", "request_entry") == [b"rejected", entry.encode()]
    stream.client.xreadgroup(GROUP, OTHER, {stream.requests: ">"})
    assert stream.commit(entry, "b", "2", consumer=OTHER)[0] is CommitStatus.DUPLICATE
    assert stream.pending() == {}


def test_deadline_to_come_is_waited_for(stream):
    now, _ = stream.client.time()

    assert not stream.reject("1-0", deadline_ms=(now + 60) * 1000)

    assert not stream.client.exists(stream.request, stream.outcomes)


def test_rejecting_unread_replaces_a_key_of_another_type_and_no_outcome(stream):
    stream.client.set(stream.request, "odd", px=HOUR)
    assert stream.reject("1-0", deadline_ms=1)
    stream.client.hset(stream.request, "state", "done")

    assert not stream.reject("1-0", deadline_ms=1)
    assert stream.client.hget(stream.request, "state") == b"done"
