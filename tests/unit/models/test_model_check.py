"""The child process that meets untrusted model bytes first: whatever they do, this process goes on."""

import re

import numpy as np
import pytest

from strategies.errors import MalformedModel
from strategies.models.model_check import ModelSummary, check_model_bytes, check_trees, inspect_model
from tests.support.models import make_booster

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
    except MalformedModel:
        return
    assert summary.num_trees >= 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"tree\n", b"PK\x03\x04", b"0" * 5000])
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(MalformedModel):
        check_model_bytes(content)


def test_model_that_takes_too_long_is_given_up():
    with pytest.raises(MalformedModel, match=r"did not parse within 0\.01 s"):
        check_model_bytes(MODEL.encode(), timeout_seconds=0.01)


def test_model_that_needs_too_much_memory_is_refused():
    with pytest.raises(MalformedModel):
        check_model_bytes(MODEL.encode(), memory_bytes=96 * 1024**2)


def test_tree_that_loops_is_refused_without_walking_it():
    children = line_of("left_child")
    node = next(index for index, child in enumerate(children) if int(child) > 0)
    looping = replaced("left_child", " ".join(children), " ".join([*children[:node], "0", *children[node + 1 :]]))

    with pytest.raises(MalformedModel):
        check_model_bytes(looping.encode(), timeout_seconds=20.0)
    with pytest.raises(MalformedModel, match="tree 0: a node is missing or has two parents"):
        inspect_model(looping)


def tree(**changes: str) -> str:
    """Return the text of one tree of four leaves, with changed lines."""
    fields = {
        "num_leaves": "4",
        "split_feature": "0 1 2",
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
    ],
)
def test_nodes_that_form_no_tree_are_named(changes, words):
    # LightGBM itself would follow some of these for ever, or out of bounds.
    with pytest.raises(MalformedModel, match=f"tree 0: .*{words}"):
        check_trees(tree(**changes), ModelSummary(num_trees=1, num_features=6))


def test_nodes_that_form_a_tree_pass():
    summary = ModelSummary(num_trees=1, num_features=6)

    check_trees(tree(), summary)
    check_trees("Tree=0\nnum_leaves=1\nleaf_value=0.5\n", summary)
    with pytest.raises(MalformedModel, match="holds 1 trees, LightGBM read 2"):
        check_trees(tree(), ModelSummary(num_trees=2, num_features=6))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_leaf_that_is_not_finite_is_named(value):
    leaf = line_of("leaf_value")[0]

    with pytest.raises(MalformedModel, match="tree 0: leaf value"):
        check_model_bytes(replaced("leaf_value", leaf, value).encode())


def test_model_without_trees_is_refused():
    without_trees = MODEL[: MODEL.index("Tree=0")] + MODEL[MODEL.index("end of trees") :]

    with pytest.raises(MalformedModel):
        check_model_bytes(without_trees.encode())


def test_child_is_told_nothing_of_this_process(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")

    assert check_model_bytes(MODEL.encode()).num_trees == 4
