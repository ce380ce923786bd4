"""A model trained in Qlib itself: its handler, its features, its processors, its LightGBM.

Owns: the segments, the handler with a stand-in for vwap, the parameters.
Must not know: the engine under test, books.
Invariant: nothing here computes a feature; the booster has seen Qlib's values alone.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import lightgbm as lgb

from strategies.market.bars import Panel

#: Share of the sessions that are trained on; what is left over is the test period.
TRAIN = 0.7
#: Without a validation period there is no early stopping: the model has a hundred trees on any data.
PARAMETERS = {
    "learning_rate": 0.05,
    "max_depth": 6,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 5,
    "lambda_l1": 0.1,
    "lambda_l2": 0.1,
    "seed": 42,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
}
ROUNDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class QlibModel:
    """What Qlib trained, and on which sessions."""

    booster: lgb.Booster
    train: tuple[date, date]
    test: tuple[date, date]


def train_in_qlib(panel: Panel, columns: Sequence[tuple[str, str]]) -> QlibModel:
    """Return a model of `qlib.contrib.model.gbdt.LGBModel` on Alpha158's handler with these columns.

    `T1DataProvider.init_qlib` must have been called on the panel's snapshot.

    Args:
        panel: For its symbols and sessions alone.
        columns: (name, expression) in order; Alpha158's own but for the stand-in for `$vwap`.
    """
    train, test = _segments(panel)
    with _quiet():
        from qlib.contrib.model.gbdt import LGBModel  # noqa: PLC0415 - slow, and only research has it
        from qlib.data.dataset import DatasetH  # noqa: PLC0415

        handler = _handler(columns)(
            instruments=list(panel.symbols),
            start_time=train[0],
            end_time=test[1],
            fit_start_time=train[0],
            fit_end_time=train[1],
        )
        model = LGBModel(num_boost_round=ROUNDS, early_stopping_rounds=ROUNDS, **PARAMETERS)
        with _recorder():
            model.fit(DatasetH(handler, {"train": train, "test": test}), verbose_eval=ROUNDS)
    return QlibModel(booster=model.model, train=train, test=test)


def _handler(columns: Sequence[tuple[str, str]]) -> type:
    from qlib.contrib.data.handler import Alpha158  # noqa: PLC0415 - slow, and only research has it

    class Handler(Alpha158):  # type: ignore[misc]  # Qlib has no types
        def get_feature_config(self) -> tuple[list[str], list[str]]:
            return [text for _, text in columns], [name for name, _ in columns]

    return Handler


def _segments(panel: Panel) -> tuple[tuple[date, date], tuple[date, date]]:
    cut = int(panel.sessions.size * TRAIN)
    days = [day.astype(object) for day in panel.sessions[[0, cut - 1, cut, -1]]]
    return (days[0], days[1]), (days[2], days[3])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Qlib, MLflow and LightGBM from talking of absent packages, fresh databases and losses."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _recorder() -> Iterator[None]:
    """Give Qlib, which logs every loss and the work tree's changes, a store that goes away."""
    from mlflow import MlflowClient  # noqa: PLC0415 - slow, and only research has it
    from qlib.workflow import R  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        # Without a place of their own, artifacts of a database go to ./mlruns.
        MlflowClient(uri).create_experiment("parity", artifact_location=Path(folder).as_uri())
        with R.start(experiment_name="parity", uri=uri):
            yield
