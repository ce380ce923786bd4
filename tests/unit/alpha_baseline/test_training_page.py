"""docs/training.md: what it shows is what `train` reads."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from strategies.analysis.evaluation import PortfolioPerformance, metrics
from strategies.models.configuration import TrainingConfig, WalkForward, load_training_config
from strategies.models.correlations import Correlations

PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
FILES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(FILES)))
def test_every_file_of_the_page_is_a_training(tmp_path, number):
    path = tmp_path / "training.yaml"
    path.write_text(FILES[number], encoding="utf-8")

    assert load_training_config(path).strategy == "alpha_baseline"


def test_first_file_shows_the_defaults(tmp_path):
    path = tmp_path / "training.yaml"
    path.write_text(FILES[0], encoding="utf-8")

    assert load_training_config(path) == TrainingConfig()


def test_page_shows_every_field():
    shown = {name for text in FILES for name in yaml.safe_load(text)}
    folds = {name for text in FILES for name in yaml.safe_load(text).get("walk_forward", {})}

    assert shown == set(TrainingConfig.model_fields)
    assert folds == set(WalkForward.model_fields)


def test_page_names_metrics_that_there_are():
    nothing = np.empty(0)
    known = metrics(
        Correlations(ic=nothing, rank_ic=nothing, symbols=np.empty(0, dtype=np.int64)),
        PortfolioPerformance(
            gross_returns=nothing,
            net_returns=nothing,
            turnover=nothing,
            unknown_returns=0,
            distinct_predictions=nothing,
            tied_shares=nothing,
        ),
    )
    rows = re.search(r"\| metric \|.*?\n\n", PAGE, re.DOTALL)[0]
    named = re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in rows.strip().splitlines()))

    assert len(named) >= 9
    assert set(named) <= known.keys()
