import dataclasses
import math
from datetime import date, timedelta

import numpy as np
import pytest

from contracts import Excluded, SignalRequest, weights_digest
from strategies.market.calendar import SessionCalendar
from tests.support.market import make_panel
from tests.support.serving import NOW, make_active
from worker.operations.replay.verdict import recompute
from worker.serving.pipeline import DeliveryRecord, ServingRules, compute, signal_vector

SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT", "NEW")
CALENDAR = SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1))
#: 120 sessions, 2012-09-05 to 2013-02-28; NEW is listed 30 sessions before the end.
PANEL = make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5), starts={"NEW": 90})
ACTIVE = make_active((*SYMBOLS, "GONE"))
AS_OF = date(2013, 2, 1)


def publish(panel=PANEL, active=ACTIVE, stale_after_sessions=0, **fields):
    """Return a vector as a worker publishes it; by default of the whole universe, two symbols of it left out."""
    request = SignalRequest(**{"request_id": "r", "strategy": "alpha_baseline", "as_of": AS_OF} | fields)
    rules = ServingRules(calendar=CALENDAR, stale_after_sessions=stale_after_sessions)
    delivery = DeliveryRecord(worker="w", code_version="1", queue_ms=3.0, compute_ms=2.0, deliveries=2)
    return signal_vector(compute(request, active, panel, rules, NOW), delivery, rules, NOW)


def verdict_on(vector, panel=PANEL, active=ACTIVE):
    return recompute(vector, active.bundle, panel, CALENDAR)


def named(verdict):
    return [(difference.field, difference.symbol) for difference in verdict.differences]


def with_signal(vector, place, **changes):
    """Return the vector with one signal changed and everything else, digest included, as it was."""
    signals = list(vector.weights)
    signals[place] = signals[place].model_copy(update=changes)
    return vector.model_copy(update={"weights": tuple(signals)})


def with_explanation(vector, place, **changes):
    explanations = list(vector.explanations)
    explanations[place] = explanations[place].model_copy(update=changes)
    return vector.model_copy(update={"explanations": tuple(explanations)})


def with_stale_symbol(symbol, sessions):
    """Return the panel without a symbol's bars of the last sessions up to the as-of session."""
    fields = {name: values.copy() for name, values in PANEL.fields.items()}
    stop = PANEL.column(AS_OF) + 1
    for values in fields.values():
        values[PANEL.index[symbol], stop - sessions : stop] = np.nan
    return dataclasses.replace(PANEL, fields=fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"symbols": ("MSFT", "AAPL")},
        {"symbols": ("IBM",), "top_n": 1, "bottom_n": 0},
        {"top_n": 2, "bottom_n": 1},
        {"as_of": date(2013, 2, 3)},
        {"as_of": "2013-02-01T21:00:00Z"},
        {"as_of": "2013-02-01T20:59:59Z"},
    ],
    ids=["universe", "two", "one side", "sides", "sunday", "at the close", "before the close"],
)
def test_vector_of_the_same_lineage_is_identical(fields):
    vector = publish(**({"symbols": SYMBOLS[:4]} | fields if "as_of" in fields else fields))

    assert verdict_on(vector).differences == ()


def test_left_out_symbols_are_part_of_the_verdict():
    vector = publish()

    assert {(one.symbol, one.code) for one in vector.excluded} == {
        ("NEW", "history_too_short"),
        ("GONE", "unknown_symbol"),
    }
    assert verdict_on(vector).identical
    assert named(verdict_on(vector.model_copy(update={"excluded": vector.excluded[:1]}))) == []
    forged = Excluded(symbol="AAPL", code="stale_symbol", reason="[forged]")
    assert ("excluded", "AAPL") in named(verdict_on(vector.model_copy(update={"excluded": (forged,)})))


@pytest.mark.parametrize("limit", [0, 2, 5])
def test_limit_of_staleness_need_not_be_known(limit):
    stale = with_stale_symbol("IBM", 2)

    vector = publish(stale, stale_after_sessions=limit)

    assert ("IBM" in {one.symbol for one in vector.excluded}) is (limit < 2)
    assert verdict_on(vector, stale).identical


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("name", ["predicted_return", "target_weight"])
def test_last_bit_of_any_number_is_named(place, name):
    vector = publish()
    signal = vector.weights[place]
    nudged = math.nextafter(getattr(signal, name), 0.1)

    verdict = verdict_on(with_signal(vector, place, **{name: nudged}))

    assert named(verdict) == [(name, signal.symbol)]
    assert float(verdict.differences[0].published) == nudged
    assert float(verdict.differences[0].recomputed) == getattr(signal, name)


def test_sign_of_zero_counts_as_a_difference():
    vector = publish(top_n=1, bottom_n=1)
    place = next(place for place, signal in enumerate(vector.weights) if signal.target_weight == 0)

    assert named(verdict_on(with_signal(vector, place, target_weight=-0.0))) == [
        ("target_weight", vector.weights[place].symbol)
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_sha256", "0" * 64),
        ("bundle_sha256", "0" * 64),
        ("feature_set_sha256", "0" * 64),
        ("snapshot_id", "f" * 64),
        ("model_version", "v9"),
        ("proven", True),
        ("horizon", "close of T to close of T+1"),
        ("used_top_n", 1),
        ("weights_sha256", "0" * 64),
        ("valid_until", NOW),
    ],
)
def test_statement_that_is_not_met_is_named(field, value):
    assert named(verdict_on(publish().model_copy(update={field: value}))) == [(field, "")]


def test_other_model_is_named_before_what_it_changed():
    verdict = verdict_on(publish(), active=make_active(ACTIVE.bundle.universe, seed=1))

    found = named(verdict)
    assert found[:3] == [("model_version", ""), ("model_sha256", ""), ("bundle_sha256", "")]
    assert ("weights_sha256", "") in found
    assert any(name == "predicted_return" for name, _ in found)


def test_changed_bar_is_seen_though_the_snapshot_keeps_its_name():
    fields = {name: values.copy() for name, values in PANEL.fields.items()}
    row, column = PANEL.index["MSFT"], PANEL.column(AS_OF)
    fields["close"][row, column] = math.nextafter(fields["close"][row, column], 0) * 1.001
    changed = dataclasses.replace(PANEL, fields=fields)

    found = named(verdict_on(publish(changed)))

    assert ("weights_sha256", "") in found or ("predicted_return", "MSFT") in found
    assert verdict_on(publish(changed), changed).identical


@pytest.mark.parametrize(
    "changes", [{"requested_top_n": 0, "requested_bottom_n": 0}, {"weights": ()}], ids=["no sides", "no signals"]
)
def test_vector_that_no_request_asks_for_is_no_crash(changes):
    verdict = verdict_on(publish(symbols=SYMBOLS[:4]).model_copy(update=changes))

    assert not verdict.identical
    assert named(verdict)[-1] == ("answer", "")


def test_symbol_without_bars_here_is_no_crash():
    vector = publish()
    fewer = make_panel(SYMBOLS[1:], sessions=120, first=date(2012, 9, 5))

    verdict = verdict_on(vector, fewer)

    assert named(verdict) == [("answer", "")]
    assert "AAPL" in verdict.differences[0].recomputed


def test_session_after_the_one_requested_is_named():
    vector = publish(symbols=SYMBOLS[:4])

    early = vector.model_copy(update={"requested_as_of": AS_OF - timedelta(days=1)})

    assert named(verdict_on(early)) == [("as_of", "")]


def test_session_that_was_not_complete_yet_is_named():
    vector = publish(symbols=SYMBOLS[:4])
    too_early = vector.generated_at.replace(month=1, day=30)

    found = named(verdict_on(vector.model_copy(update={"generated_at": too_early})))

    assert found == [("answer", "")]


def test_forged_weights_with_their_own_digest_are_named():
    vector = publish()
    forged = with_signal(vector, 0, predicted_return=1.0)
    forged = forged.model_copy(update={"weights_sha256": weights_digest(forged.weights)})

    assert named(verdict_on(forged)) == [("weights_sha256", ""), ("predicted_return", vector.weights[0].symbol)]


@pytest.mark.parametrize("features", [0, 1, 7, 158])
def test_explained_vector_replays_identically_however_many_features_it_names(features):
    request = SignalRequest(request_id="r", strategy="alpha_baseline", as_of=AS_OF, explain=True)
    rules = ServingRules(calendar=CALENDAR, explain_features=features)
    delivery = DeliveryRecord(worker="w", code_version="1", queue_ms=3.0, compute_ms=2.0, deliveries=2)
    vector = signal_vector(compute(request, ACTIVE, PANEL, rules, NOW), delivery, rules, NOW)

    assert len(vector.explanations) == len(vector.weights)
    assert verdict_on(vector).identical


def test_one_bit_of_an_explanation_is_seen_and_named():
    vector = publish(explain=True)
    first = vector.explanations[0]
    nudged = first.contributions[0].model_copy(
        update={"contribution": math.nextafter(first.contributions[0].contribution, 1)}
    )

    assert named(verdict_on(with_explanation(vector, 0, base=math.nextafter(first.base, 1)))) == [
        ("explanation.base", first.symbol)
    ]
    assert named(verdict_on(with_explanation(vector, 0, others=-first.others))) == [
        ("explanation.others", first.symbol)
    ]
    changed = with_explanation(vector, 0, contributions=(nudged, *first.contributions[1:]))
    assert named(verdict_on(changed)) == [(f"explanation.{nudged.feature}", first.symbol)]


def test_other_order_value_or_feature_of_an_explanation_is_named():
    vector = publish(explain=True)
    first = vector.explanations[0]
    one, two, *rest = first.contributions

    swapped = named(verdict_on(with_explanation(vector, 0, contributions=(two, one, *rest))))
    other_value = (one.model_copy(update={"value": None}), two, *rest)
    other_name = (one.model_copy(update={"feature": "NOBODY"}), two, *rest)

    assert {name for name, _ in swapped} == {f"explanation.{one.feature}", f"explanation.{two.feature}"}
    assert named(verdict_on(with_explanation(vector, 0, contributions=other_value))) == [
        (f"explanation.{one.feature}", first.symbol)
    ]
    assert {name for name, _ in named(verdict_on(with_explanation(vector, 0, contributions=other_name)))} == {
        "explanation.NOBODY",
        f"explanation.{one.feature}",
    }


def test_symbol_whose_explanation_is_missing_is_named():
    vector = publish(explain=True)

    fewer = vector.model_copy(update={"explanations": vector.explanations[1:]})

    assert named(verdict_on(fewer)) == [("explanation", vector.explanations[0].symbol)]
