"""What the plots and figures of a study say, each in one sentence, and what they do not say.

Owns: the sentence beside each plot, the caveats above all of them.
Must not know: how pages and plots look.
Invariant: a sentence about sessions that training has seen says so; none claims more than its figures bear.
"""

from collections.abc import Iterator
from datetime import date

import numpy as np

from strategies.analysis.evaluation import SESSIONS_A_YEAR, drawdown
from strategies.analysis.tear_sheet.data import Part, Study

#: Below this t-statistic a mean is what chance gives.
T_OF_NOTE = 2.0
#: Fewer symbols than this make the correlation of one session a coin toss.
SMALL_UNIVERSE = 20
#: A label that reads further ahead than this overlaps with that of the next session.
OVERLAPPING_SESSIONS_AHEAD = 2
NOT_MEASURABLE = "Nothing here can be measured from these sessions."


def judged(study: Study) -> Part:
    """Return the part that sentences speak of: the unseen one where there is one."""
    return study.parts[-1]


def readings(study: Study) -> dict[str, str]:
    """Return the sentence beside each plot, by the plot's name."""
    part = judged(study)
    sentences = {
        "ic": _ic(part),
        "quantiles": _quantiles(part),
        "cumulative": _cumulative(study, part),
        "drawdown": _drawdown(part),
        "turnover": _turnover(study, part),
        "calibration": _calibration(study, part),
    }
    if part.seen:
        sentences = {name: f"In sample, so no evidence: {sentence}" for name, sentence in sentences.items()}
    return sentences | {"importance": _importance(study)}


def caveats(study: Study) -> tuple[str, ...]:
    """Return what a reader must know before the figures, the gravest first."""
    return (*_of_sample(study), *_of_costs(study), *_of_data(study))


def _of_sample(study: Study) -> Iterator[str]:
    part, training = judged(study), study.manifest.training
    sessions, t, ahead = len(part.held.sessions), part.figures["rank_ic_t"], study.manifest.label.sessions_ahead
    if part.seen:
        yield (
            f"Every session shown lies before {training.test.first}, where the test period begins: training has seen "
            "them, and nothing on this page says what the model is worth."
        )
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


def _of_costs(study: Study) -> Iterator[str]:
    costs = study.costs
    if costs.source == "assumed":
        yield f"The bundle states no costs: {costs.cost_bps:g} bps of each unit of weight traded are assumed."
    free = "" if costs.borrow_bps_a_year else "Borrowing is free here. "
    yield f"{free}Costs grow in proportion to weight traded; market impact and capacity are not modelled."


def _of_data(study: Study) -> Iterator[str]:
    trained_on = study.manifest.training.snapshot_id
    if study.snapshot_id != trained_on:
        yield f"The bars are those of snapshot {study.snapshot_id[:12]}, the model was trained on {trained_on[:12]}."
    if study.manifest.settings and not study.manifest.settings.require_full_history:
        yield "Symbols are priced from their first session on, as in training; serving waits for their full history."
    unknown = judged(study).figures["unknown_returns"]
    if unknown:
        yield f"{unknown:.0f} returns of held symbols are not known and count as 0."
    differing = [name for name, stated, found in study.compared or () if not _alike(stated, found)]
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


def _ic(part: Part) -> str:
    mean, t = part.figures["rank_ic"], part.figures["rank_ic_t"]
    if mean is None or t is None:
        return NOT_MEASURABLE
    verdict = "what chance gives too" if abs(t) < T_OF_NOTE else "more than chance gives"
    if t <= -T_OF_NOTE:
        verdict = "predictions order returns the wrong way round"
    sessions = part.figures["ic_sessions"] or 0.0
    return f"Mean rank IC is {mean:+.4f} over {sessions:.0f} sessions, t = {t:.1f}: {verdict}."


def _quantiles(part: Part) -> str:
    mean, error = part.quantiles.mean, part.quantiles.error
    if not len(mean):
        return NOT_MEASURABLE
    spread, deviation = (mean[-1] - mean[0]) * 1e4, np.hypot(error[0], error[-1]) * 1e4
    rising = (
        "every quantile above the one below it" if (np.diff(mean) > 0).all() else "the quantiles between not in order"
    )
    return f"The highest quantile earned {spread:+.1f} bps a session over the lowest (s.e. {deviation:.1f}), {rising}."


def _cumulative(study: Study, part: Part) -> str:
    after, before = part.figures["cumulative_return"], part.figures["cumulative_return_before_costs"]
    even = part.figures["break_even_cost_bps"]
    if after is None or before is None:
        return NOT_MEASURABLE
    bound = "" if even is None else f"; costs of {even:.1f} bps would use the mean return up"
    if even is not None and even <= 0:
        bound = "; the mean session lost before any cost"
    return f"{before:+.1%} before costs became {after:+.1%} after {study.costs.cost_bps:g} bps of each trade{bound}."


def _drawdown(part: Part) -> str:
    known = np.isfinite(part.held.performance.net_returns)
    if not known.any():
        return NOT_MEASURABLE
    sessions, losses = part.held.sessions[known], drawdown(part.held.performance.net_returns[known])
    deepest = int(np.argmin(losses))
    if losses[deepest] == 0:
        return "Wealth after costs never fell below an earlier height."
    heights, back = np.flatnonzero(losses[:deepest] == 0), np.flatnonzero(losses[deepest:] == 0)
    begun = _day(sessions[heights[-1]]) if len(heights) else "the start"
    ended = f"made good on {_day(sessions[deepest + back[0]])}" if len(back) else "not made good by the end"
    return f"The deepest loss is {-losses[deepest]:.1%}, from {begun} to {_day(sessions[deepest])}, {ended}."


def _turnover(study: Study, part: Part) -> str:
    turnover, cost = part.figures["turnover"], part.figures["cost_a_year"]
    if turnover is None or cost is None:
        return NOT_MEASURABLE
    sides = (study.manifest.construction.top_n > 0) + (study.manifest.construction.bottom_n > 0)
    return (
        f"On average {turnover:.2f} of weight is traded a session, {turnover / (2 * sides):.0%} of what exchanging the "
        f"whole book takes, at {cost:.1%} of capital a year."
    )


def _calibration(study: Study, part: Part) -> str:
    slope = part.calibration.slope
    if slope is None:
        return NOT_MEASURABLE
    if study.bundle.prediction_kind == "score":
        return "Predictions are scores, not returns: only whether the points rise can be read."
    return f"A prediction higher by 1 bp came with {slope:+.2f} bps more return (1 = calibrated, 0 = no information)."


def _importance(study: Study) -> str:
    used = [each for each in study.importance if each.splits]
    share = sum(each.gain_share for each in used[:10])
    return (
        f"{len(used)} of {len(study.importance)} features are used, the first ten hold {share:.0%} of the gain; "
        "gain is of the training period and favours features with many values."
    )


def _day(session: np.datetime64) -> date:
    day: date = session.astype(object)
    return day
