"""The tear sheet of a small trained bundle: its figures, and what a page must and must not hold."""

import base64
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from strategies.analysis.evaluation import EvaluationSpec, evaluate
from strategies.analysis.tear_sheet.captions import captions, caveats
from strategies.analysis.tear_sheet.data import DEFAULT_COST_BPS, Scope, tear_sheet_data
from strategies.analysis.tear_sheet.figures import draw_figures
from strategies.analysis.tear_sheet.page import render_page
from strategies.errors import TrainingError
from strategies.models.bundle_store import load_bare_model, load_bundle, save_bundle
from strategies.models.configuration import TrainingConfig
from strategies.models.manifest import CostsRecord
from strategies.models.samples import SampleSpec, compute_samples
from tests.support.models import SMALL, make_bare_model, make_bundle, make_model, make_training_panel

PANEL = make_training_panel(starts={"ORCL": 100})
HOSTILE = "</p><script>alert(1)</script><img src=x onerror=\"alert('2')\">&\x00"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("artifacts")))


@pytest.fixture(scope="module")
def test_period(bundle):
    """TearSheetData of the bundle's test period."""
    return study(bundle)


@pytest.fixture(scope="module")
def both_sides(bundle):
    """TearSheetData of sessions before and in the test period."""
    return study(bundle, first=bundle.manifest.training.valid.first)


@pytest.fixture(scope="module")
def content(test_period):
    """The page of the test period, in bytes: drawing takes a second."""
    return render_page(test_period)


@pytest.fixture(scope="module")
def both_content(both_sides):
    """The page of both sides."""
    return render_page(both_sides)


def study(bundle, *, panel=PANEL, **scope):
    return tear_sheet_data(bundle, panel, Scope(**scope), code_version="1.2.3")


def stating(bundle, **changes):
    """The bundle with another manifest."""
    return replace(bundle, manifest=bundle.manifest.model_copy(update=changes))


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.texts, self._style = [], [], False
        self.feed(content.decode())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._style = tag == "style"

    def handle_endtag(self, _):
        self._style = False

    def handle_data(self, data):
        if not self._style:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def images(self):
        return [attributes for tag, attributes in self.elements if tag == "img"]


def test_figures_of_the_test_period_equal_the_bundle_metrics(bundle, test_period):
    (segment,) = test_period.segments

    assert not segment.in_sample
    assert segment.period == bundle.manifest.training.test
    assert {name: segment.figures[name] for name in bundle.manifest.metrics} == bundle.manifest.metrics
    assert len(test_period.compared) == len(bundle.manifest.metrics)
    assert all(stated == found for _, stated, found in test_period.compared)


def test_predictions_are_those_of_the_code_that_serves(bundle, test_period):
    result, features = test_period.segments[0].result, bundle.feature_set
    day = result.sessions[-5].astype(object)

    window = PANEL.window(bundle.universe, day, features.lookback)
    served = bundle.predict(features.evaluate(window))

    assert result.predictions[-5].tolist() == served.tolist()


def test_sessions_in_and_out_of_sample_are_evaluated_apart(bundle, test_period, both_sides):
    seen, unseen = both_sides.segments
    training = bundle.manifest.training
    config = TrainingConfig(universe=training.universe, construction=bundle.manifest.construction)
    at = slice(*np.searchsorted(PANEL.sessions, [seen.result.sessions[0], unseen.result.sessions[0]]))
    samples = compute_samples(PANEL, bundle.feature_set, SampleSpec.of(config), at, lambda *_: None)

    assert (seen.in_sample, unseen.in_sample) == (True, False)
    assert seen.period.last < training.test.first == unseen.period.first
    assert unseen.figures == test_period.segments[0].figures
    alone = evaluate(bundle, samples, slice(0, at.stop - at.start), EvaluationSpec.of(config))
    assert {name: seen.figures[name] for name in alone.metrics} == alone.metrics


def test_page_marks_what_training_saw_as_in_sample(bundle, both_content, content):
    page = Page(both_content)
    only_seen = study(bundle, first=bundle.manifest.training.train.last, last=bundle.manifest.training.valid.last)

    assert re.search("In sample .* Out of sample", page.text)
    assert "In sample" not in Page(content).text
    assert "In sample only" in Page(render_page(only_seen)).text
    assert "nothing on this page says what the model is worth" in caveats(only_seen)[0]
    assert all(
        text.startswith("In sample, so no evidence")
        for name, text in captions(only_seen).items()
        if name != "importance"
    )


def test_costs_prefer_the_command_then_the_bundle(bundle):
    silent = stating(bundle, settings=None)
    stated = stating(silent, costs=CostsRecord(cost_bps=7.0, borrow_bps_a_year=50.0))

    costs = [each.costs for each in (study(bundle), study(silent), study(stated), study(stated, cost_bps=0.0))]

    assert [(each.cost_bps, each.borrow_bps_a_year, each.source) for each in costs] == [
        (5.0, 0.0, "bundle"),
        (DEFAULT_COST_BPS, 0.0, "assumed"),
        (7.0, 50.0, "bundle"),
        (0.0, 50.0, "given"),
    ]


def test_assumed_costs_are_said_to_be_assumed(bundle):
    silent = stating(bundle, settings=None)
    page = Page(render_page(study(silent)))

    assert "The bundle states no costs: 5 bps of each unit of weight traded are assumed." in page.text
    assert "5 bps a trade, 0 bps a year for borrowing (assumed, the bundle states none)" in page.text
    assert "transform within the session: not stated, so not applied here" in page.text
    assert not any("assumed" in sentence for sentence in caveats(study(silent, cost_bps=3.0)))


def test_model_trained_otherwise_is_judged_as_it_was_trained(tmp_path):
    settings = {"label_processor": "cs_rank", "require_full_history": False, "cost_bps": 20.0}
    # Listed so late that it has no full history in the test period.
    content = make_model(SMALL.model_copy(update=settings), starts=(("ORCL", 170),)).content
    bundle = load_bundle(save_bundle(tmp_path, content), check=False)

    found = study(bundle, panel=make_training_panel(starts={"ORCL": 170}))

    (segment,) = found.segments
    assert (found.costs.cost_bps, found.costs.source) == (20.0, "bundle")
    assert all(stated == here for _, stated, here in found.compared)
    assert np.nanmax(np.abs(segment.result.labels)) > 1
    assert np.abs(segment.quantiles.mean).max() < 0.1
    assert np.abs(segment.calibration.realised).max() < 0.1
    page = Page(render_page(found)).text
    assert "20 bps a trade, 0 bps a year for borrowing (stated by the bundle)" in page
    assert "transform within the session: cs_rank" in page
    assert "rounds of at most 8, 1 at least, ended after 8 without gain of l2" in page
    assert "serving waits for their full history" in page


def test_other_bars_are_named_and_not_compared(bundle):
    other = study(bundle, panel=replace(PANEL, snapshot_id="f" * 64))

    assert other.compared is None
    assert any("bars are those of snapshot ffffffffffff" in sentence for sentence in caveats(other))


def test_bundle_that_states_other_figures_is_contradicted(bundle):
    wrong = stating(bundle, metrics={**bundle.manifest.metrics, "rank_ic": 0.9})

    assert any("states other values of rank_ic for the same" in sentence for sentence in caveats(study(wrong)))
    assert not any("states other values" in sentence for sentence in caveats(study(bundle)))


def test_short_period_and_small_universe_are_named(test_period):
    found = caveats(test_period)

    assert any("sessions, less than a year" in sentence for sentence in found)
    assert any("universe has 8 symbols" in sentence for sentence in found)


def with_figures(test_period, **figures):
    (segment,) = test_period.segments
    return replace(test_period, segments=(replace(segment, figures=segment.figures | figures),))


@pytest.mark.parametrize(
    ("t", "verdict"), [(2.1, "more than chance gives"), (-1.9, "chance gives too"), (-2.1, "the wrong way round")]
)
def test_caption_of_ic_depends_on_its_t(test_period, t, verdict):
    sentence = captions(with_figures(test_period, rank_ic=t / 100, rank_ic_t=t))["ic"]

    assert sentence.endswith(f"{verdict}.")
    assert ("cannot be told from chance" in " ".join(caveats(with_figures(test_period, rank_ic_t=t)))) == (abs(t) < 2)


@pytest.mark.parametrize(("even", "bound"), [(3.25, "costs of 3.2 bps would use"), (-3.0, "lost before any cost")])
def test_reading_of_the_portfolio_says_which_costs_it_bears(test_period, even, bound):
    assert bound in captions(with_figures(test_period, break_even_cost_bps=even))["cumulative"]


def test_caption_of_nothing_states_that_nothing_was_measured(test_period):
    nothing = with_figures(test_period, rank_ic=None, rank_ic_t=None, cumulative_return=None, turnover=None)

    found = captions(nothing)

    assert {found[name] for name in ("ic", "cumulative", "turnover")} == {
        "Nothing here can be measured from these sessions."
    }
    assert "not measurable" in Page(render_page(nothing)).text


def test_bare_model_is_refused(tmp_path):
    bare = load_bare_model(make_bare_model(tmp_path / "bare.txt"), "alpha_baseline", "bare", check=False)

    with pytest.raises(TrainingError, match="bare model"):
        study(bare)


def test_period_without_bars_is_refused(bundle):
    with pytest.raises(TrainingError, match="none from"):
        study(bundle, first=PANEL.sessions[-1].astype(object).replace(year=2031))


def test_page_has_every_section_with_its_caption(test_period, content):
    page = Page(content)

    for title in (
        "Key figures",
        "IC over time",
        "Returns by quantile",
        "Long/short portfolio after costs",
        "Drawdown",
        "Turnover",
        "Calibration",
        "Feature importance",
    ):
        assert title in page.text
    for sentence in captions(test_period).values():
        assert sentence in page.text


def test_page_shows_the_figures_and_the_lineage(bundle, test_period, content):
    figures, text = test_period.segments[0].figures, Page(content).text

    for shown in (
        f"{figures['rank_ic']:+.4f}",
        f"{figures['sharpe']:+.2f}",
        f"{figures['max_drawdown']:.2%}",
        f"{figures['turnover']:.2f}",
        f"{figures['coverage']:.1%}",
        bundle.bundle_sha256,
        bundle.model_sha256,
        bundle.feature_set.sha256,
        test_period.snapshot_id,
        "signal-worker 1.2.3",
        bundle.label.expression,
        "18 of 18 figures",
    ):
        assert shown in text


def test_page_loads_nothing_and_runs_nothing(both_content):
    page = Page(both_content)

    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    loaded = [value for _, attributes in page.elements for name, value in attributes.items() if name in {"src", "href"}]
    assert len(loaded) == 7
    assert all(value.startswith("data:image/svg+xml;base64,") for value in loaded)
    assert not re.search(rb"@import|url\(|https?://", both_content)


def test_images_are_whole_and_load_nothing(both_content):
    for image in Page(both_content).images():
        svg = base64.b64decode(image["src"].partition(",")[2])

        assert b"DOCTYPE" not in svg
        for element in ET.fromstring(svg).iter():  # noqa: S314 - made here
            assert element.tag.rpartition("}")[2] not in {"script", "image", "foreignObject"}
            for name, value in element.attrib.items():
                assert not name.endswith("href") or value.startswith("#")


def test_every_image_says_what_it_shows(test_period, content):
    sentences = captions(test_period)

    texts = [image["alt"] for image in Page(content).images()]

    assert len(texts) == len(sentences)
    assert all(sentence in alt for sentence, alt in zip(sentences.values(), texts, strict=True))


def test_same_bundle_and_bars_give_the_same_bytes(bundle, content):
    assert render_page(study(bundle)) == content


def test_style_configured_on_the_machine_changes_no_plot(test_period):
    import matplotlib as mpl  # noqa: PLC0415

    before = draw_figures(test_period)
    with mpl.rc_context({"axes.facecolor": "black", "svg.hashsalt": None, "font.size": 20}):
        assert draw_figures(test_period) == before
        assert mpl.rcParams["font.size"] == 20


def test_hostile_names_are_shown_and_never_obeyed(bundle, test_period):
    manifest = bundle.manifest.model_copy(
        update={
            "label": bundle.manifest.label.model_copy(update={"horizon": HOSTILE}),
            "git_revision": HOSTILE,
            "training": bundle.manifest.training.model_copy(update={"universe": (HOSTILE, "AAPL")}),
        }
    )
    importance = tuple(replace(each, name=f"$x^{{$ {at} {HOSTILE}") for at, each in enumerate(test_period.importance))

    content = render_page(replace(test_period, manifest=manifest, importance=importance))

    page = Page(content)
    assert "script" not in {tag for tag, _ in page.elements}
    assert len(page.images()) == 7
    assert b"\x00" not in content
    assert page.text.count("<script>alert(1)</script>") == 3 + 40


def test_years_of_sessions_stay_below_five_megabytes(test_period):
    (segment,) = test_period.segments
    result = segment.result
    times = 5000 // len(result.sessions) + 1
    days = np.arange(len(result.sessions) * times).astype("datetime64[D]")
    rng = np.random.default_rng(0)
    long = replace(
        result,
        sessions=days,
        signal=replace(result.signal, ic=rng.normal(0, 0.3, len(days)), rank_ic=rng.normal(0, 0.3, len(days))),
        performance=replace(
            result.performance,
            gross_returns=rng.normal(0, 0.01, len(days)),
            net_returns=rng.normal(0, 0.01, len(days)),
            turnover=rng.uniform(0, 4, len(days)),
        ),
    )

    assert len(render_page(replace(test_period, segments=(replace(segment, result=long),)))) < 5e6
