"""`signal-worker request`: send one request, show its answer."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import endpoints_of, refuse, settings_of

if TYPE_CHECKING:
    from rich.table import Table

    from contracts import Rejection, SignalVector


def request(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols; none for the model's universe.")] = None,
    strategy: Annotated[str, typer.Option(help="Which strategy to ask.")] = "alpha_baseline",
    as_of: Annotated[str | None, typer.Option(help="Day or instant with a time zone; the latest by default.")] = None,
    top_n: Annotated[int | None, typer.Option(help="Symbols bought at most.")] = None,
    bottom_n: Annotated[int | None, typer.Option(help="Symbols sold short at most.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Instant after which no answer is wanted.")] = None,
    on_ineligible: Annotated[str | None, typer.Option(help="reject or exclude symbols with stale or few bars.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Your own id, to ask again without asking twice.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Prefix of every key on the server.")] = None,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Ask which features moved each prediction most.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the answer and show it.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Show the answer as JSON.")] = False,
) -> None:
    """Send a signal request; with --wait, show the weights or the rejection (exit code 1)."""
    from pydantic import ValidationError

    from contracts import SignalVector
    from worker.client import SignalClient
    from worker.errors import RequestTimeout, StreamUnavailable

    settings = settings_of(namespace=namespace)
    options = {"top_n": top_n, "bottom_n": bottom_n, "deadline": deadline, "on_ineligible": on_ineligible}
    # Left out where it is not asked for: workers of before the field refuse what they do not know.
    options |= {"explain": True} if explain else {}
    with SignalClient(endpoints_of(settings).redis_url, namespace=settings.namespace) as client:
        try:
            sent = client.submit(strategy, symbols or None, as_of=as_of, request_id=request_id, **options)
            if not wait:
                typer.echo(sent)
                return
            outcome = client.result(sent, timeout=timeout)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            refuse(f"{first['loc'][0]} was {first['input']!r}: {first['msg']}")
        except (RequestTimeout, StreamUnavailable) as error:
            refuse(error, code=1)
    if as_json:
        typer.echo(json.dumps(outcome.model_dump(mode="json", exclude_none=True), indent=2))
    else:
        show(outcome)
    if not isinstance(outcome, SignalVector):
        raise typer.Exit(1)


def show(outcome: "SignalVector | Rejection") -> None:
    """Print a vector as a table, or a rejection as a sentence."""
    from rich.console import Console

    from contracts import SignalVector

    console = Console()
    if not isinstance(outcome, SignalVector):
        console.print(f"[red]rejected[/red] {outcome.code.value}: {outcome.reason}", highlight=False)
        return
    console.print(_table(outcome))
    if outcome.explanations:
        console.print(_explanations(outcome))
    for excluded in outcome.excluded:
        console.print(f"left out {excluded.code}: {excluded.reason}", highlight=False)


def _table(vector: "SignalVector") -> "Table":
    from rich.table import Table

    table = Table(
        title=f"{vector.strategy} {vector.model_version}, as of {vector.as_of}",
        caption=(
            f"return from {vector.horizon}; valid until {vector.valid_until:%Y-%m-%d %H:%M} UTC; "
            f"long {vector.used_top_n} of {vector.requested_top_n}, short {vector.used_bottom_n} of "
            f"{vector.requested_bottom_n}; in queue {vector.queue_ms:.1f} ms, computed in {vector.compute_ms:.1f} ms"
        ),
    )
    for column, justify in (("symbol", "left"), ("predicted return", "right"), ("rank", "right"), ("weight", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]  # literals of rich's JustifyMethod
    for signal in vector.weights:
        table.add_row(
            signal.symbol, f"{signal.predicted_return:+.6f}", str(signal.rank), f"{signal.target_weight:+.4f}"
        )
    return table


def _explanations(vector: "SignalVector") -> "Table":
    from rich.table import Table

    table = Table(title="why", caption="base, features and others sum to the predicted return")
    table.add_column("symbol")
    for column in ("predicted return", "base"):
        table.add_column(column, justify="right")
    table.add_column("features, by what they added: value, contribution")
    table.add_column("others", justify="right")
    predicted = {signal.symbol: signal.predicted_return for signal in vector.weights}
    for one in vector.explanations:
        named = [
            f"{each.feature} {'missing' if each.value is None else f'{each.value:.4g}'} {each.contribution:+.6f}"
            for each in one.contributions
        ]
        table.add_row(
            one.symbol, f"{predicted[one.symbol]:+.6f}", f"{one.base:+.6f}", "\n".join(named), f"{one.others:+.6f}"
        )
    return table
