"""Captions of a tear sheet: one sentence beside each plot, and the caveats above all of them.

Owns: their wording and the thresholds in it.
Must not know: how pages and plots look.
Invariant: a sentence about sessions that training has seen names them in sample; none claims more than its figures
support.
"""

from collections.abc import Iterator
from datetime import date

import numpy as np

from strategies.analysis.evaluation import SESSIONS_A_YEAR, drawdown, ranking_fault
from strategies.analysis.tear_sheet.data import Segment, TearSheetData

#: Below this t-statistic a mean is what chance gives.
T_OF_NOTE = 2.0
#: Fewer symbols than this make the correlation of one session a coin toss.
SMALL_UNIVERSE = 20
#: A label that reads further ahead than this overlaps with that of the next session.
OVERLAPPING_SESSIONS_AHEAD = 2
NOT_MEASURABLE = "Nothing here can be measured from these sessions."


def main_segment(data: TearSheetData) -> Segment:
    """Return the segment that captions are about: the one out of sample where there is one."""
    return data.segments[-1]


def captions(data: TearSheetData) -> dict[str, str]:
    """Return the sentence beside each plot, by the plot's name."""
    segment = main_segment(data)
    sentences = {
        "ic": _ic(segment),
        "quantiles": _quantiles(segment),
        "cumulative": _cumulative(data, segment),
        "drawdown": _drawdown(segment),
        "turnover": _turnover(data, segment),
        "calibration": _calibration(data, segment),
    }
    if segment.in_sample:
        sentences = {name: f"In sample, so no evidence: {sentence}" for name, sentence in sentences.items()}
    return sentences | {"importance": _importance(data)}


def caveats(data: TearSheetData) -> tuple[str, ...]:
    """Return what a reader must know before the figures, the gravest first."""
    return (*_of_sample(data), *_of_costs(data), *_of_data(data))


def _of_sample(data: TearSheetData) -> Iterator[str]:
    segment, training = main_segment(data), data.manifest.training
    sessions, t, ahead = len(segment.result.sessions), segment.figures["rank_ic_t"], data.manifest.label.sessions_ahead
    if segment.in_sample:
        yield (
            f"Every session shown lies before {training.test.first}, where the test period begins: training has seen "
            "them, and nothing on this page says what the model is worth."
        )
    if fault := ranking_fault(segment.figures):
        yield f"This model cannot rank its symbols: {fault}."
    if sessions < SESSIONS_A_YEAR:
        yield f"The period has {sessions} sessions, less than a year: yearly figures are extrapolations."
    if t is not None and abs(t) < T_OF_NOTE:
        yield f"The mean rank IC has t = {t:.1f}; below {T_OF_NOTE:.0f} it cannot be told from chance."
    if len(training.universe) < SMALL_UNIVERSE:
        yield (
            f"The universe has {len(training.universe)} symbols: a correlation over so few is mostly noise, and only "
            "its mean over many sessions says anything."
        )
    if ahead > OVERLAPPING_SESSIONS_AHEAD:
        yield (
            f"The label reads {ahead} sessions ahead, so labels of neighbouring sessions may overlap: t and standard "
            "errors are then too favourable."
        )


def _of_costs(data: TearSheetData) -> Iterator[str]:
    costs = data.costs
    if costs.source == "assumed":
        yield f"The bundle states no costs: {costs.cost_bps:g} bps of each unit of weight traded are assumed."
    free = "" if costs.borrow_bps_a_year else "Borrowing is free here. "
    yield f"{free}Costs grow in proportion to weight traded; market impact and capacity are not modelled."


def _of_data(data: TearSheetData) -> Iterator[str]:
    trained_on = data.manifest.training.snapshot_id
    if data.snapshot_id != trained_on:
        yield f"The bars are those of snapshot {data.snapshot_id[:12]}, the model was trained on {trained_on[:12]}."
    if data.manifest.settings and not data.manifest.settings.require_full_history:
        yield "Symbols are priced from their first session on, as in training; serving waits for their full history."
    unknown = main_segment(data).figures["unknown_returns"]
    if unknown:
        yield f"{unknown:.0f} returns of held symbols are not known and count as 0."
    differing = [name for name, stated, found in data.compared or () if not _alike(stated, found)]
    if differing:
        yield (
            f"The bundle states other values of {', '.join(differing)} for the same sessions: it was judged with other "
            "costs, another transform of labels, or other code."
        )
    yield "The universe is that of the bundle; symbols that had left the market when it was chosen are in no figure."


def _alike(stated: float | None, found: float | None) -> bool:
    if stated is None or found is None:
        return stated is found
    return bool(np.isclose(stated, found, rtol=1e-9, atol=1e-12))


def _ic(segment: Segment) -> str:
    mean, t = segment.figures["rank_ic"], segment.figures["rank_ic_t"]
    if mean is None or t is None:
        return NOT_MEASURABLE
    verdict = "what chance gives too" if abs(t) < T_OF_NOTE else "more than chance gives"
    if t <= -T_OF_NOTE:
        verdict = "predictions order returns the wrong way round"
    sessions = segment.figures["ic_sessions"] or 0.0
    return f"Mean rank IC is {mean:+.4f} over {sessions:.0f} sessions, t = {t:.1f}: {verdict}."


def _quantiles(segment: Segment) -> str:
    mean, error = segment.quantiles.mean, segment.quantiles.error
    if not len(mean):
        return NOT_MEASURABLE
    spread, deviation = (mean[-1] - mean[0]) * 1e4, np.hypot(error[0], error[-1]) * 1e4
    rising = (
        "every quantile above the one below it" if (np.diff(mean) > 0).all() else "the quantiles between not in order"
    )
    return f"The highest quantile earned {spread:+.1f} bps a session over the lowest (s.e. {deviation:.1f}), {rising}."


def _cumulative(data: TearSheetData, segment: Segment) -> str:
    after, before = segment.figures["cumulative_return"], segment.figures["cumulative_return_before_costs"]
    even = segment.figures["break_even_cost_bps"]
    if after is None or before is None:
        return NOT_MEASURABLE
    bound = "" if even is None else f"; costs of {even:.1f} bps would use the mean return up"
    if even is not None and even <= 0:
        bound = "; the mean session lost before any cost"
    return f"{before:+.1%} before costs became {after:+.1%} after {data.costs.cost_bps:g} bps of each trade{bound}."


def _drawdown(segment: Segment) -> str:
    known = np.isfinite(segment.result.performance.net_returns)
    if not known.any():
        return NOT_MEASURABLE
    sessions, losses = segment.result.sessions[known], drawdown(segment.result.performance.net_returns[known])
    deepest = int(np.argmin(losses))
    if losses[deepest] == 0:
        return "Wealth after costs never fell below an earlier height."
    heights, back = np.flatnonzero(losses[:deepest] == 0), np.flatnonzero(losses[deepest:] == 0)
    begun = _day(sessions[heights[-1]]) if len(heights) else "the start"
    ended = f"made good on {_day(sessions[deepest + back[0]])}" if len(back) else "not made good by the end"
    return f"The deepest loss is {-losses[deepest]:.1%}, from {begun} to {_day(sessions[deepest])}, {ended}."


def _turnover(data: TearSheetData, segment: Segment) -> str:
    turnover, cost = segment.figures["turnover"], segment.figures["cost_a_year"]
    if turnover is None or cost is None:
        return NOT_MEASURABLE
    sides = (data.manifest.construction.top_n > 0) + (data.manifest.construction.bottom_n > 0)
    return (
        f"On average {turnover:.2f} of weight is traded a session, {turnover / (2 * sides):.0%} of what exchanging the "
        f"whole book takes, at {cost:.1%} of capital a year."
    )


def _calibration(data: TearSheetData, segment: Segment) -> str:
    slope = segment.calibration.slope
    if slope is None:
        return NOT_MEASURABLE
    if data.bundle.prediction_kind != "return":
        kind = {"score": "scores", "probability": "probabilities"}[data.bundle.prediction_kind]
        return f"Predictions are {kind}, not returns: only whether the points rise can be read."
    return f"A prediction higher by 1 bp came with {slope:+.2f} bps more return (1 = calibrated, 0 = no information)."


def _importance(data: TearSheetData) -> str:
    used = [each for each in data.importance if each.splits]
    share = sum(each.gain_share for each in used[:10])
    return (
        f"{len(used)} of {len(data.importance)} features are used, the first ten hold {share:.0%} of the gain; "
        "gain is of the training period and favours features with many values."
    )


def _day(session: np.datetime64) -> date:
    day: date = session.astype(object)
    return day
