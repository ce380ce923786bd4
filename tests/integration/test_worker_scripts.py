"""The scripts of the hot path, called directly: what each writes, and what it leaves alone."""

import time

import pytest

from worker.transport.scripts import (
    CommitOutcome,
    CommitStatus,
    Nack,
    NackAll,
    NackStatus,
    RemoveConsumer,
    RenewLeases,
    TakeOwn,
    TakeStatus,
)

GROUP, MINE, OTHER = "workers", "w1", "w2"
MINUTE, HOUR = 60_000, 3_600_000


class Stream:
    """One stream with its group, and the scripts run on it."""

    def __init__(self, client, namespace):
        self.client, self.requests = client, f"{namespace}:requests"
        self.outcomes, self.request, self.heartbeat = (f"{namespace}:{name}" for name in ("results", "r1", "w1"))
        client.xgroup_create(self.requests, GROUP, id="0", mkstream=True)

    def deliver(self, consumer=MINE, *, times=1):
        entry_id = self.client.xadd(self.requests, {"strategy": "s"}).decode()
        self.client.xreadgroup(GROUP, consumer, {self.requests: ">"})
        for _ in range(times - 1):
            self.client.xclaim(self.requests, GROUP, consumer, 0, [entry_id])
        return entry_id

    def age(self, entry_id, idle_ms, consumer=MINE):
        self.client.xclaim(self.requests, GROUP, consumer, 0, [entry_id], idle=idle_ms, justid=True)

    def pending(self):
        """Entry id to (consumer, idle, deliveries)."""
        rows = self.client.xpending_range(self.requests, GROUP, "-", "+", 100)
        return {
            row["message_id"].decode(): (
                row["consumer"].decode(),
                row["time_since_delivered"],
                row["times_delivered"],
            )
            for row in rows
        }

    def run(self, script):
        keys = script.keys()
        return script.reply(self.client.eval(script.source(), len(keys), *keys, *script.arguments()))

    def commit(self, entry_id, *outcome, **changes):
        arguments = {"state": "done", "remember_ms": HOUR, "deadline_ms": "", "fingerprint": "f1", "consumer": MINE}
        return self.run(
            CommitOutcome(
                requests=self.requests, outcomes=self.outcomes, request=self.request, group=GROUP, entry_id=entry_id,
                outcome=outcome, **(arguments | changes),
            )
        )  # fmt: skip

    def nack(self, entry_id, **changes):
        arguments = {"consumer": MINE, "idle_ms": MINUTE, "deliveries": 2, "error": "", "remember_ms": HOUR}
        return self.run(
            Nack(requests=self.requests, request=self.request, group=GROUP, entry_id=entry_id, **(arguments | changes))
        )

    def nack_all(self, *, processing_id="", limit=100):
        return self.run(
            NackAll(
                requests=self.requests, group=GROUP, consumer=MINE, idle_ms=MINUTE, processing_id=processing_id,
                limit=limit, heir="nobody",
            )
        )  # fmt: skip

    def renew(self, *entry_ids):
        return self.run(RenewLeases(requests=self.requests, group=GROUP, consumer=MINE, entry_ids=entry_ids))

    def take(self, entry_id, least=1):
        return self.run(
            TakeOwn(requests=self.requests, group=GROUP, consumer=MINE, entry_id=entry_id, least_deliveries=least)
        )

    def remove(self, consumer=MINE, *, leaves=0):
        return self.run(
            RemoveConsumer(
                requests=self.requests, heartbeat=self.heartbeat, group=GROUP, consumer=consumer, leaves=leaves
            )
        )

    def consumers(self):
        return {row["name"].decode() for row in self.client.xinfo_consumers(self.requests, GROUP)}


@pytest.fixture
def stream(redis_client, namespace):
    made = Stream(redis_client, namespace)
    yield made
    redis_client.delete(made.request, made.heartbeat)


def test_commit_publishes_remembers_and_acknowledges(stream):
    entry_id = stream.deliver()

    status, outcome = stream.commit(entry_id, "a", "1", "b", "2")

    assert status is CommitStatus.COMMITTED
    assert stream.client.xrange(stream.outcomes) == [(outcome.encode(), {b"a": b"1", b"b": b"2"})]
    assert stream.pending() == {}
    remembered = {name.decode(): value.decode() for name, value in stream.client.hgetall(stream.request).items()}
    assert abs(int(remembered.pop("at_ms")) - time.time() * 1000) < MINUTE
    assert remembered == {
        "state": "done",
        "stream": stream.outcomes,
        "entry": outcome,
        "request_entry": entry_id,
        "worker": MINE,
        "asked_sha256": "f1",
        "purpose": "trade",
    }


def test_remembered_outcome_expires(stream):
    stream.commit(stream.deliver(), "a", "1", remember_ms=HOUR)

    assert HOUR - MINUTE < stream.client.pttl(stream.request) <= HOUR


def test_outcome_of_a_bounded_stream_cuts_it(stream):
    for _ in range(400):
        stream.client.xadd(stream.outcomes, {"filler": "x"})

    status, outcome = stream.commit(stream.deliver(), "a", "1", most=100, purpose="probe")

    assert status is CommitStatus.COMMITTED
    assert stream.client.xlen(stream.outcomes) < 300
    assert stream.client.xrevrange(stream.outcomes, count=1)[0][0].decode() == outcome
    assert stream.client.hget(stream.request, "purpose") == b"probe"


@pytest.mark.parametrize(("fingerprint", "status"), [("f1", CommitStatus.DUPLICATE), ("f2", CommitStatus.CONFLICT)])
@pytest.mark.parametrize("fields", [("a", "2"), ()], ids=["outcome", "question"])
def test_second_entry_of_a_request_id_is_only_acknowledged(stream, fingerprint, status, fields):
    _, first = stream.commit(stream.deliver(), "a", "1")

    # Whoever owns the entry: its outcome is published.
    assert stream.commit(stream.deliver(OTHER), *fields, fingerprint=fingerprint) == (status, first)
    assert stream.pending() == {}
    assert stream.client.xlen(stream.outcomes) == 1
    assert stream.client.hget(stream.request, "asked_sha256") == b"f1"


def test_outcome_remembered_without_fingerprint_is_a_duplicate(stream):
    stream.client.hset(stream.request, "entry", "5-0")

    assert stream.commit(stream.deliver(), "a", "1") == (CommitStatus.DUPLICATE, "5-0")


def test_commit_of_an_entry_of_another_consumer_is_fenced(stream):
    entry_id = stream.deliver(OTHER)

    assert stream.commit(entry_id, "a", "1") == (CommitStatus.FENCED, "")
    assert list(stream.pending()) == [entry_id]
    assert not stream.client.exists(stream.outcomes, stream.request)


def test_passed_deadline_publishes_no_vector(stream):
    entry_id = stream.deliver()
    now = int(time.time() * 1000)

    assert stream.commit(entry_id, "a", "1", deadline_ms=now - MINUTE) == (CommitStatus.LATE, "")
    assert list(stream.pending()) == [entry_id]
    assert not stream.client.exists(stream.outcomes, stream.request)
    assert stream.commit(entry_id, "a", "1", deadline_ms=now + MINUTE)[0] is CommitStatus.COMMITTED


def test_rejection_is_published_after_the_deadline(stream):
    assert stream.commit(stream.deliver(), "a", "1", state="rejected", deadline_ms=1)[0] is CommitStatus.COMMITTED


def test_question_without_outcome_writes_nothing(stream):
    entry_id = stream.deliver()

    assert stream.commit(entry_id) == (CommitStatus.OPEN, "")
    assert list(stream.pending()) == [entry_id]
    assert not stream.client.exists(stream.outcomes, stream.request)


def test_key_of_another_type_does_not_block_an_outcome(stream):
    stream.client.set(stream.request, "x")

    assert stream.commit(stream.deliver(), "a", "1")[0] is CommitStatus.COMMITTED
    assert stream.client.hget(stream.request, "state") == b"done"


def test_commit_keeps_other_fields_of_the_request_id(stream):
    stream.client.hset(stream.request, "last_error", "once")

    stream.commit(stream.deliver(), "a", "1")

    assert stream.client.hget(stream.request, "last_error") == b"once"


def test_nacked_entry_is_idle_and_counted(stream):
    entry_id = stream.deliver()

    assert stream.nack(entry_id, idle_ms=MINUTE, deliveries=7) is NackStatus.NACKED
    consumer, idle, deliveries = stream.pending()[entry_id]
    assert (consumer, deliveries) == (MINE, 7)
    assert MINUTE <= idle < HOUR
    assert not stream.client.exists(stream.request)


def test_nack_of_an_entry_of_another_consumer_is_fenced(stream):
    entry_id = stream.deliver(OTHER)

    assert stream.nack(entry_id, error="boom") is NackStatus.FENCED
    consumer, idle, deliveries = stream.pending()[entry_id]
    assert (consumer, deliveries) == (OTHER, 1)
    assert idle < MINUTE
    assert not stream.client.exists(stream.request)


def test_nack_of_a_trimmed_entry_acknowledges_it(stream):
    entry_id = stream.deliver()
    stream.client.xdel(stream.requests, entry_id)

    assert stream.nack(entry_id, error="boom") is NackStatus.TRIMMED
    assert stream.pending() == {}
    assert not stream.client.exists(stream.request)


def test_last_error_of_a_nack_expires(stream):
    stream.nack(stream.deliver(), error="boom", remember_ms=HOUR)

    assert stream.client.hgetall(stream.request) == {b"last_error": b"boom"}
    assert HOUR - MINUTE < stream.client.pttl(stream.request) <= HOUR


@pytest.mark.parametrize(("before", "least", "most"), [(2 * HOUR, HOUR, 2 * HOUR), (MINUTE, MINUTE, HOUR)])
def test_nack_never_shortens_what_is_remembered(stream, before, least, most):
    stream.client.hset(stream.request, "entry", "5-0")
    stream.client.pexpire(stream.request, before)

    stream.nack(stream.deliver(), error="boom", remember_ms=HOUR)

    assert least < stream.client.pttl(stream.request) <= most
    assert stream.client.hget(stream.request, "entry") == b"5-0"


def test_nack_replaces_a_key_of_another_type(stream):
    stream.client.set(stream.request, "x")

    assert stream.nack(stream.deliver(), error="boom") is NackStatus.NACKED
    assert stream.client.hget(stream.request, "last_error") == b"boom"


def test_nack_all_leaves_every_entry_to_the_heir(stream):
    tried, read, other = stream.deliver(times=3), stream.deliver(times=3), stream.deliver(OTHER)

    assert stream.nack_all(processing_id=tried) == 2
    pending = stream.pending()
    assert {entry_id: (row[0], row[2]) for entry_id, row in pending.items()} == {
        tried: ("nobody", 3),
        read: ("nobody", 2),
        other: (OTHER, 1),
    }
    assert all(MINUTE <= pending[entry_id][1] < HOUR for entry_id in (tried, read))
    assert pending[other][1] < MINUTE


def test_nack_all_counts_no_delivery_below_zero(stream):
    entry_id = stream.deliver()
    stream.nack(entry_id, deliveries=0)

    stream.nack_all()

    assert stream.pending()[entry_id][2] == 0


def test_nack_all_respects_its_limit_and_skips_trimmed_entries(stream):
    trimmed, first, second = stream.deliver(), stream.deliver(), stream.deliver()
    stream.client.xdel(stream.requests, trimmed)

    assert stream.nack_all(limit=2) == 1
    assert [stream.pending()[entry_id][0] for entry_id in (trimmed, first, second)] == [MINE, "nobody", MINE]


def test_renewed_lease_is_fresh_and_costs_no_delivery(stream):
    entry_id = stream.deliver()
    stream.age(entry_id, HOUR)

    assert stream.renew(entry_id) == ()
    consumer, idle, deliveries = stream.pending()[entry_id]
    assert (consumer, deliveries) == (MINE, 1)
    assert idle < MINUTE


def test_lease_of_another_consumer_is_reported_and_not_taken(stream):
    mine, lost = stream.deliver(), stream.deliver(OTHER)
    for entry_id, consumer in ((mine, MINE), (lost, OTHER)):
        stream.age(entry_id, HOUR, consumer)

    assert stream.renew(lost, mine) == (lost,)
    assert stream.pending()[lost][0] == OTHER
    assert stream.pending()[lost][1] >= HOUR
    assert stream.pending()[mine][1] < MINUTE


def test_acknowledged_and_trimmed_entries_are_not_renewed(stream):
    answered, trimmed = stream.deliver(), stream.deliver()
    stream.client.xack(stream.requests, GROUP, answered)
    stream.age(trimmed, HOUR)
    stream.client.xdel(stream.requests, trimmed)

    assert stream.renew(answered, trimmed) == ()
    assert list(stream.pending()) == [trimmed]
    assert stream.pending()[trimmed][1] >= HOUR


@pytest.mark.parametrize(("delivered", "least", "count"), [(3, 1, 3), (1, 4, 4)])
def test_own_entry_is_taken_with_the_larger_count(stream, delivered, least, count):
    entry_id = stream.deliver(times=delivered)

    status, taken, fields = stream.take(entry_id, least)

    assert (status, taken, fields) == (TakeStatus.TAKEN, count, [b"strategy", b"s"])
    assert stream.pending()[entry_id][::2] == (MINE, count)


def test_entry_of_another_consumer_is_gone(stream):
    entry_id = stream.deliver(OTHER)

    assert stream.take(entry_id) == (TakeStatus.GONE, 0, [])
    assert stream.pending()[entry_id][::2] == (OTHER, 1)


def test_trimmed_own_entry_is_acknowledged(stream):
    entry_id = stream.deliver()
    stream.client.xdel(stream.requests, entry_id)

    assert stream.take(entry_id) == (TakeStatus.TRIMMED, 0, [])
    assert stream.pending() == {}


def test_only_a_consumer_without_entries_and_heartbeat_is_removed(stream):
    entry_id = stream.deliver()
    stream.client.hset(stream.heartbeat, "state", "ready")

    assert not stream.remove()
    assert not stream.remove(leaves=1)
    stream.client.xack(stream.requests, GROUP, entry_id)
    assert not stream.remove()
    assert stream.consumers() == {MINE}
    assert stream.remove(leaves=1)
    assert stream.consumers() == set()


def test_dead_consumer_is_removed_alone(stream):
    stream.client.xack(stream.requests, GROUP, stream.deliver())
    stream.deliver(OTHER)

    assert stream.remove()
    assert stream.consumers() == {OTHER}
