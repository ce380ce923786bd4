"""The tear sheet as one HTML page.

Owns: the order of its sections, the words beside figures, how numbers are formatted.
Must not know: files, clocks, how anything was measured.
Invariant: nothing is fetched and nothing runs when the page is opened; every text is escaped; the same data give the
same bytes.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from strategies.analysis.tear_sheet.captions import captions, caveats, main_segment
from strategies.analysis.tear_sheet.data import Segment, TearSheetData
from strategies.analysis.tear_sheet.figures import draw_figures, printable
from strategies.analysis.tear_sheet.measures import Importance

#: Features in the table below the plot of importance.
FEATURES_LISTED = 40
_NONE = "not measurable"
_SOURCES = {
    "given": "given with the command",
    "bundle": "stated by the bundle",
    "assumed": "assumed, the bundle states none",
}
#: Name, label, format, note of each key figure; a share is shown in percent.
_FIGURES = (
    ("ic", "Mean IC", "{:+.4f}", "Pearson correlation of predictions and label, by session"),
    ("icir", "ICIR", "{:+.3f}", "mean over standard deviation of the sessions' IC"),
    ("rank_ic", "Mean rank IC", "{:+.4f}", "Spearman, ties share their rank"),
    ("rank_icir", "Rank ICIR", "{:+.3f}", "mean over standard deviation of the sessions' rank IC"),
    ("rank_ic_t", "t of mean rank IC", "{:+.2f}", "sessions taken as independent"),
    ("rank_ic_by_chance", "… by chance", "±{:.4f}", "19 of 20 random orders have a mean rank IC within this"),
    ("hit_rate", "Hit rate", "{:.1%}", "sessions with a rank IC above 0"),
    ("annualised_return", "Annualised return", "{:+.2%}", "after costs, compounded to 252 sessions"),
    ("annualised_volatility", "Annualised volatility", "{:.2%}", "after costs"),
    ("sharpe", "Sharpe ratio", "{:+.2f}", "after costs, over a rate of 0"),
    ("max_drawdown", "Maximum drawdown", "{:.2%}", "after costs, from the highest wealth so far"),
    ("cumulative_return", "Return of the period", "{:+.2%}", "after costs"),
    ("cumulative_return_before_costs", "… before costs", "{:+.2%}", ""),
    ("win_share", "Sessions won", "{:.1%}", "after costs"),
    ("turnover", "Turnover a session", "{:.2f}", "sum of absolute changes of weight"),
    ("distinct_predictions", "Distinct predictions", "{:.1f}", "a session, of its priced symbols"),
    ("tied_share", "Book left to the alphabet", "{:.1%}", "held where an equal prediction is not; mean of sessions"),
    ("cost_a_year", "Trading costs a year", "{:.2%}", "of the capital of one side"),
    ("break_even_cost_bps", "Break-even cost", "{:.1f} bps", "at which the mean return before costs is used up"),
    ("rank_autocorrelation", "Rank autocorrelation", "{:+.3f}", "of one session's ranks with the next's"),
    ("coverage", "Coverage", "{:.1%}", "symbols and sessions with a prediction"),
    ("ic_sessions", "Sessions with an IC", "{:.0f}", "three symbols or more, predictions and labels not all equal"),
    ("sessions", "Sessions with a return", "{:.0f}", ""),
    ("unknown_returns", "Unknown returns", "{:.0f}", "of held symbols, counted as 0"),
)
_PLOTS = {
    "ic": (
        "IC over time",
        "Above: rank IC of each session. Below: rolling means; the dashed line is the mean rank IC of the period.",
        "Rank IC of each session as dots, and rolling means of IC and rank IC as lines.",
    ),
    "quantiles": (
        "Returns by quantile of prediction",
        "Label less the mean of its session. Equal predictions rank by symbol, as in books. Measured by alphalens.",
        "Bars of the mean return of each quantile of predictions with standard errors.",
    ),
    "cumulative": (
        "Long/short portfolio after costs",
        "Traded at the close after the as-of session, restored each session, compounded. Each side holds 1 of capital.",
        "Lines of the compounded return of the long/short portfolio before and after costs.",
    ),
    "drawdown": (
        "Drawdown",
        "Loss from the highest wealth so far, after costs; the start counts as a height.",
        "Area of the loss from the highest wealth so far.",
    ),
    "turnover": (
        "Turnover",
        "Sum of absolute changes of weight from the book before; the first book is bought from nothing.",
        "Weight traded in each session as dots, and its rolling mean as a line.",
    ),
    "calibration": (
        "Calibration",
        "Bins of about equal counts; equal predictions share one. Errors take sessions, not rows, as independent.",
        "Points of the mean return that came against the mean prediction of each bin, and bars of the rows in each.",
    ),
    "importance": (
        "Feature importance",
        "Gain: share of the training loss that a feature's splits took away. Splits: how often it was used.",
        "Bars of the share of gain and of the number of splits of the most used features.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    text: str
    in_sample: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    label: str
    note: str
    cells: tuple[_Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    title: str
    caption: str
    note: str
    alt: str
    #: SVG in base64.
    image: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render_page(data: TearSheetData) -> bytes:
    """Return the page in UTF-8."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - an extra, and only reports need it

    template = resources.files("strategies.analysis.tear_sheet").joinpath("tear_sheet.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_printable)
    page = environment.from_string(template).render(
        title=f"{data.manifest.strategy} {data.manifest.version}",
        lead=_lead(data),
        only_in_sample=main_segment(data).in_sample,
        segments=[
            {"in_sample": segment.in_sample, "title": _title(segment), "period": _period(segment)}
            for segment in data.segments
        ],
        figures=_figures(data.segments),
        compared=_compared(data),
        caveats=caveats(data),
        lineage=_lineage(data),
        universe=data.manifest.training.universe,
        plots=_plots(data),
    )
    return (page + "\n").encode()


def _printable(value: object) -> object:
    return printable(value) if type(value) is str else value


def _lead(data: TearSheetData) -> str:
    segment = main_segment(data)
    return (
        f"Tear sheet, {_title(segment).lower()}: {_period(segment)}, {len(segment.result.sessions)} sessions, "
        f"{len(data.manifest.training.universe)} symbols, costs {data.costs.cost_bps:g} bps."
    )


def _title(segment: Segment) -> str:
    return "In sample" if segment.in_sample else "Out of sample"


def _period(segment: Segment) -> str:
    return f"{segment.period.first} to {segment.period.last}"


def _figures(segments: Sequence[Segment]) -> list[_Figure]:
    return [
        _Figure(
            label=label,
            note=note,
            cells=tuple(
                _Cell(text=_formatted(segment.figures[name], form), in_sample=segment.in_sample) for segment in segments
            ),
        )
        for name, label, form, note in _FIGURES
    ]


def _formatted(value: float | None, form: str) -> str:
    return _NONE if value is None else form.format(value)


def _compared(data: TearSheetData) -> str:
    if data.compared is None:
        return "The bundle states figures of other sessions, bars or costs, so they are not compared with these."
    equal = sum(stated == found for _, stated, found in data.compared)
    return f"{equal} of {len(data.compared)} figures that the bundle states of these sessions came out equal here."


def _lineage(data: TearSheetData) -> list[tuple[str, str]]:
    manifest, training, bundle = data.manifest, data.manifest.training, data.bundle
    construction = manifest.construction
    costs = f"{data.costs.cost_bps:g} bps a trade, {data.costs.borrow_bps_a_year:g} bps a year for borrowing"
    return [
        ("strategy, version", f"{manifest.strategy} {manifest.version}"),
        ("bundle SHA-256", bundle.bundle_sha256),
        ("model SHA-256", bundle.model_sha256),
        ("proven here", "yes, golden sample equal bit for bit" if bundle.proven else "no"),
        ("snapshot", f"{data.snapshot_id}{_trained_elsewhere(data)}"),
        ("trained", f"{training.train.first} to {training.train.last}, {training.train_rows} rows"),
        ("validated", f"{training.valid.first} to {training.valid.last}, {training.valid_rows} rows"),
        (
            "test period",
            f"{training.test.first} to {training.test.last}, {training.gap_sessions} sessions kept free before",
        ),
        ("shown", ", ".join(f"{_title(segment).lower()} {_period(segment)}" for segment in data.segments)),
        ("walk-forward", _folds(data)),
        ("label", f"{manifest.label.expression} ({manifest.label.horizon}), {_transform(data)}"),
        ("prediction", manifest.prediction_kind),
        (
            "feature set",
            f"{manifest.feature_set.name}, {len(manifest.feature_set.names)}, {manifest.feature_set.sha256}",
        ),
        ("processors", ", ".join(processor.kind for processor in manifest.processors) or "none"),
        ("portfolio", f"long the top {construction.top_n}, short the bottom {construction.bottom_n}, equal weights"),
        ("costs", f"{costs} ({_SOURCES[data.costs.source]})"),
        ("calendar", training.calendar),
        ("boosting", f"{training.best_iteration} rounds{_most_rounds(data)}, seed {training.seed}"),
        ("code here", f"signal-worker {data.code_version}"),
        ("code at training", f"{manifest.git_revision or 'unknown'}; {_versions(manifest.versions)}"),
    ]


def _trained_elsewhere(data: TearSheetData) -> str:
    trained_on = data.manifest.training.snapshot_id
    return "" if trained_on == data.snapshot_id else f" (trained on {trained_on})"


def _transform(data: TearSheetData) -> str:
    settings = data.manifest.settings
    transform = settings.label_processor if settings else "not stated, so not applied here"
    return f"transform within the session: {transform}"


def _most_rounds(data: TearSheetData) -> str:
    settings = data.manifest.settings
    if settings is None:
        return ""
    stopped_by = settings.early_stopping_metric or "l2"
    least = f", {settings.min_rounds} at least" if settings.min_rounds else ""
    ended = f"ended after {settings.early_stopping_rounds} without gain of {stopped_by}"
    return f" of at most {settings.rounds}{least}, {ended}"


def _folds(data: TearSheetData) -> str:
    walk = data.manifest.walk_forward
    return "no" if walk is None else f"{len(walk.folds)} folds, {walk.window}; this page judges the final model alone"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _plots(data: TearSheetData) -> list[_Plot]:
    images, sentences = draw_figures(data), captions(data)
    tables = {"quantiles": _quantile_table(data), "calibration": _calibration_table(data)}
    tables["importance"] = _importance_table(data.importance[:FEATURES_LISTED])
    return [
        _Plot(
            title=title,
            caption=sentences[name],
            note=note,
            alt=f"{alt} {sentences[name]}",
            image=base64.b64encode(images[name]).decode("ascii"),
            header=tables.get(name, ((), ()))[0],
            rows=tables.get(name, ((), ()))[1],
        )
        for name, (title, note, alt) in _PLOTS.items()
    ]


_Table = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]


def _quantile_table(data: TearSheetData) -> _Table:
    header = ("quantile", "mean, bps", "s.e., bps", "symbols new, %", "rows")
    return header, _rows(
        (f"{number}{_mark(segment)}", f"{mean * 1e4:+.2f}", f"{error * 1e4:.2f}", f"{100 * turnover:.0f}", str(rows))
        for segment in data.segments
        for number, (mean, error, turnover, rows) in enumerate(
            zip(
                segment.quantiles.mean,
                segment.quantiles.error,
                segment.quantiles.turnover,
                segment.quantiles.rows,
                strict=True,
            ),
            start=1,
        )
    )


def _calibration_table(data: TearSheetData) -> _Table:
    scaled = data.bundle.prediction_kind == "return"
    header = ("bin", "predicted, bps" if scaled else "predicted", "came, bps", "s.e., bps", "rows")
    return header, _rows(
        (
            f"{number}{_mark(segment)}",
            f"{predicted * 1e4:+.2f}" if scaled else f"{predicted:+.4g}",
            f"{realised * 1e4:+.2f}",
            f"{error * 1e4:.2f}",
            str(rows),
        )
        for segment in data.segments
        for number, (predicted, realised, error, rows) in enumerate(
            zip(
                segment.calibration.predicted,
                segment.calibration.realised,
                segment.calibration.error,
                segment.calibration.rows,
                strict=True,
            ),
            start=1,
        )
    )


def _importance_table(importance: Sequence[Importance]) -> _Table:
    header = ("feature", "gain, %", "splits")
    return header, _rows((each.name, f"{100 * each.gain_share:.2f}", str(each.splits)) for each in importance)


def _rows(rows: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(rows)


def _mark(segment: Segment) -> str:
    return " (in sample)" if segment.in_sample else ""
