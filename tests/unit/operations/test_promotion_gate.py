"""The gate: each criterion alone can close it, and what was not measured does not hold."""

from dataclasses import replace

import pytest

from strategies.analysis.comparison import Comparison, Similarity, Total
from strategies.analysis.outcomes import LabelStatus
from worker.operations.comparison.gate import Candidacy, PromotionLimits, evaluate, latency_ratio, reason

NAN = float("nan")
SIMILARITY = Similarity(rank_correlation=0.9, active_share=0.5, long_overlap=0.8, short_overlap=0.6, agreement=0.7)
ACTIVE = Total(
    turnover=0.5,
    ic=0.02,
    rank_ic=0.02,
    tied_share=0.0,
    sessions={LabelStatus.KNOWN: 20},
    compute_ms_p50=2.0,
    compute_ms_p99=4.0,
)
CANDIDATE = replace(ACTIVE, turnover=0.8, rank_ic=0.03, tied_share=0.1, compute_ms_p50=3.0)
COMPARISON = Comparison(sessions=(), pairs=40, symbol_mismatches=0, similarity=SIMILARITY, left=ACTIVE, right=CANDIDATE)
TESTING = Candidacy(status="testing", unproven="")
#: Exactly what the evidence shows.
LIMITS = PromotionLimits(
    sessions=20, min_rank_ic=0.03, min_agreement=0.7, max_turnover=0.8, max_tied_share=0.1, max_latency_ratio=1.5
)


def failed(comparison=COMPARISON, candidacy=TESTING, limits=LIMITS):
    return [one.name for one in evaluate(comparison, candidacy, limits) if not one.holds]


def candidate(**changes):
    return replace(COMPARISON, right=replace(CANDIDATE, **changes))


def test_evidence_at_its_limits_passes():
    assert failed() == []
    assert len(evaluate(COMPARISON, TESTING, LIMITS)) == 8


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"sessions": 21}, "sessions with evidence"),
        ({"min_rank_ic": 0.0301}, "rank IC"),
        ({"min_agreement": 0.71}, "agreement"),
        ({"max_turnover": 0.79}, "turnover"),
        ({"max_tied_share": 0.09}, "share of the book on ties"),
        ({"max_latency_ratio": 1.49}, "latency ratio"),
    ],
)
def test_each_limit_alone_refuses(limits, name):
    assert failed(limits=replace(LIMITS, **limits)) == [name]


@pytest.mark.parametrize(
    ("status", "held"), [("testing", True), ("inactive", True), ("active", False), ("failed", False)]
)
def test_only_what_waits_or_served_before_may_be_promoted(status, held):
    assert (failed(candidacy=replace(TESTING, status=status)) == []) == held


def test_version_that_did_not_prove_itself_is_refused_with_the_reason():
    (_, proof, *_rest) = evaluate(COMPARISON, replace(TESTING, unproven="model.txt has SHA-256 0"), LIMITS)

    assert (proof.holds, proof.value) == (False, "model.txt has SHA-256 0")


def test_unmeasured_criteria_are_not_met():
    nothing = candidate(rank_ic=NAN, turnover=NAN, compute_ms_p50=NAN, sessions={})
    nothing = replace(nothing, similarity=replace(SIMILARITY, agreement=NAN))

    assert failed(nothing) == ["sessions with evidence", "rank IC", "agreement", "turnover", "latency ratio"]


def test_candidate_without_any_known_session_has_no_evidence():
    limits = PromotionLimits(sessions=1, min_rank_ic=0, min_agreement=0)

    assert failed(candidate(sessions={}), limits=limits) == ["sessions with evidence"]


def test_criteria_are_stated_with_value_and_limit():
    nothing = candidate(rank_ic=NAN)

    assert [str(one) for one in evaluate(nothing, TESTING, LIMITS)][:4] == [
        "status testing, asked testing or inactive",
        "proof proven, asked proven here",
        "sessions with evidence 20, asked at least 20",
        "rank IC not measured, asked at least 0.03",
    ]


def test_limits_that_were_not_asked_for_are_no_criteria():
    limits = PromotionLimits(sessions=1, min_rank_ic=0, min_agreement=0)

    assert [one.name for one in evaluate(candidate(turnover=NAN), TESTING, limits)][-1] == "agreement"
    assert failed(candidate(turnover=NAN), limits=limits) == []


def test_value_just_below_its_limit_does_not_read_as_the_limit():
    criteria = evaluate(candidate(rank_ic=0.029999), TESTING, LIMITS)

    (rank_ic,) = [one for one in criteria if one.name == "rank IC"]
    assert str(rank_ic) == "rank IC 0.029999, asked at least 0.03"


def test_ratio_of_a_time_that_was_not_measured_is_none():
    assert latency_ratio(COMPARISON) == 1.5
    assert latency_ratio(replace(COMPARISON, left=replace(ACTIVE, compute_ms_p50=0.5))) == 6.0
    assert str(latency_ratio(replace(COMPARISON, left=replace(ACTIVE, compute_ms_p50=0.0)))) == "nan"


def test_reason_states_the_evidence():
    stated = reason(evaluate(COMPARISON, TESTING, LIMITS), "40 pairs on 20 sessions")

    assert stated.startswith("promoted on 40 pairs on 20 sessions: status testing, asked testing or inactive; proof ")
    assert "; turnover 0.8, asked at most 0.8;" in stated
