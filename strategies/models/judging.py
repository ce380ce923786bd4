"""What a model was worth on sessions that it never saw.

Owns: predictions for a range of samples, and their measures under the configuration's construction and costs.
Must not know: how models are trained, how periods were chosen, files.
Invariant: rows that serving would not price are not predicted, and books are made of predictions alone.
"""

from dataclasses import dataclass

import numpy as np

from strategies.market.bars import FloatArray, IntArray, SessionArray
from strategies.models.bundle import Predictor
from strategies.models.configuration import TrainingConfig
from strategies.models.evaluation import Correlations, Performance, correlations, metrics, perform
from strategies.models.samples import Samples, transform_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What the model was worth on sessions that it never saw."""

    sessions: SessionArray
    #: `[sessions, symbols]`; NaN = not priced.
    predictions: FloatArray
    #: What predictions are held against by `signal`, transformed as the model's labels were, `[sessions, symbols]`.
    labels: FloatArray
    #: Of holding a symbol for the one session that a book is held, `[sessions, symbols]`; NaN = not known.
    returns: FloatArray
    signal: Correlations
    performance: Performance
    metrics: dict[str, float | None]


def predict_period(predictor: Predictor, samples: Samples, period: slice) -> FloatArray:
    """Return predictions for a range of the samples' sessions, `[sessions, symbols]`; NaN = not priced."""
    eligible = samples.eligible[period]
    predictions = np.full(eligible.shape, np.nan)
    predictions[eligible] = predictor.predict(samples.features[period][eligible])
    return predictions


def judge(
    predictor: Predictor, samples: Samples, period: slice, config: TrainingConfig, sessions: SessionArray
) -> HeldOut:
    """Return what predictions for a range of the samples' sessions were worth.

    Args:
        predictor: The model.
        samples: Features, labels and returns.
        period: Range of the samples' sessions.
        config: Construction and costs.
        sessions: Labels of that range, `[sessions]`.
    """
    predictions = predict_period(predictor, samples, period)
    return judge_predictions(predictions, samples, np.arange(period.start, period.stop), config, sessions)


def judge_predictions(
    predictions: FloatArray,
    samples: Samples,
    at: IntArray,
    config: TrainingConfig,
    sessions: SessionArray,
) -> HeldOut:
    """Return what predictions were worth, whichever models they came from.

    Args:
        predictions: `[sessions, symbols]`; NaN = not priced.
        samples: Labels and returns.
        at: Indices of these sessions among the samples', ascending.
        config: Construction and costs.
        sessions: Labels of these sessions, `[sessions]`.
    """
    labels = transform_labels(samples.labels[at], config.label_processor)
    signal = correlations(predictions, labels)
    performance = perform(
        samples.symbols,
        predictions,
        samples.returns[at],
        construction=config.sides,
        cost_bps=config.cost_bps,
        borrow_bps_a_year=config.borrow_bps_a_year,
    )
    return HeldOut(
        sessions=sessions,
        predictions=predictions,
        labels=labels,
        returns=samples.returns[at],
        signal=signal,
        performance=performance,
        metrics=metrics(signal, performance),
    )
