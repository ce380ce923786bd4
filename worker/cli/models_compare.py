"""`signal-worker models compare`: two versions beside each other, from published vectors or computed here and now.

Exit code 3: an unknown version, or no pair of vectors.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import _comparison as comparison
from worker.cli._common import ExitCode, Json, Namespace, print_json, refuse, settings_of
from worker.cli._comparison import EvidenceSource, Last, Recompute, Since, Snapshot
from worker.cli._registry import registry

if TYPE_CHECKING:
    from worker.operations.comparison.gathering import Evidence


def compare(
    strategy: Annotated[str, typer.Argument(help="Name of the strategy.")],
    left: Annotated[str, typer.Argument(help="A version, such as the active one.")],
    right: Annotated[str, typer.Argument(help="Another version, such as the one in testing.")],
    since: Since = None,
    last: Last = 10_000,
    sessions: Annotated[
        int, typer.Option(min=1, max=10_000, help="With --recompute: last sessions whose returns can be known.")
    ] = 60,
    snapshot: Snapshot = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it too, as .png or .svg.")] = None,
    namespace: Namespace = None,
    *,
    recompute: Recompute = False,
    as_json: Json = False,
) -> None:
    """Show two versions beside each other: likeness, turnover, realised IC, latency.

    JSON: strategy, left, right, source, snapshot_id, pairs, pairs_of_other_symbols, left_out, notes, overall,
    sessions.

    Example: signal-worker models compare alpha_baseline v1 v2 --recompute --sessions 60
    """
    if left == right:
        refuse(f"compare takes two versions, was given {left} twice")
    if plot is not None:
        _check_plot(plot)
    settings = settings_of(namespace=namespace)
    with registry(strategy, left) as models:
        row = models.show(strategy, left)
    with registry(strategy, right) as models:
        rows = row, models.show(strategy, right)
    source = EvidenceSource(
        recompute_sessions=sessions if recompute else None,
        since=since.date() if since else None,
        last=last,
        snapshot=snapshot,
    )
    evidence = comparison.gathered(settings, rows, source)
    if as_json:
        print_json(comparison.as_json(evidence))
    else:
        comparison.show(evidence)
    if not evidence.comparison.pairs:
        refuse(f"no pair of {strategy} {left} and {right} to compare", code=ExitCode.NOT_FOUND)
    if plot is not None:
        _draw(evidence, plot)


def _check_plot(plot: Path) -> None:
    """End before anything is computed where it could not be drawn."""
    from worker.operations.comparison.drawing import FORMATS

    if plot.suffix[1:] not in FORMATS:
        refuse(f"--plot draws .png and .svg, was {plot}")
    if find_spec("matplotlib") is None:
        refuse("--plot needs matplotlib, which is not installed: pip install 'signal-worker[reports]'")


def _draw(evidence: "Evidence", plot: Path) -> None:
    from worker.operations.comparison.drawing import draw

    image = draw(evidence, plot.suffix[1:])
    try:
        plot.write_bytes(image)
    except OSError as error:
        refuse(f"{plot} cannot be written: {error.strerror}", code=ExitCode.FAILED)
    typer.echo(f"drawn: {plot}", err=True)
