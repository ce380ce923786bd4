"""Training: the same bytes from the same bars, and nothing learnt from the future."""

import hashlib
import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from strategies.alpha_baseline.train import Provenance, train
from strategies.errors import TrainingError, UnknownSymbols
from strategies.expressions.feature_sets import feature_set
from strategies.models.bundle_store import load_bundle, save_bundle
from strategies.models.configuration import TrainingConfig
from strategies.models.manifest import BundleManifest, ConstructionRecord, encode_manifest
from strategies.models.samples import SampleSpec, compute_samples, transform_labels
from tests.support.models import SMALL, change_file, make_model, make_training_panel, scaled_after

V1 = Provenance(version="v1")


def session_of(panel, day):
    return int(np.searchsorted(panel.sessions, np.datetime64(day, "D")))


def samples_of(panel, config=SMALL, stop=None):
    sessions = slice(0, stop or panel.sessions.size)
    return compute_samples(panel, feature_set("alpha158"), SampleSpec.of(config), sessions, lambda *_: None)


def test_same_bars_and_configuration_give_the_same_bytes():
    again = train(make_training_panel(starts={"ORCL": 100}), SMALL, V1)

    assert again.content.model == make_model().content.model
    assert again.content.lineage == make_model().content.lineage
    assert again.content.golden.predictions.tobytes() == make_model().content.golden.predictions.tobytes()


def test_seed_of_the_bars_gives_another_model():
    assert make_model(seed=1).content.model != make_model().content.model


def test_model_learns_what_the_bars_hide():
    metrics = make_model().test.metrics

    assert metrics["rank_ic"] is not None
    assert metrics["rank_ic"] > 0.2
    assert make_model().content.lineage.training.best_iteration > 1
    assert make_model().validation[-1] < make_model().validation[0]


def test_bars_of_the_test_period_change_no_tree():
    panel = make_training_panel(starts={"ORCL": 100})
    test = make_model().content.lineage.training.test

    other = train(scaled_after(panel, session_of(panel, test.first)), SMALL, V1)

    assert other.content.model == make_model().content.model
    assert other.test.metrics != make_model().test.metrics


def test_no_training_label_reads_a_bar_of_validation():
    panel = make_training_panel()
    training = make_model().content.lineage.training
    stop = session_of(panel, training.train.last) + 1
    changed = scaled_after(panel, session_of(panel, training.valid.first))

    before, after = samples_of(panel, stop=stop), samples_of(changed, stop=stop)

    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.features, after.features)
    assert np.isfinite(before.labels[-1]).all()


def test_label_is_the_return_between_the_next_closes():
    panel = make_training_panel()
    close = panel.fields["close"].astype(np.float32)

    labels = samples_of(panel).labels

    np.testing.assert_allclose(labels[:-2].T, close[:, 2:] / close[:, 1:-1] - 1, atol=2e-7)
    assert np.isnan(labels[-2:]).all()


def test_rows_need_full_history_and_a_bar():
    panel = make_training_panel(starts={"ORCL": 100})
    close = panel.fields["close"].copy()
    close[0, 150] = np.nan
    panel = replace(panel, fields=MappingProxyType({**panel.fields, "close": close}))

    eligible = samples_of(panel).eligible
    young = samples_of(panel, SMALL.model_copy(update={"require_full_history": False})).eligible

    assert not eligible[:60].any()
    assert eligible[60, :-1].all()
    assert not eligible[159, -1]
    assert eligible[160, -1]
    assert not eligible[150, 0]
    assert not young[99, -1]
    assert young[100, -1]


def test_lineage_states_what_was_done():
    lineage = make_model().content.lineage

    assert lineage.feature_set.sha256 == feature_set("alpha158").sha256
    assert lineage.feature_set.vwap_stand_in == "typical_price"
    assert lineage.prediction_kind == "return"
    assert lineage.processors == ()
    assert lineage.training.seed == 42
    assert lineage.training.gap_sessions == 2
    assert lineage.training.snapshot_id == make_training_panel().snapshot_id
    assert lineage.training.parameters["deterministic"] is True
    assert {"python", "lightgbm", "numpy"} <= lineage.versions.keys()


def test_bundle_states_on_disk_what_it_was_made_of(tmp_path):
    config = SMALL.model_copy(update={"processors": ("robust_zscore",), "rounds": 2})

    path = save_bundle(tmp_path, make_model(config).content)

    stated = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
    assert {name: record["sha256"] for name, record in stated["files"].items()} == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir() if file.suffix != ".json"
    }
    assert list(stated["feature_set"]["names"]) == list(feature_set("alpha158").names)
    assert list(stated["feature_set"]["expressions"]) == list(feature_set("alpha158").expressions)
    assert stated["label"]["expression"] == "Ref($close, -2)/Ref($close, -1) - 1"
    assert len(stated["processors"][0]["center"]) == len(stated["feature_set"]["names"])
    assert stated["construction"] == {"top_n": 3, "bottom_n": 3}
    training = stated["training"]
    assert (training["calendar"], training["seed"], len(training["universe"])) == ("XNYS", 42, 8)
    assert training["train"].keys() == training["valid"].keys() == training["test"].keys() == {"first", "last"}
    assert training["parameters"]["num_leaves"] == SMALL.num_leaves


TOLD = {
    "label_processor": "cs_rank",
    "require_full_history": False,
    "rounds": 6,
    "early_stopping_rounds": 2,
    "early_stopping_metric": "rank_ic",
    "min_rounds": 3,
    "relevance_levels": 5,
    "cost_bps": 20.0,
    "borrow_bps_a_year": 0.0,
}


def stated_config(manifest):
    """The configuration that `bundle.json` states, of a training without folds and with a shipped feature set."""
    training, features = manifest.training, manifest.feature_set
    fields = {"learning_rate", "max_depth", "num_leaves", "num_threads"}
    return TrainingConfig.model_validate(
        {name: getattr(manifest, name).model_dump() for name in ("label", "construction")}
        | {"feature_set": features.name, "vwap_stand_in": features.vwap_stand_in, "precision": features.precision}
        | {"periods": training.model_dump(include={"train", "valid", "test"}), "gap_sessions": training.gap_sessions}
        | {
            "universe": training.universe,
            "seed": training.seed,
            "processors": [one.kind for one in manifest.processors],
        }
        | {name: training.parameters[name] for name in fields}
        | {"parameters": {"feature_fraction": training.parameters["feature_fraction"]}}
        | manifest.settings.model_dump()
    )


def test_bundle_json_alone_trains_the_same_bundle_again(tmp_path):
    asked = {**SMALL.model_dump(), **TOLD, "processors": ("fillna",), "parameters": {"feature_fraction": 0.5}}
    path = save_bundle(tmp_path / "first", make_model(TrainingConfig.model_validate(asked)).content)
    manifest = load_bundle(path, check=False).manifest

    again = train(make_training_panel(starts={"ORCL": 100}), stated_config(manifest), V1)

    assert manifest.settings.model_dump() == TOLD
    second = save_bundle(tmp_path / "second", again.content)
    assert {file.name: file.read_bytes() for file in second.iterdir()} == {
        file.name: file.read_bytes() for file in path.iterdir()
    }


def test_bundle_of_before_settings_loads_and_keeps_its_bytes(tmp_path):
    path = save_bundle(tmp_path, make_model().content)
    stated = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
    del stated["settings"]
    before = encode_manifest(BundleManifest.model_validate(stated))
    change_file(path, "bundle.json", before)

    bundle = load_bundle(path)

    assert b"settings" not in before
    assert (bundle.proven, bundle.manifest.settings) == (True, None)
    assert encode_manifest(bundle.manifest) == before


def test_normalised_label_makes_predictions_scores():
    scored = make_model(SMALL.model_copy(update={"label_processor": "cs_rank"}))

    assert scored.content.lineage.prediction_kind == "score"


def test_fitted_processors_travel_with_the_bundle(tmp_path):
    config = SMALL.model_copy(update={"processors": ("robust_zscore", "fillna"), "rounds": 3})

    bundle = load_bundle(save_bundle(tmp_path, make_model(config).content), check=False)

    assert [processor.kind for processor in bundle.processors] == ["robust_zscore", "fillna"]
    assert bundle.proven


def test_progress_tells_every_stage_to_its_end():
    reports = []

    train(
        make_training_panel(sessions=200),
        SMALL.model_copy(update={"rounds": 2}),
        V1,
        progress=lambda *a: reports.append(a),
    )

    assert list(dict.fromkeys(stage for stage, _, _ in reports)) == ["features", "rounds", "evaluation"]
    assert all(any(name == stage and done == total for name, done, total in reports) for stage, _, _ in reports)


def test_universe_narrows_what_is_learnt_from():
    config = SMALL.model_copy(update={"universe": ("MSFT", "AAPL", "IBM")})

    assert make_model(config).content.lineage.training.universe == ("AAPL", "IBM", "MSFT")


def test_universe_beyond_the_snapshot_is_refused_by_name():
    with pytest.raises(UnknownSymbols, match="TSLA"):
        train(make_training_panel(), SMALL.model_copy(update={"universe": ("AAPL", "TSLA")}), V1)


@pytest.mark.parametrize(
    ("config", "sessions", "words"),
    [
        (SMALL, 5, "the valid period has no session"),
        (SMALL, 80, "no row with a label and full history"),
        (TrainingConfig(vwap_stand_in="none"), 200, "needs vwap, which the snapshot's bars lack"),
        (
            TrainingConfig.model_validate({"label": {**TrainingConfig().label.model_dump(), "sessions_ahead": 1}}),
            200,
            "looks 2 sessions ahead, the configuration says 1",
        ),
    ],
)
def test_training_that_cannot_be_done_says_why(config, sessions, words):
    with pytest.raises(TrainingError, match=words):
        train(make_training_panel(sessions=sessions), config, V1)


def test_construction_of_the_configuration_is_the_bundles(tmp_path):
    config = SMALL.model_copy(update={"construction": ConstructionRecord(top_n=2, bottom_n=0), "rounds": 2})

    bundle = load_bundle(save_bundle(tmp_path, make_model(config).content), check=False)

    assert (bundle.construction.top_n, bundle.construction.bottom_n) == (2, 0)


def test_labels_are_transformed_within_their_session_alone():
    labels = np.array([[0.1, 0.2, 0.4, np.nan], [5.0, 5.0, 5.0, 5.0]])

    scores, ranks = transform_labels(labels, "cs_zscore"), transform_labels(labels, "cs_rank")

    assert np.nanmean(scores[0]) == pytest.approx(0, abs=1e-12)
    assert np.nanstd(scores[0], ddof=1) == pytest.approx(1)
    assert np.isnan(scores[1]).all()
    assert ranks[0].tolist()[:3] == pytest.approx([(1 / 3 - 0.5) * 3.46, (2 / 3 - 0.5) * 3.46, 0.5 * 3.46])
    assert np.isnan(ranks[0, 3])
    assert transform_labels(labels, "none").tobytes() == labels.tobytes()
