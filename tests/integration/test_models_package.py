"""`models package` on models that LightGBM, scikit-learn's wrapper and MLflow really wrote."""

import gzip
import json
import pickle
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from strategies.expressions.feature_sets import feature_set
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from strategies.models.bundle import ALPHA158_LABEL
from strategies.models.bundle_store import load_bundle
from tests.support.world import build_world
from worker.cli._common import ExitCode
from worker.cli.main import app

NAMES = feature_set("alpha158").names
LABEL = ALPHA158_LABEL.expression
PARAMETERS = {"verbosity": -1, "num_threads": 1, "deterministic": True, "num_leaves": 7, "seed": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def rows(world):
    """Alpha158 of every symbol and session of the snapshot, `[rows, 158]`, in the order of the feature set."""
    snapshot = latest_snapshot(world / "data")
    panel = load_panel(snapshot, SessionCalendar(snapshot.calendar))
    days = [panel.sessions[place].astype(object) for place in (100, -3)]
    found = feature_set("alpha158").evaluate_range(panel, *days, panel.symbols)
    return found.reshape(-1, len(NAMES))


def trained(rows, names, *, objective="regression", **parameters):
    """Train on `rows[:, names]` as somebody outside would, and return the booster."""
    order = [NAMES.index(name) for name in names]
    rng = np.random.default_rng(5)
    target = np.nan_to_num(rows[:, order[0]]) + 0.01 * rng.normal(size=len(rows))
    if objective == "binary":
        target = target > np.median(target)
    data = lgb.Dataset(rows[:, order], target, feature_name=parameters.pop("feature_name", list(names)))
    if objective == "lambdarank":
        data = lgb.Dataset(rows[:, order], rng.integers(0, 4, len(rows)), group=[len(rows)], feature_name=list(names))
    return lgb.train({**PARAMETERS, "objective": objective, **parameters}, data, num_boost_round=5)


@pytest.fixture
def call(world, tmp_path):
    def run(*words, code=0):
        environment = {
            "SIGNALS_DATA_DIR": str(world / "data"),
            "SIGNALS_ARTIFACTS_DIR": str(tmp_path / "artifacts"),
            "COLUMNS": "200",
        }
        done = CliRunner(env=environment).invoke(app, ["models", "package", *map(str, words)])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if "--json" in words else done.stderr

    return run


@pytest.fixture
def model(rows, tmp_path):
    """A text model that names its columns, in the order of Alpha158."""
    path = tmp_path / "model.txt"
    trained(rows, NAMES).save_model(path)
    return path


def test_text_model_becomes_a_bundle_that_proves_itself(call, model, rows):
    shown = call(model, "--label", LABEL, "--trained-until", "2013-06-03", "--json")

    bundle = load_bundle(Path(shown["path"]))
    assert bundle.proven
    assert shown["golden_rows"] >= 64
    assert (bundle.prediction_kind, bundle.label.horizon) == ("return", ALPHA158_LABEL.horizon)
    assert (bundle.manifest.packaging.columns, str(bundle.manifest.training.train.last)) == ("name", "2013-06-03")
    assert shown["notes"] == []
    outside = lgb.Booster(model_file=str(model))
    np.testing.assert_array_equal(bundle.predict(rows[:50]), outside.predict(rows[:50], num_threads=1))


def test_label_that_nobody_stated_gives_no_horizon(call, model):
    shown = call(model, "--json")

    assert (shown["prediction_kind"], shown["horizon"]) == ("score", "")
    assert any("nobody stated the label" in note for note in shown["notes"])
    assert any("counts as seen in training" in note for note in shown["notes"])


@pytest.mark.parametrize(
    ("objective", "options", "kind"),
    [
        ("lambdarank", (), "score"),
        ("binary", (), "probability"),
        ("regression", ("--label-processor", "cs_zscore"), "score"),
    ],
)
def test_kind_follows_from_what_is_stated(call, rows, tmp_path, objective, options, kind):
    path = tmp_path / "model.txt"
    trained(rows, NAMES, objective=objective).save_model(path)

    assert call(path, "--label", LABEL, *options, "--json")["prediction_kind"] == kind


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
    ],
    ids=["crlf", "bom", "gzip", "all"],
)
def test_file_that_travelled_is_the_model_it_was(call, model, written):
    plain = call(model, "--json")
    model.write_bytes(written(model.read_text()))

    assert call(model, "--json")["model_sha256"] == plain["model_sha256"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], "is damaged: it ends after"),
        (lambda data: gzip.compress(data)[:-50], "is a damaged gzip file"),
        (lambda data: b"\x1f\x8b" + data, "is a damaged gzip file"),
        (lambda data: data.replace(b"feature_names", b"feature_nam\xff"), "is no UTF-8"),
        (lambda data: data.replace(b"leaf_value=", b"leaf_valu3=", 1), "the process that parsed it|leaf|tree 0"),
        (lambda data: data.decode().encode("utf-16"), "text in UTF-16"),
        (lambda data: pickle.dumps({"model": data}), "never unpickled here"),
        (lambda _: b'{"name": "tree"}', "JSON, as dump_model"),
        (lambda _: b"hello\n", "it begins with 'hello'"),
        (lambda _: b"", "it begins with ''"),
    ],
    ids=["cut", "gzip cut", "no gzip", "bytes", "tree", "utf-16", "pickle", "json", "text", "empty"],
)
def test_damage_and_other_forms_are_named(call, model, tmp_path, damage, words):
    model.write_bytes(damage(model.read_bytes()))

    refused = call(model, code=ExitCode.FAILED)

    assert any(word in refused for word in words.split("|")), refused
    assert len(refused.splitlines()) == 1
    assert not (tmp_path / "artifacts").exists()


def test_columns_in_another_order_are_matched_by_name(call, rows, tmp_path):
    shuffled = [NAMES[place] for place in np.random.default_rng(3).permutation(len(NAMES))]
    path = tmp_path / "model.txt"
    booster = trained(rows, shuffled)
    booster.save_model(path)

    bundle = load_bundle(Path(call(path, "--json")["path"]))

    order = [NAMES.index(name) for name in shuffled]
    assert bundle.feature_set.names == tuple(shuffled)
    np.testing.assert_array_equal(
        bundle.predict(rows[:50][:, order]), booster.predict(rows[:50][:, order], num_threads=1)
    )


def test_some_of_the_features_suffice(call, rows, tmp_path):
    path = tmp_path / "model.txt"
    trained(rows, ["ROC5", "KMID", "STD20"]).save_model(path)

    assert load_bundle(Path(call(path, "--json")["path"])).feature_set.names == ("ROC5", "KMID", "STD20")


def test_columns_without_names_need_a_statement(call, rows, tmp_path):
    path = tmp_path / "model.txt"
    trained(rows, NAMES, feature_name="auto").save_model(path)

    assert "cannot be checked" in call(path, code=ExitCode.FAILED)
    assert call(path, "--columns-in-order", "--json")["columns"] == "order"


@pytest.mark.parametrize("form", ["mapping", "list"])
def test_columns_are_taken_as_a_file_states_them(call, rows, tmp_path, form):
    wanted = ["STD20", "KMID", "ROC5"]
    path, stated = tmp_path / "model.txt", tmp_path / "columns.yaml"
    booster = trained(rows, wanted, feature_name=["a", "b", "c"])
    booster.save_model(path)
    stated.write_text(yaml.safe_dump(dict(zip("abc", wanted, strict=True)) if form == "mapping" else wanted))

    shown = call(path, "--columns", stated, "--json")

    bundle = load_bundle(Path(shown["path"]))
    order = [NAMES.index(name) for name in wanted]
    assert (shown["columns"], list(bundle.feature_set.names)) == ("mapping", wanted)
    np.testing.assert_array_equal(
        bundle.predict(rows[:50][:, order]), booster.predict(rows[:50][:, order], num_threads=1)
    )


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"a": "KMID", "b": "KLEN"}, "no feature for column 'c'"),
        ({"a": "KMID", "b": "KLEN", "c": "KMDI"}, "did you mean KMID?"),
        ({"a": "KMID", "b": "KLEN", "c": "KMID"}, "columns 0 and 2 are the same feature"),
        ({"a": "KMID", "b": "KLEN", "c": "KUP", "d": "KLOW"}, "names column 'd'"),
        (["KMID"], "lists 1 features, the model has 3 columns"),
        ("KMID", "neither a mapping"),
    ],
)
def test_impossible_mapping_is_named(call, rows, tmp_path, stated, words):
    path, file = tmp_path / "model.txt", tmp_path / "columns.yaml"
    trained(rows, ["KMID", "KLEN", "KUP"], feature_name=["a", "b", "c"]).save_model(path)
    file.write_text(yaml.safe_dump(stated))

    assert words in call(path, "--columns", file, code=ExitCode.FAILED)


def test_columns_in_the_wrong_order_are_remarked_on(call, rows, tmp_path):
    path = tmp_path / "model.txt"
    order = list(reversed(range(len(NAMES))))
    data = lgb.Dataset(rows[:, order], np.nan_to_num(rows[:, 0]))
    lgb.train({**PARAMETERS, "objective": "regression"}, data, num_boost_round=3).save_model(path)

    notes = call(path, "--columns-in-order", "--json")["notes"]

    assert any("beyond the range that it was trained on" in note for note in notes)


def test_booster_of_a_scikit_learn_wrapper_is_taken_as_text(call, rows, tmp_path):
    wrapper = lgb.LGBMRegressor(n_estimators=3, num_leaves=5, n_jobs=1, verbosity=-1)
    wrapper.fit(rows, np.nan_to_num(rows[:, 0]))
    path = tmp_path / "model.txt"
    wrapper.booster_.save_model(path)

    assert call(path, "--columns-in-order", "--label", LABEL, "--json")["prediction_kind"] == "return"


def test_mlflow_flavour_is_read_from_its_folder(call, rows, tmp_path):
    flavour = tmp_path / "flavour"
    flavour.mkdir()
    # As MLflow's save_model writes it, which takes a minute of pip to do.
    described = {"flavors": {"lightgbm": {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}}}
    (flavour / "MLmodel").write_text(yaml.safe_dump(described))
    trained(rows, NAMES).save_model(flavour / "model.lgb")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "MLmodel").write_text(
        yaml.safe_dump(
            {"flavors": {"lightgbm": {"data": "model.pkl", "model_class": "lightgbm.sklearn.LGBMRegressor"}}}
        )
    )

    assert call(tmp_path / "flavour", "--json")["columns"] == "name"
    assert "never unpickled here" in call(pickled, code=ExitCode.FAILED)
    assert "without MLmodel" in call(tmp_path, code=ExitCode.NOT_FOUND)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--columns", "x.yaml", "--columns-in-order"), 2, "give one of them"),
        (("--top-n", "0", "--bottom-n", "0"), 2, "both 0"),
        (("--snapshot", "2001-01-01"), 3, "2001-01-01"),
        (("--label", "Std($close, 5)"), 1, "looks no session ahead"),
        (("--label", "Ref(Std($close, 5), -5)"), 1, "state its horizon in words"),
        (("--feature-set", "alpha159"), 1, "did you mean alpha158?"),
        (("--strategy", "Not A Name"), 2, "Not A Name"),
        (("--trained-until", "1999-01-04"), 1, "no row until 1999-01-04"),
    ],
)
def test_impossible_call_is_one_sentence(call, model, options, code, words):
    refused = call(model, *options, code=code)

    assert words in refused
    assert len(refused.splitlines()) == 1
