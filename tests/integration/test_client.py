import contextlib
import threading

import pytest
import structlog
from pydantic import ValidationError

from contracts import SignalRequest, SignalVector, StreamNames
from contracts.codec import decode_request, encode
from tests.support.servers import connect_redis
from tests.support.serving import put_hash
from tests.support.twins import clients
from tests.support.wire import make_rejection, make_vector
from worker.client import OutcomeGone, SubmitInterrupted
from worker.embedded.processes import wait_until
from worker.errors import RequestTimeout, StreamUnavailable


@pytest.fixture
def names(namespace):
    return StreamNames(namespace)


@pytest.fixture(params=["sync", "async"])
def twin(request):
    return request.param


@pytest.fixture
def client(twin, valkey_url, namespace):
    with clients(twin, valkey_url, namespace) as made:
        yield made


@pytest.fixture
def feed_of(client):
    """Makes feeds that are closed with the test."""
    with contextlib.ExitStack() as open_feeds:

        def made(*args, **options):
            feed = client.signals(*args, **{"block_ms": 20, **options})
            open_feeds.callback(feed.close)
            return feed

        yield made


@pytest.fixture
def publish(redis_client, names):
    """Adds vectors to the results stream as a worker's commit would, and returns their entry ids."""

    def add(*vectors):
        return [redis_client.xadd(names.results, encode(vector)).decode() for vector in vectors]

    return add


def remember(redis_client, names, outcome):
    stream = names.results if isinstance(outcome, SignalVector) else names.rejections
    entry = redis_client.xadd(stream, encode(outcome)).decode()
    state = "done" if isinstance(outcome, SignalVector) else "rejected"
    put_hash(redis_client, names.request(outcome.request_id), {"state": state, "stream": stream, "entry": entry})
    return entry


def requests_on(redis_client, names):
    return [
        decode_request(tuple(fields.items()), entry.decode()) for entry, fields in redis_client.xrange(names.requests)
    ]


def pending(redis_client, names, group):
    return redis_client.xpending(names.results, group)["pending"]


def ids(deliveries):
    return [delivery.vector.request_id for delivery in deliveries]


def test_many_requests_are_added_in_their_order(client, redis_client, names):
    given = [{"strategy": "alpha_baseline", "symbols": ["AAPL"], "request_id": f"r-{n}"} for n in range(1200)]

    sent = client.submit_many(given)

    assert sent == [f"r-{n}" for n in range(1200)]
    assert [request.request_id for request in requests_on(redis_client, names)] == sent


def test_one_wrong_request_keeps_all_from_being_sent(client, redis_client, names):
    with pytest.raises(ValidationError):
        client.submit_many([{"strategy": "alpha_baseline"}, {"strategy": "Not A Strategy"}])

    assert requests_on(redis_client, names) == []


def test_interrupted_submission_names_what_to_send_again(twin, namespace, free_port):
    url = f"redis://127.0.0.1:{free_port}"
    with clients(twin, url, namespace) as client, pytest.raises(SubmitInterrupted) as interrupted:
        client.submit_many([{"strategy": "alpha_baseline"}, {"strategy": "alpha_baseline", "request_id": "mine"}])

    again = interrupted.value.requests
    assert all(isinstance(request, SignalRequest) for request in again)
    assert again[1].request_id == "mine"
    assert again[0].request_id


def test_interrupted_request_can_be_sent_again_under_its_id(twin, namespace, free_port, client, redis_client, names):
    with clients(twin, f"redis://127.0.0.1:{free_port}", namespace) as away, pytest.raises(StreamUnavailable) as met:
        away.submit("alpha_baseline", ["AAPL"], top_n=1)

    assert isinstance(met.value, SubmitInterrupted)
    (request,) = met.value.requests
    assert request.request_id in str(met.value)
    assert client.submit_many(met.value.requests) == [request.request_id]
    assert requests_on(redis_client, names) == [request]


def test_submitted_request_is_read_as_it_was_sent(client, redis_client, names):
    sent = client.submit("alpha_baseline", ["AAPL", "MSFT"], as_of="2013-02-01", top_n=1)

    (request,) = requests_on(redis_client, names)
    assert request.request_id == sent
    assert request.symbols == ("AAPL", "MSFT")
    assert request.top_n == 1


def test_outcome_is_none_until_there_is_one(client, redis_client, names):
    assert client.outcome("r-1") is None

    remember(redis_client, names, make_vector())

    assert client.outcome("r-1") == make_vector()


def test_rejection_is_an_outcome_too(client, redis_client, names):
    remember(redis_client, names, make_rejection())

    assert client.result("r-1", timeout=5) == make_rejection()


def test_waiting_ends_when_the_outcome_appears(client, names, valkey_url):
    other = connect_redis(valkey_url)
    answer = threading.Timer(0.05, lambda: remember(other, names, make_vector()))
    answer.start()

    found = client.result("r-1", timeout=20)

    answer.join()
    other.close()
    assert found == make_vector()


def test_waiting_gives_up_after_the_given_time(client):
    with pytest.raises(RequestTimeout, match=r"no outcome after 0\.02 s"):
        client.result("r-1", timeout=0.02)


def test_outcome_cut_from_its_stream_is_not_waited_for(client, redis_client, names):
    redis_client.xdel(names.results, remember(redis_client, names, make_vector()))

    with pytest.raises(OutcomeGone, match="no longer on its stream"):
        client.result("r-1", timeout=20)


def test_only_heartbeats_that_can_be_read_are_listed(client, redis_client, names):
    beat = {
        "worker": "w1", "state": "serving", "host": "h", "pid": "1", "started_at": "2013-02-01T00:00:00Z",
        "beaten_at": "2013-02-01T00:00:00Z", "code_version": "1",
    }  # fmt: skip
    put_hash(redis_client, names.worker("w1"), beat)
    put_hash(redis_client, names.worker("w2"), {"worker": "w2"})

    with structlog.testing.capture_logs() as logs:
        found = client.workers()

    assert [one.worker for one in found] == ["w1"]
    assert [line["event"] for line in logs] == ["heartbeat_refused"]


def test_group_begins_with_the_oldest_vector(feed_of, publish):
    publish(make_vector(request_id="r-1"), make_vector(request_id="r-2"))

    feed = feed_of(group="desk")

    assert ids(feed.read()) == ["r-1", "r-2"]
    assert feed.read() == []


def test_group_may_begin_with_what_comes_from_now_on(feed_of, publish):
    publish(make_vector(request_id="old"))
    feed = feed_of("$", group="desk")
    assert feed.read() == []

    publish(make_vector(request_id="new"))

    assert ids(feed.read()) == ["new"]


def test_acknowledged_vector_never_comes_back(feed_of, publish, redis_client, names):
    publish(make_vector(request_id="r-1"), make_vector(request_id="r-2"))
    feed = feed_of(group="desk")
    first, _ = feed.read()

    feed.ack(first)

    assert ids(feed_of(group="desk").read()) == ["r-2"]
    assert pending(redis_client, names, "desk") == 1


def test_restart_under_the_same_name_takes_up_what_was_open(feed_of, publish):
    publish(*(make_vector(request_id=f"r-{n}") for n in range(5)))
    feed_of(group="desk").read()

    restarted = feed_of(group="desk")
    pages = [restarted.read(count=2) for _ in range(3)]

    assert [ids(page) for page in pages] == [["r-0", "r-1"], ["r-2", "r-3"], ["r-4"]]
    assert all(delivery.again for page in pages for delivery in page)


def test_released_vector_comes_back_beside_new_ones(feed_of, publish):
    publish(make_vector(request_id="r-1"))
    feed = feed_of(group="desk")
    (first,) = feed.read()
    publish(make_vector(request_id="r-2"))

    feed.release(first)

    assert ids(feed.read()) == ["r-1", "r-2"]


def test_vectors_in_flight_are_not_handed_out_again(feed_of, publish):
    publish(make_vector(request_id="r-1"), make_vector(request_id="r-2"))
    feed = feed_of(group="desk")
    first, _ = feed.read()

    feed.release(first)

    assert ids(feed.read()) == ["r-1"]


def test_vectors_of_a_dead_consumer_are_taken_over(feed_of, publish):
    publish(make_vector(request_id="r-1"))
    feed_of(group="desk", consumer="dead").read()
    living = feed_of(group="desk", consumer="living", claim_after_ms=1)

    found = []
    for _ in range(200):
        found = found or living.read()

    assert ids(found) == ["r-1"]
    assert found[0].again


def test_idle_vectors_behind_many_renewed_ones_are_taken_over(feed_of, publish, redis_client, names):
    entries = publish(*(make_vector(request_id=f"r-{n}") for n in range(130)))
    feed_of(group="desk", consumer="busy").read(count=130)
    redis_client.xclaim(names.results, "desk", "dead", 0, entries[-5:], idle=3_600_000)
    living = feed_of(group="desk", consumer="living", claim_after_ms=600_000)

    found = []
    assert wait_until(lambda: found.extend(living.read()) or len(found) >= 5, 20)

    assert ids(found) == [f"r-{n}" for n in range(125, 130)]


def test_entries_claimed_to_the_end_are_looked_through_again(feed_of, publish):
    publish(*(make_vector(request_id=f"r-{n}") for n in range(25)))
    feed_of(group="desk", consumer="dead").read()
    living = feed_of(group="desk", consumer="living", claim_after_ms=1)
    found = []
    assert wait_until(lambda: found.extend(living.read()) or len(found) >= 25, 20)
    living.ack(*found)

    publish(make_vector(request_id="late"))
    feed_of(group="desk", consumer="dead").read()

    assert wait_until(lambda: found.extend(living.read()) or len(found) > 25, 20)
    assert ids(found) == [*(f"r-{n}" for n in range(25)), "late"]


def test_vector_cut_while_a_dead_consumer_had_it_is_counted(feed_of, publish, redis_client, names):
    entries = publish(make_vector(request_id="r-1"), make_vector(request_id="r-2"))
    feed_of(group="desk", consumer="dead").read()
    redis_client.xdel(names.results, entries[0])
    living = feed_of(group="desk", consumer="living", claim_after_ms=1)

    found = []
    with structlog.testing.capture_logs() as logs:
        assert wait_until(lambda: found.extend(living.read()) or found, 20)

    assert ids(found) == ["r-2"]
    assert living.trimmed_count == 1
    assert [(line["event"], line["entries"]) for line in logs] == [("results_trimmed_while_pending", entries[:1])]
    assert pending(redis_client, names, "desk") == 1


def test_entry_that_is_no_vector_stops_nothing(feed_of, publish, redis_client, names):
    publish(make_vector(request_id="r-1"))
    bad = redis_client.xadd(names.results, {"weights": "nonsense"}).decode()
    publish(make_vector(request_id="r-2"))
    feed = feed_of(group="desk")

    found = feed.read()

    assert ids(found) == ["r-1", "r-2"]
    assert [entry.entry_id for entry in feed.refused] == [bad]
    assert feed.refused_count == 1
    assert pending(redis_client, names, "desk") == 2


def test_vector_cut_while_pending_is_counted_and_left(feed_of, publish, redis_client, names):
    (entry,) = publish(make_vector())
    feed_of(group="desk").read()
    redis_client.xdel(names.results, entry)
    restarted = feed_of(group="desk")

    assert restarted.read() == []

    assert restarted.trimmed_count == 1
    assert pending(redis_client, names, "desk") == 0


def test_vanished_group_is_made_again_where_it_began(feed_of, publish, redis_client, names):
    publish(make_vector(request_id="r-1"))
    feed = feed_of(group="desk")
    feed.ack(*feed.read())
    redis_client.xgroup_destroy(names.results, "desk")

    with structlog.testing.capture_logs() as logs:
        assert feed.read() == []

    assert ids(feed.read()) == ["r-1"]
    assert [line["event"] for line in logs] == ["group_recreated"]


def test_emptied_server_is_followed_from_its_new_beginning(feed_of, publish, redis_client, names):
    (late,) = publish(make_vector(request_id="r-1"))
    feed = feed_of(late, group="desk")
    assert feed.read() == []
    redis_client.delete(names.results)
    redis_client.xadd(names.results, encode(make_vector(request_id="older")), id="1-1")

    with structlog.testing.capture_logs():
        assert feed.read() == []

    assert ids(feed.read()) == ["older"]


def test_feed_without_a_group_resumes_at_its_position(feed_of, publish):
    publish(*(make_vector(request_id=f"r-{n}") for n in range(4)))
    first = feed_of()
    assert ids(first.read(count=2)) == ["r-0", "r-1"]

    second = feed_of(first.position)

    assert ids(second.read()) == ["r-2", "r-3"]


def test_position_ahead_of_the_stream_begins_anew(feed_of, redis_client, names):
    redis_client.xadd(names.results, encode(make_vector(request_id="older")), id="1-1")
    feed = feed_of("9999999999999-0")

    with structlog.testing.capture_logs() as logs:
        found = feed.read()

    assert ids(found) == ["older"]
    assert [line["event"] for line in logs] == ["position_ahead_of_stream"]


def test_acknowledging_without_a_group_is_refused(feed_of, publish):
    publish(make_vector())
    feed = feed_of()

    with pytest.raises(ValueError, match="without a group"):
        feed.ack(*feed.read())


def test_stopped_iteration_hands_back_what_it_had_read(feed_of, publish):
    publish(make_vector(request_id="r-1"), make_vector(request_id="r-2"))
    feed = feed_of(group="desk")

    for delivery in feed:
        feed.ack(delivery)
        feed.stop()

    assert ids(feed.read()) == ["r-2"]


def test_outage_is_raised_where_the_caller_chose_so(twin, namespace, free_port):
    with clients(twin, f"redis://127.0.0.1:{free_port}", namespace) as client:
        feed = client.signals(group="desk", outages="raise")

        with pytest.raises(StreamUnavailable):
            feed.read()

        feed.close()


@pytest.mark.slow
def test_outage_is_waited_out_with_one_line(twin, namespace, private_servers):
    url = private_servers.endpoints.redis_url
    results = StreamNames(namespace).results
    with clients(twin, url, namespace) as client:
        feed = client.signals(group="desk", block_ms=20)
        assert feed.read() == []
        private_servers.kill("valkey")
        revival = threading.Timer(0.3, private_servers.start)
        revival.start()

        with structlog.testing.capture_logs() as logs:
            feed.read()
            revival.join()
            other = connect_redis(url)
            other.xadd(results, encode(make_vector(request_id="after")))
            found = [delivery for _ in range(3) for delivery in feed.read()]

        other.close()
        feed.close()
    assert ids(found) == ["after"]
    # A server that loads may give a second reason; never a line a try.
    assert 1 <= len([line for line in logs if line["event"] == "server_away"]) <= 3
    assert "server_back" in [line["event"] for line in logs]
