"""Bundles and bare models found by digest, wherever below the artifact root they lie."""

from functools import partial
from pathlib import Path

import pytest

from strategies.models.bundle_files import SIZE_LIMITS, digest
from tests.support.models import make_bare_model, make_bundle
from tests.unit.operations.test_verdict import publish
from worker.operations.replay import artifacts
from worker.operations.replay import lineage as lineage_module
from worker.operations.replay.artifacts import Artifacts
from worker.operations.replay.lineage import LineageResolver, NotReproducible

VECTOR = publish()


def vector_of(bundle_sha256, model_sha256, version="v1"):
    return VECTOR.model_copy(
        update={"model_version": version, "bundle_sha256": bundle_sha256, "model_sha256": model_sha256}
    )


def digests(folder):
    return tuple(digest((folder / name).read_bytes()) for name in ("bundle.json", "model.txt"))


def remember(reads, read, path, *rest, **named):
    reads.append(path)
    return read(path, *rest, **named)


def lineage(root):
    return LineageResolver(root, root / "data")


@pytest.fixture
def released(tmp_path):
    """A bundle at a path of its own, and below the usual one another bundle and a damaged one."""
    make_bundle(tmp_path, version="v2", seed=1)
    (make_bundle(tmp_path, version="v3", seed=2) / "bundle.json").unlink()
    (tmp_path / "releases").mkdir()
    return make_bundle(tmp_path).rename(tmp_path / "releases" / "v1")


def test_bundle_outside_the_usual_place_is_found(tmp_path, released):
    bundle, trouble = lineage(tmp_path).bundle(vector_of(*digests(released)))

    assert (bundle.bundle_sha256, bundle.proven, trouble) == (digests(released)[0], True, "")


def test_right_bundle_elsewhere_beats_another_of_the_name(tmp_path, released):
    make_bundle(tmp_path, version="v1", seed=3)

    bundle, _ = lineage(tmp_path).bundle(vector_of(*digests(released)))

    assert bundle.bundle_sha256 == digests(released)[0]


def test_vector_without_bundle_digest_is_found_by_its_model(tmp_path, released):
    sha256, model_sha256 = digests(released)

    bundle, _ = lineage(tmp_path).bundle(vector_of(None, model_sha256))

    assert (bundle.bundle_sha256, bundle.proven) == (sha256, True)


@pytest.mark.parametrize("place", ["plain.txt", "releases/v1/model.txt", "releases/model without ending"])
def test_bare_model_is_found_at_any_path(tmp_path, released, place):
    path = tmp_path / place
    if not path.exists():
        make_bare_model(path)
    sha256 = digest(path.read_bytes())

    bundle, _ = lineage(tmp_path).bundle(vector_of(sha256, sha256, "plain"))

    assert (bundle.bundle_sha256, bundle.version, bundle.manifest) == (sha256, "plain", None)
    assert released.is_dir()


def test_links_below_the_root_lead_nowhere(tmp_path, released):
    outside = released.rename(tmp_path / "outside")
    root = tmp_path / "root"
    root.mkdir()
    (root / "folder").symlink_to(outside)
    (root / "copy").mkdir()
    (root / "copy" / "bundle.json").symlink_to(outside / "bundle.json")
    (root / "model.txt").symlink_to(outside / "model.txt")
    (root / "circle").symlink_to(root)
    sha256, model_sha256 = digests(outside)

    with pytest.raises(NotReproducible, match=f"none has SHA-256 {sha256}"):
        lineage(root).bundle(vector_of(sha256, model_sha256))
    assert Artifacts(root).model(model_sha256) is None
    assert [path.name for path in Artifacts(root)._files] == ["model.txt", "bundle.json"]


def test_search_ends_at_its_depth_and_number_of_files(tmp_path, monkeypatch):
    for name in ("a", "b/c", "d/e/f"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "bundle.json").write_text(name, encoding="utf-8")
    shallow, deeper, deepest = (digest(name.encode()) for name in ("a", "b/c", "d/e/f"))

    monkeypatch.setattr(artifacts, "MAX_DEPTH", 2)
    assert Artifacts(tmp_path).bundle(deeper) == tmp_path / "b" / "c"
    assert Artifacts(tmp_path).bundle(deepest) is None
    monkeypatch.setattr(artifacts, "MAX_FILES", 1)
    assert Artifacts(tmp_path).bundle(shallow) == tmp_path / "a"
    assert Artifacts(tmp_path).bundle(deeper) is None


def test_files_above_the_size_limit_are_no_models(tmp_path, monkeypatch):
    make_bare_model(tmp_path / "plain.txt")
    content = (tmp_path / "plain.txt").read_bytes()

    monkeypatch.setitem(SIZE_LIMITS, "model.txt", len(content) - 1)

    assert Artifacts(tmp_path).model(digest(content)) is None


def test_many_missing_bundles_read_no_file_again(tmp_path, released, monkeypatch):
    reads = []
    for module in (artifacts, lineage_module):
        read = partial(remember, reads, module.read_limited)
        monkeypatch.setattr(module, "read_limited", read)
    make_bare_model(tmp_path / "plain.txt")
    found = lineage(tmp_path)

    def miss_every_way():
        for bundle_sha256, model_sha256 in (("f" * 64, "0" * 64), ("0" * 64, "0" * 64), (None, "0" * 64)):
            with pytest.raises(NotReproducible):
                found.bundle(vector_of(bundle_sha256, model_sha256))

    miss_every_way()
    assert {tmp_path / "plain.txt", released / "bundle.json"} <= set(reads)
    reads.clear()
    miss_every_way()
    assert reads == []


def test_root_that_is_not_there_contains_nothing():
    assert Artifacts(Path("/nowhere/at/all")).bundle("0" * 64) is None
