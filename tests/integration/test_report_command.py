"""`signal-worker report`: a page on disk, and what is refused with one sentence and its exit code."""

import pytest
from typer.testing import CliRunner

from tests.support.market import make_bars, write_snapshot
from tests.support.models import make_bare_model
from tests.support.world import SYMBOLS, build_world
from worker.cli.main import app

BUNDLE = "models/alpha_baseline/v1"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A snapshot and a bundle trained on it."""
    return build_world(tmp_path_factory.mktemp("report"))


def typed(world, *words):
    folders = ("--data-dir", world / "data", "--artifacts-dir", world / "artifacts")
    return CliRunner().invoke(app, ["report", *map(str, (*words, *folders))])


def test_page_of_the_test_period_is_below_the_artifacts(world):
    done = typed(world, world / "artifacts" / BUNDLE)

    page = world / "artifacts" / "reports" / "alpha_baseline" / "v1.html"
    assert done.exit_code == 0, done.output
    assert "Mean rank IC is" in done.stdout
    assert f"{page} (0." in done.stdout
    assert page.read_bytes().startswith(b"<!DOCTYPE html>")
    assert b"18 of 18 figures" in page.read_bytes()
    assert [path.name for path in page.parent.iterdir()] == ["v1.html"]


def test_bundle_may_be_named_as_the_registry_spells_it(world, tmp_path):
    done = typed(world, BUNDLE, "--output", tmp_path / "new" / "page.html", "--cost-bps", "2.5")

    assert done.exit_code == 0, done.output
    assert (
        b"2.5 bps a trade, 0 bps a year for borrowing (given with the command)"
        in (tmp_path / "new" / "page.html").read_bytes()
    )


def test_latest_snapshot_is_taken_only_when_asked_for(tmp_path):
    own = build_world(tmp_path / "own")
    longer = {symbol: make_bars(sessions=310, seed=row) for row, symbol in enumerate(SYMBOLS)}
    ref = write_snapshot(own / "data", longer, run_date=longer["AAPL"]["date"].iloc[-1].date().replace(year=2031))

    last = str(ref.last_session)
    trained_on = typed(own, BUNDLE, "--output", tmp_path / "old.html")
    latest = typed(own, BUNDLE, "--snapshot", "latest", "--to", last, "--output", tmp_path / "new.html")

    assert (trained_on.exit_code, latest.exit_code) == (0, 0), latest.output
    assert last not in (tmp_path / "old.html").read_text(encoding="utf-8")
    page = (tmp_path / "new.html").read_text(encoding="utf-8")
    assert f"to {last}" in page
    assert f"The bars are those of snapshot {ref.id[:12]}" in page


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("models/alpha_baseline/v9",), 3, "there is nothing at"),
        (("models/alpha_baseline",), 3, "bundle.json"),
        (("/",), 1, "is outside the artifact root"),
        ((BUNDLE, "--snapshot", "2001-02-03"), 3, "none fits of 1"),
        ((BUNDLE, "--from", "2031-01-01", "--to", "2031-02-01"), 1, "none from 2031-01-01 to 2031-02-01"),
        ((BUNDLE, "--from", "2031-01-01", "--to", "2030-01-01"), 2, "is before --from 2031-01-01"),
        ((f"{BUNDLE}/model.txt",), 1, "is a file; a bare model"),
        ((BUNDLE, "--output", "/"), 2, "must name a file"),
        ((BUNDLE, "--output", "/dev/null/page.html"), 1, "cannot be written"),
    ],
)
def test_refusal_is_one_sentence_with_its_code(world, words, code, sentence):
    done = typed(world, *words)

    assert done.exit_code == code, done.output
    assert done.stderr.startswith("signal-worker: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_changed_bundle_is_refused_before_anything_is_shown(tmp_path):
    own = build_world(tmp_path)
    model = own / "artifacts" / BUNDLE / "model.txt"
    model.chmod(0o644)
    make_bare_model(model)

    done = typed(own, BUNDLE)

    assert done.exit_code == 1
    assert "model.txt" in done.stderr
    assert not (own / "artifacts" / "reports").exists()
