"""The scripts that trim streams, redrive rejections and guard a gateway's book, called directly."""

import time

import pytest

from worker.transport.scripts import BeginApplication, FinishApplication, Redrive, TrimStream

MINUTE, HOUR = 60_000, 3_600_000
GROUP, MINE, OTHER = "gateway", "g1", "g2"
LATEST = f"{2**64 - 1}-{2**64 - 1}"


@pytest.fixture
def run(redis_client):
    def call(script):
        keys = script.keys()
        return script.reply(redis_client.eval(script.source(), len(keys), *keys, *script.arguments()))

    return call


@pytest.fixture
def stream(redis_client, namespace):
    """Add entries by id; returns the stream's key."""
    key = f"{namespace}:requests"

    def add(*entry_ids):
        for entry_id in entry_ids:
            redis_client.xadd(key, {"a": "1"}, id=entry_id)
        return key

    return add


def now_ms():
    return int(time.time() * 1000)


def trim(key, *, limit=100, needs_group="", retention_ms=HOUR):
    return TrimStream(stream=key, retention_ms=retention_ms, limit=limit, needs_group=needs_group)


def ids(client, key):
    return [entry_id.decode() for entry_id, _ in client.xrange(key)]


def test_entries_older_than_the_retention_are_cut(run, stream, redis_client):
    young, now = f"{now_ms() - MINUTE}-0", now_ms()
    key = stream("999-0", "1000-0", f"{now - 2 * HOUR}-0", young)

    assert run(trim(key)) == (3, [])
    assert ids(redis_client, key) == [young]


def test_missing_stream_has_nothing_to_cut(run, namespace):
    assert run(trim(f"{namespace}:requests")) == (0, [])


def test_look_without_a_limit_cuts_nothing(run, stream, redis_client):
    key = stream("5-1", "5-2", "5-3")
    redis_client.xgroup_create(key, GROUP, id="5-2")

    assert run(trim(key, limit=0)) == (0, [GROUP.encode()])
    assert ids(redis_client, key) == ["5-1", "5-2", "5-3"]


def test_stream_is_not_cut_without_the_group_it_needs(run, stream, redis_client):
    key = stream("5-1", "5-2")
    redis_client.xgroup_create(key, "another", id="$")

    assert run(trim(key, needs_group=GROUP)) == (0, [])
    redis_client.xgroup_create(key, GROUP, id="$")
    assert run(trim(key, needs_group=GROUP)) == (1, [])
    assert ids(redis_client, key) == ["5-2"]


def test_unread_entries_of_a_group_are_kept_and_reported(run, stream, redis_client):
    key = stream("5-1", "5-2", "5-3")
    redis_client.xgroup_create(key, GROUP, id="5-2")

    assert run(trim(key)) == (1, [GROUP.encode()])
    assert ids(redis_client, key) == ["5-2", "5-3"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("5-9", "5-10"), ("9-0", "10-0"), ("5-9007199254740992", "5-9007199254740993"), ("4-9", "5-1")],
)
def test_oldest_pending_entry_is_kept(run, stream, redis_client, first, second):
    key = stream(first, second)
    redis_client.xgroup_create(key, GROUP, id="0")
    redis_client.xreadgroup(GROUP, MINE, {key: ">"})
    redis_client.xack(key, GROUP, second)

    assert run(trim(key)) == (0, [GROUP.encode()])
    redis_client.xack(key, GROUP, first)
    assert run(trim(key)) == (1, [])
    assert ids(redis_client, key) == [second]


def test_slowest_of_several_groups_decides(run, stream, redis_client):
    key = stream("5-1", "5-2", "5-3")
    for name, position in (("a", "5-3"), ("b", "5-2"), ("c", "$")):
        redis_client.xgroup_create(key, name, id=position)

    assert run(trim(key, needs_group="a")) == (1, [b"b"])
    assert ids(redis_client, key) == ["5-2", "5-3"]


def test_young_entries_make_no_group_late(run, stream, redis_client):
    key = stream(f"{now_ms() - MINUTE}-0")
    redis_client.xgroup_create(key, "unread", id="0")
    redis_client.xgroup_create(key, "reading", id="0")
    redis_client.xreadgroup("reading", MINE, {key: ">"})

    assert run(trim(key)) == (0, [])


def test_group_at_the_greatest_id_needs_nothing(run, stream, redis_client):
    key = stream("5-1")
    redis_client.xgroup_create(key, GROUP, id=LATEST)

    assert run(trim(key)) == (1, [])


def test_retention_longer_than_time_cuts_nothing(run, stream):
    assert run(trim(stream("0-1"), retention_ms=10 * now_ms())) == (0, [])


@pytest.fixture
def redrive(run, redis_client, namespace):
    requests, rejections, request = (f"{namespace}:{name}" for name in ("requests", "rejections", "r1"))

    def call(rejection_id, **remembered):
        if remembered:
            redis_client.hset(request, mapping=remembered)
        script = Redrive(
            requests=requests, rejections=rejections, request=request, rejection_id=rejection_id, code="c1",
            remember_ms=HOUR, fields=("request_id", "r1"),
        )  # fmt: skip
        return run(script)

    call.requests, call.rejections, call.request = requests, rejections, request
    yield call
    redis_client.delete(request)


def rejected(redis_client, redrive):
    return redis_client.xadd(redrive.rejections, {"code": "c1"}).decode()


def test_redriven_request_is_added_and_its_rejection_deleted(redis_client, redrive):
    rejection = rejected(redis_client, redrive)

    status, entry = redrive(rejection, state="rejected", stream="s", entry=rejection, last_error="e", redrives="1")

    assert status == "redriven"
    assert redis_client.xrange(redrive.requests) == [(entry.encode(), {b"request_id": b"r1"})]
    assert redis_client.xlen(redrive.rejections) == 0
    assert redis_client.hgetall(redrive.request) == {
        b"redrives": b"2",
        b"redriven_from": rejection.encode(),
        b"redriven_entry": entry.encode(),
        b"redriven_code": b"c1",
    }
    assert HOUR - MINUTE < redis_client.pttl(redrive.request) <= HOUR
    assert redrive(rejection) == ("already", entry)
    assert redis_client.xlen(redrive.requests) == 1


def test_redrive_never_shortens_what_is_remembered(redis_client, redrive):
    rejection = rejected(redis_client, redrive)
    redis_client.hset(redrive.request, mapping={"entry": rejection, "request_entry": "5-0"})
    redis_client.pexpire(redrive.request, 2 * HOUR)

    redrive(rejection)

    assert redis_client.pttl(redrive.request) > HOUR


@pytest.mark.parametrize(
    ("remembered", "result"),
    [
        ({"state": "done", "entry": "7-0"}, ("answered", "7-0")),
        ({"state": "rejected", "entry": "8-0"}, ("superseded", "8-0")),
    ],
)
def test_request_with_a_later_outcome_is_not_redriven(redis_client, redrive, remembered, result):
    rejection = rejected(redis_client, redrive)

    assert redrive(rejection, **remembered) == result
    assert redis_client.xlen(redrive.rejections) == 1
    assert not redis_client.exists(redrive.requests)


def test_request_id_that_was_forgotten_is_redriven(redis_client, redrive):
    assert redrive(rejected(redis_client, redrive))[0] == "redriven"
    assert redis_client.xlen(redrive.requests) == 1


def test_unknown_rejection_was_redriven_before(redrive):
    assert redrive("5-0", redriven_from="4-0", redriven_entry="6-0") == ("already", "")


class Book:
    """A gateway's group, inbox and book."""

    def __init__(self, client, run, namespace):
        self.client, self.run = client, run
        self.results, self.inbox, self.book = (f"{namespace}:{name}" for name in ("results", "inbox", "book"))
        client.xgroup_create(self.results, GROUP, id="0", mkstream=True)

    def deliver(self, consumer=MINE):
        entry_id = self.client.xadd(self.results, {"a": "1"}).decode()
        self.client.xreadgroup(GROUP, consumer, {self.results: ">"})
        return entry_id

    def waits(self):
        return self.client.xpending(self.results, GROUP)["pending"]

    def begin(self, entry_id, **changes):
        arguments = {
            "consumer": MINE, "weights_sha256": "w1", "as_of": 20130201, "activation": 3, "hold_ms": MINUTE,
            "valid_until_ms": now_ms() + HOUR, "remember_ms": HOUR, "symbols": "A,B",
        }  # fmt: skip
        return self.run(
            BeginApplication(
                results=self.results, inbox=self.inbox, book=self.book, group=GROUP, entry_id=entry_id,
                **(arguments | changes),
            )
        )  # fmt: skip

    def finish(self, entry_id, **changes):
        arguments = {
            "consumer": MINE, "weights_sha256": "w1", "as_of": 20130201, "activation": 3, "request_id": "r1",
            "remember_ms": HOUR, "symbols": "A,B",
        }  # fmt: skip
        return self.run(
            FinishApplication(
                results=self.results, inbox=self.inbox, book=self.book, group=GROUP, entry_id=entry_id,
                **(arguments | changes),
            )
        )  # fmt: skip

    def state(self):
        return {name.decode(): value.decode() for name, value in self.client.hgetall(self.book).items()}


@pytest.fixture
def book(redis_client, run, namespace):
    made = Book(redis_client, run, namespace)
    yield made
    redis_client.delete(made.inbox, made.book)


def test_first_application_is_begun_and_holds_the_book(book, redis_client):
    entry_id = book.deliver()

    assert book.begin(entry_id) == ("apply", "", 1, ",,A,B")
    assert book.waits() == 1
    assert redis_client.hmget(book.inbox, "state", "weights_sha256", "entry", "consumer", "attempts") == [
        b"applying", b"w1", entry_id.encode(), MINE.encode(), b"1",
    ]  # fmt: skip
    assert HOUR - MINUTE < redis_client.pttl(book.inbox) <= HOUR
    assert book.state()["holder"] == MINE
    assert abs(int(book.state()["held_until"]) - now_ms() - MINUTE) < MINUTE
    assert book.begin(entry_id) == ("apply", "", 2, ",,A,B")


def test_finished_application_moves_the_book(book, redis_client):
    entry_id = book.deliver()
    book.begin(entry_id)

    assert book.finish(entry_id) == "applied"
    assert book.waits() == 0
    assert book.state() == {"as_of": "20130201", "activation": "3", "request_id": "r1", "symbols": "A,B"}
    assert redis_client.hget(book.inbox, "state") == b"applied"
    assert abs(int(redis_client.hget(book.inbox, "applied_at_ms")) - now_ms()) < MINUTE
    assert HOUR - MINUTE < redis_client.pttl(book.inbox) <= HOUR
    assert book.finish(entry_id, as_of=20130301) == "applied"
    assert book.state()["as_of"] == "20130201"


def test_repeated_vector_is_only_acknowledged(book):
    first = book.deliver()
    book.begin(first)
    book.finish(first)

    assert book.begin(book.deliver()) == ("repeated", "applied", 1, "")
    assert book.waits() == 0


def test_other_weights_under_one_request_id_are_a_conflict(book, redis_client):
    book.begin(book.deliver())

    assert book.begin(book.deliver(OTHER), weights_sha256="w2")[:2] == ("conflict", "w1")
    assert book.waits() == 1
    assert redis_client.hget(book.inbox, "conflicts") == b"1"
    assert redis_client.hget(book.inbox, "weights_sha256") == b"w1"


def test_entry_of_another_consumer_is_not_applied(book, redis_client):
    assert book.begin(book.deliver(OTHER)) == ("fenced", "", 0, "")
    assert book.waits() == 1
    assert not redis_client.exists(book.inbox, book.book)


@pytest.mark.parametrize(
    ("as_of", "activation", "status"),
    [(20130201, 3, "not_newer"), (20130131, 9, "not_newer"), (20130201, 4, "apply"), (20130204, 1, "apply")],
)
def test_only_newer_vectors_are_applied(book, redis_client, as_of, activation, status):
    redis_client.hset(book.book, mapping={"as_of": "20130201", "activation": "3", "symbols": "C"})

    begun = book.begin(book.deliver(), as_of=as_of, activation=activation)

    assert begun[0] == status
    assert begun[1] == ("20130201#3" if status == "not_newer" else "")
    assert book.waits() == (status == "apply")
    assert redis_client.hget(book.inbox, "state") == (b"applying" if status == "apply" else b"not_newer")


@pytest.mark.parametrize(("until", "status"), [(1_000_001, "apply"), (1_000_000, "expired")])
def test_validity_is_judged_by_the_clock_of_a_replay(book, until, status):
    assert book.begin(book.deliver(), valid_until_ms=until, now_ms=1_000_000)[0] == status


def test_expired_vector_is_not_applied(book, redis_client):
    assert book.begin(book.deliver(), valid_until_ms=now_ms() - MINUTE)[0] == "expired"
    assert book.waits() == 0
    assert redis_client.hget(book.inbox, "state") == b"expired"


def test_book_that_another_consumer_holds_is_busy(book, redis_client):
    redis_client.hset(book.book, mapping={"holder": OTHER, "held_until": now_ms() + MINUTE})

    assert book.begin(book.deliver()) == ("busy", OTHER, 0, "")
    assert not redis_client.exists(book.inbox)
    redis_client.hset(book.book, "held_until", now_ms() - MINUTE)
    assert book.begin(book.deliver())[0] == "apply"


def test_unfinished_applications_stay_named_until_one_is_finished(book):
    book.client.hset(book.book, mapping={"opening": ",X", "symbols": "C"})

    assert book.begin(book.deliver())[3] == "C,,X,A,B"


@pytest.mark.parametrize(
    ("kept", "result"),
    [
        ({"holder": OTHER}, "overtaken"),
        ({"as_of": "20130204", "activation": "1"}, "overtaken"),
        ({"as_of": "20130201", "activation": "3"}, "overtaken"),
        ({"as_of": "20130201", "activation": "2"}, "applied"),
        ({"as_of": "20130131", "activation": "9", "holder": MINE}, "applied"),
    ],
)
def test_overtaken_application_does_not_move_the_book(book, redis_client, kept, result):
    redis_client.hset(book.book, mapping=kept)
    entry_id = book.deliver()

    assert book.finish(entry_id) == result
    assert (book.state() == kept) == (result == "overtaken")
    assert HOUR - MINUTE < redis_client.pttl(book.inbox) <= HOUR
    assert book.waits() == 0
