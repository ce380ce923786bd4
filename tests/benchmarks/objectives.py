"""What objectives, labels and stopping rules are worth: `python -m tests.benchmarks.objectives --data-dir D`.

Owns: the candidates, the walk-forward that they share, the printed table.
Must not know: bundles, registries.
Invariant: all candidates see the same features, folds and seeds; nothing is chosen by the sessions that judge it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from strategies.analysis.walk_forward import WalkForwardResult, walk_forward
from strategies.expressions.feature_sets import feature_set
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from strategies.models.configuration import TrainingConfig
from strategies.models.folds import plan_folds
from strategies.models.samples import SampleSpec, compute_samples

#: Fields by which each candidate differs from the others.
CANDIDATES: dict[str, dict[str, object]] = {
    "returns, l2": {"early_stopping_metric": "l2", "min_rounds": 1},
    "returns, l2, 50 rounds at least": {"early_stopping_metric": "l2", "min_rounds": 50},
    "returns, rank_ic": {"early_stopping_metric": "rank_ic", "min_rounds": 1},
    "returns, rank_ic, 50 rounds at least": {"early_stopping_metric": "rank_ic", "min_rounds": 50},
    "cs_zscore, l2": {"label_processor": "cs_zscore", "early_stopping_metric": "l2", "min_rounds": 1},
    "cs_zscore, rank_ic, 50 rounds at least": {
        "label_processor": "cs_zscore", "early_stopping_metric": "rank_ic", "min_rounds": 50,
    },
    "cs_rank, l2": {"label_processor": "cs_rank", "early_stopping_metric": "l2", "min_rounds": 1},
    "cs_rank, rank_ic, 50 rounds at least": {
        "label_processor": "cs_rank", "early_stopping_metric": "rank_ic", "min_rounds": 50,
    },
    "lambdarank, rank_ic, 50 rounds at least": {
        "objective": "lambdarank", "early_stopping_metric": "rank_ic", "min_rounds": 50,
    },
}  # fmt: skip
FOLDS = {"train_sessions": 504, "valid_sessions": 126, "test_sessions": 126, "embargo_sessions": 5}
HEADER = ("candidate", "rounds kept", "rank IC", "t", "by chance", "distinct a session", "ties", "spread, bps")


def measured(data_dir: Path, names: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield a row of the table for each candidate."""
    snapshot = latest_snapshot(data_dir)
    panel = load_panel(snapshot, SessionCalendar(snapshot.calendar))
    features, samples = feature_set("alpha158"), None
    for name in names:
        config = TrainingConfig.model_validate({**CANDIDATES[name], "walk_forward": FOLDS, "num_threads": 1})
        plan = plan_folds(panel.sessions, config)
        if samples is None:
            samples = compute_samples(panel, features, SampleSpec.of(config), plan.span, _silent)
        yield name, *_figures(walk_forward(samples, features, plan, config, _silent))


def _figures(outcome: WalkForwardResult) -> tuple[str, ...]:
    stitched = outcome.stitched
    figures = {name: value or 0.0 for name, value in stitched.metrics.items()}
    gross = stitched.performance.gross_returns
    return (
        ", ".join(str(fold.fit.best_iteration) for fold in outcome.folds),
        f"{figures['rank_ic']:+.4f}",
        f"{figures['rank_ic_t']:+.2f}",
        f"±{figures['rank_ic_by_chance']:.4f}",
        f"{figures['distinct_predictions']:.0f} of {np.isfinite(stitched.predictions).sum(axis=1).mean():.0f}",
        f"{figures['tied_share']:.0%}",
        f"{np.nanmean(gross) * 1e4:+.1f}",
    )


def _silent(_stage: str, _done: int, _total: int) -> None:
    return


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="above adjusted/")
    parser.add_argument("--only", nargs="*", choices=CANDIDATES, help="some candidates; default all")
    told = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}", flush=True)  # noqa: T201 - its output
    for row in measured(told.data_dir, told.only or list(CANDIDATES)):
        print(f"| {' | '.join(row)} |", flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    main()
