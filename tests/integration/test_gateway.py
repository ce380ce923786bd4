import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from contracts import Signal, StreamNames, weights_digest
from contracts.codec import encode
from tests.support.fleet import PATIENCE
from tests.support.serving import open_client
from tests.support.wire import make_vector
from worker.client import Disposition, Gateway, GatewayOptions, PaperBroker, SignalClient, order_key, paper_gateway
from worker.client.inbox import Inbox
from worker.embedded.processes import wait_until

TOMORROW = datetime.now(UTC) + timedelta(days=1)
OPTIONS = GatewayOptions(block_ms=20)


class PowerCut(BaseException):
    """Ends a process in the middle of something."""


@pytest.fixture
def names(namespace):
    return StreamNames(namespace)


@pytest.fixture
def client(valkey_url, namespace):
    with SignalClient(valkey_url, namespace=namespace) as made:
        yield made


@pytest.fixture
def publish(redis_client, names):
    """Adds vectors to the results stream as a worker's commit would."""

    def add(*vectors):
        for vector in vectors:
            redis_client.xadd(names.results, encode(vector))

    return add


def vector(request_id, weights, *, as_of="2013-02-01", activation=1, **changes):
    signals = tuple(
        Signal(symbol=symbol, predicted_return=0.0, rank=rank, target_weight=weight)
        for rank, (symbol, weight) in enumerate(weights.items(), start=1)
    )
    values = {"valid_until": TOMORROW, "weights_sha256": weights_digest(signals), **changes}
    return make_vector(request_id=request_id, weights=signals, as_of=as_of, activation=activation, **values)


class Desk:
    """A callback that notes what it is asked to apply."""

    def __init__(self):
        self.applied = []
        self.broken = False
        self.cut = False

    def __call__(self, application):
        self.applied.append(application)
        if self.cut:
            raise PowerCut
        if self.broken:
            raise RuntimeError("the broker is away")


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def gateway_of(client, desk):
    made = []

    def make(**options):
        made.append(Gateway(client, "desk", desk, options=GatewayOptions(**{"block_ms": 20, **options})))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def gateway(gateway_of):
    return gateway_of()


def pending(redis_client, names):
    return redis_client.xpending(names.results, "desk")["pending"]


def test_vector_is_applied_and_acknowledged_once(gateway, gateway_of, desk, publish, redis_client, names):
    publish(vector("r-1", {"AAPL": 1.0, "MSFT": -1.0}))

    assert gateway.run_once() == [Disposition.APPLIED]

    assert [application.targets for application in desk.applied] == [{"AAPL": 1.0, "MSFT": -1.0}]
    assert pending(redis_client, names) == 0
    assert gateway_of().run_once() == []


def test_equal_vector_that_appears_again_is_not_applied(gateway, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}), vector("r-1", {"AAPL": 1.0}))

    assert gateway.run_once() == [Disposition.APPLIED, Disposition.REPEATED]

    assert len(desk.applied) == 1


def test_other_weights_under_one_id_are_an_alarm(gateway, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}), vector("r-1", {"AAPL": -1.0}, as_of="2013-02-04"))

    with structlog.testing.capture_logs() as logs:
        assert gateway.run_once() == [Disposition.APPLIED, Disposition.CONFLICT]

    assert len(desk.applied) == 1
    assert gateway.counts[Disposition.CONFLICT] == 1
    assert [line["log_level"] for line in logs] == ["info", "error"]


def test_weights_that_belie_their_digest_are_never_applied(gateway, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}, weights_sha256="d" * 64))

    assert gateway.run_once() == [Disposition.CONFLICT]

    assert desk.applied == []


@pytest.mark.parametrize(
    ("as_of", "activation", "expected"),
    [
        ("2013-01-31", 9, Disposition.NOT_NEWER),
        ("2013-02-01", 1, Disposition.NOT_NEWER),
        ("2013-02-01", 2, Disposition.NOT_NEWER),
        ("2013-02-01", 3, Disposition.APPLIED),
        ("2013-02-04", 1, Disposition.APPLIED),
    ],
)
def test_only_what_is_newer_replaces_the_book(gateway, publish, as_of, activation, expected):
    publish(vector("r-1", {"AAPL": 1.0}, activation=2), vector("r-2", {"IBM": 1.0}, as_of=as_of, activation=activation))

    assert gateway.run_once() == [Disposition.APPLIED, expected]


def test_shadow_vector_among_the_results_is_an_alarm_and_never_applied(gateway, desk, publish, redis_client, names):
    publish(vector("r-1", {"AAPL": 1.0}, served_as="shadow"), vector("r-2", {"MSFT": 1.0}))

    with structlog.testing.capture_logs() as logs:
        assert gateway.run_once() == [Disposition.SHADOW, Disposition.APPLIED]

    assert [application.vector.request_id for application in desk.applied] == ["r-2"]
    assert logs[0]["log_level"] == "error"
    assert pending(redis_client, names) == 0


def test_canary_vector_is_applied_in_the_order_of_the_active_activation(gateway, publish):
    publish(
        vector("r-1", {"AAPL": 1.0}, served_as="canary", model_version="v2"),
        vector("r-2", {"MSFT": 1.0}),
        vector("r-3", {"MSFT": 1.0}, as_of="2013-02-04"),
    )

    assert gateway.run_once() == [Disposition.APPLIED, Disposition.NOT_NEWER, Disposition.APPLIED]


def test_books_of_two_strategies_do_not_meet(gateway, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}), vector("r-2", {"IBM": 1.0}, strategy="other", as_of="2013-01-02"))

    assert gateway.run_once() == [Disposition.APPLIED, Disposition.APPLIED]

    assert [application.targets for application in desk.applied] == [{"AAPL": 1.0}, {"IBM": 1.0}]


def test_expired_vector_is_acknowledged_and_not_applied(gateway, desk, publish, redis_client, names):
    publish(vector("r-1", {"AAPL": 1.0}, valid_until=datetime(2013, 2, 4, 21, tzinfo=UTC)))

    assert gateway.run_once() == [Disposition.EXPIRED]

    assert desk.applied == []
    assert pending(redis_client, names) == 0


def test_names_that_leave_the_book_get_weight_zero(gateway, desk, publish):
    publish(
        vector("r-1", {"AAPL": 1.0, "MSFT": 0.0, "IBM": -1.0}),
        vector("r-2", {"AAPL": 1.0, "GOOG": -1.0}, as_of="2013-02-04"),
        vector("r-3", {"AAPL": 1.0}, as_of="2013-02-05"),
    )

    gateway.run_once()

    assert [application.targets for application in desk.applied] == [
        {"AAPL": 1.0, "MSFT": 0.0, "IBM": -1.0},
        {"AAPL": 1.0, "GOOG": -1.0, "IBM": 0.0},
        {"AAPL": 1.0, "GOOG": 0.0},
    ]


def test_application_cut_off_is_repeated_under_the_same_keys(gateway, gateway_of, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}))
    desk.cut = True
    with pytest.raises(PowerCut):
        gateway.run_once()
    desk.cut = False

    assert gateway_of().run_once() == [Disposition.APPLIED]

    first, second = desk.applied
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.order_key("AAPL") == second.order_key("AAPL") == order_key("r-1", "AAPL")


def test_crash_between_applying_and_recording_orders_nothing_twice(client, publish, monkeypatch):
    broker = PaperBroker()
    publish(vector("r-1", {"AAPL": 1.0, "MSFT": -1.0}))

    def crash(*_):
        raise PowerCut

    with (
        paper_gateway(
            client, broker, equity=1000.0, prices=lambda: {"AAPL": 10.0, "MSFT": 5.0}, options=OPTIONS
        ) as one,
        monkeypatch.context() as patch,
    ):
        patch.setattr(Inbox, "finish", crash)
        with pytest.raises(PowerCut):
            one.run_once()
    # Other prices, and a book that is already there: were the keys not equal, the second attempt would trade.
    with paper_gateway(
        client, broker, equity=1000.0, prices=lambda: {"AAPL": 20.0, "MSFT": 2.5}, options=OPTIONS
    ) as two:
        assert two.run_once() == [Disposition.APPLIED]

    assert broker.positions == {"AAPL": 100, "MSFT": -200}
    assert len(broker.filled) == 2


def test_lost_reply_of_the_record_changes_nothing(gateway, desk, publish, monkeypatch):
    publish(vector("r-1", {"AAPL": 1.0}))
    finish, said = Inbox.finish, []

    def twice(self, delivery):
        said.append(finish(self, delivery))
        return finish(self, delivery)

    monkeypatch.setattr(Inbox, "finish", twice)

    assert gateway.run_once() == [Disposition.APPLIED]

    assert said == [Disposition.APPLIED]
    assert len(desk.applied) == 1


def test_failed_application_is_tried_again_until_it_works(gateway, desk, publish, redis_client, names):
    publish(vector("r-1", {"AAPL": 1.0}))
    desk.broken = True
    assert gateway.run_once() == [Disposition.FAILED]
    assert pending(redis_client, names) == 1
    desk.broken = False

    assert gateway.run_once() == [Disposition.APPLIED]

    assert [application.attempt for application in desk.applied] == [1, 2]


def test_vector_that_cannot_be_applied_does_not_delay_newer_ones(gateway, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}))
    desk.broken = True
    gateway.run_once()
    publish(vector("r-2", {"IBM": 1.0}, as_of="2013-02-04"))
    desk.broken = False
    desk_call, desk.applied = desk.applied, []
    assert len(desk_call) == 1

    def fail_first(application):
        desk.applied.append(application)
        if application.vector.request_id == "r-1":
            raise RuntimeError("refused for good")

    gateway._apply = fail_first

    assert gateway.run_once() == [Disposition.FAILED, Disposition.APPLIED]
    assert gateway.run_once() == [Disposition.NOT_NEWER]

    # AAPL may have been bought by the application that failed, so it is closed.
    assert desk.applied[-1].targets == {"IBM": 1.0, "AAPL": 0.0}


def test_books_are_applied_to_by_one_process_at_a_time(gateway_of, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}), vector("r-2", {"IBM": 1.0}, as_of="2013-02-04"))
    dead, living = gateway_of(consumer="dead", hold_seconds=600.0), gateway_of(consumer="living", hold_seconds=600.0)
    first, second = dead._feed.read(1), living._feed.read(1)
    desk.cut = True
    with pytest.raises(PowerCut):
        dead.take(first[0])
    desk.cut = False

    assert living.take(second[0]) == Disposition.BUSY
    assert dead.take(first[0]) == Disposition.APPLIED
    assert living.run_once() == [Disposition.APPLIED]


def test_slow_application_that_lost_its_book_is_an_alarm(gateway_of, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}), vector("r-2", {"IBM": 1.0}, as_of="2013-02-04"))
    slow, other = gateway_of(consumer="slow", hold_seconds=0.0), gateway_of(consumer="other")
    first, second = slow._feed.read(1), other._feed.read(1)
    slow._apply = lambda _application: other.take(second[0])

    with structlog.testing.capture_logs() as logs:
        assert slow.take(first[0]) == Disposition.OVERTAKEN

    assert [line["log_level"] for line in logs] == ["info", "error"]
    assert [application.targets for application in desk.applied] == [{"IBM": 1.0, "AAPL": 0.0}]


def test_entry_taken_over_by_another_process_is_left_to_it(gateway_of, desk, publish):
    publish(vector("r-1", {"AAPL": 1.0}))
    asleep, awake = gateway_of(consumer="asleep"), gateway_of(consumer="awake", claim_after_ms=1)
    (delivery,) = asleep._feed.read()
    taken = []
    assert wait_until(lambda: taken.extend(awake._feed.read()) or taken != [], PATIENCE)

    assert asleep.take(delivery) == Disposition.FENCED
    assert awake.take(taken[0]) == Disposition.APPLIED

    assert len(desk.applied) == 1


def test_unfinished_application_that_expired_is_an_alarm(gateway, desk, publish, redis_client, names):
    publish(vector("r-1", {"AAPL": 1.0}, valid_until=datetime.now(UTC) + timedelta(seconds=1)))
    desk.broken = True

    with structlog.testing.capture_logs() as logs:
        assert wait_until(lambda: gateway.run_once() == [Disposition.EXPIRED], PATIENCE)

    assert "application_left_unfinished" in [line["event"] for line in logs]
    assert pending(redis_client, names) == 0


def test_vectors_of_other_strategies_are_left_alone(gateway_of, desk, publish, redis_client, names):
    publish(vector("r-1", {"AAPL": 1.0}))

    assert gateway_of(strategies=frozenset({"other"})).run_once() == [Disposition.IGNORED]

    assert desk.applied == []
    assert pending(redis_client, names) == 0


def test_entry_that_is_no_vector_does_not_stop_the_gateway(gateway, publish, redis_client, names):
    redis_client.xadd(names.results, {"garbage": b"\xff"})
    publish(vector("r-1", {"AAPL": 1.0}))

    assert gateway.run_once() == [Disposition.APPLIED]

    assert gateway.refused_count == 1


def test_group_that_vanishes_before_the_decision_is_no_dead_end(gateway, publish, redis_client, names):
    publish(vector("r-1", {"AAPL": 1.0}))
    (delivery,) = gateway._feed.read()
    redis_client.xgroup_destroy(names.results, "desk")

    assert gateway.take(delivery) == Disposition.FENCED
    assert gateway.run_once() == []
    assert gateway.run_once() == [Disposition.APPLIED]


def test_replayed_stream_is_absorbed_by_the_inbox(gateway, desk, publish, redis_client, names):
    publish(*(vector(f"r-{n}", {"AAPL": 1.0}, as_of=f"2013-02-0{n}") for n in range(1, 4)))
    gateway.run_once()
    redis_client.xgroup_destroy(names.results, "desk")
    gateway.run_once()

    assert gateway.run_once() == [Disposition.REPEATED] * 3

    assert len(desk.applied) == 3


def test_running_gateway_ends_when_it_is_asked_to(client, publish):
    stop, seen = threading.Event(), []

    def apply(application):
        seen.append(application.vector.request_id)
        stop.set()

    publish(vector("r-1", {"AAPL": 1.0}))
    with Gateway(client, "desk", apply, options=OPTIONS, stop=stop) as gateway:
        gateway.run()

    assert seen == ["r-1"]


def test_name_that_cannot_be_a_key_is_refused(client):
    with pytest.raises(ValueError, match="1 to 64 letters"):
        Gateway(client, "my desk", lambda _application: None)


def test_inbox_forgets_after_the_time_it_was_given(gateway_of, publish, redis_client, valkey_url, names):
    publish(vector("r-1", {"AAPL": 1.0}))
    gateway_of(remembered_seconds=100).run_once()
    commands = open_client(valkey_url, "test")
    inbox = Inbox(commands, names, gateway="desk", consumer="gateway", remembered_seconds=1, hold_seconds=1)

    assert 0 < redis_client.pttl(inbox.key("r-1")) <= 100_000
    assert redis_client.ttl(inbox.book("alpha_baseline")) == -1
    commands.close()


def test_program_of_the_guide_trades_what_it_states(valkey_url, namespace, publish):
    guide = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", guide, re.DOTALL).group(1)
    scope = {"URL": valkey_url, "NAMESPACE": namespace}
    publish(vector("r-1", {"AAPL": 1.0, "MSFT": -1.0}))

    exec(compile(program, "docs/gateway.md", "exec"), scope)  # noqa: S102 - the guide's own program
    scope["gateway"].run_once()
    scope["gateway"].close()
    scope["client"].close()

    assert scope["broker"].positions == {"AAPL": 200, "MSFT": -250}
