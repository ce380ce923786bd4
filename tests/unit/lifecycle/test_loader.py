"""A registry row that points anywhere is refused as a bundle error, never as another one."""

import dataclasses
from datetime import UTC, datetime

import pytest

from strategies.errors import BundleError, BundleNotFound, DigestMismatch
from tests.support.models import make_bundle
from tests.support.serving import make_active
from worker.lifecycle import loader
from worker.lifecycle.loader import artifact_path, prove, require_calendar
from worker.registry.models import ActiveModel


def test_links_in_a_circle_and_names_too_long_are_refused(tmp_path):
    (tmp_path / "circle").symlink_to("circle")

    for model_path in ("circle", "circle/v1", "a" * 300, "a\0b"):
        with pytest.raises(BundleError, match=r"cannot be followed|there is nothing at"):
            artifact_path(model_path, tmp_path)


def test_absent_bundle_is_not_found(tmp_path):
    with pytest.raises(BundleNotFound):
        artifact_path("models/s/v1", tmp_path)


def make_row(model_path: str, **config: object) -> ActiveModel:
    return ActiveModel(
        strategy="alpha_baseline",
        version="v1",
        activation=1,
        model_path=model_path,
        mlflow_run_id=None,
        config=config,
        metrics={},
        activated_at=datetime(2026, 1, 5, tzinfo=UTC),
    )


@pytest.mark.parametrize("bare", [False, True], ids=["bundle", "bare"])
def test_link_swapped_in_between_the_look_at_a_path_and_its_reading_leads_nowhere(tmp_path, monkeypatch, bare):
    root, outside = tmp_path / "artifacts", tmp_path / "outside"
    folder = make_bundle(root).parent
    model_path = "models/alpha_baseline/v1/model.txt" if bare else "models/alpha_baseline/v1"
    look = loader.artifact_path

    def swap_after(path, artifacts_dir):
        found = look(path, artifacts_dir)
        folder.rename(outside)
        folder.symlink_to(outside)
        return found

    monkeypatch.setattr(loader, "artifact_path", swap_after)

    with pytest.raises(BundleError, match="cannot be opened"):
        prove(make_row(model_path).ref, root, allow_unproven=True)


def test_whatever_a_bundle_raises_is_its_refusal(tmp_path, monkeypatch):
    def explode(*_args, **_kwargs):
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr(loader, "load_bundle", explode)
    (tmp_path / "v1").mkdir()
    model = make_row("v1")

    with pytest.raises(BundleError, match="v1 cannot be proven here: ZeroDivisionError: deep inside"):
        prove(model.ref, tmp_path, allow_unproven=False)


@pytest.mark.parametrize("registered", [7, ["a"], {"sha256": ""}, "0" * 64])
def test_digest_that_no_file_has_trusts_no_file(tmp_path, registered):
    make_bundle(tmp_path)

    with pytest.raises(DigestMismatch):
        prove(make_row("models/alpha_baseline/v1", bundle_sha256=registered).ref, tmp_path, allow_unproven=False)


def test_bundle_of_another_exchange_is_refused():
    bundle = make_active().bundle

    require_calendar(bundle, "XNYS")
    with pytest.raises(BundleError, match="calendar XHKG, this worker serves XNYS"):
        require_calendar(dataclasses.replace(bundle, calendar="XHKG"), "XNYS")
