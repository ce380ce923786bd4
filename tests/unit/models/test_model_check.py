"""The child process that meets untrusted model bytes first: whatever they do, this process goes on."""

import re
import sys

import lightgbm as lgb
import numpy as np
import pytest

from strategies.errors import BundleError, BundleUnavailable, MalformedModel
from strategies.models import model_check
from strategies.models.model_check import ModelSummary, check_model_bytes, check_trees, inspect_model
from tests.support.models import make_booster, make_bundle, make_table_bomb

#: Without the sizes of its trees, a change of length is not noticed by LightGBM itself.
MODEL = re.sub(r"tree_sizes=.*\n", "", make_booster(features=6, rounds=4).model_to_string())
TREES = MODEL[: MODEL.index("end of trees")]


def replaced(field: str, old: str, new: str) -> str:
    """Return the model with a change in the first line of that field."""
    lines = MODEL.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith(f"{field}="))
    assert old in lines[at]
    lines[at] = lines[at].replace(old, new, 1)
    return "\n".join(lines) + "\n"


def line_of(field: str) -> list[str]:
    return next(line for line in MODEL.splitlines() if line.startswith(f"{field}=")).split("=")[1].split()


def test_good_model_is_summed_up():
    summary = ModelSummary(num_trees=4, num_features=6)

    assert check_model_bytes(MODEL.encode()) == summary
    assert inspect_model(MODEL) == summary


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_model_is_refused_and_we_survive(share):
    with pytest.raises(MalformedModel):
        check_model_bytes(make_booster(features=6).model_to_string().encode()[: int(len(TREES) * share)])


@pytest.mark.parametrize("seed", range(4))
def test_flipped_digits_are_refused_or_leave_a_model(seed):
    content = bytearray(MODEL.encode())
    digits = [index for index, byte in enumerate(content) if chr(byte).isdigit()]
    for at in np.random.default_rng(seed).choice(digits, 5, replace=False):
        content[at] = ord("9") if content[at] != ord("9") else ord("1")

    try:
        summary = check_model_bytes(bytes(content), timeout_seconds=20.0)
    except BundleError:  # by memory, where a count of something became enormous
        return
    assert summary.num_trees >= 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"tree\n", b"PK\x03\x04", b"0" * 5000])
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(MalformedModel):
        check_model_bytes(content)


def test_model_that_takes_too_long_is_given_up():
    with pytest.raises(BundleUnavailable, match=r"did not parse within 0\.01 s"):
        check_model_bytes(MODEL.encode(), timeout_seconds=0.01)


@pytest.mark.parametrize("megabytes", [96, 160, 190], ids=["for the libraries", "for the bytes", "for the trees"])
def test_too_little_memory_makes_the_bundle_unavailable(megabytes):
    content = make_booster(features=6, rounds=20_000).model_to_string().encode()

    with pytest.raises(BundleUnavailable):
        check_model_bytes(content, memory_bytes=megabytes * 1024**2)


@pytest.mark.parametrize("megabytes", [170, 240, 320, 1100], ids=["model alone", "libraries", "all", "table limit"])
def test_sound_bundle_is_sound_or_unavailable_at_every_memory_limit(tmp_path, megabytes):
    bundle = make_bundle(tmp_path)
    model, *tables = [(bundle / name).read_bytes() for name in ("model.txt", "golden.parquet", "reference.parquet")]

    try:
        summary = check_model_bytes(model, tables, memory_bytes=megabytes * 1024**2)
    except BundleUnavailable:
        assert megabytes < 300
    else:
        assert summary.num_features == 158


def test_library_of_the_tables_that_is_missing_makes_the_bundle_unavailable(tmp_path, monkeypatch):
    (tmp_path / "pyarrow").mkdir()
    (tmp_path / "pyarrow" / "__init__.py").write_text("raise ImportError('libarrow.so: not found')", encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert check_model_bytes(MODEL.encode()).num_trees == 4
    with pytest.raises(BundleUnavailable, match=r"does not work here: ImportError: libarrow\.so: not found"):
        check_model_bytes(MODEL.encode(), [b"PAR1"])


def test_table_for_which_the_system_has_no_memory_is_unavailable_and_no_bomb(tmp_path, monkeypatch):
    content = make_table_bomb(40_000_000)
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f"ulimit -d {300 * 1024}"))

    with pytest.raises(BundleUnavailable, match=f"no memory for a table of {len(content)} bytes"):
        check_model_bytes(MODEL.encode(), [content])


def interpreter(tmp_path, script):
    """Return an interpreter that runs these lines of a shell first."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\n{script}\nexec "{sys.executable}" "$@"\n', encoding="ascii")
    path.chmod(0o755)
    return str(path)


#: As the loader does where only the environment leads to a library.
NEEDS_LIBRARY_PATH = (
    'test -n "$LD_LIBRARY_PATH" || { echo "OSError: libgomp.so.1: cannot open shared object file" >&2; exit 1; }'
)


def test_child_without_its_libraries_makes_the_bundle_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, NEEDS_LIBRARY_PATH))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    with pytest.raises(BundleUnavailable, match=r"does not work here: OSError: libgomp\.so\.1"):
        check_model_bytes(MODEL.encode())

    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    assert check_model_bytes(MODEL.encode()).num_trees == 4


def test_child_gets_no_secret(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f"env > {tmp_path / 'seen'}"))
    for name in ("DATABASE_URL", "SIGNALS_LOCAL_DIR", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "a secret")

    check_model_bytes(MODEL.encode())

    assert "a secret" not in (tmp_path / "seen").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -KILL $$", "does not work here: it was ended by SIGKILL"),
        ("echo proven; kill -KILL $$", "was ended: SIGKILL"),
        ("echo proven; kill -XCPU $$", "was ended: SIGXCPU"),
        ("echo proven; kill -TERM $$", "was ended: SIGTERM"),
        ("echo proven; exit 3", "ended over .* bytes: exit code 3"),
        ("echo the reference model comes out otherwise; exit 0", "the reference model comes out otherwise"),
    ],
)
def test_child_that_is_ended_from_outside_makes_the_bundle_unavailable(tmp_path, monkeypatch, script, words):
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, script))

    with pytest.raises(BundleUnavailable, match=words):
        check_model_bytes(MODEL.encode())


@pytest.mark.parametrize("name", ["SEGV", "ABRT"])
def test_signal_caused_by_the_bytes_makes_the_model_malformed(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f"echo proven; kill -{name} $$"))

    with pytest.raises(MalformedModel, match=f"killed the process that parsed it: SIG{name}"):
        check_model_bytes(MODEL.encode())


def test_signal_that_more_memory_prevents_makes_the_bundle_unavailable(tmp_path, monkeypatch):
    died = f"test -e {tmp_path / 'died'} || {{ touch {tmp_path / 'died'}; echo proven; kill -ABRT $$; }}"
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, died))

    with pytest.raises(BundleUnavailable, match="was ended: SIGABRT"):
        check_model_bytes(MODEL.encode())


def test_child_that_computes_otherwise_judges_no_model(monkeypatch, tmp_path):
    outputs = model_check.REFERENCE_OUTPUTS.read_text("ascii").split()
    monkeypatch.setattr(model_check, "REFERENCE_OUTPUTS", tmp_path / "outputs.txt")
    (tmp_path / "outputs.txt").write_text("\n".join([float(1).hex(), *outputs[1:]]), encoding="ascii")

    assert "stated 0x1.0000000000000p+0" in model_check.reproduce_reference()


def test_tree_that_loops_is_refused_without_walking_it():
    children = line_of("left_child")
    node = next(index for index, child in enumerate(children) if int(child) > 0)
    looping = replaced("left_child", " ".join(children), " ".join([*children[:node], "0", *children[node + 1 :]]))

    with pytest.raises(MalformedModel):
        check_model_bytes(looping.encode(), timeout_seconds=20.0)
    with pytest.raises(MalformedModel, match="tree 0: a node is missing or has two parents"):
        inspect_model(looping)


#: Lines of a tree whose first two splits ask for sets of categories.
CATEGORIES = {
    "num_cat": "2",
    "decision_type": "1 9 2",
    "threshold": "1 0 1e30",
    "cat_boundaries": "0 1 2",
    "cat_threshold": "5 9",
}
#: Lines of a tree whose leaves are linear models.
LINEAR = {
    "is_linear": "1",
    "leaf_const": "1 2 3 4",
    "num_features": "1 0 0 2",
    "leaf_features": "0 5 1",
    "leaf_coeff": "1 2 3",
}


def tree(**changes: str) -> str:
    """Return the text of one tree of four leaves, with changed lines."""
    fields = {
        "num_leaves": "4",
        "split_feature": "0 1 2",
        "threshold": "0.5 -1 1e30",
        "decision_type": "2 2 2",
        "left_child": "1 2 -1",
        "right_child": "-2 -3 -4",
        "leaf_value": "1 2 3 4",
    }
    return "Tree=0\n" + "\n".join(f"{name}={value}" for name, value in (fields | changes).items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"left_child": "-1 2 1"}, "a node is its own ancestor"),
        ({"left_child": "1 1 -1"}, "a node is missing or has two parents"),
        ({"left_child": "1 2 -9"}, "a node is missing or has two parents"),
        ({"left_child": "1 2"}, "splits"),
        ({"split_feature": "0 1 6"}, "splits feature 6 of 6"),
        ({"split_feature": "0 -1 2"}, "splits feature"),
        ({"leaf_value": "1 2 3"}, "4 leaves, but 3 leaf values"),
        ({"leaf_value": "1 2 3 inf"}, "leaf value inf"),
        ({"num_leaves": "0", "leaf_value": ""}, "0 leaves"),
        ({"threshold": "1 2"}, "3 splits, but 2 thresholds and 3 decision types"),
        ({"decision_type": "2 2"}, "3 splits, but 3 thresholds and 2 decision types"),
        ({"decision_type": "1 2 2"}, r"splits by set 0 of 0 sets"),
        (CATEGORIES | {"threshold": "2 0 1e30"}, "splits by set 2 of 2 sets"),
        (CATEGORIES | {"threshold": "-1 0 1e30"}, "splits by set -1 of 2 sets"),
        (CATEGORIES | {"threshold": "nan 0 1e30"}, "splits by set nan of 2 sets"),
        (CATEGORIES | {"decision_type": "257 9 2", "threshold": "2 0 1"}, "splits by set 2 of 2 sets"),
        (CATEGORIES | {"cat_boundaries": "0 1"}, "2 sets of categories, but bounds"),
        (CATEGORIES | {"cat_boundaries": "0 3 2"}, "2 sets of categories, but bounds"),
        (CATEGORIES | {"cat_boundaries": "-1 1 2"}, "2 sets of categories, but bounds"),
        (CATEGORIES | {"cat_boundaries": "0 1 9"}, "2 sets of categories, but bounds .* of 2 words"),
        (LINEAR | {"leaf_features": "0 6 1"}, "linear leaf reads feature .6. of 6"),
        (LINEAR | {"num_features": "1 0 0 9"}, "4 linear leaves, but 4 constants and 3 features"),
        (LINEAR | {"num_features": "4 -1 0 0"}, "a linear leaf reads feature"),
        (LINEAR | {"leaf_const": "1 2 3"}, "4 linear leaves, but 3 constants"),
        (LINEAR | {"leaf_coeff": "1 nan 3"}, "a linear leaf is not finite"),
        ({"shrinkage": "1\nleft_child=1 2 -1"}, "a line is there twice"),
    ],
)
def test_nodes_that_form_no_tree_are_named(changes, words):
    # LightGBM itself would follow some of these for ever, or out of bounds.
    with pytest.raises(MalformedModel, match=f"tree 0: .*{words}"):
        check_trees(tree(**changes), ModelSummary(num_trees=1, num_features=6))


def test_nodes_that_form_a_tree_pass():
    summary = ModelSummary(num_trees=1, num_features=6)

    check_trees(tree(), summary)
    check_trees(tree(**CATEGORIES), summary)
    check_trees(tree(**LINEAR), summary)
    check_trees(tree().replace("\n", "\r\n"), summary)
    check_trees("Tree=0\nnum_leaves=1\nleaf_value=0.5\n", summary)
    with pytest.raises(MalformedModel, match="holds 1 trees, LightGBM read 2"):
        check_trees(tree(), ModelSummary(num_trees=2, num_features=6))


def test_trees_that_lightgbm_finds_elsewhere_are_refused():
    summary = ModelSummary(num_trees=1, num_features=6)

    check_trees("tree_sizes=7\n\n" + tree(), summary)
    with pytest.raises(MalformedModel, match="tree_sizes are"):
        check_trees("tree_sizes=7 9\n\n" + tree(), summary)
    two = tree() + "\n\n" + tree()
    with pytest.raises(MalformedModel, match="tree_sizes are"):
        check_trees("tree_sizes=7 9\n\n" + two, ModelSummary(num_trees=2, num_features=6))


@pytest.mark.parametrize("character", ["\x0c", "\r", "\x00", "\x85"])
def test_ambiguous_end_of_a_value_is_refused(character):
    with pytest.raises(MalformedModel, match="not clear where it ends a value"):
        check_trees(tree(left_child=f"1 2 -1{character}9"), ModelSummary(num_trees=1, num_features=6))


def test_models_of_categories_and_linear_leaves_pass():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3))
    rows[:, 0] = rng.integers(0, 40, size=500)
    labels = 5 * (rows[:, 0] % 3 == 0) + rows[:, 1]
    parameters = {"verbosity": -1, "num_leaves": 7, "num_threads": 1, "min_data_per_group": 5}
    categorical = lgb.train(parameters, lgb.Dataset(rows, labels, categorical_feature=[0]), num_boost_round=3)
    linear = lgb.train(parameters | {"linear_tree": True}, lgb.Dataset(rows, labels), num_boost_round=3)

    assert "num_cat=1" in categorical.model_to_string()
    assert inspect_model(categorical.model_to_string()).num_trees == 3
    assert inspect_model(linear.model_to_string()).num_trees == 3
    constant = lgb.train(parameters | {"linear_tree": True}, lgb.Dataset(rows, labels * 0 + 1), num_boost_round=3)
    assert inspect_model(constant.model_to_string()).num_trees >= 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_leaf_that_is_not_finite_is_named(value):
    leaf = line_of("leaf_value")[0]

    with pytest.raises(MalformedModel, match="tree 0: leaf value"):
        check_model_bytes(replaced("leaf_value", leaf, value).encode())


def test_model_without_trees_is_refused():
    without_trees = MODEL[: MODEL.index("Tree=0")] + MODEL[MODEL.index("end of trees") :]

    with pytest.raises(MalformedModel):
        check_model_bytes(without_trees.encode())


def test_child_inherits_nothing_of_this_process(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")

    assert check_model_bytes(MODEL.encode()).num_trees == 4
