"""Bundles on disk: whole or not there, loaded with suspicion, proven by their golden sample."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from strategies.errors import (
    BundleError,
    BundleExists,
    BundleNotFound,
    DigestMismatch,
    EngineDiffers,
    FeatureSetMismatch,
    GoldenSampleMismatch,
    MalformedBundle,
    MalformedModel,
)
from strategies.models import bundle_files, bundle_store
from strategies.models.bundle import Bundle, check_booster
from strategies.models.bundle_store import (
    bundle_path,
    load_bare_model,
    load_bundle,
    load_golden,
    next_version,
    save_bundle,
)
from strategies.models.golden import GoldenSample
from strategies.models.tables import encode_golden, encode_reference
from tests.support.models import (
    change_file,
    forge_file,
    forge_manifest,
    make_bare_model,
    make_booster,
    make_bundle,
    make_content,
    make_table_bomb,
)
from worker.embedded.processes import wait_until

FILES = ("model.txt", "golden.parquet", "reference.parquet")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path)


def forge_golden(bundle: Path, **changes: object) -> None:
    content = make_content()
    golden = replace(content.golden, **changes)
    forge_file(bundle, "golden.parquet", encode_golden(golden, content.lineage.feature_set.names))


def test_saved_bundle_loads_proven_with_all_it_states(bundle):
    loaded = load_bundle(bundle)

    assert bundle.parts[-3:] == ("models", "alpha_baseline", "v1")
    assert (loaded.strategy, loaded.version, loaded.proven) == ("alpha_baseline", "v1", True)
    assert (loaded.lookback, len(loaded.feature_set.names)) == (61, 158)
    assert loaded.label.horizon == "close of T+1 to close of T+2"
    assert loaded.vwap_stand_in == "typical_price"
    assert loaded.universe == tuple(sorted(loaded.universe))
    assert loaded.bundle_sha256 == bundle_files.digest((bundle / "bundle.json").read_bytes())
    assert loaded.model_sha256 == bundle_files.digest((bundle / "model.txt").read_bytes())


def test_same_content_saved_twice_has_the_same_bytes(bundle, tmp_path):
    again = make_bundle(tmp_path / "elsewhere")

    for name in (*FILES, "bundle.json"):
        assert (again / name).read_bytes() == (bundle / name).read_bytes()


def test_bundle_is_never_written_over(bundle, tmp_path):
    before = (bundle / "model.txt").read_bytes()

    with pytest.raises(BundleExists, match="choose another version"):
        make_bundle(tmp_path, seed=1)

    assert (bundle / "model.txt").read_bytes() == before


def test_many_writers_leave_one_whole_bundle(tmp_path):
    contents = [make_content(seed=seed) for seed in (0, 1)] * 4
    refused: list[BundleExists] = []

    def save(content):
        try:
            save_bundle(tmp_path, content)
        except BundleExists as error:
            refused.append(error)

    threads = [threading.Thread(target=save, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(refused) == len(contents) - 1
    assert load_bundle(bundle_path(tmp_path, "alpha_baseline", "v1")).proven
    assert [path.name for path in (tmp_path / "models" / "alpha_baseline").iterdir()] == ["v1"]


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(_opened):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_files.os, "fsync", fail)
    with pytest.raises(BundleError, match="No space left"):
        make_bundle(tmp_path)

    assert list((tmp_path / "models" / "alpha_baseline").iterdir()) == []


def test_next_version_counts_on_from_the_highest(tmp_path):
    folder = tmp_path / "models" / "alpha_baseline"
    for name in ("v2", "v10", "v3-test", "other"):
        (folder / name).mkdir(parents=True)

    assert next_version(tmp_path, "alpha_baseline") == "v11"
    assert next_version(tmp_path, "another") == "v1"


@pytest.mark.parametrize("name", FILES)
def test_changed_file_is_refused_by_its_digest(bundle, name):
    content = (bundle / name).read_bytes()
    change_file(bundle, name, content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(DigestMismatch, match=name):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [*FILES, "bundle.json"])
def test_missing_file_is_named(bundle, name):
    (bundle / name).unlink()

    with pytest.raises(BundleNotFound, match=name):
        load_bundle(bundle)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(BundleNotFound, match="no bundle folder"):
        load_bundle(tmp_path / "nothing")


def test_manifest_itself_can_be_pinned_by_digest(bundle):
    expected = load_bundle(bundle, check=False).bundle_sha256
    forge_manifest(bundle, lambda manifest: manifest.update(git_revision="another"))

    with pytest.raises(DigestMismatch, match=r"bundle\.json"):
        load_bundle(bundle, expected_sha256=expected)


@pytest.mark.parametrize("name", ["model.txt", "bundle.json"])
def test_link_in_place_of_a_file_is_refused(bundle, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (bundle / name).rename(elsewhere)
    (bundle / name).symlink_to(elsewhere)

    with pytest.raises(BundleError, match="cannot be opened"):
        load_bundle(bundle)


def test_link_below_the_root_is_not_followed(bundle, tmp_path):
    away = bundle.parent.rename(tmp_path / "away")
    bundle.parent.symlink_to(away)

    assert load_bundle(bundle, check=False, prove=False).version == "v1"
    with pytest.raises(BundleError, match=r"bundle\.json cannot be opened"):
        load_bundle(bundle, check=False, prove=False, root=tmp_path)
    with pytest.raises(BundleError, match=r"model\.txt cannot be opened"):
        load_bare_model(bundle / "model.txt", "alpha_baseline", "v1", check=False, root=tmp_path)


def test_bundle_below_a_root_of_any_depth_loads(bundle, tmp_path):
    for root in (tmp_path, bundle.parent, bundle):
        assert load_bundle(bundle, check=False, root=root).proven


def test_no_descriptor_is_left_open_whatever_is_read(bundle, tmp_path):
    before = len(list(Path("/dev/fd").iterdir()))

    load_bundle(bundle, check=False, prove=False, root=tmp_path)
    with pytest.raises(BundleNotFound):
        load_bare_model(bundle / "absent" / "model.txt", "alpha_baseline", "v1", root=tmp_path)

    assert len(list(Path("/dev/fd").iterdir())) == before


def test_pipe_in_place_of_a_file_does_not_block(bundle):
    (bundle / "model.txt").unlink()
    os.mkfifo(bundle / "model.txt")

    with pytest.raises(BundleError, match="no plain file"):
        load_bundle(bundle)


def test_file_over_its_size_limit_is_not_read(bundle, monkeypatch):
    monkeypatch.setitem(bundle_files.SIZE_LIMITS, "model.txt", 1000)

    with pytest.raises(BundleError, match="at most 1000"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: manifest.update(surprise=1), "surprise"),
        (lambda manifest: manifest.pop("label"), "label"),
        (lambda manifest: manifest.update(format=2), "format"),
        (lambda manifest: manifest.update(version="../../etc"), "version"),
        (lambda manifest: manifest["files"].pop("golden.parquet"), "files"),
        (lambda manifest: manifest["feature_set"]["names"].pop(), "feature_set"),
        (lambda manifest: manifest["construction"].update(top_n=0, bottom_n=0), "construction"),
        (lambda manifest: manifest["metrics"].update(ic=float("nan")), "metrics"),
    ],
)
def test_manifest_out_of_bounds_names_the_field(bundle, change, words):
    forge_manifest(bundle, change)

    with pytest.raises(BundleError, match=words):
        load_bundle(bundle)


def test_manifest_that_is_no_json_is_refused(bundle):
    change_file(bundle, "bundle.json", b"\xff{")

    with pytest.raises(BundleError, match=r"bundle\.json"):
        load_bundle(bundle)


def test_other_expression_under_the_same_hash_is_refused(bundle):
    def change(manifest):
        manifest["feature_set"]["expressions"][0] = "$close/$open"

    forge_manifest(bundle, change)
    with pytest.raises(EngineDiffers, match="hash"):
        load_bundle(bundle)


@pytest.mark.parametrize("expression", ["Unheard($close, 5)", "Ref($close, -1)/$close"])
def test_expression_that_cannot_be_served_is_refused(bundle, expression):
    def change(manifest):
        manifest["feature_set"]["expressions"][0] = expression

    forge_manifest(bundle, change)
    with pytest.raises(EngineDiffers, match="cannot compute"):
        load_bundle(bundle)


def test_model_of_157_features_is_refused(bundle):
    forge_file(bundle, "model.txt", make_booster(features=157).model_to_string().encode())

    with pytest.raises(FeatureSetMismatch, match="157 features, the feature set 158"):
        load_bundle(bundle)


def test_other_model_with_forged_digest_fails_its_golden_sample(bundle):
    forge_file(bundle, "model.txt", make_booster().model_to_string().encode())

    with pytest.raises(GoldenSampleMismatch, match=r"prediction of \w+ on \d{4}-\d\d-\d\d: expected .*, was "):
        load_bundle(bundle)


def test_model_with_one_changed_digit_fails_its_golden_sample(bundle):
    model = (bundle / "model.txt").read_bytes()
    at = model.index(b"leaf_value=") + len(b"leaf_value=") + 4
    digit = b"3" if model[at : at + 1] != b"3" else b"4"
    forge_file(bundle, "model.txt", model[:at] + digit + model[at + 1 :])

    with pytest.raises(GoldenSampleMismatch, match="prediction of"):
        load_bundle(bundle)


def test_feature_that_differs_by_one_bit_is_named(bundle):
    features = make_content().golden.features.copy()
    features[5, 3] = np.nextafter(features[5, 3], np.float32(np.inf))
    forge_golden(bundle, features=features)
    window = make_content().golden.windows[5]

    with pytest.raises(GoldenSampleMismatch) as caught:
        load_bundle(bundle)

    name = make_content().lineage.feature_set.names[3]
    assert str(caught.value).startswith(f"{name} of {window.symbols[0]} on {window.as_of}: expected ")


def test_swapped_golden_sample_of_another_model_is_refused(bundle):
    other = make_content(seed=1)
    forge_file(bundle, "golden.parquet", encode_golden(other.golden, other.lineage.feature_set.names))

    with pytest.raises(GoldenSampleMismatch, match="prediction of"):
        load_bundle(bundle)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_golden_sample_that_is_no_table_is_refused(bundle, content):
    forge_file(bundle, "golden.parquet", content or b"\0")

    with pytest.raises(BundleError, match=r"golden\.parquet"):
        load_bundle(bundle)


def test_golden_sample_without_a_feature_is_refused(bundle):
    content = make_content()
    narrow = GoldenSample(
        windows=content.golden.windows,
        features=content.golden.features[:, :5],
        predictions=content.golden.predictions,
    )
    forge_file(bundle, "golden.parquet", encode_golden(narrow, content.lineage.feature_set.names[:5]))

    with pytest.raises(BundleError, match="no golden sample of these features"):
        load_bundle(bundle)


def test_empty_golden_sample_proves_nothing(bundle):
    content = make_content()
    window = content.golden.windows[:1]
    few = GoldenSample(windows=window, features=content.golden.features[:1], predictions=content.golden.predictions[:1])
    forge_file(bundle, "golden.parquet", encode_golden(few, content.lineage.feature_set.names))

    with pytest.raises(BundleError, match="at least 64"):
        load_bundle(bundle)


def test_golden_sample_and_reference_load_by_their_digests(bundle):
    loaded = load_bundle(bundle, check=False, prove=False)

    golden = load_golden(bundle, loaded)

    assert loaded.proven is False
    assert len(golden.windows) >= 64
    assert golden.features.dtype == np.float32
    np.testing.assert_array_equal(golden.features, make_content().golden.features)
    assert loaded.reference == make_content().reference


@pytest.mark.parametrize(
    "change",
    [
        lambda reference: reference[1:],
        lambda reference: reference[::-1],
        lambda reference: (replace(reference[0], quantiles=reference[0].quantiles[1:]), *reference[1:]),
        lambda reference: (replace(reference[0], quantiles=reference[0].quantiles[::-1]), *reference[1:]),
    ],
    ids=["a column too few", "another order", "a quantile too few", "descending quantiles"],
)
def test_reference_of_other_columns_is_refused(bundle, change):
    forge_file(bundle, "reference.parquet", encode_reference(change(make_content().reference)))

    with pytest.raises(BundleError, match=r"reference\.parquet holds"):
        load_bundle(bundle, check=False)


def test_row_has_the_same_prediction_alone_or_among_others(bundle):
    loaded = load_bundle(bundle, check=False)
    rows = load_golden(bundle, loaded).features

    together = loaded.predict(rows)

    assert [loaded.predict(rows[index : index + 1])[0] for index in range(len(rows))] == together.tolist()
    assert loaded.predict(rows[:0]).shape == (0,)


def test_features_of_another_width_are_refused(bundle):
    loaded = load_bundle(bundle, check=False)

    with pytest.raises(FeatureSetMismatch, match="157"):
        loaded.predict(np.zeros((2, 157), dtype=np.float32))


def test_bare_model_has_predicted_once_before_it_serves(tmp_path, monkeypatch):
    rows = []
    predict = Bundle.predict
    monkeypatch.setattr(Bundle, "predict", lambda bundle, features: rows.append(features) or predict(bundle, features))

    load_bare_model(make_bare_model(tmp_path / "model.txt"), "alpha_baseline", "v1")

    (features,) = rows
    assert features.shape == (1, 158)
    assert np.isfinite(features).mean() > 0.5


def test_booster_computes_for_one_thread_at_a_time(tmp_path):
    bundle = load_bundle(make_bundle(tmp_path))
    inside, most, go_on = [], [], threading.Event()

    class Watched:
        def predict(self, features, **_how):
            inside.append(1)
            most.append(len(inside))
            assert go_on.wait(20)
            inside.pop()
            return np.zeros(len(features))

    watched = replace(bundle, booster=Watched())
    features = np.zeros((1, len(bundle.feature_set.names)), dtype=np.float32)
    threads = [threading.Thread(target=watched.predict, args=(features,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert not wait_until(lambda: len(inside) > 1, 0.5)
    go_on.set()
    for thread in threads:
        thread.join(20)

    assert most == [1, 1, 1]


def test_bare_model_loads_as_alpha158_and_unproven(tmp_path):
    path = make_bare_model(tmp_path / "model.txt")

    bare = load_bare_model(path, "alpha_baseline", "v1")

    assert (bare.proven, bare.manifest, bare.universe) == (False, None, ())
    assert bare.feature_set.name == "alpha158"
    assert (bare.prediction_kind, bare.label.horizon) == ("score", "")
    assert bare.model_sha256 == bare.bundle_sha256
    assert np.isfinite(bare.predict(np.full((2, 158), np.nan, dtype=np.float32))).all()
    with pytest.raises(BundleError, match="bare model"):
        load_golden(tmp_path, bare)


def test_bare_model_of_other_features_is_refused(tmp_path):
    path = make_bare_model(tmp_path / "model.txt", features=20)

    with pytest.raises(FeatureSetMismatch, match="20 features"):
        load_bare_model(path, "alpha_baseline", "v1")


def test_bare_model_of_features_in_another_order_is_refused(tmp_path, bundle):
    text = (bundle / "model.txt").read_text(encoding="ascii")
    path = tmp_path / "model.txt"
    path.write_text(text.replace("feature_names=KMID KLEN", "feature_names=KLEN KMID"), encoding="ascii")

    with pytest.raises(FeatureSetMismatch, match="column 0 of the model is KLEN, of the feature set KMID"):
        load_bare_model(path, "alpha_baseline", "v1")


def test_text_that_is_no_model_is_refused_unparsed(tmp_path):
    path = tmp_path / "model.txt"
    path.write_bytes(b"tree\nversion=v4\n")

    with pytest.raises(MalformedModel):
        load_bare_model(path, "alpha_baseline", "v1")


def test_model_with_several_outputs_a_row_is_refused():
    rng = np.random.default_rng(0)
    data = lgb.Dataset(rng.normal(size=(200, 3)), rng.integers(0, 3, 200))
    booster = lgb.train({"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}, data, 1)

    with pytest.raises(MalformedModel, match="3 outputs a row"):
        check_booster(booster, ["a", "b", "c"])


def test_folder_in_a_files_place_is_refused(bundle):
    (bundle / "model.txt").unlink()
    (bundle / "model.txt").mkdir()

    with pytest.raises(BundleError, match=r"model\.txt is no plain file"):
        load_bundle(bundle)


def test_golden_sample_without_a_needed_field_is_refused(bundle):
    table = parquet.read_table(bundle / "golden.parquet").drop_columns(["bar.volume"])
    forge_file(bundle, "golden.parquet", _encode(table))

    with pytest.raises(GoldenSampleMismatch, match="the bars have no volume"):
        load_bundle(bundle)


def test_model_with_classes_but_no_trees_is_refused(bundle):
    text = (bundle / "model.txt").read_text(encoding="ascii")
    forge_file(bundle, "model.txt", text.replace("num_class=1", "num_class=2", 1).encode())

    with pytest.raises(MalformedModel, match="2 outputs a row"):
        load_bundle(bundle)


@pytest.mark.parametrize("column", ["sessions", "bar.close"])
def test_golden_sample_of_other_types_is_refused(bundle, column):
    table = parquet.read_table(bundle / "golden.parquet")
    scalars = pa.array([1.0] * table.num_rows)
    forge_file(bundle, "golden.parquet", _encode(table.set_column(table.column_names.index(column), column, scalars)))

    with pytest.raises(BundleError, match="no golden sample of these features"):
        load_bundle(bundle)


def _encode(table):
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def test_table_that_unpacks_to_gigabytes_is_refused_in_the_child(tmp_path):
    path = make_bundle(tmp_path)
    content = make_table_bomb(140_000_000)
    forge_file(path, "reference.parquet", content)

    with pytest.raises(MalformedBundle, match=f"a table of {len(content)} bytes unpacks to more than 1073741824 bytes"):
        load_bundle(path)

    assert len(content) < 2000


def test_same_bytes_are_parsed_by_one_child(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(bundle_store, "_checked", bundle_store.RecentDigests(256))
    monkeypatch.setattr(bundle_store, "check_model_bytes", lambda content, _tables: sizes.append(len(content)))
    first, second = (make_bundle(tmp_path, version=version, seed=seed) for version, seed in (("v1", 0), ("v2", 1)))

    for path in (first, second, first, second):
        assert load_bundle(path).proven

    assert sizes == [(path / "model.txt").stat().st_size for path in (first, second)]


def test_recent_digests_are_bounded_and_forget_the_oldest():
    recent = bundle_store.RecentDigests(3)

    for digest in "abcad":
        recent.add(digest)

    assert [digest in recent for digest in "abcd"] == [False, True, True, True]


def test_recent_digests_survive_threads_that_add_at_once():
    recent = bundle_store.RecentDigests(2)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            added = [threads.submit(recent.add, f"{number % 7}") for number in range(5000)]
    finally:
        sys.setswitchinterval(interval)

    assert all(each.exception() is None for each in added)
    assert sum(f"{number}" in recent for number in range(7)) == 2


def test_bytes_that_were_refused_are_parsed_again(tmp_path):
    path = make_bundle(tmp_path)
    forge_file(path, "model.txt", b"tree\nversion=v4\n")

    for _ in range(2):
        with pytest.raises(MalformedModel):
            load_bundle(path)
